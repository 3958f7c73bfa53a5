"""What a fleet has learnt that tells what tasks will take: read from Redis for `fleet run --dry-run` and `simulate`.

Departments do not import each other; here the limiter's facts, norms, lessons, reports and backlogs become one value.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import cast

import redis

from fleet import config
from fleet.config import Settings
from fleet.economy.budgets.reader import read_budgets
from fleet.economy.habits import (
    FUNCTION_CALLS,
    LEAST_ANSWERS,
    SIMULATED_RATIO,
    Capacity,
    Experience,
    Habit,
    Range,
)
from fleet.economy.lanes.choice import LATER
from fleet.economy.lanes.learnt import read_learnt
from fleet.economy.lanes.prefixes import read_prefixes
from fleet.economy.lanes.times import read_times, timed_as
from fleet.engine.admission.gates import read_waiting
from fleet.engine.answers.lessons import read_lessons
from fleet.engine.operations.expecting.all_keys import limit_of_all, snapshot_of_all
from fleet.engine.operations.expecting.funds import funds_of_budgets, funds_of_limit, scopes_of, unused
from fleet.engine.operations.paces import read_series
from fleet.engine.operations.waits import read_apis
from fleet.lessons import RATIO
from fleet.limiter import LimitSnapshot
from fleet.limiter.limits import FIRST_DEVIATION, NEWEST_USE
from fleet.models import Priority
from fleet.roster.health import norm_of
from fleet.signals.recorder import split_reports
from fleet.signals.series import last_hour
from fleet.store import keys
from fleet.store.running.brokers import Anywhere, at_each

#: Answers that a kind's shares are taken to come from where nobody has counted them, such as cut ones.
UNCOUNTED = 8.0
#: By how much a deviation may be off its first value, with four digits (`settle.lua`).
ROUNDED = 0.0002
#: Standard deviations in a mean deviation.
DEVIATIONS = 1.25
#: Mean time to an answer as shares of the median that is known, and of the simulator's, which is told.
AROUND_MEDIAN, SIMULATED_LATENCY = Range(0.75, 1.15, 1.8), Range(0.9, 1.1, 1.5)
#: How far the calls a task of a function take may be off those of the last hour.
AROUND_CALLS = Range(0.7, 1.0, 1.4)
#: Calls a task beyond one below which a pool has shown nothing out of the way.
FEW_MORE = 0.02
#: Seconds within which what is parked opens to go before.
SOON_S = 3600.0
#: Tasks of the last hour below which they tell nothing of that.
LEAST_TASKS = 10


def unlearnt(
    settings: Settings,
    pools: Iterable[str],
    *,
    priority: int,
    tenants: Iterable[str] = (),
    now_s: float | None = None,
) -> Experience:
    """Return what the settings alone tell, for who has no Redis; arguments as of `read_experience`."""
    asked = list(pools)
    calls = dict.fromkeys(call for pool in asked for call in settings.calls_of(pool))
    limits = {"/".join(call): limit_of_all(settings, *call) for call in calls}
    now = time.time() if now_s is None else now_s
    return Experience(
        ratios={api: SIMULATED_RATIO for api in limits if _is_simulated(api, settings)},
        calls={pool: FUNCTION_CALLS for pool in asked if settings.pools[pool].own_bot},
        latencies_s={(pool, ""): one for pool in asked if (one := _simulated_latency(pool, settings)) is not None},
        rooms={api: _configured_room(limit) for api, limit in limits.items()},
        funds=(
            *(
                fund
                for api, limit in limits.items()
                for fund in funds_of_limit(api, limit, priority=priority, now_s=now)
            ),
            *funds_of_budgets(
                unused(settings.budgets, scopes_of(settings, asked, tenants), now),
                bots=_bots_of(settings, asked),
                priority=priority,
                now_s=now,
            ),
        ),
        slots=settings.slots_per_process * settings.worker.processes,
        processes=settings.worker.processes,
        opinions=settings.health.opinions if settings.health.watch else 1,
    )


def read_experience(
    state: redis.Redis,
    broker: Anywhere,
    settings: Settings,
    asked: Collection[tuple[str, str]],
    *,
    priority: int,
    tenants: Iterable[str] = (),
) -> Experience:
    """Return what the fleet has learnt of tasks. Half a dozen round trips, whatever the number of tasks.

    Args:
        state: Plain client of the state Redis.
        broker: Plain client of the broker.
        settings: Pools, limits, prices.
        asked: Pool and kind of the tasks.
        priority: Of the tasks: what is less urgent does not go before them.
        tenants: Those of the tasks.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    pools, kinds = list(dict.fromkeys(pool for pool, _ in asked)), list(dict.fromkeys(kind for _, kind in asked))
    seconds, micros = state.time()
    bare = unlearnt(settings, pools, priority=priority, now_s=seconds + micros / 1e6)
    by_key = read_apis(state, settings, pools).limits
    of_api: dict[str, list[LimitSnapshot]] = {}
    for name, limit in by_key.items():
        of_api.setdefault(name.rpartition("/")[0], []).append(limit)
    limits = {api: snapshot_of_all(found) for api, found in of_api.items()}
    norms = _read_norms(state, asked)
    answers = {(api, kind): count for api in limits for kind in kinds
               if (count := _count(norms, api, kind, settings)) is not None}  # fmt: skip
    living, _ = split_reports(cast("dict[bytes, bytes]", state.hgetall(keys.workers())), now_s=seconds)
    queues = [keys.queue(pool) for pool in pools]
    waiting = read_waiting(broker, queues)
    learnt = {(pool, kind): AROUND_MEDIAN.times(Range.of(ms / 1000)) for (pool, kind), (ms, _) in norms.items()}
    return Experience(
        habits=dict(_read_habits(state, by_key, kinds, answers)),
        ratios={**{one.api: _around(one.value) for one in read_lessons(state) if one.what == RATIO}, **bare.ratios},
        calls={**bare.calls, **dict(_read_calls(state, settings, pools, seconds))},
        latencies_s={**bare.latencies_s, **learnt},
        rooms={api: _room(limit, bare.rooms.get(api)) for api, limit in limits.items()},
        funds=(
            *(
                fund
                for api, limit in limits.items()
                for fund in funds_of_limit(
                    api, limit_of_all(settings, *api.split("/", 1)), limit, priority=priority, now_s=seconds
                )
            ),
            *funds_of_budgets(
                read_budgets(state, settings.budgets, scopes=scopes_of(settings, pools, tenants)),
                bots=_bots_of(settings, pools),
                priority=priority,
                now_s=seconds,
            ),
        ),
        slots=sum(worker.slots for worker in living) or bare.slots,
        processes=len(living) or bare.processes,
        backlog={
            pool: sum(count for step, count in zip(Priority, one.counts, strict=True) if step <= priority) + soon
            for pool, one, soon in zip(pools, waiting, _read_parked(broker, queues, seconds), strict=True)
        },
        opinions=bare.opinions,
        lanes=read_learnt(state, seconds),
        prefixes=read_prefixes(state, seconds),
        batches=read_times(state, [timed_as(api, lane) for api in limits for lane in LATER]),
        is_learnt=True,
    )


def _bots_of(settings: Settings, pools: Iterable[str]) -> dict[str, int]:
    return {pool: settings.pools[pool].bots for pool in pools}


def _is_simulated(api: str, settings: Settings) -> bool:
    return settings.provider_named(api.partition("/")[0]).kind == "simulator"


def _simulated_latency(pool: str, settings: Settings) -> Range | None:
    if not settings.is_simulated(pool) or settings.provider_of(pool).base_url is not None:
        return None
    return SIMULATED_LATENCY.times(Range.of(settings.simulator.latency_ms / 1000 + 0.005))


def _around(ratio: float) -> Range:
    return Range(ratio * 0.9, ratio, ratio * 1.1)


def _configured_room(limit: config.LimitSettings) -> Capacity:
    return Capacity(
        limit.rpm, limit.tpm, limit.input_tpm, limit.output_tpm, limit.in_flight, burst_s=limit.burst * 60
    )  # fmt: skip


def _room(limit: LimitSnapshot, bare: Capacity | None) -> Capacity:
    """Return what a limit gives now; rates of input and output apart are as configured."""
    bare = bare or Capacity()
    rpm = limit.paced_rpm or limit.rpm
    return Capacity(
        rpm, limit.tpm, bare.input_tpm, bare.output_tpm, limit.most_in_flight, bare.burst_s, max(0.0, limit.queue_s)
    )


@at_each(lambda parts: list(map(sum, zip(*parts, strict=True))))
def _read_parked(broker: redis.Redis, queues: list[str], now_s: float) -> list[int]:
    """Return how many tasks that are parked beside each queue will open soon."""
    with broker.pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.zcount(keys.parked_order(queue), "-inf", now_s + SOON_S)
        return [int(count) for count in pipe.execute()]


def _read_norms(state: redis.Redis, asked: Collection[tuple[str, str]]) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the median time (ms) of answers and how many it is of, by pool and kind."""
    with state.pipeline(transaction=False) as pipe:
        for pool, kind in asked:
            pipe.hget(keys.norms(pool), kind)
        rows = pipe.execute()
    norms = {key: norm_of(raw) for key, raw in zip(asked, rows, strict=True) if raw}
    return {key: (norm.ran_ms, norm.tasks) for key, norm in norms.items()}


def _count(
    norms: Mapping[tuple[str, str], tuple[float, float]], api: str, kind: str, settings: Settings
) -> float | None:
    """Return how many answers of a kind an API has given, as far as its pools have counted; None: none of them has."""
    counts = [
        tasks for (pool, of), (_, tasks) in norms.items()
        if of == kind and api in {"/".join(call) for call in settings.calls_of(pool)}
    ]  # fmt: skip
    return sum(counts) if counts else None


def _read_habits(
    state: redis.Redis,
    limits: Collection[str],
    kinds: Collection[str],
    answers: Mapping[tuple[str, str], float],
) -> Iterator[tuple[tuple[str, str], Habit]]:
    """Yield what `settle.lua` has learnt: of each kind words, the third and fourth of them of the output."""
    with state.pipeline(transaction=False) as pipe:
        for name in limits:
            pipe.hmget(keys.limit_keys(name).facts, [f"q:{kind}" for kind in kinds])
        rows = pipe.execute() if kinds else []
    for name, of_api in zip(limits, rows, strict=False):
        api = name.rpartition("/")[0]
        for kind, raw in zip(kinds, of_api, strict=True):
            words = (raw or b"").split()
            if len(words) >= 4:
                mean, deviation = float(words[2]), float(words[3])
                is_first = abs(deviation - mean * FIRST_DEVIATION) < ROUNDED
                uncounted = 1.0 if is_first else UNCOUNTED
                counted = answers.get((api, kind), 0.0)
                worth = _worth(counted if counted >= LEAST_ANSWERS else uncounted)
                yield (api, kind), Habit(min(1.0, mean), deviation * DEVIATIONS, worth)


def _worth(answers: float) -> float:
    """Return how many answers a mean is worth that forgets: the first one weighs most at first, later none does."""
    kept = 1 - NEWEST_USE
    first = kept ** (2 * max(0.0, answers - 1))
    return 1 / (first + NEWEST_USE**2 * (1 - first) / (1 - kept**2))


def _read_calls(state: redis.Redis, settings: Settings, pools: list[str], now_s: float) -> Iterator[tuple[str, Range]]:
    """Yield the calls a task that pools took in the last hour: repairs and second opinions too, failed ones not."""
    for pool, series in read_series(state, pools).items():
        hour = last_hour(series, now_s=now_s)
        if hour.completions < LEAST_TASKS:
            continue
        each = max(0.0, hour.calls - hour.calls_failed) / hour.completions
        if settings.pools[pool].own_bot:
            yield pool, AROUND_CALLS.times(Range.of(each))
        elif each > 1 + FEW_MORE:
            yield pool, Range(1.0, each, AROUND_CALLS.high * each)
