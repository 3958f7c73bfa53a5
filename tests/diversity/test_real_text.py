"""Real answers: four language models are no collapse, one model with some words changed is; and a sample of our own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.diversity.fingerprint import Fingerprint, bins_of
from fleet.diversity.likeness import Comparison, Scale
from fleet.models import Remedy
from tests.diversity.played import Played, with_noise

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@pytest.fixture
def solutions(data_dir: Path) -> list[dict[str, str]]:
    """Each question's answers by model, those that are long enough to compare."""
    lines = (data_dir / "gsm8k_model_solutions.jsonl").read_text().splitlines()
    rows = [{model: json.loads(line)[model]["solution"] for model in MODELS} for line in lines]
    return [row for row in rows if all(bins_of(text) for text in row.values())]


def test_four_models_in_a_mix_do_not_alarm_on_own_questions_nor_on_shared_ones(
    solutions: list[dict[str, str]],
) -> None:
    draw = random.Random(1)
    mix = Played(
        lambda bot, remedy, question: solutions[question][MODELS[bot % 4]], bots=48, questions=_each(solutions)
    )
    assert mix.windows(12) == []
    mixed = Played(
        lambda bot, remedy, question: solutions[question][draw.choice(MODELS)],
        bots=50,
        questions=_four_times(solutions),
    )
    assert mixed.windows(12) == []


def test_one_models_answers_with_word_noise_alarm_after_the_mix(solutions: list[dict[str, str]]) -> None:
    draw = random.Random(2)
    played = Played(
        lambda bot, remedy, question: solutions[question][MODELS[(bot + question) % 4]],
        bots=50,
        questions=_four_times(solutions),
    )
    played.windows(6)
    played.answers = lambda bot, remedy, question: with_noise(solutions[question][MODELS[3]], draw, 0.1)
    assert played.until("diversity_alarm") <= 2
    assert played.last("diversity_alarm")["aspect"] == "within"


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_bots_that_give_one_real_answer_with_word_noise_are_named(
    solutions: list[dict[str, str]], share: float
) -> None:
    draw, bad = random.Random(3), set(range(1, round(100 * share) + 1))

    def answer(bot: int, remedy: Remedy | None, question: int) -> str:
        return solutions[question][MODELS[bot % 4]]

    played = Played(answer, bots=100, window=400, questions=_each(solutions))
    played.windows(5)
    one = max(solutions[7].values(), key=len)
    played.answers = lambda bot, remedy, q: with_noise(one, draw, 0.1) if bot in bad else answer(bot, remedy, q)
    assert played.until("diversity_alarm") <= 2
    named = set(played.state.flagged)
    assert len(named & bad) >= 0.9 * max(len(named), len(bad))


def test_four_writers_are_less_alike_than_one_writer_with_a_word_changed() -> None:
    sample = json.loads((Path(__file__).parent / "sample.json").read_text())
    draw = random.Random(4)
    for texts in sample.values():
        assert _mean_likeness(texts) < 0.01
        for text in texts:
            assert _mean_likeness([with_noise(text, draw, 0.05) for _ in range(4)]) > 0.5


def _mean_likeness(texts: list[str]) -> float:
    prints = [Fingerprint(bot, 0, 0, bins) for bot, text in enumerate(texts) if (bins := bins_of(text)) is not None]
    return Comparison(prints).likeness("within", Scale(floor=0.0, near=0.5), size=len(texts)).mean


def _each(solutions: list[dict[str, str]]) -> Callable[[int], int]:
    """Ask one question after the other."""
    return lambda number: number % len(solutions)


def _four_times(solutions: list[dict[str, str]]) -> Callable[[int], int]:
    """Ask each question of four bots in a row."""
    return lambda number: number // 4 % len(solutions)
