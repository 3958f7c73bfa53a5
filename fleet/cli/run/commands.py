"""`fleet submit` (one task) and `fleet run` (a file of tasks).

The commands and their options; the work is done in `flow`, IN is read in `entries`, OUT written in `answers`.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fleet.cli.exit_codes import EXIT_FAILURE, EXIT_WAITS
from fleet.cli.finite import FiniteRange
from fleet.cli.spans import SpanType
from fleet.cli.terminal import say
from fleet.errors import ConfigurationError, InvalidTask
from fleet.models import CACHE, MAX_BY_S, Priority
from fleet.quoting import quote
from fleet.usage import told

if TYPE_CHECKING:
    from fleet.cli.run.collector import Collector
    from fleet.cli.run.patience import Patience
    from fleet.config import Settings

#: Fewest tasks in flight by default; beyond it, WINDOW_PER_SLOT for every slot of this configuration.
MIN_WINDOW = 1000
WINDOW_PER_SLOT = 4
#: Seconds between two looks for the result of a single task.
SUBMIT_POLL_S = 0.02
F = TypeVar("F", bound=Callable[..., Any])


def task_options(default_priority: Priority) -> Callable[[F], F]:
    """Return a decorator that adds the options which `fleet submit` and `fleet run` share."""
    names = [priority.name.lower() for priority in Priority]
    options = [
        click.option("--pool", help="Pool that does the work. Default: one that takes the task's kind."),
        click.option("--priority", type=click.Choice(names), default=default_priority.name.lower(), show_default=True),
        click.option(
            "--context",
            multiple=True,
            metavar="ID",
            help="Shared document that stands first in the prompt (`fleet context`); may be repeated.",
        ),
        click.option("--kind", help="Task class, e.g. summary; a pool may take only some."),
        click.option("--deadline-s", type=FiniteRange(), help="Seconds of work allowed per task. Default: the pool's."),
        click.option(
            "--expires-in",
            type=FiniteRange(0, min_open=True),
            metavar="SECONDS",
            help="Drop a task unpaid that has not begun so many seconds from now.",
        ),
        click.option(
            "--expires", metavar="TIME", help="The same at a time: ISO 8601 (UTC without a zone) or Unix seconds."
        ),
        click.option(
            "--by",
            "by_s",
            type=SpanType(MAX_BY_S),
            metavar="TIME",
            help="Time from now within which the answer is needed, e.g. 8h: it takes the cheapest lane that fits.",
        ),
        click.option("--max-output-tokens", type=int, help="Longest answer. Default: the pool's."),
        click.option("--effort", help="How long the model thinks: none, minimal, low, medium, high, ..."),
        click.option("--tier", help="Service tier: flex, priority, standard, or the provider's word."),
    ]

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def checked_options(settings: Settings, **options: Any) -> dict[str, Any]:
    """Return the given task options without the empty ones.

    Raises:
        ConfigurationError: When no pool fits them.
        InvalidTask: When a value is out of range.
    """
    from fleet.models import BotTask

    given = {name: value for name, value in options.items() if value not in (None, ())}
    if (end := _end_of(given.pop("expires", None), given.pop("expires_in", None))) is not None:
        given["expires_at"] = end
    task = BotTask.parse("-", **given)
    if task.pool is not None and task.pool not in settings.pools:
        raise ConfigurationError(f"--pool: expected one of {', '.join(settings.pools)}, got {quote(task.pool)}")
    if task.pool is None and not any(not p.kinds or task.kind in p.kinds for p in settings.pools.values()):
        raise ConfigurationError(f"--kind: expected one that a pool takes, got {quote(task.kind)}; or name a --pool")
    if task.tier is not None:
        from fleet.engine.messages.pool_choice import candidates

        try:
            candidates(task, settings)
        except InvalidTask as error:
            raise ConfigurationError(f"--{error}") from None
    return given


def _check_stored(settings: Settings, ids: Collection[str]) -> None:
    """Refuse documents that are not stored: a task that names one would wait for it."""
    if not ids:
        return
    from fleet.economy.contexts import documents
    from fleet.store.client import connect, store_errors
    from fleet.store.private.embedded import state_url

    url = state_url(settings)
    with connect(url, timeout_s=settings.redis.socket_timeout_s) as client, store_errors(url):
        for one in ids:
            if documents.find(client, one) is None:
                raise ConfigurationError(f"--context: expected the id of a document that is stored, got {quote(one)}")


def _end_of(at: str | None, in_s: float | None) -> float | None:
    """Return the end that --expires or --expires-in name, as Unix time in seconds."""
    from fleet.engine.messages.expiry import end_of

    if at is None:
        return None if in_s is None else time.time() + in_s
    if in_s is not None:
        raise ConfigurationError("--expires: expected no --expires-in beside it; name one of them")
    with suppress(ValueError):
        if math.isfinite(end := float(at)):
            return end
    if (parsed := end_of(None, at, None, time.time())) is None:
        raise ConfigurationError(f"--expires: expected an ISO 8601 time or Unix seconds, got {quote(at)}")
    return parsed


# ---- fleet submit


@click.command()
@click.argument("prompt")
@task_options(Priority.NORMAL)
@click.option(
    "--wait/--no-wait",
    default=None,
    help="Wait also for what does not pass by itself (a key, a setting, a worker); or print the task's id and exit.",
)
@click.option(
    "--max-usd", "max_cost_usd", type=FiniteRange(0, min_open=True),
    help="US dollars that the task may cost; dearer, it fails before it is sent.",
)  # fmt: skip
@click.option("--timeout", "timeout_s", type=FiniteRange(), default=300.0, show_default=True, help="Seconds to wait.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as JSON.")
@click.pass_context
def submit(
    context: click.Context, /, prompt: str, wait: bool | None, timeout_s: float, as_json: bool, **options: Any
) -> None:
    """Submit one task and print its answer.

    The answer goes to stdout; who gave it, tokens, cost and time go to stderr. PROMPT "-" is read from stdin.

    What it waits for is said on stderr. If that does not pass by itself (a key, a model or an address that the provider
    refuses, no worker for its pool) the command ends within a few seconds, and the task stays where it is: it goes on
    once that is mended. `--wait` waits for that, too.

    Exit codes: 0 answered, 1 failed, 2 wrong usage, 3 no answer yet: it waits for somebody, or --timeout is over.

    \b
    Examples:
      fleet submit "What is 2+2?" --pool research --priority high
      git diff | fleet submit - --json | jq .answer
    """
    from fleet.cli.run.collector import another_fleet, nobody_serves, open_collector
    from fleet.cli.run.patience import Patience
    from fleet.config import current
    from fleet.engine.messages.pool_choice import choose_pool
    from fleet.engine.messages.producer import submit_many
    from fleet.models import BotTask

    settings = current()
    text = sys.stdin.read().rstrip("\n") if prompt == "-" else prompt
    task = BotTask.parse(text, **checked_options(settings, **options))
    _check_stored(settings, task.context)
    with open_collector(settings) as collector:
        pool = choose_pool(task)
        (task_id,) = submit_many([task.model_copy(update={"pool": pool})])
        if warning := nobody_serves(collector, pool if task.pool else None, settings):
            say(warning)
        if warning := another_fleet(collector, settings):
            say(warning)
        if wait is False:
            click.echo(json.dumps({"task_id": task_id}) if as_json else task_id)
            return
        patience = Patience(
            lambda pools: collector.look(settings, pools), lambda line, _: say(line), endless=wait is True
        )
        result = _wait(collector, patience, pool, task_id, timeout_s)
    if result is None:
        _tell_waiting(patience, task_id, timeout_s, as_json=as_json)
        context.exit(EXIT_WAITS)
    context.exit(_show(result, as_json=as_json))


def _wait(collector: Collector, patience: Patience, pool: str, task_id: str, timeout_s: float) -> dict[str, Any] | None:
    """Return the result; None: there is none in time, or only somebody's deed can bring it."""
    deadline = time.monotonic() + timeout_s
    while not (found := collector.fetch([task_id])):
        if time.monotonic() > deadline or patience.is_over(lambda: [pool], 1):
            return None
        time.sleep(SUBMIT_POLL_S)
    return found[task_id]


def _tell_waiting(patience: Patience, task_id: str, timeout_s: float, *, as_json: bool) -> None:
    """Say why there is no result, and how to get it later."""
    from fleet.cli.run.patience import ending_lines

    waits = ending_lines(patience.lines, time.time())
    for line in waits or [f"no result within {timeout_s:g} s"]:
        say(line)
    if not waits and patience.reason:
        say(patience.reason)
    say(
        f"task {task_id} is kept and goes on by itself then; `fleet why {task_id}` tells how far it is, and "
        f"submit_task.AsyncResult({task_id!r}).get() in Python has its answer"
    )
    if as_json:
        found = [line.model_dump() for line in patience.lines]
        click.echo(json.dumps({"task_id": task_id, "status": "waiting", "waits": found}))


def _show(result: dict[str, Any], *, as_json: bool) -> int:
    """Print a result and return the exit code."""
    if as_json:
        click.echo(json.dumps(result, indent=2))
    elif result.get("answer"):
        click.echo(result["answer"])
    if not as_json:
        for call in result.get("tool_calls") or ():
            click.echo(json.dumps({"tool": call["name"], "arguments": call["arguments"]}))
    click.echo(result_line(result), err=True)
    return EXIT_FAILURE if result["status"] == "failed" else 0


def result_line(result: dict[str, Any]) -> str:
    """Return in one line who answered, at what price; and why not, if it failed."""
    usage, cost = result.get("usage") or {}, result.get("cost_usd_micros")
    tier, sent = result.get("tier"), result.get("sent") or {}
    parts = [
        str(result.get("bot") or ("an equal task's answer" if result.get("served_by") == CACHE else "no bot")),
        f"{result.get('provider')}/{result.get('model')}{' (simulator)' if result.get('simulated') else ''}",
        told(usage),
        "cost unknown" if cost is None else f"${cost / 1e6:.6f}",
        f"{result.get('ran_ms') or 0:,} ms",
    ]
    if tier:
        parts.append(f"tier {tier}")
    if sent:
        parts.append(
            "sent: " + ", ".join(f"no {name}" if value is None else f"{name} {value}" for name, value in sent.items())
        )
    if cut_tokens := result.get("cut_tokens"):
        parts.append(f"{cut_tokens:,} tokens cut from the prompt to fit the context window")
    if left_out := result.get("left_out"):
        parts.append(f"asked without {', '.join(left_out)}")
    if error := result.get("error"):
        parts.insert(0, f"{result['status']}: {error['type']}: {error['message']}")
    return " · ".join(parts)


# ---- fleet run


@click.command()
@click.argument("source", metavar="IN", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "-o", "--out", "target", metavar="OUT", type=click.Path(dir_okay=False, path_type=Path),
    help="File that gets one line per line of IN; --dry-run does without.",
)  # fmt: skip
@click.option("--field", "prompt_field", help="Field of the prompt. Default: messages, prompt or question.")
@click.option(
    "--id-field", default="id", show_default=True, help="Field of the line's id; without it, the line number."
)
@task_options(Priority.LOW)
@click.option(
    "--dedupe", "reuse", is_flag=True, flag_value=True, default=None,
    help="Ask equal lines once, whatever their kind; kept answers serve, too (docs/caching.md).",
)  # fmt: skip
@click.option("--window", type=click.IntRange(1), help="Tasks in flight. Default: 4 per slot, at least 1000.")
@click.option("--wait", is_flag=True, help="Wait also for what does not pass by itself: a key, a setting, a worker.")
@click.option(
    "--max-usd",
    type=FiniteRange(0.000001, 1e9),
    help="US dollars that the run may spend in all, over its resumes; then the rest waits.",
)
@click.option("--retry-failed", is_flag=True, help="Run the lines of OUT that failed once more.")
@click.option("--resume", is_flag=True, hidden=True, expose_value=False, help="What every run does by now.")
@click.option("--overwrite", is_flag=True, help="Throw OUT away and start anew.")
@click.option("--dry-run", is_flag=True, help="Tell tokens, cost and time to expect, with ranges; send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.pass_context
def run(
    context: click.Context, /, source: str, target: Path | None, prompt_field: str | None, id_field: str,
    window: int | None, wait: bool, retry_failed: bool, overwrite: bool, as_json: bool, quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Run every line of a JSONL file as a task; resumable.

    A line of IN is an object with the prompt in a field (or with `messages`), a line of an OpenAI or Anthropic batch
    file, or a JSON string. Its own options (kind, pool, priority, max_output_tokens, answer_schema, tools, effort and
    so on: docs/asking.md) win over the options here. Blank lines are skipped; a line that isn't a valid task gives a
    failed answer.
    IN "-" is stdin, which cannot be resumed.

    OUT gets one line per line of IN as answers come, not in IN's order: `id` and `line` say whose it is.

    After Ctrl-C or a crash run the same command again: what is in OUT or still in flight is not paid twice
    (OUT.run, beside OUT until the end, remembers the run). A finished run does nothing but repeat its summary.

    A line is known again by what it asks: its id, its prompt and its own options. So IN may be edited, reordered or
    replaced: only what is new is asked, and answers whose question is gone stay in OUT, with `line` null. Options of
    the command line are no part of the question: to ask it again with others, give another -o, or --overwrite.

    What the run waits for is said on stderr, and until when. If no answer comes and all that is left waits for what
    does not pass by itself (a key, a model or an address that the provider refuses, no worker), the run ends within a
    few seconds. The tasks stay in Redis, and the same command goes on with them. `--wait` waits for that, too.

    --dry-run sends and queues nothing. It tells the tokens, the cost and the time to expect of the lines that OUT does
    not answer yet, each with a range that holds in 19 of 20 runs: from the file, the bots' own prompts and windows,
    limits, prices, budgets, what waits before, and how long answers of that kind have been so far.

    With --max-usd the run has a budget of its own. What it does not pay for waits in Redis, and the run ends with
    exit code 3; the same command with a higher --max-usd goes on.

    Exit codes: 0 every line has an answer, 1 some failed, 2 wrong usage, 3 the rest waits for somebody to mend what
    it names, 130 interrupted.

    \b
    Examples:
      fleet run prompts.jsonl -o answers.jsonl
      fleet run prompts.jsonl --dry-run
      fleet run questions.jsonl -o answers.jsonl --field question --pool research
      fleet run questions.jsonl -o answers.jsonl --retry-failed
      fleet run prompts.jsonl -o answers.jsonl --max-usd 5
      fleet run tickets.jsonl -o classes.jsonl --dedupe
    """
    from fleet.cli.run.dry_run import DryRun
    from fleet.cli.run.entries import LineFormat
    from fleet.cli.run.expected import tell
    from fleet.cli.run.job import Job
    from fleet.config import current

    dry_run: bool = options.pop("dry_run")
    if target is None and not dry_run:
        raise click.UsageError("expected -o OUT, got none; or --dry-run, which writes no answers")
    if str(target) == "-":
        raise ConfigurationError(
            "-o: expected a file, got -, which is stdout: a stopped run goes on from the answers in its file; "
            "write one, and print it afterwards"
        )
    settings, max_usd = current(), options.pop("max_usd")
    slots = settings.slots_per_process * settings.worker.processes
    checked = checked_options(settings, **options)
    place = None if source == "-" else Path(source).absolute()
    if target is None or dry_run:
        wanted = DryRun(
            settings, place, target, LineFormat(prompt_field, id_field, checked), retry_failed, overwrite, max_usd
        )  # fmt: skip
        tell(wanted, as_json=as_json)
        return
    _check_stored(settings, checked.get("context", ()))
    job = Job(
        settings=settings,
        source=place,
        target=target.resolve(),
        prompt_field=prompt_field,
        id_field=id_field,
        options=checked,
        window=window or max(MIN_WINDOW, WINDOW_PER_SLOT * slots),
        quiet=quiet,
        endless=wait,
        max_usd=max_usd,
    )
    outcome = job.run(retry_failed=retry_failed, overwrite=overwrite)
    outcome.tell(as_json=as_json)
    context.exit(outcome.exit_code)
