"""`fleet ask`: one question to several bots, and one answer; `--advise` tells whether that pays for a kind of tasks."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.exit_codes import EXIT_FAILURE
from fleet.cli.finite import FiniteRange
from fleet.cli.run.commands import checked_options
from fleet.cli.terminal import fitted
from fleet.models import Priority
from fleet.quoting import counted

if TYPE_CHECKING:
    from fleet.engine.asking.advice import Advice
    from fleet.engine.asking.outcome import AskOutcome

#: Other answers that are shown on a terminal (count), and characters of each; `--json` has all.
SIDES_SHOWN, SIDE_CHARS = 5, 60


@click.command()
@click.argument("prompt", required=False)
@click.option("-n", "n", type=click.IntRange(1, 100), default=7, show_default=True, help="Bots asked at most.")
@click.option("--pool", "pools", multiple=True, help="Where they are asked; of several, in turn. May be repeated.")
@click.option(
    "--aggregate", default="majority", show_default=True, metavar="HOW",
    help="majority, weighted, judge, or the dotted path of your own function.",
)  # fmt: skip
@click.option(
    "--quorum",
    type=click.IntRange(1, 100),
    help="Votes behind every outcome. Default: more than half, where some fail.",
)
@click.option(
    "--deadline-s", type=FiniteRange(0, min_open=True), default=60.0, show_default=True, help="Seconds to an outcome."
)
@click.option(
    "--stop",
    type=click.Choice(["fixed", "adaptive", "shadow"]),
    default="fixed",
    show_default=True,
    help="When the rest is not asked; shadow: never, but count what adaptive would save.",
)
@click.option(
    "--at-once", type=click.IntRange(1, 100), help="Bots asked at the same time. Default: as few as could decide it."
)
@click.option(
    "--count-by",
    metavar="WHAT",
    help="What of an answer counts: a regular expression, or .FIELD of JSON. Default: all.",
)
@click.option("--judge", metavar="POOL", help="Pool of the judge. Default: the first of the bots'.")
@click.option("--right", help="The right answer, where it is known: the record learns from it.")
@click.option("--kind", help="Task class, e.g. sums: what is learnt is kept for each.")
@click.option(
    "--priority", type=click.Choice([one.name.lower() for one in Priority]), default="high", show_default=True
)
@click.option("--max-output-tokens", type=int, help="Longest answer. Default: the pool's.")
@click.option("--advise", is_flag=True, help="Tell by the record whether asking several pays for --kind; ask nobody.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def ask(context: click.Context, /, prompt: str | None, advise: bool, as_json: bool, **options: Any) -> None:
    """Ask several bots one question and print one answer.

    The answer goes to stdout; who agreed, what it cost and other answers go to stderr. PROMPT "-" is read from stdin.
    No bot is asked twice, and none that is not needed (docs/answers.md).

    Exit codes: 0 answered, 1 no outcome, 2 wrong usage, 130 interrupted.

    \b
    Examples:
      fleet ask "What is 17 * 23? Reply with the number alone." -n 5
      fleet ask "Is 97 prime? End with 'A: yes' or 'A: no'." --count-by "A:\\s*(.*)" --pool research --pool careful
      fleet ask - --aggregate weighted --stop adaptive --kind sums --json < question.txt
      fleet ask --advise --kind sums
    """
    from fleet.config import current

    if advise:
        if prompt is not None:
            raise click.UsageError("--advise: expected no PROMPT beside it; it asks nobody")
        _tell_advice(_advice(options["kind"] or "default"), as_json=as_json)
        return
    if prompt is None:
        raise click.UsageError("expected a PROMPT, or --advise")
    of_task = {name: options.pop(name) for name in ("kind", "priority", "max_output_tokens")}
    settings = current()
    for pool in options["pools"]:
        checked_options(settings, pool=pool)
    given = checked_options(settings, **of_task)
    text = sys.stdin.read().rstrip("\n") if prompt == "-" else prompt

    from fleet.engine.asking.ask import ask_fleet

    found = ask_fleet(text, **options, **given)
    _tell(found, as_json=as_json)
    context.exit(EXIT_FAILURE if found.status == "failed" else 0)


def _tell(found: AskOutcome, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), indent=2))
        return
    if found.answer is not None:
        click.echo(found.answer)
    for line in _lines(found):
        click.echo("\n".join(fitted([line])), err=True)


def _lines(found: AskOutcome) -> list[str]:
    """Return what is told beside the answer."""
    why = {"fixed": "the rest could not change it", "sure": "the rest was not worth it", "deadline": "time was over"}
    cost = "cost unknown" if found.cost_usd_picos is None else f"${found.cost_usd_picos / 1e12:.6f}"
    agreed = next((side.votes for side in found.sides if side.counted == found.counted), 0)
    parts = [
        f"{agreed} of {counted(found.answered, 'vote')} agree"
        if found.counted is not None
        else f"{found.answered} votes",
        f"asked {found.asked} of {found.n}" + (f": {why[found.why_over]}" if found.why_over in why else ""),
        *([f"{found.replaced} failed and replaced"] if found.replaced else []),
        *([f"{found.failed} failed"] if found.failed else []),
        *([f"{found.cancelled} cancelled"] if found.cancelled else []),
        *([f"right with a chance of {found.chance:.0%}"] if found.chance is not None else []),
        *([f"judged by {found.judge}"] if found.judge else []),
        *([f"adaptive would have heard {found.adaptive[0]}"] if found.adaptive else []),
        cost,
        f"{found.took_ms:,} ms",
    ]
    lines = [f"{found.status}: {found.error.type}: {found.error.message}"] if found.error else []
    lines.append(" · ".join(parts))
    for side in found.dissent[:SIDES_SHOWN]:
        answer = " ".join(side.answer.split())
        shown = answer if len(answer) <= SIDE_CHARS else f"{answer[: SIDE_CHARS - 1]}…"
        lines.append(f"  {side.votes} for {shown}: {', '.join(side.bots[:SIDES_SHOWN])}")
    return lines


def _advice(kind: str) -> Advice:
    from fleet.config import current
    from fleet.engine.asking.advice import advise
    from fleet.engine.asking.record import read
    from fleet.store import answer_keys
    from fleet.store.client import connect, store_errors
    from fleet.store.private.embedded import state_url

    settings = current()
    url = state_url(settings)
    with connect(url, timeout_s=settings.redis.socket_timeout_s) as client, store_errors(url):
        rows: Any = client.lrange(answer_keys.asks(kind), 0, -1)
    return advise(kind, read(rows))


def _tell_advice(found: Advice, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), indent=2))
        return
    click.echo(f"{counted(found.asks, 'ask')} of kind {found.kind}, {found.graded} of them with a known answer")
    if found.agreement is not None:
        cost = "cost unknown" if found.cost_usd_micros is None else f"${found.cost_usd_micros / 1e6:.6f} an ask"
        click.echo(f"{found.agreement:.0%} of the votes agree · {cost} · {found.took_ms or 0:,.0f} ms")
    if found.adaptive_saves is not None:
        click.echo(
            f"adaptive would save {found.adaptive_saves:.0%} of the calls, same outcome in {found.adaptive_same:.1%}"
        )
    for way in found.ways:
        click.echo(f"  {way.right:6.1%} right for {way.calls:4.1f} calls: {way.name}")
    click.echo("\n".join(fitted([found.says])))
