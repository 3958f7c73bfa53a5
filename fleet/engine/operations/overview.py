"""The fleet as the page, `fleet top` and `fleet stats` show it: signals, queues, bots and limits read into one value.

Departments do not import each other; here their readings meet. For people: O(bots) per read, about 100 ms of Python for
10,000 bots. From an event loop: `await asyncio.to_thread(overview.read)`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import redis

from fleet.config import KEY_LABEL, TOOLS, Settings, models_among
from fleet.diversity import ClassState, classes_of
from fleet.engine.admission.spread import read_brokers
from fleet.engine.operations.bad_bots import BotReadings, alike_of, fleet_health, health_columns
from fleet.engine.operations.bot_detail import read_bot
from fleet.engine.operations.budgets import read_budget_views, scopes_of
from fleet.engine.operations.dead import read_dead_of
from fleet.engine.operations.idle import compute_view
from fleet.engine.operations.jobs.board import read_jobs
from fleet.engine.operations.keys.held import read_key_views
from fleet.engine.operations.ladders import apis_of
from fleet.engine.operations.money.billing import Billing
from fleet.engine.operations.obstacles import PoolStanding, drain_of_pool, headline
from fleet.engine.operations.paces import LimitPace, finished_a_second, limit_view, paces_of
from fleet.engine.operations.rollouts.board import rollout_views
from fleet.engine.operations.sameness import diversity_views
from fleet.engine.operations.scaling.published import scaling_view
from fleet.engine.operations.symptoms import read_symptoms
from fleet.engine.operations.task_page import TaskPage, read_task
from fleet.engine.operations.task_search import Finder, TaskSearch, Wish
from fleet.engine.operations.tenants.board import TenantBoard
from fleet.engine.operations.waits import Crew, lines_in_order, read_apis, read_standings
from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice, Filed
from fleet.engine.transport.suspicion import count_suspects
from fleet.models import Priority, bot_name
from fleet.money import micros_of, whole_micros
from fleet.roster import HealthRows, health_rows_of, read_bots, read_reasons
from fleet.roster.grading import read_doubted
from fleet.signals import catalogue, picture, windows
from fleet.signals.bot_table import BotState, BotTable
from fleet.signals.catalogue import NOBODY
from fleet.signals.cost_view import Costs, PoolCost, costs_of
from fleet.signals.counted import sums
from fleet.signals.counted.answered import answered
from fleet.signals.crew import takers, troubles_of
from fleet.signals.diagnosis.engine import diagnose, untold
from fleet.signals.diagnosis.long_waits import outlook
from fleet.signals.diagnosis.verdict import judge
from fleet.signals.events import MOST_EVENTS
from fleet.signals.limit_view import LimitView
from fleet.signals.marks import marks_of
from fleet.signals.neighbours import look_for_strangers
from fleet.signals.picture import PoolWindows
from fleet.signals.recorder import speaking_of, split_reports
from fleet.signals.rungs import LadderView, ladder_view
from fleet.signals.series import day_in, last_hour, minutes_in, series_of
from fleet.signals.spans import Span, spans_in, spans_of, trends_of
from fleet.signals.view import (
    BotDetail,
    FleetView,
    PoolView,
    WaitLine,
)
from fleet.store import keys
from fleet.store.private.two_redis import two_redis
from fleet.store.running.brokers import Anywhere, each

#: Events in one view, newest first; the charts' marks are made of all that are kept.
EVENTS_SHOWN = 50
#: Dead letters of a reason that a page lists, newest first (count).
LETTERS_SHOWN = 20
#: Pools whose windows are read in one step (count): four strings each, 58 kB and 24 bytes a bot.
POOLS_A_STEP = 50


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one round trip to the state Redis brought."""

    now_s: float
    sums: sums.FleetSums
    workers: Mapping[bytes, bytes]
    resources: bytes
    events: Sequence[tuple[bytes, dict[bytes, bytes]]]
    redis_bytes: int
    redis_most_bytes: int
    pools: Mapping[str, PoolWindows]
    last_hours: Mapping[str, windows.Period]
    ladders: Mapping[str, LadderView]
    health: Mapping[str, HealthRows]
    classes: Sequence[tuple[ClassState, int]]


class Overview:
    """Reads the fleet. Safe to use from several threads. Make it with `open_overview`.

    Args:
        settings: Pools, their bots and APIs.
        state: Plain client of the state Redis.
        broker: Plain client of the broker; the same when there is one Redis.
    """

    def __init__(self, settings: Settings, *, state: redis.Redis, broker: Anywhere) -> None:
        self._settings = settings
        self._state = state
        self._broker = broker
        self._billing, self._tenants = Billing(settings), TenantBoard()
        self._names = {name: _names(name, pool.bots) for name, pool in settings.pools.items()}

    def read(self) -> FleetView:
        """Return the whole fleet, now by the clock of Redis. Half a dozen round trips.

        Raises:
            redis.RedisError: When Redis does not answer (inside `store_errors`, Fleet's own).
        """
        settings = self._settings
        reading = self._read_state()
        now_s, pools = reading.now_s, reading.pools
        of_bots = read_bots(self._state, list(settings.pools))
        states: dict[str, BotState] = {bot: "probation" for one in of_bots.values() for bot in one.probation}
        states |= {bot: "quarantined" for one in of_bots.values() for bot in one.out}
        readings = BotReadings(
            self._names, reading.health, of_bots, read_reasons(self._state, of_bots),
            alike_of([state for state, _ in reading.classes]), read_doubted(self._state),
        )  # fmt: skip
        bots = picture.bot_table(
            self._names,
            {name: pools[name].rows.of_bots(pool.bots) for name, pool in settings.pools.items()},
            {bot: load for one in of_bots.values() for bot, load in one.loads.items()},
            states,
            health=health_columns(readings),
            now_s=now_s,
        )
        living, _ = split_reports(dict(reading.workers), now_s=now_s)
        speaking = speaking_of(living, now_s=now_s)
        seen = read_apis(self._state, settings, settings.pools)
        series = {name: one.series for name, one in pools.items()}
        paces = paces_of(seen.limits.values(), series, settings, now_s)
        limits = tuple(
            limit_view(one, seen.breakers[name].state, paces.get(name, LimitPace()), now_s)
            for name, one in seen.limits.items()
        )
        standings = read_standings(
            self._state, self._broker, settings, list(settings.pools),
            crew=Crew(now_s, speaking), apis=seen, bots=of_bots,
        )  # fmt: skip
        waits = lines_in_order(standings, now_s)
        counted = reading.sums.totals
        totals = {counter.name: counted.get(counter.name.encode(), 0) for counter in catalogue.COUNTERS}
        totals[catalogue.COST_USD_MICROS.name] = micros_of(catalogue.spent_picos(totals))
        del totals[catalogue.COST_USD_REST.name]  # in the line above
        totals["calls_failed"] = catalogue.calls_failed(totals)
        everything = list(pools.values())
        events = picture.events_of(reading.events)
        minutes = minutes_in(list(series.values()), now_s)
        hours = day_in(list(series.values()), minutes, now_s=now_s)
        since = max(now_s - 3600, reading.sums.failures_since)
        failures = list(windows.failures_of(reading.sums.failures, since=now_s - 3600))
        apis = settings.limits_in_use.keys()
        view = FleetView(
            at=now_s,
            simulated=settings.simulated,
            totals=totals,
            minutes=picture.minutes_shown(minutes, reading.resources, now_s=now_s),
            spans=spans_of(minutes, hours.values()),
            trends=trends_of(minutes, now_s=now_s),
            marks=marks_of(events, now_s=now_s),
            hours=picture.hours_shown(hours, reading.resources, now_s=now_s),
            recent=picture.recent_shown(reading.sums.recent, apis=apis, now_s=now_s),
            durations=picture.durations_of(everything),
            spread=picture.spread_shown(bots.per_hour),
            bots=bots,
            errors=picture.matrix_of(
                [one for one in failures if one.at >= since],
                since=since,
                bots=settings.bots,
                apis=len(models_among(apis)),
            ),
            tools=picture.tool_errors(counted, {f"{TOOLS}/{name}" for name in settings.tools}),
            pools=tuple(self._pools(reading, standings, bots, waits, takers(speaking))),
            limits=limits,
            waits=waits,
            cost=self._costs(reading, totals[catalogue.COST_USD_MICROS.name], limits),
            budgets=read_budget_views(self._state, settings, series, now_s, waited_for=scopes_of(waits)),
            keys=read_key_views(self._state, settings, living),
            bill=self._billing.read(self._state, now_s, counted),
            events=events[:EVENTS_SHOWN],
            resources=picture.resources_view(
                living, speaking, troubles_of(speaking, settings, now_s=now_s), reading.redis_bytes
            ),
            neighbour=look_for_strangers({self._state, *each(self._broker)}, settings) or "",
            health=fleet_health(bots, readings, settings, now_s=now_s),
            diversity=diversity_views(reading.classes),
            dead=read_dead_of(self._state, self._broker, settings, pools),
            jobs=read_jobs(self._state, now_s),
            rollouts=rollout_views(self._state, now_s),
            tenants=self._tenants.read(self._broker, settings),
            suspects=count_suspects(self._broker) + sum(worker.apart for worker in speaking),
        )
        symptoms = read_symptoms(
            self._state, now_s=now_s, breakers=seen.breakers, failures=failures, workers=reading.workers,
            series=series, bots=of_bots, reasons=readings.reasons, redis_most_bytes=reading.redis_most_bytes,
            answered=answered(reading.sums.rings, settings), in_hand=self._in_hand(standings),
        )  # fmt: skip
        found = diagnose(view, symptoms)
        left = untold(waits, found)
        others = sum(line.tasks for line in left) < sum(line.tasks for line in waits if line.cause != "time")
        said = {
            "headline": headline(left, now_s, are_others=others),
            "outlook": outlook(view),
            "scaling": scaling_view(self._state, now_s),
            "brokers": read_brokers(self._broker, settings),
        }
        return view.model_copy(update={"diagnoses": found, "verdict": judge(view, symptoms), **said})

    def _in_hand(self, standings: Iterable[PoolStanding]) -> dict[str, int]:
        """Return how many tasks are at work, by the limit of their pool's own API."""
        found = defaultdict[str, int](int)
        for pool in standings:
            found[f"{self._settings.limit_of(pool.pool)[0]}/{KEY_LABEL}"] += pool.running
        return found

    def bot(self, name: str) -> BotDetail:
        """Return one bot; raises as `read_bot`."""
        return read_bot(self._state, self._settings, name)

    def task(self, task_id: str, *, is_thorough: bool, with_texts: bool) -> TaskPage:
        """Return one task, as `read_task` does."""
        return read_task(
            task_id, self._state, self._broker, self._settings, is_thorough=is_thorough, with_texts=with_texts
        )

    def tasks(self, wish: Wish) -> TaskSearch:
        """Return the tasks that are meant, as `Finder.find` does."""
        return Finder(self._state, self._broker, self._settings).find(wish)

    def dead(self, pool: str | None, reason: str | None) -> tuple[Filed, ...]:
        """Return the newest dead letters of a pool and reason, at most `LETTERS_SHOWN`."""
        office = DeadLetterOffice(self._state, self._broker, self._settings)
        return office.page(pool=pool, reason=reason, limit=LETTERS_SHOWN).letters

    def spans(self, window: str) -> dict[str, Span]:
        """Return the sums of each pool over a window: `15m`, `1h` or `24h`. One round trip."""
        with self._state.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.mget([keys.series(pool) for pool in self._settings.pools])
            (seconds, micros), series = pipe.execute()
        now_s = seconds + micros / 1e6
        found = [spans_in([series_of(one or b"")], now_s=now_s) for one in series]
        chosen = (next(span for span in spans if span.name == window) for spans in found)
        return dict(zip(self._settings.pools, chosen, strict=True))

    def _read_state(self) -> _Reading:
        """Read everything that is in the state Redis and grows with pools or bots."""
        pools = (*self._settings.pools, NOBODY)
        now_s, counting = _begin(self._state, pools)
        with self._state.pipeline(transaction=False) as pipe:
            asked = sums.ask(pipe, counting)
            pipe.hgetall(keys.workers())
            pipe.get(keys.resources())
            pipe.xrevrange(keys.events(), count=MOST_EVENTS)
            pipe.info("memory")
            pipe.hgetall(keys.answer_counts())
            pipe.hgetall(keys.diversity_states())
            for start in range(0, len(pools), POOLS_A_STEP):
                pipe.mget([key for pool in pools[start : start + POOLS_A_STEP] for key in _windows_of(pool)])
            replies = pipe.execute()
        workers, resources, events, info, counts, classes, *rest = replies[asked:]
        strings = [string or b"" for step in rest for string in step]
        parts = dict(zip(pools, zip(*(strings[place::4] for place in range(4)), strict=True), strict=True))
        found = {pool: self._windows(pool, part, now_s) for pool, part in parts.items()}
        configured = self._settings.pools
        return _Reading(
            now_s, sums.read(replies[:asked], counting, windows.kept_of(len(self._settings.pools))), workers,
            resources or b"", events, int(info["used_memory"]), int(info.get("maxmemory", 0)),
            pools=found,
            last_hours={pool: last_hour(one.series, now_s=now_s) for pool, one in found.items()},
            ladders={
                pool: ladder_view(apis_of(pool, self._settings), parts[pool][2][windows.RUNGS_START :], now_s=now_s)
                for pool, settings in configured.items() if settings.fallback
            },
            health={pool: health_rows_of(parts[pool][3], settings.bots) for pool, settings in configured.items()},
            classes=classes_of(counts, classes, configured),
        )  # fmt: skip

    def _windows(self, pool: str, strings: tuple[bytes, ...], now_s: float) -> PoolWindows:
        series, rows, sketch, _ = strings
        bots = self._settings.pools[pool].bots if pool != NOBODY else 0
        return PoolWindows(series_of(series), windows.bot_rows_of(rows, bots), windows.sketches_of(sketch, now_s=now_s))

    def _pools(
        self, reading: _Reading, standings: Iterable[PoolStanding], bots: BotTable, waits: Iterable[WaitLine],
        taking: Callable[[str], int],
    ) -> Iterator[PoolView]:  # fmt: skip
        of_bots, loads, of_pool = iter(bots.per_hour), iter(bots.load), defaultdict[str, list[WaitLine]](list)
        for line in waits:
            of_pool[line.pool].append(line)
        for standing in standings:
            count = self._settings.pools[standing.pool].bots
            busy = sum(1 for load in islice(loads, count) if load)
            one = self._pool(standing, reading, list(islice(of_bots, count)), busy, of_pool[standing.pool])
            yield one.model_copy(update={"workers": taking(keys.queue(standing.pool))})

    def _pool(
        self,
        standing: PoolStanding,
        reading: _Reading,
        per_hour: Sequence[int],
        busy: int,
        waits: Sequence[WaitLine],
    ) -> PoolView:
        pool, gate, waiting, parked = standing.pool, standing.gate, standing.backlog, standing.parked
        settings, found, now_s = self._settings, reading.pools[pool], reading.now_s
        hour = reading.last_hours[pool]
        return PoolView(
            pool=pool,
            api=settings.limit_of(pool)[0],
            bots=len(per_hour),
            in_flight=standing.running,
            busy_bots=busy,
            backlog={priority.name.lower(): count for priority, count in zip(Priority, waiting.counts, strict=True)},
            waiting=waiting.total,
            parked=parked.count,
            next_opens_s=None if parked.next_at is None else round(max(0.0, parked.next_at - now_s), 3),
            oldest_s=None if waiting.oldest_at is None else max(0.0, now_s - waiting.oldest_at),
            gate=str(gate),
            is_open=gate.is_open,
            is_held=gate.hold is not None,
            gate_left_s=gate.left_s,
            simulated=settings.is_simulated(pool),
            ladder=reading.ladders.get(pool),
            by_rung=picture.by_rung(reading.sums.totals, pool, rungs=len(settings.pools[pool].fallback)),
            drain=drain_of_pool(
                standing, waits, finished_a_second(found.series, now_s) if waiting.total or parked.count else 0.0, now_s
            ),
            completions=int(hour.completions),
            failed=int(hour.failed),
            calls=int(hour.calls),
            rate_limited=int(hour.rate_limited),
            tokens=int(hour.input_tokens + hour.output_tokens),
            cost_usd_micros=whole_micros(hour.cost_usd_micros),
            spread=picture.spread_shown(per_hour),
            durations=picture.durations_of([found]),
        )

    def _costs(self, reading: _Reading, total: int, limits: Sequence[LimitView]) -> Costs:
        rows = [
            PoolCost(
                pool=pool,
                hour_usd_micros=whole_micros(reading.last_hours[pool].cost_usd_micros),
                day_usd_micros=picture.spent_today(found, now_s=reading.now_s),
            )
            for pool, found in reading.pools.items()
            if pool != NOBODY
        ]
        costs = costs_of(rows, limits, total_usd_micros=total, now_s=reading.now_s)
        return costs.model_copy(update={"compute": compute_view(reading.resources, self._settings, reading.now_s)})


@contextmanager
def open_overview(settings: Settings) -> Iterator[Overview]:
    """Connect to the fleet's Redis, both where there are two; errors inside the block are Fleet's own.

    Raises:
        StoreUnavailable: When Redis does not answer.
        ConfigurationError: When it does not let us in.
    """
    with two_redis(settings) as both:
        yield Overview(settings, state=both.state, broker=both.broker)


@lru_cache(maxsize=256)
def _names(pool: str, bots: int) -> tuple[str, ...]:
    return tuple(bot_name(pool, index) for index in range(1, bots + 1))


def _windows_of(pool: str) -> tuple[str, str, str, str]:
    return keys.series(pool), keys.bot_rows(pool), keys.sketch(pool), keys.health(pool)


def _begin(client: redis.Redis, pools: Iterable[str]) -> tuple[float, tuple[str, ...]]:
    """Return the time of Redis, and the pools that count."""
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.smembers(keys.counted_pools())
        (seconds, micros), known = pipe.execute()
    return seconds + micros / 1e6, sums.counting(known, pools)
