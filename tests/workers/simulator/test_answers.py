"""What the simulator says: sums, sentences, recorded answers, and how long they may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.workers.context import count_tokens
from fleet.workers.simulator.answers import Answers, longest_prefix, sentences, solve
from fleet.workers.simulator.chance import Chance, Draw

DRAWS = st.binary(min_size=1, max_size=20).map(lambda body: Chance(0).draw("key", body))
DRAW = Chance(0).draw("key", b"body")


@pytest.mark.parametrize(
    ("question", "value"),
    [
        ("What is 2+2?", "4"),
        ("what is 2 + 3 * 4", "14"),
        ("Please calculate (2+3)*4 for me.", "20"),
        ("Compute: 7 / 2", "3.5"),
        ("How much is 10 - 3 apples?", "7"),
        ("What is 6 × 7? Answer with the number only.", "42"),
        ("1+2+3=", "6"),
        ("What is -5 + 2?", "-3"),
        ("What is 1/0?", "undefined"),
        ("What is 4000000 - 1?", "3999999"),
    ],
)
def test_a_sum_is_answered_with_its_value(question: str, value: str) -> None:
    assert solve(question) == value


@pytest.mark.parametrize(
    "question",
    [
        "",
        "Hello",
        "Tell me about the year 2024-01-02 in 3-4 sentences.",
        "What is 2**99999?",
        "What is 9//2?",
        "What is 2.5+1?",
        "What is 2+2.5?",
        "What is 999999999999999*999999999999999?",
        "What is 007 - 1?",
        "What is 2+?",
        "What is 1" + "+1" * 200,
        "What is " + "(" * 100 + "1+1",
    ],
)
def test_what_is_no_small_sum_gets_no_value(question: str) -> None:
    assert solve(question) is None


@given(st.text(alphabet="What is 0123456789+-*/()= x.", max_size=300))
def test_no_question_breaks_the_evaluator(question: str) -> None:
    value = solve(question)
    assert value is None or value == "undefined" or abs(float(value)) <= 1e15


@given(DRAWS)
def test_generated_answers_say_how_many_tokens_they_are(draw: Draw) -> None:
    text, tokens = sentences(draw)
    assert tokens == count_tokens(text)
    assert 2 <= text.count(".") <= 9


def test_generated_answers_differ_and_vary_in_length() -> None:
    answers = [sentences(Chance(0).draw("key", str(i).encode())) for i in range(500)]
    assert len({text for text, _ in answers}) == 500
    assert len({text.count(".") for text, _ in answers}) == 8


def test_a_generated_answer_repeats_nothing_of_the_prompt() -> None:
    answer = Answers().answer("Tell me the password xyzzy-4711 of Rumpelstiltskin", DRAW, max_tokens=None)
    assert not {"password", "xyzzy", "4711", "rumpelstiltskin"} & set(answer.text.lower().split())


@given(text=st.text(max_size=400), max_tokens=st.integers(min_value=1, max_value=60))
def test_an_answer_is_cut_to_the_tokens_it_may_have(text: str, max_tokens: int) -> None:
    answer = Answers({"q": text}).answer("q", DRAW, max_tokens=max_tokens)
    assert answer.tokens == count_tokens(answer.text)
    assert answer.tokens <= max_tokens
    assert text.startswith(answer.text)
    assert answer.cut == (answer.text != text)


def test_a_cut_answer_is_as_long_as_it_may_be() -> None:
    text = "one two three four five six seven eight nine ten"
    kept = longest_prefix(text, 4)
    assert count_tokens(kept) == 4
    assert count_tokens(text[: len(kept) + 1]) == 5


def test_a_recorded_answer_is_returned_whole() -> None:
    answer = Answers({"Why?": "Because of the long way round."}).answer("Why?", DRAW, max_tokens=500)
    assert (answer.text, answer.cut, answer.matched) == ("Because of the long way round.", False, True)


def test_a_question_without_a_record_is_generated_and_marked() -> None:
    answers = Answers({"Why?": "Because."})
    assert answers.answer("What is 2+2?", DRAW, max_tokens=None).text == "4"
    assert not answers.answer("How?", DRAW, max_tokens=None).matched
    assert Answers().answer("How?", DRAW, max_tokens=None).matched
