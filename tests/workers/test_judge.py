from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.faults import Fault
from fleet.models import Norms
from fleet.workers.judge import judge, too_short

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
    judgement = judge(text, "stop")
    assert (judgement.error, judgement.degraded) == (None, False)


@pytest.mark.parametrize("text", REFUSALS)
def test_the_wording_of_a_refusal_is_a_bad_answer_and_final(text: str):
    judgement = judge(text, "stop")
    assert judgement.error is not None and judgement.error.fault is Fault.REFUSED
    assert str(judgement.error).startswith("refused: expected an answer") and not judgement.retry


@pytest.mark.parametrize("reason", ["content_filter", "refusal"])
def test_a_provider_that_says_it_refused_is_believed(reason: str):
    assert judge("Once upon a time", reason).error is not None


def test_an_answer_that_wants_tools_called_is_whole():
    assert judge("I look it up.", "tool_calls").error is None


def test_a_long_answer_is_never_taken_for_a_refusal():
    rest = " ".join(f"here is part {n}." for n in range(40))
    assert judge(f"I can't help with that part, but {rest}", "stop").error is None


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_an_empty_answer_is_bad_and_worth_another_try(text: str):
    judgement = judge(text, "stop")
    assert str(judgement.error).startswith("empty: expected an answer") and judgement.retry


def test_an_empty_answer_at_the_token_limit_says_what_to_raise():
    assert "raise max_output_tokens" in str(judge("", "length").error)


@pytest.mark.parametrize("reason", ["length", "max_tokens"])
def test_an_answer_cut_off_at_its_token_limit_is_degraded(reason: str):
    judgement = judge("The answer is", reason)
    assert judgement.error is None and judgement.degraded


def test_an_answer_in_a_loop_is_bad_unless_it_is_data():
    text = "and so it goes on and on, " * 20
    judgement = judge(text, "length")
    assert judgement.error is not None and judgement.error.fault is Fault.REPEATED and not judgement.retry
    assert str(judgement.error).startswith("repeated: ") and "goes on" not in str(judgement.error)
    assert judge(text, "stop", in_json=True).error is None


USUAL = Norms(chars=1000.0, ran_ms=2000.0, tasks=30)


@pytest.mark.parametrize(
    ("chars", "ran_ms", "norms", "short"),
    [
        (99, 1199, USUAL, True),
        (100, 1199, USUAL, False),
        (99, 1200, USUAL, False),
        (99, 10_000, replace(USUAL, ran_ms=249.0), True),
        (99, 10_000, replace(USUAL, ran_ms=250.0), False),
        (99, 0, replace(USUAL, tasks=29), False),
        (1, 0, replace(USUAL, chars=199.0), False),
        (19, 0, replace(USUAL, chars=200.0), True),
    ],
)
def test_an_answer_is_too_short_when_it_is_a_tenth_of_the_usual_and_fast(
    chars: int, ran_ms: float, norms: Norms, short: bool
):
    assert too_short("x" * chars, ran_ms, norms) is short


@pytest.mark.parametrize(
    ("chars", "is_cut", "most_tokens", "short"),
    [(99, True, None, False), (1, False, 49, False), (19, False, 50, True), (20, False, 50, False),
     (99, False, 250, True), (99, False, 4000, True), (100, False, 4000, False)],
)  # fmt: skip
def test_an_answer_that_had_no_room_for_more_is_not_too_short(
    chars: int, is_cut: bool, most_tokens: int | None, short: bool
):
    assert too_short("x" * chars, 0, USUAL, is_cut=is_cut, most_tokens=most_tokens) is short


@given(st.text(), st.sampled_from(["stop", "length", "refusal", "", "tool_calls"]))
def test_an_answer_is_never_both_bad_and_degraded(text: str, reason: str):
    judgement = judge(text, reason)
    assert not (judgement.error and judgement.degraded) and (judgement.error or not judgement.retry)
