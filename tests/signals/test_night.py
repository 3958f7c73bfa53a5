"""Findings as an operator reads them at night: each cause once, over when it is over, steady while it lasts. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.faults import SAID, Fault
from fleet.signals.ahead.budget_view import BudgetScopeView, amount_view
from fleet.signals.diagnosis.alerting import AlertLog, look_for_news
from fleet.signals.diagnosis.bots import _OF_FAULTS
from fleet.signals.diagnosis.engine import diagnose, untold
from fleet.signals.diagnosis.finding import Diagnosis
from fleet.signals.diagnosis.symptoms import BreakerFacts, OpenCalls, OutBot, Symptoms
from fleet.signals.diagnosis.verdict import judge
from fleet.signals.health_view import ClassDiversity
from fleet.signals.view import Durations, EventView, FleetView, Quantiles
from fleet.signals.windows import Failure
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

ALPHA = "alpha/m-1/default"
HANGS = "alpha/m-1 leaves calls without an answer"


def event(name: str, ago_s: float, **fields: str) -> EventView:
    return EventView(id=f"{ago_s}", at=NOW_S - ago_s, name=name, level="error", fields=fields)


def alpha(*, failed: int = 0, well: int = 0, failed_ago_s: float | None = None, calls: dict[str, int]) -> Symptoms:
    at = None if failed_ago_s is None else NOW_S - failed_ago_s
    return symptoms_of(breakers={ALPHA: BreakerFacts(False, failed=failed, well=well, calls=calls, failed_at=at)})


def kinds(view: FleetView, symptoms: Symptoms) -> list[str]:
    return [one.kind for one in diagnose(view, symptoms)]


MANY = {"well": 60, "outage": 40}


@pytest.mark.parametrize(
    ("symptoms", "fails"),
    [
        (alpha(failed=4, well=9, failed_ago_s=10, calls=MANY), True),
        (alpha(failed=0, well=30, failed_ago_s=70, calls=MANY), False),  # 12 of 30 would have failed
        (alpha(failed=1, well=30, failed_ago_s=10, calls=MANY), False),
        (alpha(failed=0, well=0, failed_ago_s=70, calls=MANY), True),  # nobody has asked since
        (alpha(failed=0, well=3, failed_ago_s=70, calls={"well": 3, "late": 9}), True),  # too few to tell
        (alpha(failed=0, well=0, failed_ago_s=130, calls=MANY), False),
        (alpha(failed=0, well=0, failed_ago_s=None, calls=MANY), False),  # its breaker has closed since
    ],
)
def test_an_api_that_is_well_again_is_named_no_more(symptoms: Symptoms, fails: bool) -> None:
    found = judge(view_of(), symptoms)
    assert kinds(view_of(), symptoms) == ["provider_failing"] * fails
    if fails:
        assert (found.verdict, found.culprit) == ("provider", "alpha/m-1")
    else:
        assert (found.verdict, found.culprit) == ("none", "")
        assert found.reason == "40 of 100 calls of the last 5 minutes failed on alpha/m-1; none fails now"


@pytest.mark.parametrize(("ago_s", "fails"), [(20, True), (90, False)])
def test_429s_that_are_over_are_told_no_more(ago_s: float, fails: bool) -> None:
    view = view_of(limits=[limit_view("alpha/m-1", refused=50, refused_at=NOW_S - ago_s)])
    rows = steady() | {ago: {**steady()[0], "rate_limited": 10.0} for ago in range(5)}
    symptoms = symptoms_of(series={"research": minutes_of_pool(rows)})
    assert kinds(view, symptoms) == ["provider_refusing"] * fails
    assert judge(view, symptoms).verdict == ("our limit" if fails else "none")


@pytest.mark.parametrize(("left_s", "ago_s", "is_told"), [(25, 1, True), (4, 22, True), (4, 1, False)])
def test_a_long_hold_is_told_until_its_end(left_s: float, ago_s: float, is_told: bool) -> None:
    view = view_of(limits=[limit_view("alpha/m-1", held_s=left_s, refused=1, refused_at=NOW_S - ago_s)])
    assert kinds(view, symptoms_of()) == ["provider_refusing"] * is_told


def test_an_api_that_answers_nothing_is_behind_it_before_any_call_has_failed() -> None:
    found = judge(view_of(workers=[report("w1@h", unanswered={ALPHA: (8, 12.0)})]), symptoms_of())
    assert (found.verdict, found.culprit, found.of) == ("provider", "alpha/m-1", 8)


def slow_pool(p99_ms: float, count: int = 500) -> Any:
    nothing = Quantiles(count=0, p50=None, p90=None, p99=None)
    ran = Quantiles(count=count, p50=p99_ms / 4, p90=p99_ms / 2, p99=p99_ms)
    return pool_view("research", durations=Durations(queued=nothing, limited=nothing, ran=ran))


@pytest.mark.parametrize(
    ("ages_s", "calls", "p99_ms", "is_told"),
    [
        ((40.0,) * 10 + (1.0,) * 20, 30, 4000, True),
        ((40.0,) * 10 + (1.0,) * 20, 30, 20_000, False),  # tasks take that long
        ((40.0,) * 4 + (1.0,) * 8, 12, 4000, False),  # few
        ((40.0,) * 5 + (1.0,) * 45, 50, 4000, False),  # a small share
        ((40.0,) * 5 + (1.0,) * 45, 3000, 4000, False),
        ((), 0, 4000, False),
    ],
)
def test_calls_that_hang_while_others_are_answered_are_told_before_they_time_out(
    ages_s: tuple[float, ...], calls: int, p99_ms: float, is_told: bool
) -> None:
    view, symptoms = view_of(pools=[slow_pool(p99_ms)]), symptoms_of(under_way={ALPHA: OpenCalls(calls, ages_s)})
    found = diagnose(view, symptoms)
    assert [one.sentence for one in found] == [
        f"{HANGS}: 10 of 30 under way have had none for more than 12 s; 99 of 100 tasks of the last hour took less "
        "than 4 s"
    ] * is_told
    assert kinds(view_of(pools=[slow_pool(p99_ms, count=3)]), symptoms) == [], "nobody knows what is usual"


def test_an_api_that_hangs_and_fails_is_one_finding() -> None:
    facts = BreakerFacts(False, failed=9, well=9, calls={"well": 60, "late": 40})
    symptoms = symptoms_of(breakers={ALPHA: facts}, under_way={ALPHA: OpenCalls(10, (40.0,) * 10)})
    assert kinds(view_of(pools=[slow_pool(4000)]), symptoms) == ["provider_failing"]


def bots_out(count: int, reason: str, by: str = "health") -> Diagnosis:
    bots = [OutBot(f"research-{n:03d}", NOW_S, NOW_S + 60, reason.format(10 * n), by) for n in range(1, count + 1)]
    (found,) = diagnose(view_of(), symptoms_of(out={"research": tuple(bots)}))
    return found


@pytest.mark.parametrize(("fault", "remedy"), _OF_FAULTS.items())
def test_what_bots_are_out_for_says_what_helps(fault: Fault, remedy: str) -> None:
    reason = f"bad answers, {SAID[fault]}: {{}}% of its last tasks, 0% is usual"
    all_out = bots_out(10, reason)
    assert f": bad answers, {SAID[fault]}; the first is back at " in all_out.sentence
    assert all_out.help.advice == f"{remedy}, then release them all"
    assert bots_out(4, reason).help.advice == f"many at once: {remedy}"
    assert f"({reason.format(10)})" in bots_out(1, reason).sentence


def test_what_helps_against_a_quarantine_by_hand_is_to_ask_who_did_it() -> None:
    found = bots_out(10, "odd", by="ann")
    assert ": odd, by ann; " in found.sentence
    assert found.help.advice == "see that whoever took them out agrees, then release them all"


def test_a_quarantine_keeps_its_name_when_another_bot_follows() -> None:
    assert bots_out(1, "slow: 9%").about == bots_out(2, "slow: 9%").about == "research"


def growing(*, causes: dict[str, int], workers: int = 2) -> list[str]:
    last, tasks = int(NOW_S // 60), sum(causes.values())
    backlog = tuple((last - 12 + n, n * tasks // 12) for n in range(1, 13))
    waits = [wait_line("research", cause, count, about=ALPHA) for cause, count in causes.items()]
    view = view_of(
        pools=[pool_view("research", waiting=tasks)], waits=waits,
        workers=[report(f"w{n}@h") for n in range(workers)],
    )  # fmt: skip
    down = BreakerFacts(True, NOW_S, "outage", "refused", failed=9) if "outage" in causes else BreakerFacts(False)
    return kinds(view, symptoms_of(breakers={ALPHA: down}, backlogs={"research": backlog}))


def test_a_backlog_is_told_only_where_nothing_else_says_why_it_grows() -> None:
    assert growing(causes={"limit": 90_000}) == ["backlog_grows"]
    assert growing(causes={"outage": 90_000}) == ["provider_down"]
    assert growing(causes={"outage": 9_000, "limit": 81_000}) == ["provider_down", "backlog_grows"]
    assert growing(causes={"worker": 90_000}, workers=0) == ["no_worker"]


def lost(*names: str, started: dict[str, float] | None = None) -> list[str]:
    gone = [event("worker_lost", 60 + n, worker=name) for n, name in enumerate(names)]
    back = [event("worker_started", ago_s, worker=name) for name, ago_s in (started or {}).items()]
    return [one.sentence for one in diagnose(view_of(events=tuple(back + gone)), symptoms_of())]


def test_a_worker_of_another_name_takes_the_place_of_a_lost_one() -> None:
    assert lost("pod-1@a", started={"pod-9@a": 20}) == []
    assert len(lost("pod-1@a", started={"pod-9@a": 90})) == 1, "it had started before"
    assert len(lost("pod-1@a", "pod-2@a", started={"pod-9@a": 20})) == 1


def test_a_host_that_dies_is_one_finding() -> None:
    (said,) = lost(*(f"w{n}@h2" for n in range(7)))
    assert said.startswith("7 workers are lost since 14:00:54 UTC: w0@h2, w1@h2, ") and " and 2 more have " in said


def test_a_clock_is_told_once_a_host_and_that_of_redis_where_all_are_off_alike() -> None:
    def told(**ahead_s: float) -> list[str]:
        workers = [
            report(f"w{n}@{host}", host=host, clock_ahead_s=ahead) for host, ahead in ahead_s.items() for n in range(3)
        ]
        return [one.sentence.partition(":")[0] for one in diagnose(view_of(workers=workers), symptoms_of())]

    assert told(a=90.0, b=0.0) == ["The clock of host a is off"]
    assert told(a=90.0, b=90.5) == ["The clock of Redis is off"]
    assert told(a=90.0, b=-20.0) == ["The clock of host a is off", "The clock of host b is off"]


def spent_tenants(count: int) -> list[BudgetScopeView]:
    amount = amount_view("day", 9, 9, began_at=NOW_S - 9, closes_at=NOW_S + 9, now_s=NOW_S, per_s=None)
    return [
        BudgetScopeView(scope=f"tenant:t{n}", when_full="wait", is_live=False, reserved_usd=0, amounts=(amount,))
        for n in range(count)
    ]


def test_the_budgets_of_many_tenants_are_one_finding_that_tells_all_their_waits() -> None:
    waits = [wait_line("research", "money", 10 + n, about=f"budget tenant:t{n}, a day") for n in range(9)]
    found = diagnose(view_of(budgets=spent_tenants(9), waits=waits), symptoms_of())
    (one,) = found
    assert one.sentence == "The budgets of 9 tenants are used up, 126 tasks wait: t8, t7, t6, t5, t4 and 4 more"
    assert untold(waits, found) == ()
    assert len(diagnose(view_of(budgets=spent_tenants(2)), symptoms_of())) == 2


def test_findings_of_one_kind_about_one_thing_are_one() -> None:
    used = limit_view("alpha/m-1", usd_per_day=2.0, used_usd=2.0, requests_per_day=5, used_requests=5)
    found = diagnose(view_of(limits=[used]), symptoms_of())
    assert [(one.kind, one.about) for one in found] == [("budget_used", "alpha/m-1")]


def test_the_line_of_waits_is_about_what_findings_leave_out() -> None:
    told = wait_line("research", "outage", 60, about=ALPHA)
    rest = wait_line("writing", "limit", 40, about="beta/m-2/default")
    found = diagnose(view_of(waits=[told, rest]), symptoms_of())
    assert untold([told, rest], found) == (rest,)
    assert untold([told, rest.model_copy(update={"tasks": 4})], found) == ()


def test_since_when_prompts_fail_does_not_move_with_the_window() -> None:
    now = failures("research", "BadRequest", 40, bots=9)
    before = [Failure(NOW_S - 30 - 200 * n, f"e{n}", "research", "research-001", "alpha/m-1", "BadRequest")
              for n in range(1, 6)]  # fmt: skip
    long_ago = Failure(NOW_S - 3000, "x", "research", "research-001", "alpha/m-1", "BadRequest")
    (found,) = diagnose(view_of(), symptoms_of(failures=(*now, *before, long_ago)))
    assert found.since == NOW_S - 1030


def test_one_bot_is_accused_only_where_chance_would_hardly_do_it() -> None:
    def verdict(on_one: int, others: int) -> str:
        rest = [Failure(NOW_S - 9, f"o{n}", "research", f"research-{n + 2:03d}", "alpha/m-1", "BadAnswer")
                for n in range(others)]  # fmt: skip
        return judge(view_of(), symptoms_of(failures=(*failures("research", "BadAnswer", on_one), *rest))).verdict

    assert verdict(3, 2) == "prompts"
    assert verdict(5, 2) == "our bots"


@pytest.mark.parametrize(
    ("phase", "advice"),
    [
        ("treating", "a remedy is being tried; "),
        ("exhausted", "no remedy has helped: look at "),
        ("watching", "look at"),
    ],
)
def test_what_helps_where_bots_are_alike_goes_by_what_is_done_about_it(phase: Any, advice: str) -> None:
    alike = ClassDiversity(pool="research", kind="summary", answers=9, phase=phase, alarm=True, alarm_at=1, line="")
    (found,) = diagnose(view_of(diversity=[alike]), symptoms_of())
    assert found.help.advice.startswith(advice)


def finding(about: str) -> Diagnosis:
    return Diagnosis(kind="provider_down", severity="critical", sentence=f"{about} is down", about=about)


def test_nobody_is_told_that_an_api_is_well_when_all_are_down() -> None:
    log, told = AlertLog(), list[tuple[str, str]]()
    looks = [("alpha",), ("all APIs",), ("all APIs",), ("alpha",), ("alpha",), ()]
    for minute, abouts in enumerate([*looks, (), ()]):
        look = look_for_news(
            [finding(about) for about in abouts], log, lowest="warning", repeat_s=14_400, most_per_hour=99,
            now_s=NOW_S + 90 * minute,
        )  # fmt: skip
        told += [(one.what, one.about) for one in look.news]
        log = look.if_told
    assert told == [
        ("began", "alpha"), ("began", "all APIs"), ("lasts", "alpha"), ("over", "all APIs"), ("over", "alpha"),
    ]  # fmt: skip
