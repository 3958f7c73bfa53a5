"""Why tasks wait, pool by pool: read once, told alike by `fleet why`, `run`, `pools`, `top`, the page, ...

Reads only. O(pools), whatever the number of tasks: of those that are parked a sample is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

import redis

from fleet import config
from fleet.config import LimitSettings, Settings, tool_of
from fleet.economy.lanes.board import NO_BATCHES, LaneBoard
from fleet.engine.admission.gates import read_gates, read_waiting
from fleet.engine.operations.ladders import next_limit
from fleet.engine.operations.obstacles import ParkedSample, PoolStanding, lines_of, waits_of_limit
from fleet.engine.operations.paces import LimitBudgets
from fleet.limiter import LimitSnapshot
from fleet.limiter.scripts import SHOW
from fleet.limiter.snapshot import show_call, snapshot_of, standing_of
from fleet.resilience import BreakerView
from fleet.resilience.scripts import SHOW as SHOW_BREAKER
from fleet.resilience.view import view_of
from fleet.roster import PoolBots, read_bots
from fleet.signals.ahead.brokers_view import BrokerView
from fleet.signals.ahead.scaling_view import ScalingView
from fleet.signals.crew import takers, unserved_queue_line, why_shut
from fleet.signals.recorder import WorkerReport, speaking_of, split_reports
from fleet.signals.tenants.view import TenantsView
from fleet.signals.unusual.alarms import read_alarms
from fleet.signals.view import WaitLine
from fleet.store import keys
from fleet.store.client import Script, run_script_each
from fleet.store.running.brokers import Anywhere, at_each
from fleet.waits import CAUSES, Wait

SAMPLE = Script.beside(__file__, "sample_parked.lua", keys="parked orders*", argv="samples")

#: Parked tasks looked at in one reading, over all queues, and beside one queue at least and at most (count).
SAMPLES, FEWEST_SAMPLES, MOST_SAMPLES = 1000, 1, 50
#: Queues whose parked tasks are looked at in one step (count): about a millisecond of Redis.
QUEUES_A_STEP = 50

#: What is said of an API that may have fallen silent: see `workers/silence/restraint.py`.
DOUBTED = "it may answer nothing: none of the calls under way had an answer in time, so new ones wait for a first one"


class _Way(TypedDict):
    limit: LimitSnapshot | None
    breaker: Wait | None


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
        now, rows = pipe.execute()
    return crew_of(now, rows)


def crew_of(now: tuple[int, int], rows: dict[bytes, bytes]) -> Crew:
    """Return the workers that have reported lately, by what TIME and the hash of their reports say."""
    seconds, micros = now
    living, _ = split_reports(rows, now_s=seconds)
    now_s = seconds + micros / 1e6
    return Crew(now_s, speaking_of(living, now_s=now_s))


@dataclass(frozen=True, slots=True)
class Apis:
    """How limits stand, and their breakers, both by `provider/model/key`."""

    limits: Mapping[str, LimitSnapshot]
    breakers: Mapping[str, BreakerView]

    def wait_of(self, limit: str, now_s: float) -> Wait | None:
        """Return why all calls under a limit wait; None: they go, or nobody has looked."""
        breaker, snapshot = self.breakers.get(limit), self.limits.get(limit)
        if breaker is not None and breaker.wait is not None:
            return breaker.wait
        waits = waits_of_limit(snapshot, now_s) if snapshot is not None else ()
        return next((wait for wait in waits if wait.lowest < 0), None)


#: Nobody has looked.
NO_APIS = Apis({}, {})


def read_limit(state: redis.Redis, settings: Settings, pool: str) -> LimitSnapshot:
    """Return how the limit of a pool's own calls stands: of several keys', the one under which a call goes soonest.

    One round trip.
    """
    names = settings.limit_names(*settings.calls_of(pool)[0], pool)
    known = settings.limits_by_key
    found = _read_limits(state, {name: known[name] for name in names})
    return min(found.values(), key=lambda one: (one.held_until or 0.0, one.queue_s))


def read_apis(state: redis.Redis, settings: Settings, pools: Iterable[str]) -> Apis:
    """Return how all stands that pools may call, ladders and tools included. Two round trips, O(limits)."""
    calls = dict.fromkeys(call for pool in pools for call in settings.calls_of(pool))
    names = [name for call in calls for name in settings.limit_names(*call)]
    names += [f"{config.TOOLS}/{name}/{config.KEY_LABEL}" for name in settings.tools]
    known = settings.limits_by_key
    rates = {name: known[name] for name in names}
    return Apis(_read_limits(state, rates), _read_breakers(state, rates))


def _read_limits(state: redis.Redis, rates: Mapping[str, LimitSettings]) -> dict[str, LimitSnapshot]:
    replies = run_script_each(state, SHOW, [show_call(name) for name in rates])
    found = [snapshot_of(name, standing_of(reply), rates[name]) for name, reply in zip(rates, replies, strict=True)]
    return {one.limit: one for one in with_alarms(state, found)}


def with_alarms(state: redis.Redis, limits: Iterable[LimitSnapshot]) -> list[LimitSnapshot]:
    """Return limits with what ends it, where they are held low for unusual use of their key. One round trip."""
    held = {limit: alarm.command for alarm in read_alarms(state) for limit in alarm.held}
    return [replace(one, resumed_by=held.get(one.limit, "")) for one in limits]


def _read_breakers(state: redis.Redis, names: Collection[str]) -> dict[str, BreakerView]:
    replies = run_script_each(state, SHOW_BREAKER, [SHOW_BREAKER.call(breaker=keys.breaker(name)) for name in names])
    return {name: view_of(name, reply) for name, reply in zip(names, replies, strict=True)}


def _together(parts: Sequence[list[ParkedSample]]) -> list[ParkedSample]:
    """Put together what is parked beside the same queues at several brokers."""
    return [
        ParkedSample(
            sum(one.count for one in of_queue),
            min((one.next_at for one in of_queue if one.next_at is not None), default=None),
            tuple(wait for one in of_queue for wait in one.waits),
        )
        for of_queue in zip(*parts, strict=True)
    ]


def read_standings(
    state: redis.Redis,
    broker: Anywhere,
    settings: Settings,
    pools: Sequence[str],
    *,
    crew: Crew,
    apis: Apis = NO_APIS,
    bots: Mapping[str, PoolBots] | None = None,
) -> list[PoolStanding]:
    """Return how pools stand. Four round trips, O(pools).

    Args:
        state: Plain client of the state Redis.
        broker: Plain client of the broker.
        settings: Pools and their bots.
        pools: Their names.
        crew: Who lives.
        apis: How all stands that they may call, as far as that is to be told.
        bots: How their bots stand, if that has been read.
    """
    queues = [keys.queue(pool) for pool in pools]
    gates, backlogs = read_gates(broker, queues), read_waiting(broker, queues)
    parked = read_parked_sample(broker, queues)
    of_bots = read_bots(state, pools) if bots is None else bots
    out = [of_bots[pool].back_at(settings.pools[pool].bots, crew.now_s) for pool in pools]
    taking, at_tools = takers(crew.living), tool_waits(crew, apis)
    return [
        PoolStanding(
            pool=pool, gate=gate, backlog=backlog, parked=sample, workers=(workers := taking(queue)),
            shut=None if workers else why_shut(crew.living, pool), running=of_bots[pool].running, bots_out=is_out,
            bots_back_at=back_at, tools=at_tools.get(pool, ()), **_way_of(pool, settings, apis, crew.now_s),
        )
        for pool, queue, gate, backlog, sample, (is_out, back_at) in zip(
            pools, queues, gates, backlogs, parked, out, strict=True
        )
    ]  # fmt: skip


def doubted(limit: str) -> Wait:
    """Return why calls wait in their slots for a first answer of an API that may have fallen silent."""
    return Wait("outage", about=limit, told=DOUBTED)


def tool_waits(crew: Crew, apis: Apis) -> dict[str, tuple[tuple[Wait, int], ...]]:
    """Return what tasks wait for in their slots, as the workers report it, and how many, by pool: tools, mostly."""
    tasks: Counter[tuple[str, str]] = Counter()
    for worker in crew.living:
        for pool, of_pool in worker.tool_waits.items():
            tasks.update({(pool, limit): count for limit, count in of_pool.items()})
    found = dict[str, tuple[tuple[Wait, int], ...]]()
    for (pool, limit), count in tasks.most_common():
        wait = (apis.wait_of(limit, crew.now_s) or Wait("limit", about=limit)) if tool_of(limit) else doubted(limit)
        found[pool] = (*found.get(pool, ()), (wait, count))
    return found


def _way_of(pool: str, settings: Settings, apis: Apis, now_s: float) -> _Way:
    """Return the limit under which the next call of a pool goes, and why none goes, if all that it may call waits."""
    name, *others = settings.limit_names(*settings.calls_of(pool)[0], pool)
    own = apis.limits.get(name)
    if own is None or not (settings.pools[pool].fallback or others):
        return {"limit": own, "breaker": apis.breakers[name].wait if name in apis.breakers else None}
    found = next_limit(pool, settings, lambda limit: apis.wait_of(limit, now_s))
    if isinstance(found, Wait):
        return {"limit": own, "breaker": found}
    return {"limit": None if found is None else apis.limits[found], "breaker": None}


def lines_in_order(standings: Iterable[PoolStanding], now_s: float) -> tuple[WaitLine, ...]:
    """Return the reasons of all pools, those with the most tasks first."""
    lines = [line for standing in standings for line in lines_of(standing, now_s)]
    return tuple(sorted(lines, key=lambda line: (-line.tasks, -line.in_slots, line.pool, line.cause)))


@dataclass(frozen=True, slots=True)
class Standings:
    """Pools at one time, by the clock of Redis, and why their tasks wait, the most tasks first.

    Args:
        crew: Who lives.
        standings: Of each pool.
        lines: Why their tasks wait.
        budgets: Of the limits' days, on demand.
        otherwise: Budgets that were set while the fleet runs, on demand: scope, what fleet.toml says, what holds.
        board: What is in batches, on demand.
        scaling: How many slots are wanted, on demand; None: nobody decides.
        brokers: Each of several, on demand.
        lost_places: Tasks of tenants that their queues' lists do not tell of, by queue, on demand.
        tenants: Who waits, on demand.
    """

    crew: Crew
    standings: tuple[PoolStanding, ...]
    lines: tuple[WaitLine, ...]
    budgets: tuple[LimitBudgets, ...] = ()
    otherwise: tuple[tuple[str, str, str], ...] = ()
    board: LaneBoard = NO_BATCHES
    scaling: ScalingView | None = None
    lost_places: Mapping[str, int] = field(default_factory=dict)
    tenants: TenantsView = field(default_factory=TenantsView)
    brokers: tuple[BrokerView, ...] = ()

    @property
    def now_s(self) -> float:
        """Unix time by the clock of Redis."""
        return self.crew.now_s


def look(state: redis.Redis, broker: Anywhere, settings: Settings, pools: Iterable[str] | None = None) -> Standings:
    """Return how pools (None: all) stand, and why their tasks wait. Some round trips, O(pools)."""
    names = list(settings.pools) if pools is None else [pool for pool in pools if pool in settings.pools]
    crew, apis = read_crew(state), read_apis(state, settings, names)
    standings = read_standings(state, broker, settings, names, crew=crew, apis=apis)
    return Standings(crew, tuple(standings), lines_in_order(standings, crew.now_s))


def look_at_inbox(broker: Anywhere, settings: Settings, seen: Standings) -> PoolStanding:
    """Return how the inbox stands, which has no bots and no limit."""
    return standing_of_queue(broker, settings.worker.inbox, seen.crew)


def standing_of_queue(broker: Anywhere, queue: str, crew: Crew, *, unserved: str = "") -> PoolStanding:
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
        workers=takers(crew.living)(queue),
        unserved=unserved or unserved_queue_line(queue),
    )


@at_each(_together)
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
