"""`fleet pools`: what waits in each pool and who may take it; pause and resume. redis is imported on use only."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.cli.operator import operator_name
from fleet.cli.terminal import say, table
from fleet.errors import ConfigurationError
from fleet.quoting import counted, duration, noun_for, quote

if TYPE_CHECKING:
    from fleet.engine.admission.gates import Gate
    from fleet.signals.ahead.outlook import Drain
    from fleet.signals.rungs import LadderView
    from fleet.signals.view import WaitLine
    from fleet.store.private.two_redis import TwoRedis

#: Priorities from the most urgent one; their place is their number.
PRIORITIES = ("critical", "high", "normal", "low", "bulk")
#: Seconds in the units that a duration may have.
UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
#: Longest pause with an end, in seconds (30 days).
LONGEST_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One pool, or the inbox, just now."""

    pool: str
    bots: int
    in_flight: int
    backlog: dict[str, int]
    parked: int
    next_opens_s: float | None
    oldest_s: float | None
    gate: str
    lowest_taken: str | None
    gate_left_s: float | None
    ladder: LadderView | None = None
    drain: Drain | None = None
    waits: tuple[WaitLine, ...] = ()


def seconds_of(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read a length of time: 90, 90s, 10m, 2h, 1d."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
    seconds = float(match[1]) * UNITS_S[match[2] or "s"] if match else 0.0
    if not 0 < seconds <= LONGEST_S:
        raise click.BadParameter(f"expected a time like 90s, 10m, 2h or 1d, at most 30d, got {quote(value)}")
    return seconds


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def pools(ctx: click.Context, as_json: bool) -> None:
    """Show the pools' backlogs and gates; pause and resume them.

    Below the table: what tasks wait for, until when, and what to do about it; and which fallback serves a pool.

    \b
    Examples:
      fleet pools
      fleet pools show research
      fleet pools pause research --for 10m
      fleet pools pause research writing --below high
      fleet pools resume research writing
    """
    if ctx.invoked_subcommand is None:
        _list((), as_json=as_json)


@pools.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def list_pools(as_json: bool) -> None:
    """List the pools: the same as `fleet pools` alone.

    \b
    Examples:
      fleet pools list --json | jq '.pools[].waits'
    """
    _list((), as_json=as_json)


@pools.command()
@click.argument("names", metavar="POOL...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(names: tuple[str, ...], as_json: bool) -> None:
    """Show these pools only.

    \b
    Examples:
      fleet pools show research
    """
    _check(names, config.current())
    _list(names, as_json=as_json)


def _list(names: Sequence[str], *, as_json: bool) -> None:
    from fleet.store.private.two_redis import two_redis

    settings = config.current()
    with two_redis(settings) as clients:
        rows = [row for row in read_pools(clients, settings) if not names or row.pool in names]
    if as_json:
        click.echo(json.dumps({"pools": [_as_json(row) for row in rows]}, indent=2))
        return
    for line in _table(rows, time.time()):
        click.echo(line)


@pools.command()
@click.argument("names", metavar="POOL...", nargs=-1, required=True)
@click.option("--below", type=click.Choice(PRIORITIES[:-1]), help="Pause only what is less urgent than this.")
@click.option("--for", "for_s", callback=seconds_of, metavar="TIME", help="Resume after, e.g., 90s, 10m, 2h.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def pause(names: tuple[str, ...], below: str | None, for_s: float | None, as_json: bool) -> None:
    """Stop workers from taking tasks of pools, all of them or none. What runs goes on; what waits keeps its order.

    \b
    Examples:
      fleet pools pause research
      fleet pools pause research --below high --for 10m
    """
    from fleet.engine.admission.gates import CLOSED
    from fleet.engine.operations.levers import pause_pools
    from fleet.store.private.two_redis import two_redis

    settings, chosen = config.current(), list(dict.fromkeys(names))
    _check(chosen, settings)
    lowest = CLOSED if below is None else PRIORITIES.index(below)
    with two_redis(settings) as clients:
        gate = pause_pools(clients.state, clients.broker, chosen, lowest=lowest, for_s=for_s, by=operator_name())
    if as_json:
        told = {"gate": str(gate), "lowest": gate.lowest, "left_s": gate.left_s}
        click.echo(json.dumps({"pools": [{"pool": name, **told} for name in chosen]}))
        return
    for name in chosen:
        say(f"{name}: {gate}")


@pools.command()
@click.argument("names", metavar="POOL...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def resume(names: tuple[str, ...], as_json: bool) -> None:
    """Let workers take all tasks of pools again, at once: of all of them or none.

    \b
    Examples:
      fleet pools resume research
    """
    from fleet.engine.operations.levers import resume_pools
    from fleet.store.private.two_redis import two_redis

    settings, chosen = config.current(), list(dict.fromkeys(names))
    _check(chosen, settings)
    with two_redis(settings) as clients:
        opened = resume_pools(clients.state, clients.broker, chosen, by=operator_name())
    if as_json:
        click.echo(json.dumps({"pools": [{"pool": name, "was_paused": name in opened} for name in chosen]}))
        return
    for name in chosen:
        say(f"{name}: open" if name in opened else f"{name}: was open")


def read_pools(clients: TwoRedis, settings: config.Settings) -> list[PoolRow]:
    """Return one row per pool, the inbox last. Some round trips, whatever the number of pools."""
    from fleet.engine.operations.ladders import read_ladders
    from fleet.engine.operations.obstacles import drain_of_pool
    from fleet.engine.operations.paces import finished_a_second, read_series
    from fleet.engine.operations.waits import lines_in_order, look, look_at_inbox

    seen = look(clients.state, clients.broker, settings)
    ladders = read_ladders(clients.state, settings, settings.pools, seen.now_s)
    inbox = look_at_inbox(clients.broker, settings, seen)
    bots = [*(pool.bots for pool in settings.pools.values()), 0]
    labels = [*settings.pools, f"({settings.worker.inbox})"]
    series = read_series(clients.state, settings.pools)
    rates = [*(finished_a_second(one, seen.now_s) for one in series.values()), 0.0]
    waits = [lines_in_order([pool], seen.now_s) for pool in (*seen.standings, inbox)]
    return [
        PoolRow(
            pool=label,
            bots=bots_of,
            in_flight=pool.running,
            backlog=dict(zip(PRIORITIES, pool.backlog.counts, strict=True)),
            parked=pool.parked.count,
            next_opens_s=None if pool.parked.next_at is None else max(0.0, pool.parked.next_at - seen.now_s),
            oldest_s=None if pool.backlog.oldest_at is None else max(0.0, seen.now_s - pool.backlog.oldest_at),
            gate=str(pool.gate),
            lowest_taken=_lowest(pool.gate),
            gate_left_s=pool.gate.left_s,
            ladder=ladders.get(label),
            drain=drain_of_pool(pool, lines, rate, seen.now_s),
            waits=lines,
        )
        for label, bots_of, pool, rate, lines in zip(labels, bots, (*seen.standings, inbox), rates, waits, strict=True)
    ]


def _as_json(row: PoolRow) -> dict[str, object]:
    ladder = None if row.ladder is None else row.ladder.model_dump()
    drain = None if row.drain is None else row.drain.model_dump()
    return asdict(row) | {"ladder": ladder, "drain": drain, "waits": [line.model_dump() for line in row.waits]}


def _lowest(gate: Gate) -> str | None:
    if gate.is_open:
        return PRIORITIES[-1]
    return PRIORITIES[gate.lowest] if gate.lowest >= 0 else None


def _check(names: Sequence[str], settings: config.Settings) -> None:
    for name in names:
        if name not in settings.pools:
            raise ConfigurationError(f"pool: expected one of {', '.join(settings.pools)}, got {quote(name)}")


def _table(rows: Sequence[PoolRow], now_s: float) -> Iterator[str]:
    from fleet.engine.operations.ladders import told_ladder

    has_ladders = any(row.ladder for row in rows)
    heads = ("POOL", "BOTS", "RUNNING", "WAITING", *(name.upper() for name in PRIORITIES), "PARKED", "OLDEST", "DRAINS")
    last = ("SERVED BY", "GATE") if has_ladders else ("GATE",)
    cells = [(*heads, *last), *(_cells(row, now_s, has_ladders=has_ladders) for row in rows)]
    yield from table(cells, left=(0, *range(len(heads), len(cells[0]))))
    told = [f"{row.pool}: {line}" for row in rows for line in _told_waits(row, now_s)]
    told += [f"{row.pool}: {line}" for row in rows if row.ladder and (line := told_ladder(row.ladder, now_s))]
    yield from ("", *told) if told else ()


def _cells(row: PoolRow, now_s: float, *, has_ladders: bool) -> tuple[str, ...]:
    from fleet.engine.operations.ladders import told_rung

    counts = [f"{count:,}" if count else "." for count in (*row.backlog.values(), row.parked)]
    oldest = "" if row.oldest_s is None else duration(row.oldest_s)
    served_by = [told_rung(row.ladder, now_s) if row.ladder else ""] if has_ladders else []
    bots, waiting = f"{row.bots:,}" if row.bots else "", f"{sum(row.backlog.values()):,}"
    drains = row.drain.short if row.drain else ""
    return (row.pool, bots, f"{row.in_flight:,}", waiting, *counts, oldest, drains, *served_by, _gate_of(row))


def _gate_of(row: PoolRow) -> str:
    """Return what holds a pool's tasks back: the operator's gate, else the cause of most of its waits."""
    return row.waits[0].short if row.lowest_taken == PRIORITIES[-1] and row.waits else told_gate(row.gate)


def told_gate(gate: str) -> str:
    """Return an operator's gate as people are told of it, here as on the page: a pool is paused, not closed."""
    return gate.replace("closed", "paused", 1)


def _told_waits(row: PoolRow, now_s: float) -> Iterator[str]:
    from fleet.engine.operations.obstacles import told_line

    for line in row.waits:
        tasks, where = (line.tasks, "") if line.tasks else (line.in_slots, " in hand")
        behind = f"{counted(tasks, 'task')}{where} {noun_for(tasks, 'waits', 'wait')}: " if tasks else ""
        yield f"{behind}{told_line(line, now_s, with_advice=True)}"
