from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.judge import judge

ANSWERS = (
    "42",
    "I cannot find an error in it.",
    "I'm sorry to hear that. Here is how to fix it.",
    "I can't help but smile.",
    "Sorry, the result is 4.",
    "As an AI, I see three ways.",
)
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "As an AI language model, I cannot assist you with it.",
    "\n I’m unable to help with that.",
    "Unfortunately, I can't comply.",
)


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_is_taken_for_an_answer(text: str):
    verdict = judge(text, "stop")
    assert (verdict.error, verdict.degraded) == (None, False)


@pytest.mark.parametrize("text", REFUSALS)
def test_the_wording_of_a_refusal_is_a_bad_answer_and_final(text: str):
    verdict = judge(text, "stop")
    assert str(verdict.error).startswith("refused: expected an answer") and not verdict.retry


@pytest.mark.parametrize("reason", ["content_filter", "refusal"])
def test_a_provider_that_says_it_refused_is_believed(reason: str):
    assert judge("Once upon a time", reason).error is not None


def test_a_long_answer_is_never_taken_for_a_refusal():
    assert judge("I can't help with that part, but " + "here is the rest. " * 40, "stop").error is None


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_an_empty_answer_is_bad_and_worth_another_try(text: str):
    verdict = judge(text, "stop")
    assert str(verdict.error).startswith("empty: expected an answer") and verdict.retry


def test_an_empty_answer_at_the_token_limit_says_what_to_raise():
    assert "raise max_output_tokens" in str(judge("", "length").error)


@pytest.mark.parametrize("reason", ["length", "max_tokens"])
def test_an_answer_cut_off_at_its_token_limit_is_degraded(reason: str):
    verdict = judge("The answer is", reason)
    assert verdict.error is None and verdict.degraded


@given(st.text(), st.sampled_from(["stop", "length", "refusal", "", "tool_calls"]))
def test_an_answer_is_never_both_bad_and_degraded(text: str, reason: str):
    verdict = judge(text, reason)
    assert not (verdict.error and verdict.degraded) and (verdict.error or not verdict.retry)
