"""Why tasks wait, pool by pool: read once, told alike by `fleet why`, `run`, `pools`, `top`, the page, ...

Reads only. O(pools), whatever the number of tasks: of those that are parked a sample is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import redis

from fleet import config
from fleet.config import Settings
from fleet.engine.admission.gates import read_gates, read_waiting
from fleet.engine.operations.obstacles import ParkedSample, PoolStanding, lines_of
from fleet.limiter import LimitSnapshot
from fleet.limiter.scripts import SHOW
from fleet.limiter.snapshot import show_call, snapshot_of, standing_of
from fleet.resilience import BreakerView
from fleet.resilience.scripts import SHOW as SHOW_BREAKER
from fleet.resilience.view import view_of
from fleet.signals.crew import serving, unserved_queue_line, why_shut
from fleet.signals.recorder import WorkerReport, split_reports
from fleet.signals.view import WaitLine
from fleet.store import keys
from fleet.store.client import Script, run_script_each
from fleet.waits import CAUSES, Wait

SAMPLE = Script.beside(__file__, "sample_parked.lua", keys="parked orders*", argv="samples")

#: Parked tasks looked at in one reading, over all queues, and beside one queue at least and at most (count).
SAMPLES, FEWEST_SAMPLES, MOST_SAMPLES = 1000, 1, 50
#: Queues whose parked tasks are looked at in one step (count): about a millisecond of Redis.
QUEUES_A_STEP = 50
_NO_LIMITS: Mapping[str, LimitSnapshot] = {}
_NO_BREAKERS: Mapping[str, BreakerView] = {}


@dataclass(frozen=True, slots=True)
class Crew:
    """The living workers, at a time by the clock of Redis."""

    now_s: float
    living: Sequence[WorkerReport]


def read_crew(state: redis.Redis) -> Crew:
    """Return the workers that have reported lately. One round trip."""
    with state.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(keys.workers())
        (seconds, micros), rows = pipe.execute()
    living, _ = split_reports(cast("dict[bytes, bytes]", rows), now_s=seconds)
    return Crew(seconds + micros / 1e6, living)


def read_limits(state: redis.Redis, settings: Settings, pools: Iterable[str]) -> dict[str, LimitSnapshot]:
    """Return how the limit of each pool stands. One round trip."""
    rates, names = {}, {}
    for pool in pools:
        api, rates_of = settings.limit_of(pool)
        names[pool] = f"{api}/{config.KEY_LABEL}"
        rates[names[pool]] = rates_of
    replies = run_script_each(state, SHOW, [show_call(name) for name in rates])
    found = {
        name: snapshot_of(name, standing_of(reply), rates[name]) for name, reply in zip(rates, replies, strict=True)
    }
    return {pool: found[name] for pool, name in names.items()}


def read_breakers_of(state: redis.Redis, limits: Iterable[str]) -> dict[str, BreakerView]:
    """Return how the breakers of limits stand, by their names. One round trip."""
    names = list(dict.fromkeys(limits))
    replies = run_script_each(state, SHOW_BREAKER, [SHOW_BREAKER.call(breaker=keys.breaker(name)) for name in names])
    return {name: view_of(name, reply) for name, reply in zip(names, replies, strict=True)}


def read_standings(
    state: redis.Redis,
    broker: redis.Redis,
    settings: Settings,
    pools: Sequence[str],
    *,
    crew: Crew,
    limits: Mapping[str, LimitSnapshot] = _NO_LIMITS,
    breakers: Mapping[str, BreakerView] = _NO_BREAKERS,
) -> list[PoolStanding]:
    """Return how pools stand. Four round trips, O(pools).

    Args:
        state: Plain client of the state Redis.
        broker: Plain client of the broker.
        settings: Pools and their bots.
        pools: Their names.
        crew: Who lives.
        limits: How the limits of pools stand, as far as that is to be told.
        breakers: How the breakers of those limits stand, by their names.
    """
    queues = [keys.queue(pool) for pool in pools]
    gates, backlogs = read_gates(broker, queues), read_waiting(broker, queues)
    parked = read_parked_sample(broker, queues)
    bots = _read_bots(state, settings, pools, crew.now_s)
    return [
        PoolStanding(
            pool=pool, gate=gate, backlog=backlog, parked=sample, workers=(workers := serving(crew.living, queue)),
            shut=None if workers else why_shut(crew.living, pool), running=running, bots_out=is_out,
            bots_back_at=back_at, limit=limits.get(pool),
            breaker=breakers[limits[pool].limit].wait if pool in limits and limits[pool].limit in breakers else None,
        )
        for pool, queue, gate, backlog, sample, (running, is_out, back_at) in zip(
            pools, queues, gates, backlogs, parked, bots, strict=True
        )
    ]  # fmt: skip


def lines_in_order(standings: Iterable[PoolStanding], now_s: float) -> tuple[WaitLine, ...]:
    """Return the reasons of all pools, those with the most tasks first."""
    lines = [line for standing in standings for line in lines_of(standing, now_s)]
    return tuple(sorted(lines, key=lambda line: (-line.tasks, line.pool, line.cause)))


@dataclass(frozen=True, slots=True)
class Standings:
    """Pools at one time, by the clock of Redis, and why their tasks wait, the most tasks first."""

    crew: Crew
    standings: tuple[PoolStanding, ...]
    lines: tuple[WaitLine, ...]

    @property
    def now_s(self) -> float:
        """Unix time by the clock of Redis."""
        return self.crew.now_s


def look(state: redis.Redis, broker: redis.Redis, settings: Settings, pools: Iterable[str] | None = None) -> Standings:
    """Return how pools (None: all) stand, and why their tasks wait. Some round trips, O(pools)."""
    names = list(settings.pools) if pools is None else [pool for pool in pools if pool in settings.pools]
    crew, limits = read_crew(state), read_limits(state, settings, names)
    breakers = read_breakers_of(state, (limit.limit for limit in limits.values()))
    standings = read_standings(state, broker, settings, names, crew=crew, limits=limits, breakers=breakers)
    return Standings(crew, tuple(standings), lines_in_order(standings, crew.now_s))


def look_at_inbox(broker: redis.Redis, settings: Settings, seen: Standings) -> PoolStanding:
    """Return how the inbox stands, which has no bots and no limit."""
    return standing_of_queue(broker, settings.worker.inbox, seen.crew)


def standing_of_queue(broker: redis.Redis, queue: str, crew: Crew, *, unserved: str = "") -> PoolStanding:
    """Return how a queue stands that is no pool's: the inbox, or one that nobody takes from.

    Args:
        broker: Plain client of the broker.
        queue: Its name.
        crew: Who lives.
        unserved: What to say when none of them takes from it.
    """
    return PoolStanding(
        pool=queue,
        gate=read_gates(broker, [queue])[0],
        backlog=read_waiting(broker, [queue])[0],
        parked=read_parked_sample(broker, [queue])[0],
        workers=serving(crew.living, queue),
        unserved=unserved or unserved_queue_line(queue),
    )


def read_parked_sample(broker: redis.Redis, queues: Sequence[str]) -> list[ParkedSample]:
    """Return what is parked beside queues. One round trip, O(queues), in steps that hold Redis up for a moment only."""
    if not queues:
        return []
    samples = min(MOST_SAMPLES, max(FEWEST_SAMPLES, SAMPLES // len(queues)))
    parked, orders = keys.parked(), [keys.parked_order(queue) for queue in queues]
    steps = [orders[start : start + QUEUES_A_STEP] for start in range(0, len(orders), QUEUES_A_STEP)]
    replies = run_script_each(
        broker, SAMPLE, [SAMPLE.call(parked=parked, orders=step, samples=samples) for step in steps]
    )
    return [_sample(*row) for rows in replies for row in rows]


def _sample(count: int, first: bytes, *reasons: bytes) -> ParkedSample:
    waits = tuple(wait for reason in reasons if (wait := wait_in(reason)) is not None)
    return ParkedSample(int(count), float(first) if first else None, waits)


def wait_in(text: bytes | str) -> Wait | None:
    """Return what a hold or a reason says; None: it is of a release that knows other causes."""
    word = text if isinstance(text, str) else text.decode(errors="replace")
    if word in CAUSES:
        return Wait(word, is_everyones=False)
    try:
        return Wait.from_json(text)
    except (ValueError, TypeError):
        return None


def _read_bots(
    state: redis.Redis, settings: Settings, pools: Sequence[str], now_s: float
) -> list[tuple[int, bool, float | None]]:
    """Return for each pool the bots at work, whether all are quarantined, and when the first of those comes back."""
    now_us = round(now_s * 1e6)
    with state.pipeline(transaction=False) as pipe:
        for pool in pools:
            pipe.zcount(keys.bot_leases(pool), now_us, "+inf")
            pipe.zcount(keys.quarantined(pool), now_us, "+inf")
            pipe.zrangebyscore(keys.quarantined(pool), now_us, "+inf", start=0, num=1, withscores=True)
        replies = pipe.execute()
    found = []
    for pool, running, out, first in zip(pools, replies[::3], replies[1::3], replies[2::3], strict=True):
        is_out = pool in settings.pools and out >= settings.pools[pool].bots
        end_us = first[0][1] if first else float("inf")
        found.append((int(running), is_out, None if not is_out or end_us == float("inf") else end_us / 1e6))
    return found
