"""What follows a call that did not come to an answer: one table for the pure rule, one for what becomes of the task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from fleet.errors import (
    BadAnswer,
    BadRequest,
    ConfigurationError,
    DeadlineExceeded,
    FleetError,
    InvalidTask,
    KeyRejected,
    KeySpent,
    MachineExhausted,
    NotServed,
    NotSoon,
    OutOfTries,
    ProviderUnavailable,
    RateLimited,
    StoreRefused,
    StoreUnavailable,
    TooExpensive,
    Waits,
)
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE, Before, Outcome
from fleet.waits import Cause, Ruling, Wait
from fleet.workers.agent import Agent
from fleet.workers.bot.sequel import LEAST_S, UNKNOWN_S, sequel_of
from tests.workers.fakes import OTHERS_DID_WELL, FakeBreakers, FakeLimiter, FakeProvider, a_bot, a_gateway, settings_of

NOW_S, ABOUT = 1_000_000.0, "api/model-1/default"
OPEN = Wait("outage", NOW_S + 1.4, ABOUT, probe_every_s=1.4)
DEAD_KEY = Wait("key", NOW_S + 60, ABOUT, "401", probe_every_s=60)


def ruled(error: Waits, *, wait: Wait | None = None, retry_in_s: float | None = None, counts: float = 0.0) -> Waits:
    retry_at = 0.0 if retry_in_s is None else NOW_S + retry_in_s
    error.ruling = Ruling(wait, retry_at, counts=counts)
    return error


def passing(error: Waits, *, in_s: float) -> Waits:
    error.passes_at = NOW_S + in_s
    return error


#: Why; failures in a row; then: cause, pause at the jitter's most (s), whether it counts, is shut, waits in its slot.
TABLE: list[tuple[str, Callable[[], Waits], int, tuple[Cause, float, bool, bool, bool]]] = [
    ("a far turn", lambda: NotSoon(Wait("limit", NOW_S + 9)), 0, ("limit", 9, False, True, False)),
    ("a day that is used up", lambda: NotSoon(Wait("money", NOW_S + 9000)), 0, ("money", 9000, False, True, False)),
    ("a hold without a time", lambda: NotSoon(Wait("hold")), 0, ("hold", UNKNOWN_S, False, True, False)),
    ("one that is over by now", lambda: NotSoon(Wait("hold", NOW_S - 5)), 0, ("hold", LEAST_S, False, True, False)),
    ("the first 503", lambda: ruled(ProviderUnavailable("503")), 1, ("retry", 1, False, False, False)),
    ("the second", lambda: ruled(ProviderUnavailable("503")), 2, ("retry", 4, False, False, False)),
    ("the third", lambda: ruled(ProviderUnavailable("503")), 3, ("retry", 16, False, False, False)),
    ("the fourth", lambda: ruled(ProviderUnavailable("503")), 4, ("retry", 60, False, False, False)),
    ("the first that says not to try again", lambda: ruled(ProviderUnavailable("500", passes=False)), 1,
     ("retry", 60, False, False, False)),
    ("the fortieth", lambda: ruled(ProviderUnavailable("503")), 40, ("retry", 60, False, False, False)),
    ("a 503 while others do well", lambda: ruled(ProviderUnavailable("503"), counts=1.0), 1,
     ("retry", 1, True, False, False)),
    ("one that was never sent", lambda: ruled(ProviderUnavailable("no road", sent=False), counts=1.0), 1,
     ("retry", 1, False, False, False)),
    ("one that Redis could not rule on", lambda: ProviderUnavailable("503"), 1, ("retry", 1, False, False, False)),
    ("Retry-After is a floor", lambda: ruled(ProviderUnavailable("503", retry_after_s=30)), 1,
     ("retry", 31, False, False, False)),
    ("an empty retry budget is one", lambda: ruled(ProviderUnavailable("503"), retry_in_s=12), 1,
     ("retry", 13, False, False, False)),
    ("the later of both counts", lambda: ruled(ProviderUnavailable("503", retry_after_s=30), retry_in_s=12), 1,
     ("retry", 31, False, False, False)),
    ("a budget's turn that has passed", lambda: ruled(ProviderUnavailable("503"), retry_in_s=-12), 1,
     ("retry", 1, False, False, False)),
    ("the one that opens the breaker", lambda: ruled(ProviderUnavailable("503"), wait=OPEN), 3,
     ("outage", 1.4, False, True, False)),
    ("the same while others did well", lambda: ruled(ProviderUnavailable("503"), wait=OPEN, counts=1.0), 3,
     ("outage", 1.4, True, True, False)),
    ("a dead key that opens it", lambda: ruled(KeyRejected("401"), wait=DEAD_KEY), 1, ("key", 60, False, True, False)),
    ("a key refused once, while others do well", lambda: ruled(KeyRejected("403"), counts=1.0), 1,
     ("key", 1, False, False, False)),
    ("an empty account that says until when", lambda: ruled(KeySpent("402", passes_at=NOW_S + 500)), 1,
     ("credit", 501, False, False, False)),
    ("a model that is not there, once", lambda: ruled(NotServed("404")), 2, ("configuration", 4, False, False, False)),
    ("a setting of ours", lambda: ConfigurationError("no such limit"), 1, ("configuration", 1, False, False, False)),
    ("a 429", lambda: RateLimited("429", retry_after_s=400), 1, ("retry", 0.2, False, False, False)),
    ("the tenth", lambda: RateLimited("429"), 10, ("retry", 10, False, False, False)),
    ("no Redis", lambda: StoreUnavailable("away"), 1, ("redis", 0.2, False, False, True)),
    ("a Redis that refuses us", lambda: StoreRefused("password"), 3, ("configuration", 0.8, False, False, True)),
    ("no files left here", lambda: MachineExhausted("EMFILE"), 2, ("machine", 0.4, False, False, True)),
    ("what says when it passes", lambda: passing(ProviderUnavailable("later"), in_s=50), 1,
     ("retry", 51, False, False, False)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "failures", "follows"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_follows_a_call_without_an_answer(
    error: Callable[[], Waits], failures: int, follows: tuple[Cause, float, bool, bool, bool]
):
    longest, shortest = (
        sequel_of(error(), failures=failures, share=share, now_s=NOW_S, about=ABOUT) for share in (1.0, 0.0)
    )
    cause, pause_s, *how = follows
    assert (longest.wait.cause, [longest.counts, longest.is_shut, longest.in_slot]) == (cause, how)
    assert longest.pause_s == pytest.approx(pause_s) and 0 <= shortest.pause_s <= longest.pause_s
    assert longest.wait.about in ("", ABOUT)
    if not longest.is_shut:  # what this task alone waits for holds nobody else
        assert longest.wait.opens_at == pytest.approx(NOW_S + pause_s) and not longest.wait.is_everyones
        assert (longest.wait.probe_every_s, longest.wait.lowest) == (0, -1)


def test_what_the_whole_ladder_waits_for_replaces_the_wait_of_one_rung_and_nothing_else():
    sequel = sequel_of(ruled(ProviderUnavailable("503"), wait=OPEN, counts=1.0), failures=1, share=1.0,
                       now_s=NOW_S, about=ABOUT)  # fmt: skip
    assert sequel.until(OPEN, NOW_S) is sequel
    ladder = sequel.until(Wait("key", NOW_S + 30, "other/model/default"), NOW_S)
    assert (ladder.wait.cause, ladder.pause_s, ladder.counts, ladder.is_shut) == ("key", 30, True, True)


# -- what becomes of the task


def work(
    *replies: Any, task: BotTask | None = None, limiter: FakeLimiter | None = None, left_s: float = 5.0,
    share: float = 1.0, rulings: list[Ruling] | None = None, before: Before | None = NOTHING_BEFORE,
    spent_picos: int = 0, **pool: Any,
) -> Outcome:  # fmt: skip
    async def run() -> Outcome:
        gateway = a_gateway(
            limiter or FakeLimiter(), FakeProvider(list(replies)), breakers=FakeBreakers(rulings=list(rulings or [])),
            price=lambda model, usage, tier: usage.total_tokens * 10**9,
        )  # fmt: skip
        agent = Agent(gateway, settings_of(**pool), share=lambda: share)
        return await agent.run(
            task or BotTask(prompt="2+2?"), a_bot(), task_id="t1", deadline_s_left=left_s, before=before,
            spent_picos=spent_picos,
        )  # fmt: skip

    return asyncio.run(run())


LATER = time.time() + 3600
FAILS = ProviderUnavailable("503")

#: What happens, and how the task ends, or why it is parked.
ENDS: list[tuple[str, Callable[[], Outcome], type[FleetError] | Cause]] = [
    ("a refusal of this request", lambda: work(BadRequest("400")), BadRequest),
    ("what is no call at all", lambda: work(InvalidTask("no")), InvalidTask),
    ("empty answers", lambda: work("", share=0.0), BadAnswer),
    ("too little time", lambda: work("4", left_s=0), DeadlineExceeded),
    ("too little money", lambda: work("4", task=BotTask(prompt="x", max_cost_usd=1e-7)), TooExpensive),
    ("money that another bot has spent",
     lambda: work("4", task=BotTask(prompt="x", max_cost_usd=5), spent_picos=5 * 10**12), TooExpensive),
    ("its last try while others do well", lambda: work(FAILS, max_attempts=1, rulings=[OTHERS_DID_WELL]), OutOfTries),
    ("its last try, of earlier deliveries",
     lambda: work(FAILS, max_attempts=3, rulings=[OTHERS_DID_WELL], before=Before(tries=2, parked=2)), OutOfTries),
    ("a failure whose pause is long", lambda: work(ProviderUnavailable("503", retry_after_s=60)), "retry"),
    ("a failure after which the budget is empty", lambda: work(FAILS, rulings=[Ruling(None, LATER, False)]), "retry"),
    ("an open breaker", lambda: work(FAILS, rulings=[Ruling(Wait("outage", LATER), 0.0, False)]), "outage"),
    ("a dead key", lambda: work(KeyRejected("401"), rulings=[Ruling(Wait("key", LATER), 0.0, False)]), "key"),
    ("a day that is used up", lambda: work("4", limiter=FakeLimiter(errors=[NotSoon(Wait("money", LATER))])), "money"),
    ("a far turn, with hardly any time left", lambda: work("4", limiter=FakeLimiter(wait_s=60), left_s=0.1), "limit"),
]  # fmt: skip


@pytest.mark.parametrize(("happens", "ends"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_what_becomes_of_the_task(happens: Callable[[], Outcome], ends: type[FleetError] | Cause):
    outcome = happens()
    if isinstance(ends, str):
        assert outcome.error is None and outcome.parking is not None
        assert (outcome.parking.wait.cause, outcome.parking.before.parked) == (ends, 1)
    else:
        assert outcome.parking is None and type(outcome.error) is ends


def test_a_task_with_a_paid_answer_is_not_parked_by_what_it_asks_next():
    repairs = BotTask(prompt="x", answer_schema={"type": "object", "required": ["a"]})
    outcome = work("no json", ProviderUnavailable("503"), '{"a": 1}', task=repairs, share=0.01)
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", '{"a": 1}', 3)
