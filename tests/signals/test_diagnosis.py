"""Each kind of finding is played, and says its sentence; a healthy fleet says nothing. Pure: no Redis, no clock."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from fleet.engine.operations.obstacles import line_of
from fleet.signals.ahead.outlook import drain_of
from fleet.signals.crew import Trouble
from fleet.signals.diagnosis.engine import diagnose, untold
from fleet.signals.diagnosis.finding import KINDS, Diagnosis, Help, well, worst_first
from fleet.signals.diagnosis.long_waits import outlook
from fleet.signals.diagnosis.symptoms import BreakerFacts, CacheReads, OutBot, Symptoms
from fleet.signals.diagnosis.verdict import judge
from fleet.signals.health_view import ClassDiversity, ScoreView
from fleet.signals.jobs.view import JobsView, JobView
from fleet.signals.money.bill_view import BillSums, BillView
from fleet.signals.money.payout_view import AddressRow, PayoutRow, PayoutsView
from fleet.signals.rollouts.view import RolloutView
from fleet.signals.rungs import LadderView
from fleet.signals.unusual.alarms import Alarm
from fleet.signals.view import EventView, FleetView, PoolView
from fleet.waits import UNUSUAL, Cause, Wait
from tests.signals.played_fleet import (
    NOW_S,
    failures,
    limit_view,
    minutes_of_pool,
    pool_view,
    report,
    steady,
    symptoms_of,
    view_of,
    wait_line,
)

ALPHA, BETA, STOCK = "alpha/m-1/default", "beta/m-2/default", "tools/stock/default"
SINCE = NOW_S - 8
DOWN = BreakerFacts(True, SINCE, "outage", "connection refused", failed=12)
MIDNIGHT = "2026-11-30 00:00 UTC"


def event(name: str, ago_s: float, **fields: str) -> EventView:
    return EventView(id=f"{ago_s}", at=NOW_S - ago_s, name=name, level="error", fields=fields)


def breakers(**of_limits: BreakerFacts) -> Symptoms:
    names = {"alpha": ALPHA, "beta": BETA, "stock": STOCK}
    return symptoms_of(breakers={names[name]: facts for name, facts in of_limits.items()})


def stock() -> FleetView:
    """Return a fleet of two models and a tool."""
    return view_of(limits=[limit_view("alpha/m-1"), limit_view("beta/m-2"), limit_view("tools/stock")])


def test_a_tool_that_is_down_makes_no_outage_of_all_apis_nor_hides_one() -> None:
    busy = BreakerFacts(False, calls={"well": 20})
    some_down = [one.sentence for one in diagnose(stock(), breakers(alpha=DOWN, beta=busy, stock=DOWN))]
    assert [line.partition(" since")[0] for line in some_down] == ["alpha/m-1 is down", "The tool stock is down"]
    all_down = [one.sentence for one in diagnose(stock(), breakers(alpha=DOWN, beta=DOWN, stock=DOWN))]
    assert {line.partition(" since")[0] for line in all_down} == {"All 2 APIs are down", "The tool stock is down"}
    models_down = [one.sentence for one in diagnose(stock(), breakers(alpha=DOWN, beta=DOWN, stock=busy))]
    assert [line.partition(" since")[0] for line in models_down] == ["All 2 APIs are down"]
    culprit = judge(stock(), breakers(alpha=DOWN, beta=busy, stock=DOWN)).culprit
    assert culprit == "alpha/m-1, tools/stock"


def series(**sums: float) -> Symptoms:
    """Return an hour of steady work and then five minutes of the pool research in which these differ."""
    rows = steady() | {ago: {**steady()[0], **sums} for ago in range(5)}
    return symptoms_of(series={"research": minutes_of_pool(rows)})


def growing(*tasks: int) -> Symptoms:
    last = int(NOW_S // 60)
    return symptoms_of(backlogs={"research": tuple((last - len(tasks) + n, count) for n, count in enumerate(tasks, 1))})


def spent(**limit: Any) -> FleetView:
    return view_of(limits=[limit_view("alpha/m-1", **limit)])


def some(sort: str) -> BreakerFacts:
    """Return a closed breaker with some failed calls among many."""
    return BreakerFacts(False, failed=2, well=9, calls={"well": 92, sort: 8})


def behind(tasks: int, per_s: float, *, cause: Cause | None = "limit") -> PoolView:
    """Return the pool research with so many tasks that wait, and so many finished a second."""
    drain = drain_of(tasks, per_s, now_s=NOW_S, stopped=tasks, cause=cause)
    return pool_view("research", waiting=tasks, drain=drain)


def out(count: int, *, reason: str = "bad answers: 8 of its last 10 tasks") -> Symptoms:
    bots = [OutBot(f"research-{n:03d}", SINCE, NOW_S + 60 * n, reason, "health") for n in range(1, count + 1)]
    return symptoms_of(out={"research": tuple(bots)})


SAME = ClassDiversity(
    pool="research", kind="summary", answers=900, phase="treating", alarm=True, alarm_at=SINCE, line="alike",
    scores=(ScoreView(aspect="across", score=12.0, usual_score=41.0, near_share=0.5, fallen=True),), flagged=2,
    culprits=("research-004", "research-007"),
)  # fmt: skip
RESUMED = "run `fleet keys resume alpha`"
HELD = Wait("limit", None, ALPHA, f"rpm = 144, for {UNUSUAL}", advice=RESUMED)
RESTS = Wait("key", None, "[providers.alpha]", f"alpha rests, for {UNUSUAL}", advice=RESUMED)
FULL = {ago: {**steady()[0], "calls": 100.0} for ago in range(12)}


def payout(**fields: Any) -> PayoutRow:
    """Return a payout that was prepared, and has moved last, at 12:00."""
    usual = {"network": "bsc", "payout": "p-1", "is_open": True, "payments": 2, "tokens": "3.5",
             "prepared_at": NOW_S - 7320, "moved_at": NOW_S - 7320, "expires_at": NOW_S + 21_480}  # fmt: skip
    return PayoutRow.model_validate({**usual, **fields})


PLAYED: list[tuple[str, str, str, FleetView, Symptoms]] = [
    (
        "provider_down", "critical", "alpha/m-1 is down since 14:01:52 UTC, 43 tasks wait: connection refused",
        view_of(
            waits=[wait_line("research", "outage", 40, about=ALPHA), wait_line("research", "retry", 3, about=ALPHA)]
        ),
        breakers(alpha=DOWN),
    ),
    (
        "provider_down", "critical", "alpha/m-1 is down since 14:01:52 UTC, 40 tasks wait: connection refused",
        view_of(waits=[wait_line("research", "outage", 40, about=ALPHA)]), breakers(alpha=DOWN),
    ),
    (
        "provider_down", "critical", "All 2 APIs are down since 14:01:52 UTC, 45 tasks wait: connection refused",
        view_of(
            waits=[wait_line("research", "outage", 40, about=ALPHA), wait_line("writing", "outage", 5, about=BETA)]
        ),
        breakers(alpha=DOWN, beta=DOWN),
    ),
    (
        "provider_down", "critical", "All 2 APIs in use are down since 14:01:52 UTC: connection refused",
        view_of(limits=[limit_view("beta/never-asked")]), breakers(alpha=DOWN, beta=DOWN),
    ),
    (
        "provider_failing", "critical",
        "alpha/m-1 answers nothing since 14:01:47 UTC: 12 calls have been under way for up to 13 s, far longer than "
        "usual",
        view_of(workers=[report("w1@h", unanswered={ALPHA: (8, 12.0)}), report("w2@h", unanswered={ALPHA: (4, 9.0)})]),
        symptoms_of(),
    ),
    (
        "provider_failing", "warning",
        "alpha/m-1 may answer nothing: 5 calls wait in their slots until a first one is answered: those under way have "
        "had no answer for longer than nearly all of the last took",
        view_of(
            workers=[report("w1@h", tool_waits={"research": {ALPHA: 3, "tools/stock/default": 9}}),
                     report("w2@h", tool_waits={"writing": {ALPHA: 2}})]
        ),
        symptoms_of(),
    ),
    (
        "provider_failing", "critical",
        "alpha/m-1 answers nothing since 14:01:47 UTC, 3 tasks wait: 8 calls have been under way for up to 13 s, far "
        "longer than usual",
        view_of(workers=[report("w1@h", unanswered={ALPHA: (8, 12.0)})],
                waits=[wait_line("research", "outage", 3, about=ALPHA, told="its calls had no answer for 8 s")]),
        symptoms_of(),
    ),
    (
        "provider_down", "critical",
        "alpha/m-1 answers nothing since 14:01:52 UTC, 9 tasks wait: 8 calls of a worker had no answer for 13 s",
        view_of(
            workers=[report("w1@h", unanswered={ALPHA: (8, 12.0)})],
            waits=[wait_line("research", "outage", 9, about=ALPHA)],
        ),
        breakers(alpha=replace(DOWN, told="8 calls of a worker had no answer for 13 s", is_silent=True)),
    ),
    (
        "provider_refusing", "warning",
        "alpha/m-1 refuses all calls (429) since 14:01:52 UTC, 9 tasks wait: none was answered for 8 s",
        view_of(
            limits=[limit_view("alpha/m-1", refused=40, refused_at=NOW_S - 1, waiting=2)],
            waits=[wait_line("research", "hold", 7, about=ALPHA)],
        ),
        symptoms_of(answered_at={"alpha/m-1": NOW_S - 8}),
    ),
    (  # a thousand tasks of others have ended since it was answered last
        "provider_refusing", "warning",
        "alpha/m-1 refuses all calls (429) since 14:01:48 UTC, 9 tasks wait: none was answered for 12 s",
        view_of(
            limits=[limit_view("alpha/m-1", refused=40, refused_at=NOW_S - 1, waiting=2)],
            waits=[wait_line("research", "hold", 7, about=ALPHA)],
        ),
        symptoms_of(answered_at={"beta/m-2": NOW_S - 1}, known_from={"alpha/m-1": NOW_S - 12}),
    ),
    (
        "provider_down", "warning",
        "alpha/m-1 is down since 14:01:52 UTC: connection refused, its pools are served by their fallbacks",
        view_of(pools=[
            pool_view("research", ladder=LadderView(apis=("alpha/m-1", "beta/m-2"), rung=1, served=(0, 9)))
        ]),
        breakers(alpha=DOWN),
    ),
    (
        "provider_failing", "warning",
        "alpha/m-1 fails on many calls: 30 of 100 calls of the last 5 minutes, 10 of them had no answer in time",
        view_of(),
        breakers(alpha=BreakerFacts(False, failed=9, well=21, calls={"well": 70, "outage": 20, "late": 10})),
    ),
    (
        "provider_slow", "warning",
        "alpha/m-1 is slow: a task took 8 s in the last 5 minutes, 2 s in the hour before; longer answers are not why",
        view_of(), series(ran_ms=160_000.0),
    ),
    (
        "provider_refusing", "warning",
        "alpha/m-1 refuses calls (429), 7 tasks wait: 50 of 100 calls of the last 5 minutes, it asked to wait until "
        "14:02:12 UTC",
        view_of(limits=[limit_view("alpha/m-1", held_s=12)], waits=[wait_line("research", "hold", 7, about=ALPHA)]),
        series(rate_limited=10.0),
    ),
    (
        "key_refused", "critical", "The key of alpha/m-1 is not taken since 14:01:52 UTC, 3 tasks wait: 401: bad key",
        view_of(waits=[wait_line("research", "key", 3, about=ALPHA)]),
        breakers(alpha=BreakerFacts(True, SINCE, "key", "401: bad key", failed=1)),
    ),
    (
        "key_refused", "critical", "No key of alpha serves the tasks that wait, 3 tasks wait: KEY is not set",
        view_of(waits=[line_of("research", Wait("key", None, "[providers.alpha]", "KEY is not set"), NOW_S, tasks=3)]),
        symptoms_of(),
    ),
    (
        "out_of_money", "critical", "The account of alpha/m-1 is out of money or quota since 14:01:52 UTC: 402: pay",
        view_of(), breakers(alpha=BreakerFacts(True, SINCE, "credit", "402: pay", failed=1)),
    ),
    (
        "misconfigured", "critical", "alpha/m-1 is configured wrongly since 14:01:52 UTC: 404: no such model",
        view_of(), breakers(alpha=BreakerFacts(True, SINCE, "configuration", "404: no such model", failed=1)),
    ),
    (
        "budget_near", "info",
        "Our budget of alpha/m-1 is used to 85%: $1.70 of $2.00 of the day, at this pace it lasts the day",
        spent(usd_per_day=2.0, used_usd=1.7), symptoms_of(),
    ),
    (
        "budget_near", "warning",
        "Our budget of alpha/m-1 is used to 85%: $1.70 of $2.00 of the day, at this pace it ends at 14:17:00 UTC",
        spent(usd_per_day=2.0, used_usd=1.7, budget_ends=(NOW_S + 900,)), symptoms_of(),
    ),
    (
        "budget_used", "critical",
        "Our budget of alpha/m-1 is used up since 13:02:00 UTC, 9 tasks wait: $2.00 of $2.00 of the day; it opens at "
        + MIDNIGHT,
        view_of(
            limits=[limit_view("alpha/m-1", usd_per_day=2.0, used_usd=2.0)],
            waits=[wait_line("research", "money", 9, about=ALPHA)],
            events=(event("budget_warning", 3600, limit=ALPHA, percent="100"),),
        ),
        symptoms_of(),
    ),
    (
        "budget_used", "warning",
        "Our budget of alpha/m-1 is used up: 1,000 of 1,000 requests of the day; it opens at " + MIDNIGHT,
        spent(requests_per_day=1000, used_requests=1000), symptoms_of(),
    ),
    (
        "limit_saturated", "info", "alpha/m-1 runs at our limit since 13:51:00 UTC, 500 tasks wait: rpm = 100",
        view_of(waits=[wait_line("research", "limit", 500, about=ALPHA)]),
        symptoms_of(series={"research": minutes_of_pool(steady() | FULL)}),
    ),
    (
        "limit_saturated", "info", "alpha/m-1 runs at our limit since 14:00:00 UTC, 500 tasks wait: rpm = 100",
        view_of(
            waits=[wait_line("research", "limit", 500, about=ALPHA)],
            events=(event("limit_changed", 120, limit=ALPHA, rpm="100"), event("limit_reset", 900, limit=ALPHA)),
        ),
        symptoms_of(series={"research": minutes_of_pool(steady() | FULL)}),
    ),
    (
        "limit_saturated", "info",
        "alpha/m-1 runs at our limit since 13:51:00 UTC, 45,000 tasks wait: rpm = 100; so they take 7.5 h",
        view_of(waits=[wait_line("research", "limit", 45_000, about=ALPHA)], pools=[behind(45_000, 1.7)]),
        symptoms_of(series={"research": minutes_of_pool(steady() | FULL)}),
    ),
    (
        "use_unusual", "critical",
        "Key alpha is used far more than usual since 14:01:52 UTC, 7 tasks wait: 720 requests a minute, 72 are usual; "
        "it is held to 144 a minute",
        view_of(waits=[line_of("research", HELD, NOW_S, tasks=7)]),
        symptoms_of(
            unusual=(Alarm("key", "alpha", SINCE, 72, 720, stage="throttled", held={ALPHA: (-1.0, 144.0)}),),
            series={"research": minutes_of_pool(steady() | FULL)},
        ),
    ),
    (
        "use_unusual", "critical",
        "Key alpha is used far more than usual since 14:01:52 UTC, 5 tasks wait: 720 requests a minute, 72 are usual; "
        "its calls wait until it is resumed",
        view_of(waits=[line_of("research", RESTS, NOW_S, tasks=5)]),
        symptoms_of(unusual=(Alarm("key", "alpha", SINCE, 72, 720, stage="suspended"),)),
    ),
    (
        "use_unusual", "warning",
        "Bot research-007 is used far more than usual since 14:01:52 UTC: 60 requests a minute, [keys.anomaly] allows "
        "50",
        view_of(), symptoms_of(unusual=(Alarm("bot", "research-007", SINCE, 7, 60, 50),)),
    ),
    (
        "key_shared", "warning",
        "Somebody else uses key alpha: alpha/m-1/default: the provider counts about 30 requests a minute beside ours",
        view_of(limits=[limit_view("alpha/m-1", others_rpm=30.0)]), symptoms_of(),
    ),
    (
        "bots_bad", "info",
        "1 of 10 bots of research is quarantined since 14:01:52 UTC: research-001 (bad answers: 8 of its last 10 "
        "tasks); the first is back at 14:03:00 UTC",
        view_of(), out(1),
    ),
    (
        "bots_bad", "warning",
        "3 of 10 bots of research are quarantined since 14:01:52 UTC: research-001, research-002, research-003 (slow); "
        "the first is back at 14:03:00 UTC",
        view_of(), out(3, reason="slow"),
    ),
    (
        "bots_out", "critical",
        "All 10 bots of research are quarantined since 14:01:52 UTC, 63 tasks wait: bad answers: 8 of its last 10 "
        "tasks; the first is back at 14:03:00 UTC",
        view_of(waits=[wait_line("research", "bots", 63, about="research")]), out(10),
    ),
    (
        "bots_alike", "warning",
        "Bots of research answer alike (summary) since 14:01:52 UTC: 12 different answers, usually 41; 2 bots: "
        "research-004, research-007",
        view_of(diversity=(SAME,)), symptoms_of(),
    ),
    (
        "prompts_fail", "warning",
        "Prompts of research fail on every bot that takes them since 14:01:30 UTC, 40 tasks failed: 40 of 120 tasks of "
        "the last 5 minutes ended with BadRequest, on 10 bots: no bot and no provider is to blame",
        view_of(), symptoms_of(failures=failures("research", "BadRequest", 40, bots=10)),
    ),
    (
        "no_worker", "critical",
        "No worker lives since 14:01:48 UTC, 10 tasks wait: 2 workers fell silent: w1@h, w2@h",
        view_of(workers=[report("w1@h", ago_s=12), report("w2@h", ago_s=13)]),
        symptoms_of(silent=(report("w1@h", ago_s=12), report("w2@h", ago_s=13))),
    ),
    (
        "no_worker", "warning", "No worker runs: the next tasks will wait",
        view_of(workers=[], pools=[pool_view("research", in_flight=0), pool_view("writing", in_flight=0)]),
        symptoms_of(),
    ),
    (
        "worker_lost", "warning",
        "Worker w2@h is lost since 14:01:49 UTC: it has reported nothing since; what it held goes back to its queues "
        "by itself",
        view_of(workers=[report("w1@h"), report("w2@h", ago_s=11)]), symptoms_of(silent=(report("w2@h", ago_s=11),)),
    ),
    (
        "worker_lost", "warning",
        "Worker w3@h is lost since 13:59:00 UTC: it has reported nothing since; what it held goes back to its queues "
        "by itself",
        view_of(events=(event("worker_lost", 180, worker="w3@h"),)), symptoms_of(),
    ),
    (
        "worker_hung", "warning",
        "Worker w1@h stands still since 14:01:39 UTC: its main thread has not turned for 20 s; it holds 5 tasks",
        view_of(workers=[report("w1@h", beat_at=NOW_S - 21)]), symptoms_of(),
    ),
    (
        "pool_unserved", "critical", "No live worker serves pool research, 8 tasks wait",
        view_of(
            troubles=(
                Trouble(
                    about="pools", pools=("research",),
                    line="no live worker serves pool research: its tasks wait; start one",
                ),
            ),
            waits=[wait_line("research", "worker", 8)],
        ),
        symptoms_of(),
    ),
    (
        "settings_differ", "warning", "Workers w1 and w2 run with different settings in [limits]: who knows",
        view_of(troubles=(Trouble(
            about="settings", line="workers w1 and w2 run with different settings in [limits]: who knows; give all one",
        ),)),
        symptoms_of(),
    ),
    (
        "releases_differ", "info", "Workers of 2 releases are at work: 0.2 or before (w1@h), 0.3.0 (w2@h)",
        view_of(troubles=(Trouble(
            about="releases",
            line="workers of 2 releases are at work: 0.2 or before (w1@h), 0.3.0 (w2@h); end the upgrade soon",
        ),)),
        symptoms_of(),
    ),
    (
        "backlog_grows", "warning",
        "The backlog of research grows since 13:53:00 UTC, 4,000 tasks wait: 1,000 tasks then; at the pace of the last "
        "minutes it takes 3.3 h to drain, and all slots are busy",
        view_of(pools=[pool_view("research", waiting=4000)], busy=40),
        growing(1000, 1300, 1600, 1900, 2200, 2500, 2800, 3100, 3400, 3900),
    ),
    (
        "dead_letters", "warning",
        "50 of 400 tasks of the last 10 minutes failed for good: 0 did in the 50 minutes before; most are of research, "
        "mostly DeadlineExceeded",
        view_of(),
        symptoms_of(
            series={"research": minutes_of_pool(
                steady() | {ago: {**steady()[0], "dead_letters": 10.0} for ago in range(5)}
            )},
            failures=failures("research", "DeadlineExceeded", 5, bots=5),
        ),
    ),
    (
        "redis_memory", "critical",
        "Redis uses 96% of its memory: 96 of 100 MB; when it is full, no task is accepted and none finishes",
        view_of(redis_mb=96), symptoms_of(redis_most_bytes=100 * 2**20),
    ),
    (
        "clock_off", "warning", "The clock of host h is off: it is 90 s ahead of the clock of Redis",
        view_of(workers=[report("w1@h", clock_ahead_s=90)]), symptoms_of(),
    ),
    (
        "machine_full", "warning", "A worker's machine is full, 2 tasks wait: no more open files",
        view_of(waits=[wait_line("research", "machine", 2, told="no more open files")]), symptoms_of(),
    ),
    (
        "function_blocks", "warning", "A function blocks its worker, 2 tasks wait: bots.py:7 stands",
        view_of(waits=[wait_line("research", "function", 2, told="bots.py:7 stands")]), symptoms_of(),
    ),
    (
        "calls_unknown", "warning",
        "Nobody knows what 12 of today's 100 calls have cost: they were cut off, or their workers died; $0.5000 is "
        "reserved for them",
        view_of().model_copy(update={"bill": BillView(
            day=BillSums(calls=100, unknown_calls=12, unknown_usd_picos=10**12 // 2)
        )}),
        symptoms_of(),
    ),
    (
        "cache_missed", "warning",
        "10% of 30 calls have read ctx-1 from the cache of api/m/a, 90% in the hour before: it was sent "
        "shortly before, and the provider has not read it again",
        view_of(),
        symptoms_of(reads={
            ("ctx-1", "api/m/a"): (CacheReads(3, 25, 2), CacheReads(90, 9, 1)),
            ("ctx-2", "api/m/a"): (CacheReads(15, 14, 1), CacheReads(90, 9, 1)),
            ("ctx-3", "api/m/a"): (CacheReads(0, 0, 19), CacheReads()),
        }),
    ),
    (
        "cache_missed", "warning",
        "0% of 20 calls have read ctx-1 from the cache of api/m/a: it lies idle for longer than the provider "
        "keeps it, so most calls send it anew",
        view_of(),
        symptoms_of(reads={("ctx-1", "api/m/a"): (CacheReads(0, 5, 15), CacheReads())}),
    ),
    *(
        (
            "payout_stuck", severity, sentence,
            view_of().model_copy(update={"bill": BillView(payouts=PayoutsView(rows=(payout(**fields),)))}),
            symptoms_of(),
        )
        for severity, sentence, fields in (
            ("warning", "Payout p-1 of 3.5 to 2 payees is not sent since 12:00:00 UTC: it is signed, and expires at "
             "20:00:00 UTC", {"states": {"signed": 1}}),
            ("warning", "Payout p-1 of 3.5 to 2 payees has expired and was not sent since 12:00:00 UTC: nobody may "
             "send it any more", {"states": {"prepared": 1, "broadcast": 1}, "expires_at": NOW_S - 1}),
            ("warning", "Payout p-1 of 3.5 to 2 payees was sent, and nothing has become of it since 12:00:00 UTC: no "
             "block has it", {"states": {"broadcast": 2}}),
            ("critical", "Payout p-1 of 3.5 to 2 payees cannot be settled since 12:00:00 UTC: final, but its logs do "
             "not pay what the slip says: look at it",
             {"states": {"broadcast": 1}, "why": "final, but its logs do not pay what the slip says: look at it"}),
            ("warning", "1 transaction of payout p-1 has failed since 12:00:00 UTC: reverted by the contract; what "
             "they were to pay is due again",
             {"states": {"failed": 1, "settled": 3}, "is_open": False, "why": "reverted by the contract"}),
        )
    ),
    (
        "payout_guard", "warning", "1 changed and 2 new addresses on bsc: paid from 15:00:00 UTC on",
        view_of().model_copy(update={"bill": BillView(payouts=PayoutsView(
            addresses=(AddressRow(network="bsc", new=2, changed=1, until=NOW_S + 3480),)
        ))}),
        symptoms_of(),
    ),
    (
        "payout_guard", "warning",
        "Prices, networks or other terms of payouts were changed: that holds from 15:00:00 UTC on",
        view_of().model_copy(update={"bill": BillView(payouts=PayoutsView(terms_hold_at=NOW_S + 3480))}), symptoms_of(),
    ),
    (
        "schedule_late", "warning", "Schedules stand still: no beat submits the tasks of 2 schedules",
        view_of(), symptoms_of(schedules="no beat submits the tasks of 2 schedules"),
    ),
    (
        "job_stands", "warning", "1 job stands still, 7 tasks wait: crawl: it is open, and has got no task for 2 h",
        view_of(jobs=JobsView(live=1, jobs=(JobView(
            id="0" * 15, key="crawl", word="open", made_at=1.0, moved_at=1.0, queued=9, total=None, ended=2, ok=2,
            degraded=0, failed=0, cancelled=0, trouble="it is open, and has got no task for 2 h",
        ),))),
        symptoms_of(),
    ),
    (
        "rollout_back", "info",
        "model m-2 was tried in alpha and went back since 14:01:00 UTC: 40.0% of its tasks have a good first answer",
        view_of(rollouts=(RolloutView(
            id="0" * 12, pool="alpha", what="model m-2", word="back", share=0.05, since=1.0, by="ann",
            ended_at=NOW_S - 60, ended_by="", why="40.0% of its tasks have a good first answer", new_tasks=20,
            new_failed=12, old_tasks=400, old_failed=2, aspects=(),
        ),)),
        symptoms_of(),
    ),
    (
        "pool_paused", "info",
        "Pool research is paused by ann since 14:01:00 UTC, 5 tasks wait: none starts until it is resumed",
        view_of(
            waits=[wait_line("research", "operator", 5, about="research", told="closed")],
            events=(event("pool_paused", 60, pool="review, research and 3 more", by="ann"),),
        ),
        symptoms_of(),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "severity", "sentence", "view", "symptoms"), PLAYED, ids=[one[2][:40] for one in PLAYED]
)
def test_what_is_played_is_said_in_one_sentence_with_what_helps(
    kind: str, severity: str, sentence: str, view: FleetView, symptoms: Symptoms
) -> None:
    (found,) = diagnose(view, symptoms)
    assert (found.kind, found.severity, found.sentence) == (kind, severity, sentence)
    assert found.help.advice
    assert found.help.command
    assert diagnose(view, symptoms) == (found,)


def test_every_kind_is_played() -> None:
    assert {kind for kind, *_ in PLAYED} == set(KINDS)


@pytest.mark.parametrize(
    ("pool", "rpm", "said"),
    [
        (behind(27_000, 0.0), 60, "27,000 tasks wait for alpha/m-1: at its rpm = 60 they take 7.5 h"),
        (behind(27_000, 5.0), 60, "27,000 tasks wait for alpha/m-1: at its rpm = 60 they take 7.5 h"),  # its burst
        (
            behind(27_000, 0.5), 60,
            "27,000 tasks wait for alpha/m-1: at the pace of the last minutes they take 15 h",
        ),
        (
            behind(27_000, 1.0, cause=None), None,
            "27,000 tasks wait for alpha/m-1: at the pace of the last minutes they take 7.5 h",
        ),
        (behind(800, 1.0), 60, ""),  # a quarter of an hour is no long wait
        (behind(27_000, 1.0, cause="operator"), 60, ""),  # whoever paused it knows
    ],
)  # fmt: skip
def test_what_waits_long_at_its_limit_is_said_though_all_is_well(pool: PoolView, rpm: int | None, said: str) -> None:
    view = view_of(pools=[pool], limits=[limit_view("alpha/m-1", rpm=rpm)])
    assert outlook(view) == said
    assert diagnose(view, symptoms_of()) == ()
    assert well(said) == (f"all well; {said}" if said else "all well")


def test_a_task_of_several_calls_takes_several_turns_of_the_limit() -> None:
    pool = behind(9_000, 0.0).model_copy(update={"completions": 100, "calls": 300})
    assert outlook(view_of(pools=[pool], limits=[limit_view("alpha/m-1", rpm=60)])).endswith("they take 7.5 h")


def test_a_healthy_fleet_is_all_well() -> None:
    assert diagnose(view_of(), symptoms_of()) == ()
    assert judge(view_of(), symptoms_of()).verdict == "none"


@pytest.mark.parametrize(
    ("type_name", "advice"),
    [
        ("BadRequest", "look at one of them, correct the prompt, then replay them"),
        ("CapReached", "look at one of them, raise the cap that it names or ask for less, then replay them"),
        ("NoProgress", "look at one of them, correct the tool that says the same again and again, or the prompt, then "
                       "replay them"),
    ],
)  # fmt: skip
def test_what_helps_where_prompts_fail_depends_on_how(type_name: str, advice: str) -> None:
    (found,) = diagnose(view_of(), symptoms_of(failures=failures("research", type_name, 40, bots=10)))
    assert found.help is not None and (found.kind, found.help.advice) == ("prompts_fail", advice)


@pytest.mark.parametrize(("others_rpm", "rpm"), [(9.0, None), (9.0, 50), (50.0, 1000)])
def test_few_requests_that_are_not_ours_are_no_theft(others_rpm: float, rpm: int | None) -> None:
    assert diagnose(view_of(limits=[limit_view("alpha/m-1", others_rpm=others_rpm, rpm=rpm)]), symptoms_of()) == ()


def test_a_sentence_has_no_more_of_what_a_provider_said_than_one_can_read() -> None:
    long = "Your credit balance is too low. " * 20
    (found,) = diagnose(view_of(), breakers(alpha=BreakerFacts(True, SINCE, "credit", long, failed=1)))
    assert len(found.sentence) < 260
    assert found.sentence.endswith("…")


def test_a_lost_worker_is_told_although_its_own_start_is_among_the_events() -> None:
    silent = report("w2@h", ago_s=11)
    started = tuple(event("worker_started", 180, worker=name) for name in ("w2@h", "w1@h"))
    found = diagnose(view_of(workers=[report("w1@h"), silent], events=started), symptoms_of(silent=(silent,)))
    assert [(one.kind, one.about) for one in found] == [("worker_lost", "w2@h")]
    later = (event("worker_lost", 2, worker="w2@h"), *started)
    assert [one.about for one in diagnose(view_of(workers=[report("w1@h")], events=later), symptoms_of())] == ["w2@h"]


def test_what_is_over_or_has_a_cause_of_its_own_is_not_told() -> None:
    recovered = BreakerFacts(False, failed=0, well=50, calls={"well": 50, "outage": 20})
    assert diagnose(view_of(), breakers(alpha=recovered)) == ()
    successor = view_of(events=(event("worker_started", 100, worker="w3@h"), event("worker_lost", 180, worker="w3@h")))
    assert diagnose(successor, symptoms_of()) == ()
    at_once = view_of(events=(event("worker_lost", 180, worker="w3@h"), event("worker_started", 186, worker="w4@h")))
    assert diagnose(at_once, symptoms_of()) == (), "it was started before the other one was given up"
    batch = view_of(pools=[pool_view("research", waiting=90_000)])  # of a job that drains for hours: it shrinks
    assert diagnose(batch, growing(*range(100_000, 90_000, -1000))) == ()
    long_answers = series(ran_ms=160_000.0, output_tokens=16_000.0)
    assert diagnose(view_of(), long_answers) == ()
    few = [report("w1@h", unanswered={ALPHA: (2, 20.0), BETA: (9, 20.0)})]
    is_known = diagnose(view_of(workers=few), breakers(beta=DOWN))
    assert [one.kind for one in is_known] == ["provider_down"], (
        "two slow calls are none, an open breaker says it itself"
    )
    once = view_of(limits=[limit_view("alpha/m-1", refused=40, refused_at=NOW_S - 1, waiting=9)])
    assert diagnose(once, symptoms_of(answered_at={"alpha/m-1": NOW_S - 2})) == ()
    one_bad_bot = symptoms_of(failures=failures("research", "BadAnswer", 40, bots=1))
    assert diagnose(view_of(), one_bad_bot) == ()


@pytest.mark.parametrize(
    ("answered_ago_s", "silent", "is_told"),
    [
        (0.3, [9.0] * 5, False),  # 95 other workers of one slot each are answered all the time
        (50.0, [180.0] * 5, False),  # a sixth one is, once a minute, as is usual there
        (8.5, [10.5, 9.0, 9.0, 8.5, 8.0], True),  # it hangs: these calls had left when the last answer came
        (9.0, [9.0, 9.0, 9.0, 9.0, 9.0, 100.0], True),  # so it does, and one call has been odd since long before
        (9.0, [9.0, 9.0, 9.0, 100.0, 100.0], False),  # three calls are few
    ],
)
def test_an_api_answers_nothing_only_where_no_worker_is_answered(
    answered_ago_s: float, silent: list[float], is_told: bool
) -> None:
    workers = [report(f"w{n}@h", unanswered={ALPHA: (1, silent_s)}) for n, silent_s in enumerate(silent)]
    found = diagnose(view_of(workers=workers), symptoms_of(answered_at={"alpha/m-1": NOW_S - answered_ago_s}))
    assert [(one.kind, one.severity) for one in found] == [("provider_failing", "critical")] * is_told
    assert [one.since for one in found] == [NOW_S - answered_ago_s] * is_told


def test_the_worst_comes_first_by_severity_then_tasks_then_kind() -> None:
    def one(kind: str, severity: str, tasks: int = 0) -> Diagnosis:
        return Diagnosis.model_validate({"kind": kind, "severity": severity, "sentence": "s", "tasks": tasks})

    found = [
        one("clock_off", "warning"), one("pool_paused", "info", 900), one("bots_out", "critical", 5),
        one("provider_down", "critical", 5), one("budget_used", "critical", 80), one("provider_slow", "warning"),
    ]  # fmt: skip
    kinds = [each.kind for each in worst_first(found)]
    assert kinds == ["budget_used", "provider_down", "bots_out", "provider_slow", "clock_off", "pool_paused"]


def test_a_thousand_pools_and_limits_are_judged_in_a_moment() -> None:
    names = [f"p{n}" for n in range(1000)]
    view = view_of(
        pools=[pool_view(name, api=f"alpha/{name}") for name in names],
        limits=[limit_view(f"alpha/{name}", usd_per_day=9.0, used_usd=1.0) for name in names],
        waits=[wait_line(name, "limit", 5, about=f"alpha/{name}/default") for name in names],
    )
    hour = minutes_of_pool(steady())
    breakers = {f"alpha/{name}/default": BreakerFacts(False, well=9, calls={"well": 9}) for name in names}
    symptoms = symptoms_of(series=dict.fromkeys(names, hour), breakers=breakers)
    began_s = time.process_time()
    assert diagnose(view, symptoms) == ()
    assert judge(view, symptoms).verdict == "none"
    assert time.process_time() - began_s < 2.0  # 0.2 s on a quiet machine; O(pools x limits) took minutes


def test_the_line_of_waits_is_left_out_where_findings_say_it_of_nearly_all() -> None:
    paused, limited = wait_line("research", "operator", 5, about="research", told="closed"), wait_line("b", "limit", 40)
    late = wait_line("research", "time", 900)
    found = diagnose(view_of(waits=[paused, late]), symptoms_of())
    assert not untold([paused, late], found)
    assert untold([paused, limited], found)
    assert untold([paused], ())
    assert untold([paused], diagnose(view_of(), symptoms_of(failures=failures("research", "BadRequest", 40, bots=9))))


def test_findings_say_what_their_own_waits_are_for_and_nothing_of_others() -> None:
    for kind, _, sentence, view, symptoms in PLAYED:
        found = diagnose(view, symptoms)
        if sum(line.tasks for line in view.waits) and found[0].tasks:
            assert not untold(view.waits, found), sentence
            if kind != "no_worker":
                assert untold([*view.waits, wait_line("other", "bots", 90_000, about="other")], found), sentence
    limited = view_of(
        limits=[limit_view("alpha/m-1", refused_at=NOW_S - 1, held_s=12, waiting=600)],
        waits=[wait_line("research", "retry", 500, about=BETA)],
    )  # 600 calls wait in the limiter, in their slots; the tasks that wait in Redis are others
    (refusing,) = diagnose(limited, symptoms_of())
    assert (refusing.kind, refusing.tasks) == ("provider_refusing", 600)
    assert untold(limited.waits, [refusing])
    assert untold([wait_line("research", "hold", 500, about=BETA)], [refusing]), "another API"


def test_what_to_do_about_keys_that_a_scope_shuts_out_is_not_to_rotate_them() -> None:
    told, advice = "expected a pool of writing, got research", "`fleet keys scope alpha --reset` takes that back"
    wait = Wait("key", None, "[providers.alpha]", told, advice=advice)
    (found,) = diagnose(view_of(waits=[line_of("research", wait, NOW_S, tasks=5)]), symptoms_of())
    assert found.sentence == f"No key of alpha serves the tasks that wait, 5 tasks wait: {told}"
    assert found.help.advice == advice
    missing = Wait("key", None, "[providers.alpha]", "KEY is not set")
    (found,) = diagnose(view_of(waits=[line_of("research", missing, NOW_S, tasks=5)]), symptoms_of())
    assert "`fleet keys rotate alpha`" in found.help.advice


def test_a_button_is_there_where_a_button_helps() -> None:
    view = view_of(waits=[wait_line("research", "operator", 5, about="research", told="closed")])
    assert diagnose(view, symptoms_of())[0].help == Help(
        advice="resume it", command="fleet pools resume research", action={"do": "resume", "pool": "research"}
    )
    assert diagnose(view_of(), out(10))[0].help == Help(
        advice="find out what made them all bad, then release them all",
        command="fleet bots release --pool research", action={"do": "release", "pool": "research"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "culprit", "failed", "of", "view", "symptoms"),
    [
        ("provider", "all APIs", 24, 24, view_of(), breakers(alpha=DOWN, beta=DOWN)),
        ("provider", "alpha/m-1", 12, 12, view_of(), breakers(alpha=DOWN)),
        ("provider", "alpha/m-1", 8, 100, view_of(), breakers(alpha=some("late"))),
        (
            "provider", "all APIs", 16, 200, view_of(),
            breakers(alpha=some("late"), beta=some("outage")),
        ),
        ("key", "alpha/m-1", 1, 1, view_of(), breakers(alpha=BreakerFacts(True, SINCE, "key", "401", failed=1))),
        (
            "our limit", "alpha/m-1", 50, 100, view_of(limits=[limit_view("alpha/m-1", refused_at=NOW_S - 20)]),
            series(rate_limited=10.0),
        ),
        (
            "our limit", "alpha/m-1", 0, 0,  # none of the tasks whose calls are refused has ended
            view_of(
                limits=[limit_view("alpha/m-1", refused=40, refused_at=NOW_S - 1, waiting=2)],
                waits=[wait_line("research", "hold", 7, about=ALPHA)],
            ),
            symptoms_of(answered_at={"alpha/m-1": NOW_S - 8}),
        ),
        (
            "our budget", "alpha/m-1", 0, 9, view_of(waits=[wait_line("research", "money", 9, about=ALPHA)]),
            symptoms_of(),
        ),
        ("our bots", "research-001", 9, 200, view_of(), symptoms_of(failures=failures("research", "BadAnswer", 9))),
        ("prompts", "research", 9, 200, view_of(), symptoms_of(failures=failures("research", "BadRequest", 9, bots=9))),
        ("unclear", "", 2, 0, view_of(), symptoms_of(failures=failures("research", "BadRequest", 2, bots=2))),
        ("unclear", "", 9, 200, view_of(), symptoms_of(failures=failures("research", "DeadlineExceeded", 9, bots=9))),
    ],
)  # fmt: skip
def test_the_verdict_goes_by_calls_first_and_by_tasks_second(
    verdict: str, culprit: str, failed: int, of: int, view: FleetView, symptoms: Symptoms
) -> None:
    found = judge(view, symptoms)
    assert (found.verdict, found.culprit, found.failed, found.of) == (verdict, culprit, failed, of)
    assert found.reason


def test_bots_that_a_person_took_out_for_good_are_not_said_to_come_back_by_themselves() -> None:
    def told(*untils: float | None) -> tuple[str, str]:
        bots = tuple(OutBot(f"research-{n:03d}", SINCE, until, "odd", "ann") for n, until in enumerate(untils, 1))
        (one,) = diagnose(view_of(), symptoms_of(out={"research": bots}))
        return one.help.advice, one.help.command

    do_work, listed = "the others do their work; ", "fleet bots list --state quarantined"
    assert told(None) == (f"{do_work}it stays out until it is released", "fleet bots release research-001")
    assert told(NOW_S + 60) == (f"{do_work}it is tried again by itself", "fleet bots show research-001")
    assert told(None, NOW_S + 60) == (f"{do_work}1 of these stays out until released", listed)
    assert told(NOW_S + 60, NOW_S + 90) == (f"{do_work}these are tried again by themselves", listed)
    assert told(*[None] * 5)[0] == f"{do_work}these stay out until released"
    assert told(None, *[NOW_S + 60] * 5)[0].startswith("many at once")
