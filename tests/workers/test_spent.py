"""Models that spend all they may make on thinking, or say nothing: what that costs at most."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fleet.conversation import ToolCall
from fleet.errors import BadAnswer, BadRequest, ProviderUnavailable
from fleet.models import BotTask
from fleet.outcome import Outcome
from fleet.usage import Usage
from fleet.workers.agent import Agent
from fleet.workers.calls import Completion
from tests.workers.fakes import FakeLimiter, FakeProvider, a_bot, a_gateway, said, settings_of


def thought(tokens: int, text: str = "", *, shown: str = "hm hm") -> Completion:
    usage = Usage(input_tokens=10, output_tokens=tokens, reasoning_tokens=tokens - len(text))
    return Completion(text, "length", usage, reasoning=shown)


def work(provider: FakeProvider, *, task: BotTask | None = None, **pool: Any) -> Outcome:
    async def run() -> Outcome:
        agent = Agent(a_gateway(FakeLimiter(), provider), settings_of(**pool), share=lambda: 0.0)
        return await agent.run(task or BotTask(prompt="2+2?"), a_bot(), task_id="t1", deadline_s_left=5.0)

    return asyncio.run(run())


def test_a_model_that_spent_all_on_thinking_gets_more_room_once():
    provider = FakeProvider([thought(512), said("4")])
    outcome = work(provider)
    assert (outcome.status, outcome.answer, outcome.usage.output_tokens) == ("ok", "4", 517)
    first, second = provider.calls
    window = a_bot().persona.context_window_tokens
    assert first.max_output_tokens == 512
    assert 768 <= second.max_output_tokens <= min(512 + 4096, window)
    assert second.messages == first.messages


def test_the_repeat_is_the_last_call_and_the_failure_says_why_and_accuses_no_bot():
    provider = FakeProvider([thought(512)])
    outcome = work(provider, max_attempts=4)
    assert (len(provider.calls), outcome.status, outcome.fault, outcome.bad_answers) == (2, "failed", None, 0)
    assert isinstance(outcome.error, BadAnswer) and outcome.error.blame == "configuration"
    assert str(outcome.error).startswith("spent: ") and "raise max_output_tokens, or lower its effort" in str(
        outcome.error
    )


@pytest.mark.parametrize(
    ("task", "pool"),
    [
        (BotTask(prompt="2+2?", max_output_tokens=100), {}),
        (BotTask(prompt="2+2?"), {"thinking_room_tokens": 0}),
        (BotTask(prompt="2+2?"), {"thinking_room_tokens": 100}),
        (BotTask(prompt="2+2?"), {"persona": {"context_windows_tokens": [600]}}),
    ],
)
def test_without_more_room_the_repeat_asks_for_less_effort_within_the_same_bound(task: BotTask, pool: dict[str, Any]):
    provider = FakeProvider([thought(100), said("4")])
    config = settings_of(**pool)

    async def run() -> Outcome:
        from fleet.workers.bot.persona import make_bot

        agent = Agent(a_gateway(FakeLimiter(), provider), config, share=lambda: 0.0)
        bot = make_bot("research", 1, config.pools["research"].persona)
        return await agent.run(task, bot, task_id="t1", deadline_s_left=5.0)

    assert asyncio.run(run()).answer == "4"
    first, second = provider.calls
    assert first.max_output_tokens == second.max_output_tokens
    assert (first.wishes.effort, second.wishes.effort) == (None, "low")


def test_a_task_that_sets_its_own_length_is_to_blame_itself():
    outcome = work(FakeProvider([thought(9)]), task=BotTask(prompt="2+2?", max_output_tokens=9))
    assert outcome.error is not None and outcome.error.blame == "prompt"


def test_a_repeat_that_the_provider_refuses_fails_as_what_it_was_repeated_for():
    provider = FakeProvider([thought(512), BadRequest("max_tokens is larger than this model allows")])
    outcome = work(provider)
    assert len(provider.calls) == 2 and str(outcome.error).startswith("spent: ")


def test_a_few_words_behind_the_thinking_stand_as_degraded_when_the_repeat_has_no_more():
    provider = FakeProvider([thought(512, "The")])
    outcome = work(provider)
    assert (len(provider.calls), outcome.status, outcome.answer) == (2, "degraded", "The")
    failing = FakeProvider([thought(512, "The"), ProviderUnavailable("503")])
    assert work(failing, max_attempts=1).answer == "The"


def test_a_cut_answer_with_little_thinking_is_not_asked_for_again():
    provider = FakeProvider([Completion("The answer is", "length", Usage(output_tokens=100, reasoning_tokens=80))])
    assert (work(provider).status, len(provider.calls)) == ("degraded", 1)


def test_thinking_that_stands_in_the_text_counts_as_thinking():
    provider = FakeProvider([said("<think>\nhm hm", finish_reason="length"), said("<think>hm</think>4")])
    outcome = work(provider)
    assert (outcome.answer, outcome.reasoning, len(provider.calls)) == ("4", "hm", 2)


def test_an_empty_answer_is_asked_for_again_once():
    provider = FakeProvider([""])
    outcome = work(provider, max_attempts=20)
    assert (len(provider.calls), outcome.bad_answers) == (2, 2)
    assert isinstance(outcome.error, BadAnswer) and str(outcome.error).startswith("empty: ")


def test_the_result_keeps_as_much_of_the_thinking_as_the_pool_says():
    told = Completion("4", "stop", Usage(), reasoning="hm " * 1000)
    assert len(work(FakeProvider([told])).reasoning) == 2000
    assert work(FakeProvider([told]), reasoning_chars=2).reasoning == "hm"
    assert work(FakeProvider([told]), reasoning_chars=0).reasoning == ""


@pytest.mark.parametrize("text", ["", "Let me look."])
def test_an_answer_that_wants_tools_called_is_an_answer(text: str):
    call = ToolCall(id="c1", name="look_up", arguments='{"city": "Rome"}')
    provider = FakeProvider([Completion(text, "tool_calls", Usage(), tool_calls=(call,))])
    outcome = work(provider)
    assert (outcome.status, outcome.answer, outcome.fault, len(provider.calls)) == ("ok", text, None, 1)
