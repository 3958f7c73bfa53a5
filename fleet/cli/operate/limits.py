"""`fleet limits`, `fleet limits set`: how a limit stands, and how it is changed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.cli.finite import FiniteRange
from fleet.cli.operate import breakers, lessons
from fleet.cli.terminal import fitted
from fleet.errors import ConfigurationError
from fleet.quoting import counted, duration, stamp
from fleet.waits import UNUSUAL

if TYPE_CHECKING:
    from fleet.lessons import Lesson
    from fleet.limiter import LimitSnapshot


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def limits(ctx: click.Context, as_json: bool) -> None:
    """Show each limit live: used, waiting, next grant, rate, last 429, what its model refuses; change one.

    \b
    Examples:
      fleet limits
      fleet limits show openai/gpt-5
      fleet limits --json | jq '.limits[].waiting'
      fleet limits set openai/gpt-5 --rpm 800
      fleet limits forget openai/gpt-5 temperature
      fleet limits reset-breaker openai/gpt-5
    """
    if ctx.invoked_subcommand is None:
        _list(None, as_json=as_json)


@limits.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def list_limits(as_json: bool) -> None:
    """List the limits: the same as `fleet limits` alone.

    \b
    Examples:
      fleet limits list --json | jq '.limits[].used_rpm'
    """
    _list(None, as_json=as_json)


@limits.command(name="show")
@click.argument("limit", metavar="PROVIDER/MODEL[/KEY]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show_limit(limit: str, as_json: bool) -> None:
    """Show one limit only.

    \b
    Examples:
      fleet limits show openai/gpt-5
    """
    _list(breakers.full_name(limit, config.current()), as_json=as_json)


def _list(name: str | None, *, as_json: bool) -> None:
    read = asyncio.run(read_limits(config.current()))
    snapshots = [snapshot for snapshot in read if name in (None, snapshot.limit)]
    snapshots, budgets = _with_more(snapshots, config.current())
    taught = lessons.read_by_api(config.current())
    if as_json:
        told = [
            asdict(snapshot) | {"budgets": budgets[snapshot.limit], "lessons": lessons.told(_taught(snapshot, taught))}
            for snapshot in snapshots
        ]
        click.echo(json.dumps({"limits": told}, indent=2))
        return
    for snapshot in snapshots:
        click.echo(
            "\n".join(fitted([*_lines(snapshot, budgets[snapshot.limit]), *lessons.lines(_taught(snapshot, taught))]))
        )


limits.add_command(lessons.forget)
limits.add_command(breakers.reset_breaker)


@limits.command(name="set")
@click.argument("limit", metavar="PROVIDER/MODEL[/KEY]")
@click.option("--rpm", type=click.IntRange(0), help="Requests per minute; 0: not limited.")
@click.option("--tpm", type=click.IntRange(0), help="Tokens per minute; 0: not limited.")
@click.option("--input-tpm", type=click.IntRange(0), help="Input tokens per minute; 0: not limited.")
@click.option("--output-tpm", type=click.IntRange(0), help="Output tokens per minute; 0: not limited.")
@click.option("--in-flight", type=click.IntRange(0), help="Calls at the same time; 0: not limited.")
@click.option("--requests-per-day", type=click.IntRange(0), help="Requests per day; 0: not limited.")
@click.option("--usd-per-day", type=FiniteRange(0), help="US dollars per day; 0: not limited.")
@click.option(
    "--reset", "is_reset", is_flag=True, help="Go back to fleet.toml, and begin anew but for what was used today."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def set_limit(limit: str, is_reset: bool, as_json: bool, **numbers: float | None) -> None:
    """Change a limit on all workers at once, until it is reset or unused for 30 days.

    \b
    Examples:
      fleet limits set openai/gpt-5 --rpm 800
      fleet limits set openai/gpt-5 --reset
    """
    from fleet.cli.operator import operator_name
    from fleet.engine.operations.levers import let_go
    from fleet.limiter import live
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import two_redis

    changes = {name: value for name, value in numbers.items() if value is not None}
    if bool(changes) == is_reset:
        raise click.UsageError("expected at least one number to set, or --reset alone")
    settings = config.current()
    name = breakers.full_name(limit, settings)
    configured = settings.limits_by_key[name]
    if changes.get("usd_per_day"):
        _check_price(name, settings)
    with two_redis(settings) as both:
        if is_reset:
            live.reset(both.state, name, configured=configured)
            record_deed(both.state, catalogue.LIMIT_RESET, operator_name(), limit=name)
            let_go(both.broker, settings, [name], ("limit", "hold", "requests", "money"))
            told = {"limit": name, "is_reset": True}
            click.echo(json.dumps(told) if as_json else f"{name}: as configured; what was used today stays counted")
            return
        held = live.change(both.state, name, changes, configured=configured)
        record_deed(both.state, catalogue.LIMIT_CHANGED, operator_name(), limit=name, **changes)
        let_go(both.broker, settings, [name], ("limit", "requests", "money"))
    if as_json:
        click.echo(json.dumps({"limit": name, "is_reset": False, "set": held}))
        return
    click.echo(f"{name}: {', '.join(f'{key} {_number(key, value)}' for key, value in held.items())}")


@limits.command(name="release")
@click.argument("limit", metavar="PROVIDER/MODEL[/KEY]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def release_limit(limit: str, as_json: bool) -> None:
    """End the hold after a 429, whatever time it named; calls go at the paced rate, and what was learnt stays.

    \b
    Examples:
      fleet limits release openai/gpt-5
    """
    from fleet.cli.operator import operator_name
    from fleet.engine.operations.levers import let_go
    from fleet.limiter import live
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import two_redis

    settings = config.current()
    name = breakers.full_name(limit, settings)
    with two_redis(settings) as both:
        live.release(both.state, name, configured=settings.limits_by_key[name])
        record_deed(both.state, catalogue.LIMIT_RELEASED, operator_name(), limit=name)
        let_go(both.broker, settings, [name], ("hold",))
    click.echo(json.dumps({"limit": name, "is_held": False}) if as_json else f"{name}: not held any more")


def _number(name: str, value: float) -> str:
    if name == "usd_per_day":
        return _usd(value) if value else "0 (not limited)"
    return f"{value:,.0f}" if value else "0 (not limited)"


def _lines(snapshot: LimitSnapshot, budgets: Sequence[str]) -> Iterator[str]:
    low = f" (held low, for {UNUSUAL}: {snapshot.resumed_by})" if snapshot.resumed_by else ""
    mark = " (set live)" if snapshot.is_changed else " (learnt)" if snapshot.is_learnt else ""
    yield f"{snapshot.limit}{low or mark}"
    for name, was in snapshot.lowered.items():
        yield f"  {name:<8}  {was:,} is more than the provider allows: the provider's number holds"
    for label, used, rate, others in (
        ("requests", snapshot.used_rpm, snapshot.rpm, snapshot.others_rpm),
        ("tokens", snapshot.used_tpm, snapshot.tpm, snapshot.others_tpm),
    ):
        foreign = f", and {others:,.0f} by others on the same key" if others else ""
        yield f"  {label:<8}  {used:,.0f} of {_amount(rate)} in the last minute{foreign}"
    allowed = "not limited" if snapshot.rate is None else f"{snapshot.rate:,.1f} allowed at their mean size"
    yield f"  rate      {snapshot.used_rpm / 60:,.1f} calls a second in the last minute, {allowed}"
    yield from _day_lines(snapshot, budgets)
    yield from _long_lines(snapshot)
    waiting = counted(snapshot.waiting, "call")
    allowed_now = snapshot.most_in_flight
    word = "of" if allowed_now is None or snapshot.in_flight <= allowed_now else "(begun before), from now on at most"
    most = "" if allowed_now is None else f" {word} {allowed_now:,}"
    learnt = " (learnt: the provider refused more at once)" if snapshot.in_flight_is_learnt else ""
    next_slot = f"next slot in {duration(snapshot.queue_s)}"
    yield f"  waiting   {waiting}, {next_slot}, in flight {snapshot.in_flight}{most}{learnt}"
    last = stamp(snapshot.refused_at) if snapshot.refused_at else "never"
    by = f" ({snapshot.held_by})" if snapshot.held_by else ""
    held = f", held until {stamp(snapshot.held_until)}{by}" if snapshot.held_until else ""
    yield f"  429s      {snapshot.refused}, last {last}{held}"


def _day_lines(snapshot: LimitSnapshot, budgets: Sequence[str]) -> Iterator[str]:
    """Yield what of the day is used and allowed, and when that ends."""
    yield from (f"  day       {budget}" for budget in budgets)
    if snapshot.usd_micros_per_day is not None and snapshot.reserved_usd_micros:
        yield f"  reserved  {_usd(snapshot.reserved_usd_micros / 1e6)} of that for calls in flight"


def _with_more(
    snapshots: Sequence[LimitSnapshot], settings: config.Settings
) -> tuple[list[LimitSnapshot], dict[str, tuple[str, ...]]]:
    """Return limits, also whether unusual use holds them low, and the budgets of the day of each in words."""
    from fleet.engine.operations.paces import read_limit_budgets
    from fleet.engine.operations.waits import with_alarms
    from fleet.store.private.two_redis import state_client

    with state_client(settings) as state:
        budgets = {one.limit: one.lines for one in read_limit_budgets(state, settings, snapshots, time.time())}
        return with_alarms(state, snapshots), budgets


def _usd(dollars: float) -> str:
    return f"${dollars:,.2f}" if dollars >= 100 else f"${dollars:,.4f}"


def _long_lines(snapshot: LimitSnapshot) -> Iterator[str]:
    """Yield what the provider told of limits of more than a minute, and whether they bind."""
    for long in snapshot.long:
        told = f"{long.limit:,} {long.label}"
        full = f", all there again at {stamp(long.full_at)}" if long.full_at else ""
        yield f"  provider  {told if long.used is None else f'{long.used:,} of {told} used'}{full}"
    if snapshot.paced_rpm is not None:
        yield f"  pace      {snapshot.paced_rpm:,.1f} calls a minute, for little of that is left"


def _taught(snapshot: LimitSnapshot, taught: Mapping[str, list[Lesson]]) -> list[Lesson]:
    return taught.get(snapshot.limit.rpartition("/")[0], [])


def _amount(number: int | None) -> str:
    return "unlimited" if number is None else f"{number:,}"


async def read_limits(settings: config.Settings) -> list[LimitSnapshot]:
    """Return every limit that a pool uses, as it stands now."""
    from fleet.limiter import Limiter
    from fleet.store.client import Store
    from fleet.store.private.embedded import state_url

    names = settings.limits_by_key
    store = Store(state_url(settings), timeout_s=settings.redis.socket_timeout_s)
    try:
        limiter = Limiter(store, names)
        return [await limiter.snapshot(name) for name in names]
    finally:
        await store.close()


def _check_price(limit: str, settings: config.Settings) -> None:
    try:
        settings.check_price(api := limit.rpartition("/")[0], f'limits."{api}".usd_per_day')
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
