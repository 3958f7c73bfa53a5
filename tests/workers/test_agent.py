from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import (
    BadAnswer,
    BadRequest,
    DeadlineExceeded,
    FleetError,
    KeyRejected,
    KeySpent,
    NotServed,
    ProviderUnavailable,
    RateLimited,
    StoreRefused,
    StoreUnavailable,
)
from fleet.models import BotTask
from fleet.outcome import Outcome
from fleet.usage import Usage
from fleet.workers.agent import Agent
from fleet.workers.ports import Completion
from tests.workers.fakes import FakeLimiter, FakeProvider, a_bot, a_gateway, said, settings_of

TASK = BotTask(prompt="a very private prompt")


def work(
    limiter: FakeLimiter,
    provider: FakeProvider,
    *,
    task: BotTask = TASK,
    deadline_s_left: float | None = 5.0,
    share: float = 0.0,
    **pool: Any,
) -> Outcome:
    """Run one task; without jitter unless `share` says otherwise, so that no test waits."""

    async def run() -> Outcome:
        agent = Agent(a_gateway(limiter, provider), settings_of(**pool), share=lambda: share)
        return await agent.run(task, a_bot(), task_id="t1", deadline_s_left=deadline_s_left)

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


def test_a_provider_that_keeps_failing_ends_the_task_after_max_attempts():
    limiter, provider = FakeLimiter(), FakeProvider([ProviderUnavailable("503")])
    outcome = work(limiter, provider, max_attempts=3)
    assert (outcome.status, outcome.answer, outcome.attempts) == ("failed", None, 3)
    assert isinstance(outcome.error, ProviderUnavailable)


def test_a_429_is_no_attempt_and_is_waited_out():
    limiter, provider = FakeLimiter(), FakeProvider([*[RateLimited("429")] * 6, "4"])
    outcome = work(limiter, provider, max_attempts=1)
    assert (outcome.status, outcome.attempts, outcome.provider_errors) == ("ok", 7, {"RateLimited": 6})
    assert len(limiter.holds) == 6


def test_429s_without_end_are_ended_by_the_deadline():
    outcome = work(FakeLimiter(), FakeProvider([RateLimited("429")]), deadline_s_left=0.05, share=0.01)
    assert isinstance(outcome.error, DeadlineExceeded) and "answered 429" in str(outcome.error)


def test_half_an_answer_is_paid_and_asked_for_again_and_no_fault_of_the_bots():
    outcome = work(FakeLimiter(), FakeProvider([said("Half an ans", finish_reason="network_error"), "4"]))
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "4", 2)
    assert (outcome.provider_errors, outcome.bad_answers) == ({"ProviderUnavailable": 1}, 0)
    assert outcome.usage.total_tokens == 30
    outcome = work(FakeLimiter(), FakeProvider([said("Half an ans", finish_reason="error")]), max_attempts=2)
    assert isinstance(outcome.error, ProviderUnavailable) and outcome.attempts == 2 and outcome.fault is None


def test_an_empty_answer_is_tried_again_within_max_attempts():
    assert work(FakeLimiter(), FakeProvider(["", "4"]), max_attempts=2).answer == "4"
    outcome = work(FakeLimiter(), FakeProvider([""]), max_attempts=2)
    assert isinstance(outcome.error, BadAnswer) and outcome.attempts == 2


@pytest.mark.parametrize(
    "reply",
    [
        KeyRejected("401"), KeySpent("402"), NotServed("404"), BadRequest("400"),
        ProviderUnavailable("500", passes=False),
        said("I'm sorry, but I can't help with that."),
    ],
)  # fmt: skip
def test_what_no_retry_can_help_is_final_at_once(reply: Any):
    outcome = work(FakeLimiter(), FakeProvider([reply]))
    assert outcome.status == "failed" and outcome.attempts == 1
    assert type(outcome.error) is (BadAnswer if isinstance(reply, Completion) else type(reply))


def test_a_retry_after_beyond_the_deadline_fails_now_and_not_later():
    outcome = work(FakeLimiter(), FakeProvider([ProviderUnavailable("503", retry_after_s=60)]), deadline_s_left=30)
    assert isinstance(outcome.error, ProviderUnavailable) and outcome.attempts == 1 and outcome.ran_ms < 5_000


def test_a_retry_waits_at_least_as_long_as_the_provider_asked():
    outcome = work(FakeLimiter(), FakeProvider([ProviderUnavailable("503", retry_after_s=0.06), "4"]))
    assert outcome.status == "ok" and outcome.ran_ms >= 60


def test_redis_that_comes_back_in_time_costs_no_attempt():
    errors = [StoreUnavailable("no Redis"), StoreRefused("its password was changed"), StoreUnavailable("no Redis")]
    outcome = work(FakeLimiter(errors=errors), FakeProvider(["4"]), max_attempts=1)
    assert (outcome.status, outcome.attempts) == ("ok", 1)


def test_redis_that_stays_away_is_waited_for_until_the_deadline_and_nothing_is_sent():
    limiter, provider = FakeLimiter(errors=[StoreUnavailable("no Redis")] * 100_000), FakeProvider(["4"])
    outcome = work(limiter, provider, deadline_s_left=0.2)
    assert isinstance(outcome.error, DeadlineExceeded) and provider.calls == [] and outcome.attempts == 0


def test_a_call_that_hangs_is_cut_at_the_deadline_and_settled():
    limiter, provider = FakeLimiter(), FakeProvider(["hang"])
    outcome = work(limiter, provider, deadline_s_left=0.05)
    assert isinstance(outcome.error, DeadlineExceeded) and "in 1 provider calls" in str(outcome.error)
    assert limiter.is_settled_once and limiter.settled[0][1] == limiter.granted[0].reserved_tokens
    assert outcome.provider_errors == {"DeadlineExceeded": 1} and 40 <= outcome.ran_ms < 5_000


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


def test_a_turn_after_the_deadline_fails_at_once_and_sends_nothing():
    limiter, provider = FakeLimiter(wait_s=60), FakeProvider(["4"])
    outcome = work(limiter, provider, deadline_s_left=30)
    assert isinstance(outcome.error, DeadlineExceeded) and outcome.limited_ms < 5_000 and provider.calls == []


@pytest.mark.parametrize("left_s", [0.0, -3.0])
def test_a_task_that_comes_too_late_calls_nobody(left_s: float):
    limiter, provider = FakeLimiter(), FakeProvider(["4"])
    outcome = work(limiter, provider, deadline_s_left=left_s)
    assert isinstance(outcome.error, DeadlineExceeded) and limiter.granted == [] and provider.calls == []


def test_without_a_deadline_from_outside_the_tasks_own_holds_and_then_the_pools():
    hang = FakeProvider(["hang"])
    outcome = work(FakeLimiter(), hang, task=BotTask(prompt="x", deadline_s=0.05), deadline_s_left=None)
    assert "within 0.1 s" in str(outcome.error) or "within 0.0 s" in str(outcome.error)
    outcome = work(FakeLimiter(), FakeProvider(["hang"]), deadline_s_left=None, deadline_s=0.06)
    assert isinstance(outcome.error, DeadlineExceeded)


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
        "hang",
    ]
)
TROUBLES = st.sampled_from([None, None, StoreUnavailable("no Redis"), DeadlineExceeded("too late")])


@settings(deadline=None, max_examples=60)
@given(st.lists(REPLIES, min_size=1, max_size=6), st.lists(TROUBLES, max_size=3), st.integers(1, 4), st.integers(0, 40))
def test_whatever_happens_each_grant_has_one_request_and_is_settled_once(
    replies: list[Any], troubles: list[Any], max_attempts: int, cancel_after: int
):
    limiter, provider = FakeLimiter(errors=list(troubles)), FakeProvider(replies)

    async def run() -> Outcome | None:
        agent = Agent(a_gateway(limiter, provider), settings_of(max_attempts=max_attempts), share=lambda: 0.0)
        task = asyncio.ensure_future(agent.run(TASK, a_bot(), task_id="t1", deadline_s_left=0.02))
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
    unsent = len(limiter.granted) - len(provider.calls)  # the last grant may come a moment after the deadline
    assert unsent == 0 or (unsent == 1 and outcome is not None and isinstance(outcome.error, DeadlineExceeded))
    if outcome is not None:
        assert (outcome.error is None) == (outcome.status != "failed") == (outcome.answer is not None)
        assert outcome.attempts == len(provider.calls)
        assert (outcome.fault is not None) == isinstance(
            outcome.error, BadAnswer
        ) and outcome.bad_answers <= outcome.attempts
