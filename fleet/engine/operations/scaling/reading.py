"""What pools ask for, read out of both Redis servers for `fleet.scaling`. Reads only, O(pools).

Arrivals are not counted anywhere: a minute's are what was finished in it and what its backlog grew by. Both are kept
anyway, so a task pays nothing for it. The backlog is noted once a minute, some seconds early or late.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import redis

from fleet.config import Settings
from fleet.engine.operations.obstacles import PoolStanding, obstacles
from fleet.engine.operations.paces import read_series
from fleet.engine.operations.waits import Apis, Crew, read_apis, read_crew, read_standings
from fleet.scaling import Demand, LimitRoom, PoolDemand
from fleet.signals.series import hours_in, last_minutes, minutes_in
from fleet.signals.windows import HOURS
from fleet.store import keys
from fleet.store.running.brokers import Anywhere, at_each
from fleet.waits import TRIED, Cause, Wait

#: Whole minutes that are looked at, and those over which a task's seconds and calls are taken.
MINUTES, SERVICE_MINUTES = 30, 15
#: Causes for which more workers would do: they keep nobody from wanting some.
WANTING: frozenset[Cause] = frozenset({"worker", "limit", "machine"})


class Read(NamedTuple):
    """What was read.

    Args:
        demand: For the rule.
        crew: Who lives.
    """

    demand: Demand
    crew: Crew


def read_demand(state: redis.Redis, broker: Anywhere, settings: Settings) -> Read:
    """Return what pools ask for. About ten round trips, O(pools)."""
    pools = list(settings.pools)
    crew, apis = read_crew(state), read_apis(state, settings, pools)
    standings = read_standings(state, broker, settings, pools, crew=crew, apis=apis)
    series, backlogs = read_series(state, pools), _backlogs(state)
    due = _due(broker, pools, crew.now_s + settings.scaling.lead_s)
    found = tuple(
        pool_demand(one, series[one.pool], backlogs.get(one.pool, {}), due[one.pool], settings, crew.now_s)
        for one in standings
    )
    limits = tuple(_room(name, apis, crew.now_s, settings.scaling.lead_s) for name in _names(found))
    slots = sum(worker.slots for worker in crew.living)
    return Read(Demand(at=crew.now_s, pools=found, limits=limits, slots=slots), crew)


def pool_demand(
    pool: PoolStanding, series: array[float], backlog: Mapping[int, int], due: int, settings: Settings, now_s: float
) -> PoolDemand:
    """Return what one pool asks for.

    Args:
        pool: How it stands.
        series: Its minutes and hours.
        backlog: What waited in it, by minutes since 1970.
        due: Parked tasks whose time comes before a new worker would work.
        settings: Which limits it has.
        now_s: Unix time.
    """
    stops = [wait for wait in obstacles(pool, now_s) if wait.cause not in WANTING]
    lowest = min((wait.lowest for wait in stops), default=len(pool.backlog.counts))
    ready = sum(pool.backlog.counts[: lowest + 1])
    shut = [wait for wait in stops if wait.lowest < 0]
    lately = last_minutes(series, now_s=now_s, count=SERVICE_MINUTES)
    lately = lately if lately.completions else last_minutes(series, now_s=now_s, count=60)
    done = lately.completions
    return PoolDemand(
        pool=pool.pool,
        minutes=arrivals_in(series, backlog, now_s),
        hours=_hours(series, now_s),
        ready=ready,
        due=due,
        behind=max(0, pool.backlog.total - ready),
        later=max(0, pool.parked.count - due),
        running=pool.running,
        service_s=lately.ran_ms / done / 1000 if done else None,
        calls=max(0.01, lately.calls / done) if done else 1.0,
        limits=_limits_of(pool, settings),
        is_shut=bool(shut),
        opens_at=_opens_at(shut, now_s),
        why=str(shut[0]) if shut else "",
    )


def arrivals_in(series: array[float], backlog: Mapping[int, int], now_s: float) -> tuple[float, ...]:
    """Return the tasks that came in each of the last whole minutes, from the first in which anything did."""
    if not series:
        return ()
    periods, last = minutes_in([series], now_s), int(now_s // 60)
    found = [
        max(0.0, periods[minute].completions + backlog.get(minute + 1, 0) - backlog.get(minute, 0))
        if minute in backlog and minute + 1 in backlog
        else periods[minute].completions
        for minute in range(last - MINUTES, last)
    ]
    first = next((at for at, came in enumerate(found) if came), len(found))
    return tuple(found[first:])


def _hours(series: array[float], now_s: float) -> tuple[float, ...]:
    """Return the completions of each of the whole hours that are kept; none while a day is not full."""
    last = int(now_s // 3600)
    numbers = range(last - HOURS + 1, last)
    found = [hour.completions for hour in hours_in([series], minutes_in([series], now_s), numbers)] if series else []
    first = next((at for at, came in enumerate(found) if came), len(found))
    return tuple(found[first:])


def _opens_at(shut: Sequence[Wait], now_s: float) -> float | None:
    """Return when a gate opens for sure; None: nobody knows, as where one task is tried then."""
    times = [None if wait.cause in TRIED or wait.probe_every_s else wait.opens_at for wait in shut]
    known = [at for at in times if at is not None]
    return max(known) if known and len(known) == len(times) else None


def _limits_of(pool: PoolStanding, settings: Settings) -> tuple[str, ...]:
    """Return the limits that feed a pool: those of the rung of its ladder under which its next call goes."""
    rungs = [tuple(settings.limit_names(*call, pool.pool)) for call in settings.calls_of(pool.pool)]
    now = pool.limit.limit if pool.limit is not None else ""
    return next((names for names in rungs if now in names), rungs[0])


def _names(pools: Iterable[PoolDemand]) -> Iterable[str]:
    return dict.fromkeys(name for pool in pools for name in pool.limits)


def _room(name: str, apis: Apis, now_s: float, lead_s: float) -> LimitRoom:
    found = apis.limits.get(name)
    if found is None:
        return LimitRoom(limit=name)
    waits = apis.wait_of(name, now_s)
    rates = [
        rate for rate in (found.rate, None if found.paced_rpm is None else found.paced_rpm / 60) if rate is not None
    ]
    is_held = waits is not None and waits.opens_at is not None and waits.opens_at > now_s + lead_s
    per_s = 0.0 if is_held else min(rates, default=None)
    return LimitRoom(limit=name, per_s=per_s, in_flight=found.most_in_flight)


@at_each(lambda parts: dict(sum(map(Counter, parts), Counter[str]())))
def _due(broker: redis.Redis, pools: Iterable[str], until_s: float) -> dict[str, int]:
    names = list(pools)
    with broker.pipeline(transaction=False) as pipe:
        for pool in names:
            pipe.zcount(keys.parked_order(keys.queue(pool)), "-inf", until_s)
        return dict(zip(names, pipe.execute(), strict=True))


def _backlogs(state: redis.Redis) -> dict[str, dict[int, int]]:
    """Return what waited in each pool, by minutes since 1970; a minute in which nothing did counts as 0."""
    rows: dict[bytes, bytes] = state.hgetall(keys.backlogs())  # type: ignore[assignment]
    noted = {int(minute): json.loads(row) for minute, row in rows.items() if row}
    pools = {pool for row in noted.values() for pool in row}
    return {pool: {minute: int(row.get(pool, 0)) for minute, row in noted.items()} for pool in pools}
