"""`fleet bots`: how each bot fares; quarantine and release. redis is imported on use only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fleet import config
from fleet.cli.operate.pools import seconds_of
from fleet.cli.operator import operator_name
from fleet.cli.terminal import fitted, say, table
from fleet.errors import ConfigurationError
from fleet.models import Persona
from fleet.quoting import clock, counted, duration, noun_for, quote, stamp

if TYPE_CHECKING:
    from fleet.signals.bot_table import BotColumn, BotPage, BotState, BotTable
    from fleet.signals.view import BotDetail, HealthView

#: Columns by which the list can be sorted, and what they are in the table of bots.
SORTS: dict[str, BotColumn] = {
    "name": "name", "state": "state", "load": "load", "done": "completions", "failed": "failed", "hour": "per_hour",
    "last": "last_at", "cost": "cost_usd_micros", "slow": "mean_ms", "evidence": "evidence", "bad": "bad_percent",
    "avoids": "avoids_percent", "until": "until", "reason": "reason",
}  # fmt: skip
STATES = ("idle", "busy", "probation", "quarantined", "leaving")


Decorated = TypeVar("Decorated", bound=Callable[..., object])


def _list_options(command: Decorated) -> Decorated:
    """Add the options of the list, which `fleet bots` and `fleet bots list` share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead."),
        click.option(
            "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Bots shown at most."
        ),
        click.option(
            "--sort", type=click.Choice(list(SORTS)), default="name", show_default=True, help="Largest first."
        ),
        click.option("--find", "search", default="", help="Only bots with this in their name."),
        click.option("--state", type=click.Choice(STATES), help="Only bots in this state."),
        click.option("--pool", help="Only bots of this pool."),
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@_list_options
@click.pass_context
def bots(ctx: click.Context, /, **options: Any) -> None:
    """List bots and how they fare; open, quarantine and release them.

    \b
    Examples:
      fleet bots --sort evidence --limit 10
      fleet bots list --state quarantined
      fleet bots show research-007
      fleet bots quarantine research-007 --reason "repeats itself" --for 1h
      fleet bots release research-007
    """
    if ctx.invoked_subcommand is None:
        _list(**options)


@bots.command("list")
@_list_options
def list_bots(**options: Any) -> None:
    """List bots and how they fare: the same as `fleet bots` alone.

    \b
    Examples:
      fleet bots list --state probation --json
    """
    _list(**options)


def _list(*, pool: str | None, state: BotState | None, search: str, sort: str, limit: int, as_json: bool) -> None:
    from fleet.engine.operations.overview import open_overview
    from fleet.signals.bot_table import bot_page

    settings = config.current()
    _check_pool(pool, settings)
    with open_overview(settings) as overview:
        table = overview.read().bots
    page = bot_page(
        table, sort=SORTS[sort], descending=sort != "name", pool=pool, state=state, search=search, limit=limit
    )
    if as_json:
        click.echo(json.dumps({"total": page.total, "bots": list(_rows(page))}, indent=2))
        return
    for line in _table(page) if page.total else ():
        click.echo(line)
    if not page.total:
        say("no such bot: none has all that was asked for")


@bots.command()
@click.argument("name", metavar="BOT")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(name: str, as_json: bool) -> None:
    """Open one bot: persona, health, last tasks, errors, cost.

    \b
    Examples:
      fleet bots show research-007
    """
    from fleet.engine.operations.bot_detail import check_bot
    from fleet.engine.operations.overview import open_overview

    settings = config.current()
    check_bot(name, settings)
    with open_overview(settings) as overview:
        bot = overview.bot(name)
    click.echo(bot.model_dump_json(indent=2) if as_json else "\n".join(fitted(_story(bot))))


@bots.command()
@click.argument("names", metavar="BOT...", nargs=-1, required=True)
@click.option("--reason", default="", help="Why; shown to all. Asked for at a terminal.")
@click.option("--for", "for_s", callback=seconds_of, metavar="TIME", help="Release them after, e.g., 10m, 2h.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def quarantine(names: tuple[str, ...], reason: str, for_s: float | None, as_json: bool) -> None:
    """Give bots no new tasks; what they run goes on. When all bots of a pool are out, its tasks wait.

    \b
    Examples:
      fleet bots quarantine research-007 --reason "answers in French"
      fleet bots quarantine research-007 research-008 --for 30m
    """
    from fleet.engine.operations.levers import pool_of, quarantine_bots
    from fleet.store.private.two_redis import two_redis

    settings = config.current()
    for name in names:
        pool_of(name, settings)
    if not reason and sys.stdin.isatty() and sys.stderr.isatty():
        reason = click.prompt("Why", default="", show_default=False, err=True)
    with two_redis(settings) as clients:
        are_new = quarantine_bots(clients.state, settings, names, by=operator_name(), reason=reason, for_s=for_s)
    if as_json:
        click.echo(json.dumps({"bots": [{"bot": name, "is_new": is_new} for name, is_new in are_new.items()]}))
        return
    for name, is_new in are_new.items():
        say(f"{name}: {'quarantined' if is_new else 'was quarantined already; its end and reason are renewed'}")


@bots.command()
@click.argument("names", metavar="[BOT...]", nargs=-1)
@click.option("--pool", help="All bots of this pool that are quarantined.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def release(names: tuple[str, ...], pool: str | None, as_json: bool) -> None:
    """Let quarantined bots take tasks again, at once.

    \b
    Examples:
      fleet bots release research-007
      fleet bots release --pool research
    """
    from fleet.engine.operations.levers import pool_of, release_bots, release_pool
    from fleet.store.private.two_redis import two_redis

    if bool(names) == (pool is not None):
        raise click.UsageError(f"expected BOT... or --pool POOL, got {'both' if names else 'neither'}")
    settings = config.current()
    if pool is not None:
        _check_pool(pool, settings)
        with two_redis(settings) as clients:
            released = release_pool(clients.state, settings, pool, by=operator_name())
        if as_json:
            _tell_released(dict.fromkeys(released, True))
            return
        said = f"{counted(len(released), 'bot')} {noun_for(len(released), 'takes', 'take')} tasks again"
        say(f"{pool}: {said if released else 'no bot was quarantined'}")
        return
    for name in names:
        pool_of(name, settings)
    with two_redis(settings) as clients:
        were_out = release_bots(clients.state, settings, names, by=operator_name())
    if as_json:
        _tell_released(were_out)
        return
    for name, was_out in were_out.items():
        say(f"{name}: {'takes tasks again' if was_out else 'was not quarantined'}")


def _tell_released(were_out: Mapping[str, bool]) -> None:
    click.echo(json.dumps({"bots": [{"bot": name, "was_quarantined": was_out} for name, was_out in were_out.items()]}))


def _check_pool(pool: str | None, settings: config.Settings) -> None:
    if pool is not None and pool not in settings.pools:
        raise ConfigurationError(f"--pool: expected one of {', '.join(settings.pools)}, got {quote(pool)}")


def _rows(page: BotPage) -> Iterator[dict[str, Any]]:
    columns = page.bots.model_dump()
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _table(page: BotPage) -> Iterator[str]:
    bots = page.bots
    odd = [
        (f"{bots.evidence[row]:.1f}" if bots.evidence[row] else ".", against_it(bots, row))
        for row in range(len(bots.name))
    ]
    has_odd = odd.count((".", "")) < len(odd)
    heads = ("BOT", "STATE", "IN HAND", "LAST HOUR", "DONE", "FAILED", "FAILED CALLS", "MEAN", "COST")
    cells = [(*heads, *(("EVIDENCE", "AGAINST IT") if has_odd else ()))]
    for row, facts in zip(_rows(page), odd, strict=True):
        numbers = (row["load"], row["per_hour"], row["completions"], row["failed"], row["calls_failed"])
        mean = f"{duration(row['mean_ms'] / 1000)}" if row["mean_ms"] else "."
        texts = [f"{number:,}" if number else "." for number in numbers]
        cost = f"${row['cost_usd_micros'] / 1e6:,.4f}"
        cells.append((row["name"], row["state"], *texts, mean, cost, *(facts if has_odd else ())))
    yield from table(cells, left=(0, 1, 10))
    if page.total > len(page.bots.name):
        yield f"and {page.total - len(page.bots.name):,} more: --limit"


def against_it(bots: BotTable, row: int) -> str:
    """Return what speaks against a bot in words: until when it is out, its reason; empty: nothing does."""
    is_out, end = bots.state[row] == "quarantined", bots.until[row]
    until = f"until {'it is released' if end is None else clock(end, time.time())}" if is_out else ""
    return ", ".join(filter(None, (until, bots.reason[row], "answers like others" if bots.alike[row] else "")))


def _story(bot: BotDetail) -> Iterator[str]:
    persona = bot.persona
    failed = f", {bot.failed:,} of them failed" if bot.failed else ""
    yield f"{bot.name}: {bot.state}, pool {bot.pool}, {bot.api}"
    yield f"persona: {persona.archetype}, {_sampling(persona)}, {persona.context_window_tokens:,} tokens"
    yield f"done: {bot.completions:,}{failed}; {bot.per_hour:,} in the last hour; {bot.load:,} in hand"
    yield f"used: {bot.tokens:,} tokens, ${bot.cost_usd_micros / 1e6:,.4f}, {duration(bot.mean_ms / 1000)} a task"
    yield from _health(bot.health)
    for error in bot.errors:
        yield f"error: {error.type} on {error.api}: {counted(error.failures, 'task')}, {counted(error.calls, 'call')}"
    for task in bot.tasks:
        yield f"task: {task.task_id} {task.status} at {stamp(task.at)}, {duration(task.ran_ms / 1000)}"


def _sampling(persona: Persona) -> str:
    told = {"model": persona.model, "effort": persona.effort, "verbosity": persona.verbosity}
    heat = "no temperature" if persona.temperature is None else f"temperature {persona.temperature}"
    return ", ".join([heat, *(f"{name} {value}" for name, value in told.items() if value)])


def _health(health: HealthView) -> Iterator[str]:
    out = health.quarantine
    if out is not None:
        until = "it is released" if out.until is None else stamp(out.until)
        why = f": {out.reason}" if out.reason else ""
        yield f"quarantined: since {stamp(out.since)} until {until}, by {out.by}{why}"
    if health.probation_tasks_left is not None:
        yield f"probation: {health.probation_tasks_left} tasks to do well until it is fully back"
    if health.remedy is not None:
        yield f"remedy: {health.remedy}, because it answers like others (fleet diversity)"
    for test in health.tests:
        yield f"{test.name}: {test.share:.0%} of its last tasks, evidence {test.evidence:.1f} of {test.enough}"
    if health.judged_tasks:
        yield f"judged: {health.judged_tasks:,} tasks; quarantined {health.quarantines:,} times lately"
    for skill in health.skills:
        better = f", specialist: at least {skill.better:.0%} better than its pool" if skill.better is not None else ""
        yield f"skill: {skill.kind}: {skill.good:.0%} good of its last {skill.tasks:,}{better}"
    for one in health.grades:
        what = "right" if one.of == "grades" else "as most others say"
        known = f"{one.right:.0%} {what} ({one.least:.0%} to {one.most:.0%}, of {one.grades:,})"
        yield f"{one.of}: {one.kind}: {known}; {one.usual:.0%} is usual"
