"""Which answers have a fingerprint, and what it keeps of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.diversity.fingerprint import BINS, MAX_CHARS, MIN_WORDS, bins_of, prompt_mark
from fleet.diversity.likeness import Comparison, Fingerprint, Scale

WHOLE = Scale(floor=0.0, near=0.5)
words = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=MIN_WORDS, max_size=40)


def likeness(*answers: str) -> float:
    prints = [Fingerprint(bot, bot, 0, bins) for bot, text in enumerate(answers) if (bins := bins_of(text)) is not None]
    assert len(prints) == len(answers)
    return Comparison(prints).likeness("across", WHOLE, size=len(answers)).mean


@pytest.mark.parametrize("answer", ["", "42", "Yes.", "The answer is 42.", "seven words are not yet quite enough"])
def test_an_answer_of_fewer_than_eight_words_has_none(answer: str) -> None:
    assert bins_of(answer) is None


@given(words)
def test_it_has_one_bin_per_pair_of_words_and_does_not_see_case_or_punctuation(parts: list[str]) -> None:
    bins = bins_of(" ".join(parts))
    assert bins is not None
    assert len(bins) == len(parts) - 1
    assert max(bins) < BINS
    assert bins == bins_of("... ".join(parts).upper() + "!")


@given(words)
def test_the_score_of_answers_is_between_one_and_their_number(parts: list[str]) -> None:
    prints = [
        Fingerprint(n, n, 0, bins) for n in range(1, 9) if (bins := bins_of(" ".join([*parts, "x" * n, "y" * n])))
    ]
    seen = Comparison(prints).likeness("across", WHOLE, size=8)
    assert 1 - 1e-6 <= seen.score <= 8 + 1e-6


def test_the_same_words_are_wholly_alike_and_different_ones_are_not() -> None:
    text = "the tide comes in twice a day because the earth turns under two bulges"
    assert likeness(text, text) == pytest.approx(1, abs=1e-5)
    assert likeness(text, "yeast eats sugar in the dough and gives off gas that the gluten then holds") < 0.05


def test_languages_without_spaces_are_compared_by_character() -> None:
    rain = "雨が降ると川の水が増えて海へ流れていきます。それから雲になってまた雨になります。"
    other = "パンは酵母が砂糖を食べて出すガスで膨らみ、焼くと形が固まって香ばしくなるのです。"
    assert likeness(rain, rain.replace("雲", "霧")) > 0.7
    assert likeness(rain, other) < 0.05


def test_only_the_head_of_a_long_answer_counts() -> None:
    head = "word after word " * (MAX_CHARS // 16 + 1)
    assert bins_of(head[:MAX_CHARS]) == bins_of(head[:MAX_CHARS] + " and something else at the end" * 1000)


def test_prompts_are_told_apart_by_sixteen_bits() -> None:
    marks = {prompt_mark([f"question {number}"]) for number in range(1000)}
    assert len(marks) > 980
    assert max(marks) < 65_536
    assert prompt_mark(["a", "b"]) != prompt_mark(["b", "a"])
    assert prompt_mark(["a lone surrogate \ud800"]) >= 0
