from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import (
    BadAnswer,
    BadRequest,
    ContextTooLong,
    DeadlineExceeded,
    FleetError,
    InvalidTask,
    KeyRejected,
    NotSoon,
    OutOfTries,
    ProviderUnavailable,
    RateLimited,
    StoreRefused,
    StoreUnavailable,
)
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE, Before, Outcome
from fleet.usage import Usage
from fleet.waits import Wait
from fleet.workers.agent import Agent
from fleet.workers.calls import Call, Completion
from tests.workers.fakes import (
    OTHERS_DID_WELL,
    FakeBreakers,
    FakeLimiter,
    FakeProvider,
    a_bot,
    a_gateway,
    said,
    settings_of,
)

TASK = BotTask(prompt="a very private prompt")


def work(
    limiter: FakeLimiter,
    provider: FakeProvider,
    *,
    task: BotTask = TASK,
    deadline_s_left: float | None = 5.0,
    share: float = 0.0,
    before: Before | None = None,
    breakers: FakeBreakers | None = None,
    timeout_s: float = 60.0,
    on_wait: Callable[[str, Wait], None] = lambda pool, wait: None,
    **pool: Any,
) -> Outcome:
    """Run one task; without jitter unless `share` says otherwise, so that no test waits."""

    async def run() -> Outcome:
        gateway = a_gateway(
            limiter, provider, breakers=breakers, timeout_s=timeout_s, others_are_answered=timeout_s == 60.0
        )
        agent = Agent(gateway, settings_of(**pool), share=lambda: share, on_wait=on_wait)
        return await agent.run(task, a_bot(), task_id="t1", deadline_s_left=deadline_s_left, before=before)

    return asyncio.run(run())


def test_a_task_is_answered_with_the_personas_prompt_and_temperature():
    limiter, provider = FakeLimiter(), FakeProvider([said("4", input_tokens=9, output_tokens=1)])
    outcome = work(limiter, provider)
    persona = a_bot().persona
    assert (outcome.status, outcome.answer, outcome.error, outcome.attempts) == ("ok", "4", None, 1)
    assert outcome.usage == Usage(input_tokens=9, output_tokens=1)
    assert (outcome.provider, outcome.model, outcome.simulated) == ("api", "model-1", False)
    call = provider.calls[0]
    assert [message.content for message in call.messages] == [persona.system_prompt, TASK.prompt]
    assert (call.temperature, call.max_output_tokens) == (persona.temperature, 512)


def test_calls_are_made_for_the_tasks_tenant():
    limiter = FakeLimiter()
    work(limiter, FakeProvider(["4"]), task=BotTask(prompt="2+2?", tenant="acme", kind="sums"))
    assert [(caller.tenant, caller.kind) for caller in limiter.callers] == [("acme", "sums")]


def test_the_task_may_ask_for_a_shorter_answer_than_the_pool():
    provider = FakeProvider(["4"])
    work(FakeLimiter(), provider, task=BotTask(prompt="2+2?", max_output_tokens=7))
    assert provider.calls[0].max_output_tokens == 7


def test_an_answer_cut_off_at_its_limit_is_degraded_but_delivered():
    outcome = work(FakeLimiter(), FakeProvider([said("The answer is", finish_reason="length")]))
    assert (outcome.status, outcome.answer) == ("degraded", "The answer is")


def test_a_provider_failure_is_tried_again_and_each_try_has_its_own_grant():
    limiter, provider = FakeLimiter(), FakeProvider([ProviderUnavailable("503"), ProviderUnavailable("cut"), "4"])
    outcome = work(limiter, provider)
    assert (outcome.status, outcome.attempts, outcome.provider_errors) == ("ok", 3, {"ProviderUnavailable": 2})
    assert len(limiter.granted) == len(provider.calls) == 3 and limiter.is_settled_once


def test_a_task_on_which_its_provider_keeps_failing_while_others_do_well_ends_after_max_attempts():
    limiter, provider = FakeLimiter(), FakeProvider([ProviderUnavailable("503")])
    outcome = work(limiter, provider, max_attempts=3, breakers=FakeBreakers(rulings=[OTHERS_DID_WELL]))
    assert (outcome.status, outcome.answer, outcome.attempts) == ("failed", None, 3)
    assert isinstance(outcome.error, OutOfTries) and "503" in str(outcome.error) and outcome.error.blame == "provider"


def test_failures_while_nobody_does_well_and_what_was_never_sent_are_no_tries():
    failures = [ProviderUnavailable("503")] * 9
    outcome = work(FakeLimiter(), FakeProvider([*failures, "4"]), max_attempts=1)
    assert (outcome.status, outcome.attempts) == ("ok", 10)
    unsent, breakers = [ProviderUnavailable("no connection", sent=False)] * 9, FakeBreakers(rulings=[OTHERS_DID_WELL])
    assert work(FakeLimiter(), FakeProvider([*unsent, "4"]), max_attempts=1, breakers=breakers).status == "ok"


def test_a_429_is_no_attempt_and_is_waited_out():
    limiter, provider = FakeLimiter(), FakeProvider([*[RateLimited("429")] * 6, "4"])
    outcome = work(limiter, provider, max_attempts=1)
    assert (outcome.status, outcome.attempts, outcome.provider_errors) == ("ok", 7, {"RateLimited": 6})
    assert len(limiter.holds) == 6


def test_time_lost_by_429s_does_not_count():
    provider = FakeProvider([*[RateLimited("429")] * 5, "4"])
    outcome = work(FakeLimiter(), provider, deadline_s_left=0.05, share=0.1)
    assert outcome.status == "ok" and outcome.ran_ms < 50


def test_half_an_answer_is_paid_and_asked_for_again_and_no_fault_of_the_bots():
    outcome = work(FakeLimiter(), FakeProvider([said("Half an ans", finish_reason="network_error"), "4"]))
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "4", 2)
    assert (outcome.provider_errors, outcome.bad_answers) == ({"ProviderUnavailable": 1}, 0)
    assert outcome.usage.total_tokens == 30
    half, others = said("Half an ans", finish_reason="error"), FakeBreakers(rulings=[OTHERS_DID_WELL])
    outcome = work(FakeLimiter(), FakeProvider([half]), max_attempts=2, breakers=others)
    assert isinstance(outcome.error, OutOfTries) and outcome.attempts == 2 and outcome.fault is None
    outcome = work(FakeLimiter(), FakeProvider([*[half] * 6, "4"]), max_attempts=2)
    assert outcome.status == "ok", "while nobody else is answered it is no try"


def test_an_empty_answer_is_tried_again_within_max_attempts():
    assert work(FakeLimiter(), FakeProvider(["", "4"]), max_attempts=2).answer == "4"
    outcome = work(FakeLimiter(), FakeProvider([""]), max_attempts=2)
    assert isinstance(outcome.error, BadAnswer) and outcome.attempts == 2


@pytest.mark.parametrize(
    "reply",
    [
        BadRequest("400"), ContextTooLong("too long"), InvalidTask("what the wire cannot say"),
        said("I'm sorry, but I can't help with that."),
    ],
)  # fmt: skip
def test_what_no_retry_can_help_is_final_at_once(reply: Any):
    outcome = work(FakeLimiter(), FakeProvider([reply]))
    assert outcome.status == "failed" and outcome.attempts == 1
    expected = BadRequest if isinstance(reply, ContextTooLong) else type(reply)
    assert type(outcome.error) is (BadAnswer if isinstance(reply, Completion) else expected)


def test_a_retry_waits_at_least_as_long_as_the_provider_asked():
    began = time.monotonic()
    outcome = work(FakeLimiter(), FakeProvider([ProviderUnavailable("503", retry_after_s=0.06), "4"]))
    assert outcome.status == "ok" and time.monotonic() - began >= 0.06 and outcome.ran_ms < 60


def test_redis_that_comes_back_in_time_costs_no_attempt():
    errors = [StoreUnavailable("no Redis"), StoreRefused("its password was changed"), StoreUnavailable("no Redis")]
    outcome = work(FakeLimiter(errors=errors), FakeProvider(["4"]), max_attempts=1)
    assert (outcome.status, outcome.attempts) == ("ok", 1)


def test_redis_that_stays_away_is_waited_for_past_the_deadline_and_nothing_is_sent_before():
    limiter, provider = FakeLimiter(errors=[StoreUnavailable("no Redis")] * 9), FakeProvider(["4"])
    outcome = work(limiter, provider, deadline_s_left=0.2, share=0.1)
    assert (outcome.status, outcome.attempts, len(provider.calls)) == ("ok", 1, 1)


def test_a_call_that_hangs_while_others_are_answered_is_cut_at_the_deadline_and_settled():
    limiter, provider = FakeLimiter(), FakeProvider(["hang", "4"])

    async def run() -> tuple[Outcome, Outcome]:
        agent = Agent(a_gateway(limiter, provider), settings_of(), share=lambda: 0.0)
        hung = asyncio.ensure_future(agent.run(TASK, a_bot(), task_id="t1", deadline_s_left=0.05))
        while not provider.calls:
            await asyncio.sleep(0)
        return await agent.run(TASK, a_bot(), task_id="t2"), await hung

    other, outcome = asyncio.run(run())
    assert other.status == "ok"
    assert isinstance(outcome.error, DeadlineExceeded) and "in 1 provider calls" in str(outcome.error)
    assert limiter.is_settled_once and limiter.settled[-1][1] == limiter.granted[0].reserved_tokens
    assert outcome.provider_errors == {"DeadlineExceeded": 1} and 40 <= outcome.ran_ms < 5_000


def test_a_call_that_hangs_while_nobody_is_answered_is_ended_by_its_timeout_alone():
    class Silent(FakeProvider):
        async def complete(self, call: Call, *, api_key: str) -> Completion:
            if not self.calls:
                self.calls.append(call)
                await asyncio.sleep(call.timeout_s)
                raise ProviderUnavailable("no answer in time", timed_out=True)
            return await super().complete(call, api_key=api_key)

    limiter = FakeLimiter()
    outcome = work(limiter, Silent(["4"]), deadline_s_left=0.05, timeout_s=0.3)
    assert (outcome.status, outcome.provider_errors) == ("ok", {"ProviderUnavailable": 1}) and outcome.ran_ms < 50
    assert limiter.is_settled_once


@pytest.mark.parametrize("is_stopped", [True, False])
def test_work_that_is_stopped_tells_what_it_has_used_and_any_other_cancellation_goes_through(is_stopped: bool):
    limiter, provider = FakeLimiter(), FakeProvider(["hang"])

    async def run() -> Outcome:
        agent, stop = Agent(a_gateway(limiter, provider), settings_of()), asyncio.Event()
        job = asyncio.ensure_future(agent.run(TASK, a_bot(), task_id="t1", stop=stop))
        while not provider.calls:
            await asyncio.sleep(0.01)
        if is_stopped:
            stop.set()
        job.cancel()
        return await job

    if is_stopped:
        outcome = asyncio.run(run())
        assert (outcome.status, outcome.attempts, outcome.fault) == ("failed", 1, None)
        assert outcome.usage.total_tokens > 0 or outcome.provider_errors
    else:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(run())
    assert limiter.is_settled_once


def test_an_answer_whose_check_takes_long_holds_up_nobody_else():
    rule = {"type": "array", "uniqueItems": True}
    answer = json.dumps([{"n": number} for number in range(6000)])

    async def run() -> tuple[Outcome, int]:
        agent = Agent(a_gateway(FakeLimiter(), FakeProvider([answer])), settings_of())
        job = asyncio.ensure_future(agent.run(BotTask(prompt="300?", answer_schema=rule), a_bot(), task_id="t1"))
        turns = 0
        while not job.done():
            turns += any(thread.name == "answer-schema" for thread in threading.enumerate())
            await asyncio.sleep(0)
        return await job, turns

    outcome, turns = asyncio.run(run())
    assert (outcome.status, outcome.answer) == ("ok", answer)
    assert turns > 1


def test_the_time_waited_under_the_limit_is_told_apart_from_the_time_of_the_calls():
    outcome = work(FakeLimiter(wait_s=0.06), FakeProvider(["4"]))
    assert outcome.limited_ms >= 60 and outcome.ran_ms < 60


@pytest.mark.parametrize("left_s", [0.0, -3.0])
def test_a_task_that_comes_too_late_calls_nobody(left_s: float):
    limiter, provider = FakeLimiter(), FakeProvider(["4"])
    outcome = work(limiter, provider, deadline_s_left=left_s)
    assert isinstance(outcome.error, DeadlineExceeded) and limiter.granted == [] and provider.calls == []


def test_without_a_deadline_from_outside_the_tasks_own_holds_and_then_the_pools():
    class Slow(FakeProvider):
        async def complete(self, call: Call, *, api_key: str) -> Completion:
            await asyncio.sleep(0.1)
            return await super().complete(call, api_key=api_key)

    task = BotTask(prompt="x", deadline_s=0.05)
    outcome = work(FakeLimiter(), Slow(["4"]), task=task, deadline_s_left=None)
    assert "within 0.1 s at work" in str(outcome.error) or "within 0.0 s at work" in str(outcome.error)
    assert work(FakeLimiter(), Slow(["4"]), deadline_s_left=None, deadline_s=0.06).status == "failed"
    assert work(FakeLimiter(), Slow(["4"]), deadline_s_left=None, deadline_s=30).status == "ok"


def test_a_bug_is_an_outcome_and_its_message_stays_out_of_the_log(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG):
        outcome = work(FakeLimiter(), FakeProvider([ZeroDivisionError("a very private prompt")]))
    assert type(outcome.error) is FleetError and "ZeroDivisionError" in str(outcome.error)
    assert "task_crashed task=t1 bot=research-001 error=ZeroDivisionError" in caplog.text
    assert "in complete" in caplog.text and "private" not in caplog.text


def test_a_timeout_that_is_not_the_deadline_is_not_called_one():
    outcome = work(FakeLimiter(), FakeProvider([TimeoutError("an adapter's bug")]))
    assert type(outcome.error) is FleetError


def test_only_a_cancellation_from_outside_is_let_through_and_it_settles():
    limiter = FakeLimiter()

    async def run() -> None:
        agent = Agent(a_gateway(limiter, FakeProvider(["hang"])), settings_of())
        task = asyncio.ensure_future(agent.run(TASK, a_bot(), task_id="t1", deadline_s_left=60))
        while not limiter.granted:
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert limiter.is_settled_once


REPLIES = st.sampled_from(
    [
        said("4"),
        said(""),
        said("cut", finish_reason="length"),
        said("I cannot assist with that."),
        RateLimited("429", retry_after_s=0),
        ProviderUnavailable("503"),
        ProviderUnavailable("no connection", sent=False),
        KeyRejected("401"),
        BadRequest("400"),
        ValueError("bug"),
    ]
)
TROUBLES = st.sampled_from([None, None, StoreUnavailable("no Redis"), NotSoon(Wait("limit", 1.0))])


@settings(deadline=None, max_examples=60)
@given(st.lists(REPLIES, min_size=1, max_size=6), st.lists(TROUBLES, max_size=3), st.integers(1, 4), st.integers(0, 40))
def test_whatever_happens_each_grant_has_one_request_and_is_settled_once(
    replies: list[Any], troubles: list[Any], max_attempts: int, cancel_after: int
):
    limiter, provider = FakeLimiter(errors=list(troubles)), FakeProvider([*replies, "4"])

    async def run() -> Outcome | None:
        breakers = FakeBreakers(rulings=[OTHERS_DID_WELL])
        gateway = a_gateway(limiter, provider, breakers=breakers)
        agent = Agent(gateway, settings_of(max_attempts=max_attempts), share=lambda: 0.0)
        job = agent.run(TASK, a_bot(), task_id="t1", deadline_s_left=5.0, before=NOTHING_BEFORE)
        task = asyncio.ensure_future(job)
        if cancel_after < 30:
            for _ in range(cancel_after):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    logging.disable()
    try:
        outcome = asyncio.run(run())
    finally:
        logging.disable(logging.NOTSET)
    assert limiter.is_settled_once
    assert len(limiter.granted) == len(provider.calls)
    if outcome is not None and outcome.parking is not None:
        assert (outcome.answer, outcome.error, outcome.attempts) == (None, None, len(provider.calls))
        assert outcome.parking.sent == bool(provider.calls) and outcome.parking.before.attempts == outcome.attempts
        return
    if outcome is not None:
        assert (outcome.error is None) == (outcome.status != "failed") == (outcome.answer is not None)
        assert outcome.attempts == len(provider.calls)
        assert (outcome.fault is not None) == isinstance(
            outcome.error, BadAnswer
        ) and outcome.bad_answers <= outcome.attempts
