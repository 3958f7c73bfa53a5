"""`fleet dead`: the tasks that failed for good: list, show, replay, purge. redis is imported on use only."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import click

from fleet import config, errors
from fleet.cli.finite import FiniteRange
from fleet.cli.terminal import fitted, say, table
from fleet.quoting import counted, named, quote, stamp

if TYPE_CHECKING:
    import redis

    from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice, Filed
    from fleet.signals.ahead.dead_view import DeadGroup

#: Error types that a dead letter may have as its reason.
REASONS = sorted(
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.FleetError)
)
#: What to do about a dead task, by cause.
ADVICE = {
    "attempts": "its provider failed again and again: replay it once the provider works",
    "deadline": "its time ran out: raise deadline_s or the limit, then replay it",
    "cost": "its max_cost_usd was used up: raise it, then replay it",
    "cap": "its run met a cap of its pool: see what it did, raise the cap that the message names, then replay it",
    "circles": "the same tools gave the same results over and over: correct the tool or the prompt, then replay it",
    "expired": "its end had passed before it could start: if anybody still wants it, replay it with --expires-in",
    "validation": "it was no valid task: correct what the message says (a pool can be added), else submit it anew",
    "poison": "it kills the process it runs in: look at its bot function and at memory before you replay it",
    "refused": "the provider refused the request or the key: correct the prompt, the model or the key, then replay it",
    "tool": "a tool API failed on a request that may have taken effect: look there what it did, then replay the task",
    "answer": "the provider gave no usable answer: change the prompt or the model, then replay it",
    "function": "your bot function raised: correct it, restart the workers, then replay it",
    "configuration": "correct what the error names: fleet.toml, a FLEET_* variable or the machine; then replay",
    "delegation": "its pool takes signed tasks only: submit it anew by a delegation that holds (`fleet keys delegate`)",
    "scope": "no key serves such a task: widen `scope` in fleet.toml, or use another tenant or tool; then replay it",
    "bug": "Fleet failed: the worker's log has the place; replay it with a version that has it corrected",
}
#: Narrowest and usual width of a message in a list, in characters.
MESSAGE_COLUMNS = 60


@click.group()
def dead() -> None:
    """List, show, replay or purge the tasks that failed for good.

    \b
    Examples:
      fleet dead list --pool research
      fleet dead reasons
      fleet dead show 7c9e6679-7425-40de-944b-e07fc1f90ae7
      fleet dead replay --reason ProviderUnavailable --yes
      fleet dead purge --all
    """


def _known_pool(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse a pool that is not configured: its letters are kept as those of `-`."""
    pools = config.current().pools if value not in (None, "-") else ()
    if value not in (None, "-", *pools):
        known = ", ".join(pools)
        raise errors.ConfigurationError(
            f"--pool: expected one of {known}, or - for tasks of no such pool, got {quote(value)}"
        )
    return value


def _scope(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that narrow a set of letters down."""
    for option in (
        click.option("--reason", type=click.Choice(REASONS), metavar="ERROR", help="Only with this error type."),
        click.option(
            "--pool", callback=_known_pool, help="Only of this pool; `-`: only what no pool of fleet.toml has."
        ),
    ):
        command = option(command)
    return command


@dead.command("list")
@_scope
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Letters shown.")
@click.option("--before", metavar="CURSOR", help="Continue where the last list ended.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def list_letters(pool: str | None, reason: str | None, limit: int, before: str | None, as_json: bool) -> None:
    """List dead letters, the newest first.

    \b
    Examples:
      fleet dead list
      fleet dead list --pool research --reason DeadlineExceeded --limit 100
      fleet dead list --json | jq '.letters[].task_id'
    """
    with _office() as (office, _):
        page = office.page(pool=pool, reason=reason, limit=limit, before=before)
        total = office.count(pool=pool, reason=reason)
    if as_json:
        rows = [_as_data(filed) for filed in page.letters]
        click.echo(json.dumps({"total": total, "letters": rows, "next": page.next}, indent=2))
        return
    for line in _table(page.letters):
        click.echo(line)
    more = f"; more with --before {page.next}" if page.next else ""
    say(f"{len(page.letters):,} of {counted(total, 'dead letter')}{more}")


@dead.command()
@_scope
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def reasons(pool: str | None, reason: str | None, as_json: bool) -> None:
    """Count dead letters by pool and reason, and tell what replaying them may cost.

    The cost is what an answer of the same pool has cost on average in the last two days, times their number.

    \b
    Examples:
      fleet dead reasons
      fleet dead reasons --pool research --json | jq '.groups[] | {reason, count, replay_usd_micros}'
    """
    from fleet.signals.ahead.dead_view import told_cost

    with _office() as (office, state):
        groups = _groups(office, state, pool, reason)
        listed = sum(group.count for group in groups)
        total = max(listed, office.count(pool=pool, reason=reason))
    if as_json:
        click.echo(json.dumps({"total": total, "groups": [group.model_dump() for group in groups]}, indent=2))
        return
    rows = [("POOL", "REASON", "LETTERS", "NEWEST", "REPLAY")]
    for group in groups:
        rows.append((named(group.pool, "pool"), group.reason, f"{group.count:,}", stamp(group.newest_at), _usd(group)))
    for line in table(rows, left=(0, 1, 3)) if groups else ():
        click.echo(line)
    them = "them" if listed == total else f"{listed:,} of them"
    say(f"{counted(total, 'dead letter')}{f'; to replay {them}: {told_cost(groups)}' if total else ''}")


@dead.command()
@click.argument("task_id", metavar="TASK")
@click.option("--body", is_flag=True, help="Also print the task's message body: it holds the prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(task_id: str, body: bool, as_json: bool) -> None:
    """Show one dead letter: what failed, how often, and what to do about it.

    \b
    Examples:
      fleet dead show 7c9e6679-7425-40de-944b-e07fc1f90ae7
      fleet dead show 7c9e6679-7425-40de-944b-e07fc1f90ae7 --body --json
    """
    with _office() as (office, _):
        filed = office.find(task_id)
        if filed is None:
            raise errors.FleetError(_not_there(task_id))
        text = (office.body(task_id) or b"").decode("utf-8", "replace") if body else None
    if as_json:
        click.echo(json.dumps({**_as_data(filed), **({"body": text} if body else {})}, indent=2))
        return
    for name, value in _details(filed):
        click.echo("\n".join(fitted([f"{name:<10} {value}"])))
    if text is not None:
        click.echo(f"{'body':<10} {text}")


@dead.command()
@click.argument("task_ids", metavar="[TASK]...", nargs=-1)
@_scope
@click.option("--all", "everything", is_flag=True, help="All dead letters, of every pool and reason.")
@click.option(
    "--expires-in",
    "life_s",
    type=FiniteRange(0, min_open=True),
    metavar="SECONDS",
    help="Give each a new end, so many seconds from now; those whose end has passed need one.",
)
@click.option("--dry-run", is_flag=True, help="Only say how many that would be, and what they may cost.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def replay(
    task_ids: tuple[str, ...], pool: str | None, reason: str | None, everything: bool, life_s: float | None,
    dry_run: bool, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Queue dead tasks again, with a fresh life.

    A replayed task keeps its id and joins the end of its queue. Its failed result is removed, and whoever asks for it
    gets the new one. Callbacks, chains and chords have seen the failure and are not called again. A task whose end
    (expires_at) has passed stays a letter unless --expires-in gives it a new one. Before a set is queued, you are told
    what it may cost: their number times what an answer of the same pool has cost on average.

    \b
    Examples:
      fleet dead replay 7c9e6679-7425-40de-944b-e07fc1f90ae7
      fleet dead replay --pool research --reason ProviderUnavailable --dry-run
      fleet dead replay --all --yes --json
    """
    from fleet.signals.ahead.dead_view import told_cost

    _check_chosen(task_ids, pool, reason, everything)
    if dry_run and task_ids:
        raise click.UsageError("--dry-run: expected --pool, --reason or --all beside it, got task ids")
    with _office() as (office, state):
        chosen = _chosen(office, task_ids, pool, reason)
        if dry_run:
            _tell_price(_groups(office, state, pool, reason), office.count(pool=pool, reason=reason), as_json)
            return
        if not (yes or task_ids):
            _confirm("replay", office, pool, reason, told_cost(_groups(office, state, pool, reason)))
        with _noted(state, "replay", task_ids, pool, reason) as outcomes:
            for task_id, _ in chosen:
                outcomes[task_id] = office.replay(task_id, life_s=life_s)
    counts: Counter[str] = Counter(outcomes.values())
    _report(counts, as_json)
    if counts["expired"]:
        say(f"{counts['expired']:,} stay letters: their end has passed; --expires-in SECONDS gives them a new one")
    _refuse_unknown([task_id for task_id, outcome in outcomes.items() if outcome == "unknown"], task_ids)


@dead.command()
@click.argument("task_ids", metavar="[TASK]...", nargs=-1)
@_scope
@click.option("--all", "everything", is_flag=True, help="All dead letters, of every pool and reason.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def purge(
    task_ids: tuple[str, ...], pool: str | None, reason: str | None, everything: bool, yes: bool, as_json: bool
) -> None:
    """Throw dead letters away. Their failed results stay until they expire.

    \b
    Examples:
      fleet dead purge 7c9e6679-7425-40de-944b-e07fc1f90ae7
      fleet dead purge --reason InvalidTask --yes
    """
    _check_chosen(task_ids, pool, reason, everything)
    with _office() as (office, state):
        chosen = _chosen(office, task_ids, pool, reason)
        if not (yes or task_ids):
            _confirm("purge", office, pool, reason, "their messages go for good")
        with _noted(state, "purge", task_ids, pool, reason) as outcomes:
            for task_id, died_us in chosen:
                outcomes[task_id] = "purged" if office.purge(task_id, died_us=died_us) else "unknown"
    _report(Counter(outcomes.values()), as_json)
    _refuse_unknown([task_id for task_id, outcome in outcomes.items() if outcome == "unknown"], task_ids)


@contextmanager
def _noted(
    state: redis.Redis, verb: Literal["replay", "purge"], tasks: tuple[str, ...], pool: str | None, reason: str | None
) -> Iterator[dict[str, str]]:
    """Collect what becomes of letters, and record it as an event, also when Ctrl-C ends it."""
    from fleet.cli.operator import operator_name
    from fleet.engine.operations.levers import note_dead

    outcomes = dict[str, str]()
    try:
        yield outcomes
    finally:
        note_dead(
            state, verb, Counter(outcomes.values()), by=operator_name(), tasks=tasks, pool=pool, reason=reason
        )  # fmt: skip


@contextmanager
def _office() -> Iterator[tuple[DeadLetterOffice, redis.Redis]]:
    from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice
    from fleet.store.private.two_redis import two_redis

    settings = config.current()
    with two_redis(settings) as clients:
        yield DeadLetterOffice(clients.state, clients.broker, settings), clients.state


def _check_chosen(task_ids: tuple[str, ...], pool: str | None, reason: str | None, everything: bool) -> None:
    """Refuse a command that names its letters in no way, or in several."""
    filtered = pool is not None or reason is not None
    if bool(task_ids) + filtered + everything != 1:
        raise click.UsageError("expected one of: task ids, --pool and/or --reason, --all")


def _chosen(
    office: DeadLetterOffice, task_ids: tuple[str, ...], pool: str | None, reason: str | None
) -> Iterator[tuple[str, str]]:
    """Return id and time of death of the letters that a command is about, read as they are worked off."""
    if task_ids:
        return ((task_id, "") for task_id in dict.fromkeys(task_ids))
    return ((filed.letter.task_id, filed.died_us) for filed in office.walk(pool=pool, reason=reason))


def _groups(
    office: DeadLetterOffice, state: redis.Redis, pool: str | None, reason: str | None
) -> tuple[DeadGroup, ...]:
    from fleet.engine.operations.dead import read_dead

    return read_dead(office, state, config.current(), pool=pool, reason=reason)


def _usd(group: DeadGroup) -> str:
    return "unknown" if group.replay_usd_micros is None else f"${group.replay_usd_micros / 1e6:,.4f}"


def _tell_price(groups: tuple[DeadGroup, ...], total: int, as_json: bool) -> None:
    """Say what a replay would queue, and what that may cost."""
    from fleet.signals.ahead.dead_view import told_cost

    listed = sum(group.count for group in groups)
    count = max(listed, total)
    known = [group.replay_usd_micros for group in groups if group.replay_usd_micros is not None]
    if as_json:
        unpriced = sum(group.count for group in groups if group.replay_usd_micros is None) + count - listed
        click.echo(json.dumps({"letters": count, "replay_usd_micros": sum(known), "letters_without_price": unpriced}))
        return
    of = "" if listed == count else f"; {listed:,} of them"
    say(f"would queue {counted(count, 'dead letter')}{f'{of}: {told_cost(groups)}' if count else ''}")


def _confirm(verb: str, office: DeadLetterOffice, pool: str | None, reason: str | None, costs: str) -> None:
    """Ask before a whole set is changed; a script must say --yes."""
    count = office.count(pool=pool, reason=reason)
    what = f"{verb} {counted(count, 'dead letter')}"
    if not sys.stdin.isatty():
        raise click.UsageError(f"expected --yes to {what} without being asked")
    click.confirm(f"{what}? {costs[0].upper()}{costs[1:]}.", abort=True, err=True)


def _report(counts: Counter[str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({name.replace(" ", "_"): number for name, number in counts.items()}))
    else:
        say(", ".join(f"{number:,} {name}" for name, number in counts.items()) or "no dead letters")


def _refuse_unknown(unknown: list[str], asked_for: tuple[str, ...]) -> None:
    if unknown and asked_for:
        raise errors.FleetError(_not_there(unknown[0]))


def _not_there(task_id: str) -> str:
    return (
        f"{quote(task_id)}: expected the id of a dead task, got none; `fleet dead list` shows them, "
        "`fleet why TASK` tells what became of a task"
    )


def _as_data(filed: Filed) -> dict[str, Any]:
    return {**filed.letter.model_dump(mode="json"), "died_at": filed.died_at}


def _table(letters: tuple[Filed, ...]) -> Iterator[str]:
    rows = [("DIED", "TASK", "POOL", "REASON", "LIVES", "MESSAGE")]
    for filed in letters:
        letter = filed.letter
        text = " ".join(letter.message.split())
        short = text if len(text) <= MESSAGE_COLUMNS else f"{text[: MESSAGE_COLUMNS - 1]}…"
        lives = str(len(letter.history))
        rows.append((stamp(filed.died_at), letter.task_id, named(letter.pool, "pool"), letter.reason, lives, short))
    yield from table(rows, left=range(6)) if letters else ()


def _details(filed: Filed) -> Iterator[tuple[str, str]]:
    letter = filed.letter
    yield "task", letter.task_id
    yield "died", stamp(filed.died_at)
    yield "pool", named(letter.pool, "pool") + ("" if letter.pool else ": its message never named one")
    yield "kind", named(letter.kind, "kind")
    yield "priority", letter.priority.name.lower()
    yield "reason", f"{letter.reason} ({letter.cause})"
    yield "message", letter.message
    calls = ", ".join(f"{count} {name}" for name, count in letter.provider_errors.items())
    yield "attempts", f"{letter.attempts}" + (f" ({calls})" if calls else "")
    for number, death in enumerate(letter.history, 1):
        yield f"death {number}", f"{stamp(death.at)}  {death.error}" + (f"  {death.bot}" if death.bot else "")
    yield "advice", ADVICE[letter.cause]
