"""`fleet simulate`: what limits would give, and what tasks would take under them. Nothing is sent.

Without tasks, bots that call for ever are played against one limit; with a file or a number of tasks, `what_if.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.finite import FiniteRange
from fleet.cli.terminal import fitted
from fleet.quoting import duration, quote

if TYPE_CHECKING:
    from fleet.limiter.simulated.forecast import Forecast

#: Height of the drawing of calls: eighths of a line.
_BARS = " ▁▂▃▄▅▆▇█"
#: Columns of that drawing at most.
_COLUMNS = 60
#: Tasks that are played at most: about 10 s.
MOST_TASKS = 100_000
#: Options that mean something only with tasks, and only without.
_OF_TASKS = ("pool", "kind", "prompt_field", "slots", "usd_per_day", "per_minute")
_OF_BOTS = ("critical", "seconds", "counting")


@click.command()
@click.argument("source", metavar="[IN]", required=False, type=click.Path(exists=True, dir_okay=False))
@click.option("--tasks", type=click.IntRange(1, MOST_TASKS), help="Play so many tasks instead of a file.")
@click.option("--rpm", type=click.IntRange(1), help="Requests per minute.")
@click.option("--tpm", type=click.IntRange(1), help="Tokens per minute.")
@click.option("--usd-per-day", type=FiniteRange(0, min_open=True), help="With tasks: US dollars per day.")
@click.option("--slots", type=click.IntRange(1), help="With tasks: slots of all workers.")
@click.option("--bots", type=click.IntRange(1, 10_000), help="Bots that call; with tasks they make the slots. [100]")
@click.option("--per-minute", type=FiniteRange(0, min_open=True),
              help="With tasks: how many come a minute; else all at once.")  # fmt: skip
@click.option("--pool", help="With tasks: their pool.")
@click.option("--kind", help="With tasks: their kind, for what is learnt of it.")
@click.option("--field", "prompt_field", help="With IN: field of the prompt.")
@click.option("--critical", type=click.IntRange(0), help="Without tasks: bots whose calls are critical.")
@click.option("--tokens", default="200-1200", show_default=True,
              help="Tokens of a call (with --tasks: of its input), smallest-largest.")  # fmt: skip
@click.option("--used", type=FiniteRange(0.01, 1), help="Share of them (with tasks: of the longest answer) used.")
@click.option("--latency-s", type=FiniteRange(0), help="Seconds to an answer. [1; with tasks: as is learnt]")
@click.option("--seconds", type=click.IntRange(10, 3600), help="Without tasks: simulated time. [120]")
@click.option("--counting", type=click.Choice(["bucket", "window"]),
              help="Without tasks: how the provider counts. [window]")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Decides sizes and jitter.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def simulate(source: str | None, tasks: int | None, as_json: bool, **options: Any) -> None:
    """Tell what limits would give, by running the limiter in simulated time; nothing is sent.

    With a file, or --tasks, it plays those tasks: how long they take, how long they wait, what they cost, and what
    decides. --rpm, --tpm, --usd-per-day, --slots and --bots try other settings than those in fleet.toml. Lengths and
    times of answers are what the fleet has learnt of their kind, as in `fleet run --dry-run`.

    \b
    Examples:
      fleet simulate --rpm 500 --tpm 200000 --bots 100
      fleet simulate --rpm 3000 --bots 1000 --critical 10 --tokens 500-4000 --used 0.4
      fleet simulate prompts.jsonl --rpm 1000 --slots 50
      fleet simulate --tasks 5000 --per-minute 200 --usd-per-day 5
    """
    sizes = _sizes(options.pop("tokens"))
    if source is None and tasks is None:
        _refuse(options, _OF_TASKS, "IN or --tasks beside it, got neither")
        _play_bots(sizes, as_json=as_json, **{name: one for name, one in options.items() if name not in _OF_TASKS})
        return
    if source is not None and tasks is not None:
        raise click.UsageError("expected IN or --tasks, got both")
    _refuse(options, _OF_BOTS, "neither IN nor --tasks beside it, got one")
    _play_tasks(source, tasks, sizes, as_json=as_json, **options)


def _refuse(options: Mapping[str, Any], names: tuple[str, ...], wanted: str) -> None:
    """Refuse options that mean nothing here."""
    given = next((name for name in names if options[name] is not None), None)
    if given is not None:
        shown = "--field" if given == "prompt_field" else f"--{given.replace('_', '-')}"
        raise click.UsageError(f"{shown}: expected {wanted}")


def _play_tasks(
    source: str | None, tasks: int | None, sizes: tuple[int, int], *, as_json: bool, **options: Any
) -> None:  # fmt: skip
    """Play a file, or so many tasks, under the limits that are tried."""
    from fleet.cli.run.commands import checked_options
    from fleet.cli.run.dry_run import DryRun
    from fleet.cli.run.entries import LineFormat
    from fleet.cli.run.what_if import Arrivals, WhatIf, json_of, lines, try_out

    settings = config.current()
    asked = checked_options(settings, pool=options["pool"], kind=options["kind"], priority="low")
    line_format = LineFormat(options["prompt_field"], options=asked)
    wanted = DryRun(settings, None if source is None else Path(source), None, line_format)
    changes = WhatIf(**{name: options[name] for name in ("rpm", "tpm", "usd_per_day", "slots", "bots")})
    trial = Arrivals(
        tasks, sizes, options["used"], options["latency_s"], options["per_minute"], options["seed"], MOST_TASKS
    )  # fmt: skip
    tried = try_out(wanted, changes, trial)
    if as_json:
        click.echo(json.dumps(json_of(tried)))
        return
    click.echo("\n".join(fitted(lines(tried))))


def _play_bots(
    sizes: tuple[int, int], *, rpm: int | None, tpm: int | None, bots: int | None, critical: int | None,
    used: float | None, latency_s: float | None, seconds: int | None, counting: str | None, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Play bots that call for ever against one limit."""
    from fleet.limiter.simulated.forecast import Load, forecast

    callers, urgent = bots or 100, critical or 0
    if rpm is None and tpm is None:
        raise click.UsageError("expected --rpm, --tpm or both, got neither")
    if urgent > callers:
        raise click.UsageError(f"expected at most {callers} critical bots, got {urgent}")
    limit = config.LimitSettings.model_validate({"rpm": rpm, "tpm": tpm, "counting": counting or "window"})
    latency = 1.0 if latency_s is None else latency_s
    load = Load(callers, tokens=sizes, used_share=used or 1.0, latency_s=latency, critical=urgent)
    found = forecast(limit, load, seconds=seconds or 120, seed=seed)
    if as_json:
        click.echo(json.dumps(_summary(found, rpm, tpm)))
        return
    click.echo("\n".join(fitted(_story(found, rpm, tpm))))


def _sizes(text: str) -> tuple[int, int]:
    smallest, _, largest = text.partition("-")
    if not smallest.isdecimal() or not (largest or smallest).isdecimal():
        raise click.UsageError(f"--tokens: expected two numbers like 200-1200, got {quote(text)}")
    sizes = int(smallest), int(largest or smallest)
    if not 1 <= sizes[0] <= sizes[1]:
        raise click.UsageError(f"--tokens: expected the smaller number first and at least 1, got {quote(text)}")
    return sizes


def _summary(found: Forecast, rpm: int | None, tpm: int | None) -> dict[str, Any]:
    minutes = found.seconds / 60
    waits = {"wait_s": found.waits_s, "critical_wait_s": found.critical_waits_s}
    return {
        "calls_per_minute": round(found.calls / minutes, 1),
        "tokens_per_minute": round(found.tokens / minutes),
        "requests_used": round(found.calls / minutes / rpm, 4) if rpm else None,
        "tokens_used": round(found.tokens / minutes / tpm, 4) if tpm else None,
        **{name: {"p50": _at(times, 0.5), "p99": _at(times, 0.99)} for name, times in waits.items() if times},
        "calls_of_a_bot": {"fewest": found.fewest, "most": found.most},
        "questions_per_call": round(found.questions / max(1, found.calls), 2),
        "calls_by_second": found.calls_by_second,
    }


def _at(times: tuple[float, ...], share: float) -> float:
    return round(times[min(len(times) - 1, int(len(times) * share))], 3)


def _story(found: Forecast, rpm: int | None, tpm: int | None) -> Iterator[str]:
    sums = _summary(found, rpm, tpm)
    of_requests = f" ({sums['requests_used']:.1%} of --rpm)" if rpm else ""
    of_tokens = f" ({sums['tokens_used']:.1%} of --tpm)" if tpm else ""
    yield f"calls a minute    {sums['calls_per_minute']:,.1f}{of_requests}"
    yield f"tokens a minute   {sums['tokens_per_minute']:,}{of_tokens}"
    for name, label in (("wait_s", "wait for a turn"), ("critical_wait_s", "  critical calls")):
        if name in sums:
            yield f"{label}   p50 {duration(sums[name]['p50'])}, p99 {duration(sums[name]['p99'])}"
    yield f"calls of a bot    {found.fewest} to {found.most} in {duration(found.seconds)}"
    yield f"questions a call  {sums['questions_per_call']:.2f}"
    yield f"calls a second    {_draw(found.calls_by_second)}"


def _draw(counts: tuple[int, ...]) -> str:
    """Draw counts as one line of bars, the highest of them full."""
    step = -(-len(counts) // _COLUMNS)
    means = [sum(part) / len(part) for part in (counts[i : i + step] for i in range(0, len(counts), step))]
    most = max(means) or 1
    bars = "".join(_BARS[round(mean / most * 8)] for mean in means)
    return f"{bars}  (highest {most:,.1f})"
