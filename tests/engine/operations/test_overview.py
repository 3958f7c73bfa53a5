"""What the page shows, read from a real Redis after tasks were finished by the real script."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
import redis

from fleet.config import PoolSettings, Settings
from fleet.engine.admission.gates import CLOSED
from fleet.engine.messages import queues
from fleet.engine.operations.levers import pause_pool, quarantine_bot
from fleet.engine.operations.overview import Overview
from fleet.errors import ConfigurationError
from fleet.limiter import Limiter
from fleet.rates import RateReading
from fleet.roster import Roster
from fleet.signals import catalogue, windows
from fleet.signals.bot_table import bot_page
from fleet.signals.crew import takers
from fleet.signals.events import record_event, record_event_now
from fleet.signals.metrics import exposition
from fleet.signals.recorder import SILENT_S, STALE_S, Recorder, WorkerReport, forget_gone_workers, report_worker
from fleet.signals.windows import HOURS, MINUTES, RESOURCE, ResourcePeriod
from fleet.store import keys
from fleet.store.client import Store
from tests.signals.working_fleet import SETTINGS, WorkingFleet


def with_store(url: str, work: Any) -> Any:
    async def run() -> Any:
        store = Store(url)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def test_an_empty_fleet_is_shown_as_zeros(working_fleet: WorkingFleet) -> None:
    view = working_fleet.overview.read()
    names = {one.name for one in catalogue.COUNTERS if one is not catalogue.COST_USD_REST} | {"calls_failed"}
    assert view.totals == dict.fromkeys(names, 0)
    assert len(view.minutes.at) == len(view.minutes.completions) == 60
    assert (view.recent.completions, view.durations.ran.p50, view.spread.gini) == (0, None, None)
    assert view.bots.name == ("a-001", "a-002", "a-003", "b-001", "b-002", "b-003")
    assert set(view.bots.state) == {"idle"}
    assert view.errors.verdict.verdict == "none"
    assert [(pool.pool, pool.waiting, pool.is_open) for pool in view.pools] == [("a", 0, True), ("b", 0, True)]


def test_what_was_finished_shows_in_totals_minutes_hours_bots_and_pools(working_fleet: WorkingFleet) -> None:
    usage = {"input_tokens": 100, "output_tokens": 20}
    working_fleet.finish(4, pool="a", bot=1, usage=usage, cost_usd_micros=50, ran_ms=1000, queued_ms=200)
    working_fleet.finish(1, pool="b", bot=3, error="BadAnswer", calls={"RateLimited": 2}, attempts=3)
    view = working_fleet.overview.read()
    assert (view.totals["completions"], view.totals["failed"], view.totals["cost_usd_micros"]) == (5, 1, 200)
    sums = [(span.completions, span.failed, span.calls_failed, span.cost_usd_micros) for span in view.spans]
    assert sums == [(5, 1, 2, 200)] * 3
    assert sum(view.hours.ok) == sum(view.minutes.ok) == 4
    pools = working_fleet.overview.spans("15m")
    assert {pool: (span.ok, span.rate_limited) for pool, span in pools.items()} == {"a": (4, 0), "b": (0, 2)}
    assert (sum(view.minutes.completions), sum(view.minutes.failed), sum(view.minutes.calls)) == (5, 1, 7)
    assert (sum(view.minutes.calls_failed), sum(view.minutes.rate_limited)) == (2, 2)
    assert (view.hours.completions[-1] + view.hours.completions[-2], sum(view.hours.tokens)) == (5, 480)
    row = dict(
        zip(view.bots.name, zip(view.bots.completions, view.bots.failed, view.bots.mean_ms, strict=True), strict=True)
    )
    assert (row["a-001"], row["b-003"], row["a-002"]) == ((4, 0, 1000), (1, 1, 0), (0, 0, 0))
    assert (view.recent.completions, view.recent.failed_share, view.recent.bots) == (5, 0.2, 2)
    assert (view.recent.ran_p50_ms, view.recent.failed_by_type) == (1000, {"BadAnswer": 1})
    assert view.recent.failed_by_api == {"simulator/m2": 1}
    assert (view.spread.silent, view.spread.max) == (4, 4)
    pool = view.pools[0]
    assert (pool.completions, pool.tokens, pool.durations.ran.count) == (4, 480, 4)
    assert pool.durations.ran.p50 == pytest.approx(1000, rel=0.02)
    assert pool.durations.queued.p99 == pytest.approx(200, rel=0.02)


def test_failures_are_a_matrix_of_bot_and_api_with_a_verdict(working_fleet: WorkingFleet) -> None:
    working_fleet.finish(5, pool="a", bot=2, error="BadAnswer")
    working_fleet.finish(1, pool="b", bot=1, error="ProviderUnavailable")
    errors = working_fleet.overview.read().errors
    assert errors.apis == ("simulator/m1", "simulator/m2")
    assert [(row.bot, row.counts) for row in errors.rows] == [("a-002", (5, 0)), ("b-001", (0, 1))]
    assert (errors.verdict.verdict, errors.verdict.culprit) == ("one bot", "a-002")
    assert errors.types == {"BadAnswer": 5, "ProviderUnavailable": 1}
    assert errors.last[0].bot == "b-001"


def test_failures_of_more_than_an_hour_ago_accuse_nobody(working_fleet: WorkingFleet, client: redis.Redis) -> None:
    line = json.dumps(["t", "a", "a-001", "simulator/m1", "BadAnswer"])
    client.rpush(keys.pool_failures("a"), *[f"{time.time() - 4000}|{line}"] * 5)
    assert working_fleet.overview.read().errors.failures == 0


def test_bots_are_busy_quarantined_or_idle_as_the_roster_says(
    working_fleet: WorkingFleet, client: redis.Redis, redis_url: str
) -> None:
    quarantine_bot(client, SETTINGS, "a-003", by="test", reason="odd answers")
    checkout = with_store(redis_url, lambda store: Roster(store, SETTINGS).check_out("a", task_id="t", token="token"))
    view = working_fleet.overview.read()
    states = dict(zip(view.bots.name, view.bots.state, strict=True))
    assert states == {**dict.fromkeys(view.bots.name, "idle"), checkout.bot: "busy", "a-003": "quarantined"}
    assert dict(zip(view.bots.name, view.bots.load, strict=True))[checkout.bot] == 1
    assert (view.pools[0].in_flight, view.pools[0].busy_bots) == (1, 1)
    for number in range(7):  # more tasks than the two bots that are left
        name = f"t{number}"
        with_store(redis_url, lambda store, name=name: Roster(store, SETTINGS).check_out("a", task_id=name, token=name))
    pool = working_fleet.overview.read().pools[0]
    assert (pool.in_flight, pool.busy_bots, pool.bots) == (8, 2, 3)
    detail = working_fleet.overview.bot("a-003")
    assert (detail.state, detail.load) == ("quarantined", 0)
    out = detail.health.quarantine
    assert out is not None and (out.reason, out.until) == ("odd answers", None)
    assert detail.health.probation_tasks_left is None and detail.health.tests == ()
    assert [event.name for event in view.events] == ["bot_quarantined"]


def test_a_pool_shows_what_waits_by_priority_and_its_gate(working_fleet: WorkingFleet, client: redis.Redis) -> None:
    message = json.dumps({"headers": {"queued_at": time.time() - 90}})
    client.lpush(queues.list_key(keys.queue("b"), 3), message, message)
    pause_pool(client, client, "b", lowest=CLOSED, for_s=600, by="test")
    a, b = working_fleet.overview.read().pools
    assert (b.waiting, b.backlog["low"], a.waiting) == (2, 2, 0)
    assert b.oldest_s == pytest.approx(90, abs=20)
    assert (b.is_open, a.is_open) == (False, True)
    assert b.gate_left_s == pytest.approx(600, abs=20)


def test_limits_show_what_is_used_and_costs_what_is_left_of_the_budget(
    working_fleet: WorkingFleet, redis_url: str
) -> None:
    async def call(store: Store) -> None:
        limiter = Limiter(store, {"simulator/m1/default": SETTINGS.limits["simulator/m1"]})
        grant = await limiter.acquire("simulator/m1/default", tokens=100, timeout_s=5, cost_usd_micros=7_000_000)
        limiter.settle(grant, used_tokens=60, cost_usd_micros=6_000_000)
        limiter.penalise("simulator/m1/default", retry_after_s=100)
        limiter.narrow("simulator/m1/default", most=7)
        nothing = RateReading()
        day = RateReading(1000, 10, 50_000.0)
        limiter.observe(grant, (day, nothing, nothing, nothing))

    with_store(redis_url, call)
    working_fleet.finish(1, pool="a", bot=1, cost_usd_micros=2_000_000)
    view = working_fleet.overview.read()
    limit = next(row for row in view.limits if row.limit == "simulator/m1/default")
    assert (limit.rpm, limit.tpm, limit.refused, limit.usd_per_day) == (600, 60_000, 2, 24.0)
    assert 0 < limit.held_s <= 100
    assert limit.held_by.startswith("429, Retry-After 100 s, at ")
    assert (limit.used_usd, limit.requests_per_day) == (6.0, None)
    assert limit.used_rpm > 0
    assert (limit.most_in_flight, limit.in_flight_is_learnt) == (7, True)
    assert [(long.label, long.used, long.limit) for long in limit.long] == [("requests a day", 990, 1000)]
    assert limit.paced_rpm == pytest.approx(2)  # told once: a call in half a minute finds out
    shown = exposition(view).decode()
    assert 'fleet_limit_day_usd{limit="simulator/m1/default",which="used"} 6.0' in shown
    assert 'fleet_limit_day_usd{limit="simulator/m1/default",which="allowed"} 24.0' in shown
    assert 'fleet_limit_used_ratio{kind="money of the day",limit="simulator/m1/default"} 0.25' in shown
    assert 'fleet_limit_used_ratio{kind="requests a day",limit="simulator/m1/default"} 0.99' in shown
    assert 'fleet_limit_used_ratio{kind="in flight",limit="simulator/m1/default"}' in shown
    cost = view.cost
    assert (cost.day_usd_micros, cost.total_usd_micros) == (2_000_000, 2_000_000)
    assert [(budget.limit, budget.used_usd_micros, budget.share) for budget in cost.budgets] == [
        ("simulator/m1/default", 6_000_000, 0.25)
    ]
    assert cost.budget_usd_micros_per_hour is None  # the other limit has none


def test_a_bot_that_no_pool_has_is_refused(working_fleet: WorkingFleet) -> None:
    with pytest.raises(ConfigurationError, match="a-004"):
        working_fleet.overview.bot("a-004")


def test_an_opened_bot_shows_its_persona_and_its_own_errors(working_fleet: WorkingFleet) -> None:
    working_fleet.finish(2, pool="a", bot=1, error="BadAnswer", calls={"ProviderUnavailable": 1})
    working_fleet.finish(1, pool="a", bot=2, error="BadAnswer")
    bot = working_fleet.overview.bot("a-001")
    assert bot.persona.system_prompt
    assert {(row.type, row.failures, row.calls) for row in bot.errors} == {
        ("BadAnswer", 2, 0),
        ("ProviderUnavailable", 0, 2),
    }
    assert {failure.bot for failure in bot.failures} == {"a-001"}


def test_resources_of_workers_are_averaged_over_minutes_and_a_minute_goes_to_its_hour_when_its_place_is_needed(
    working_fleet: WorkingFleet, redis_url: str, client: redis.Redis
) -> None:
    minute = int(client.time()[0]) // 60
    old = ResourcePeriod(minute - 2 * MINUTES, *[36.0] * 4)  # a minute of two hours ago, in the place of this one
    client.setrange(keys.resources(), minute % MINUTES * RESOURCE.struct.size, RESOURCE.pack(old))
    waiting = ResourcePeriod(minute - 2 * MINUTES + 5, *[3.6] * 4)  # another, whose place nobody needs yet
    client.setrange(keys.resources(), (minute + 5) % MINUTES * RESOURCE.struct.size, RESOURCE.pack(waiting))

    async def report(store: Store) -> None:
        for name in ("w1", "w2"):
            one = WorkerReport(name=name, pid=1, cpu_percent=50, rss_mb=100, slots=60, busy=30, at=time.time())
            await report_worker(store, one, step_s=6.0)

    with_store(redis_url, report)
    view = working_fleet.overview.read()
    assert (view.resources.slots, view.resources.busy, view.resources.rss_mb) == (120, 60, 200.0)
    lengths_s = [60.0] * 59 + [max(1.0, view.at % 60)]
    cpu_s = sum(cpu / 100 * length_s for cpu, length_s in zip(view.minutes.cpu_percent, lengths_s, strict=True))
    assert cpu_s == pytest.approx(2 * 0.5 * 6.0, rel=0.05)
    by_hour = dict(zip(view.hours.at, view.hours.cpu_percent, strict=True))
    assert sum(by_hour.get((minute - 2 * MINUTES + late) // 60 * 3600, 0.0) for late in (0, 60)) >= 1.0
    told = windows.resource_hours(client.get(keys.resources()) or b"")  # type: ignore[arg-type]
    assert sum(hour.cpu_s for hour in told.values()) == pytest.approx(36.0 + 3.6 + 6.0)
    assert len(client.get(keys.resources()) or b"") <= (MINUTES + HOURS) * RESOURCE.struct.size  # type: ignore[arg-type]


def test_events_are_newest_first_and_a_lost_worker_is_one_of_them(
    working_fleet: WorkingFleet, redis_url: str, client: redis.Redis
) -> None:
    record_event_now(client, catalogue.LIMIT_CHANGED, limit="x/y", rpm=800, by="test")

    async def work(store: Store) -> None:
        old = WorkerReport(name="lost", pid=7, cpu_percent=1, rss_mb=1, slots=1, busy=0, at=time.time() - STALE_S - 9)
        await report_worker(store, old)
        for _ in range(2):
            await forget_gone_workers(store, now_s=time.time())
        for _ in range(3):
            record_event(store, catalogue.PROVIDER_LIMITED, quiet_s=60, about="x/y", limit="x/y", hold_s=1)
        leaving = Recorder(store, name="leaving")
        await leaving.report(slots=1, busy=0)
        await leaving.leave()
        await leaving.report(slots=1, busy=0)

    with_store(redis_url, work)
    view = working_fleet.overview.read()
    assert [event.name for event in view.events] == [
        "worker_stopped",
        "provider_limited",
        "worker_lost",
        "limit_changed",
    ]
    assert view.events[2].fields == {"worker": "lost"}
    assert view.events[-1].fields == {"limit": "x/y", "rpm": "800", "by": "test"}
    assert view.resources.workers == ()
    assert client.ttl(keys.events()) > 0


def test_a_page_of_bots_is_sorted_filtered_and_cut(working_fleet: WorkingFleet) -> None:
    working_fleet.finish(2, pool="a", bot=2)
    working_fleet.finish(3, pool="b", bot=1)
    table = working_fleet.overview.read().bots
    busiest = bot_page(table, sort="completions", descending=True, limit=2)
    assert (busiest.total, busiest.bots.name) == (6, ("b-001", "a-002"))
    assert bot_page(table, pool="b", offset=1, limit=1).bots.name == ("b-002",)
    assert bot_page(table, search="-003", state="idle").bots.name == ("a-003", "b-003")
    assert bot_page(table, search="nobody").total == 0


def test_a_worker_that_died_a_moment_ago_is_shown_and_its_slots_are_nobodys(
    working_fleet: WorkingFleet, client: redis.Redis
) -> None:
    for name, ago_s in (("lives", 1.0), ("died", SILENT_S + 5)):
        one = WorkerReport(
            name=name, pid=1, process=name, cpu_percent=50, rss_mb=100, slots=60, busy=30, at=time.time() - ago_s
        )
        client.hset(keys.workers(), name, one.model_dump_json())
    told = working_fleet.overview.read().resources
    assert {worker.name for worker in told.workers} == {"lives", "died"}
    assert (told.slots, told.busy, told.cpu_percent, told.rss_mb) == (60, 30, 50.0, 100.0)


def test_suspects_are_counted_where_they_wait_and_where_they_run(
    working_fleet: WorkingFleet, redis_url: str, client: redis.Redis
) -> None:
    assert working_fleet.overview.read().suspects == 0
    client.hset(keys.suspects(), "sha1", "gone fleet.a")

    async def work(store: Store) -> None:
        await Recorder(store, name="w", process="its id").report(slots=9, busy=3, apart=2)

    with_store(redis_url, work)
    dead = WorkerReport(
        name="died",
        pid=1,
        process="died",
        cpu_percent=1,
        rss_mb=1,
        slots=9,
        busy=3,
        apart=3,
        at=time.time() - SILENT_S - 5,
    )
    client.hset(keys.workers(), "died", dead.model_dump_json())  # its suspects wait to be swept, and are counted then
    view = working_fleet.overview.read()
    assert view.suspects == 3 and {worker.process for worker in view.resources.workers} == {"its id", "died"}
    assert b"fleet_suspects 3.0" in exposition(view)


def test_a_pool_more_costs_a_reading_two_commands_however_many_workers_there_are(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    execute = redis.client.Pipeline.execute

    def counted(pipe: Any) -> Any:
        sent.append(len(pipe.command_stack))
        return execute(pipe)

    def asked(pools: int) -> int:
        named = {f"p{number}": PoolSettings(bots=1, model=f"m{number}") for number in range(pools)}
        overview = Overview(Settings(pools=named), state=client, broker=client)
        sent.clear()
        overview.read()
        return sum(sent)

    monkeypatch.setattr(redis.client.Pipeline, "execute", counted)
    asked(1)  # loads the scripts
    assert asked(210) - asked(10) <= 2.2 * 200, "its limit and its breaker, which a cluster keeps apart"
    workers = [_taking(f"w{number}", [f"q{queue}" for queue in range(500)]) for number in range(200)]
    started, taking = time.process_time(), takers(workers)
    assert {taking(f"q{queue}") for queue in range(500)} == {200}
    assert time.process_time() - started < 0.5, "each worker's queues are looked at once, not once a pool"


def _taking(name: str, queues_of: list[str]) -> WorkerReport:
    return WorkerReport(
        name=name, pid=1, cpu_percent=1, rss_mb=1, slots=1, busy=0, at=time.time(), queues=tuple(queues_of)
    )
