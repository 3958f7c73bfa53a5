"""The bars of `python -m benchmarks.answers` hold."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks.answers import MODELS, bars, figures, read
from benchmarks.fluent import BAD, REPLAYED, Asked, graded_run, of_error
from fleet.store.client import connect


def test_the_recorded_answers_of_four_models_are_counted_as_the_bars_say(data_dir: Path) -> None:
    questions = read(data_dir / "gsm8k_model_solutions.jsonl")
    shares = [sum(q.votes[n].key == q.right for q in questions) / len(questions) for n in range(len(MODELS))]
    assert [round(share, 3) for share in shares] == [0.217, 0.39, 0.347, 0.563]
    found = figures(questions)
    assert round(found["majority"].right, 3) == 0.443
    assert found["majority, until it can't change"].right == found["majority"].right
    assert found["weighted, until it can't change"].right == found["weighted"].right
    assert [name for name, _, holds in bars(found) if not holds] == []


def test_fluent_but_wrong_bots_are_out_in_tens_of_graded_tasks(data_dir: Path, redis_url: str) -> None:
    asked = [Asked(one.votes[REPLAYED].key, one.right) for one in read(data_dir / "gsm8k_model_solutions.jsonl")]
    easy = of_error(asked, 0.1, random.Random(1))
    assert round(sum(one.answer != one.right for one in easy) / len(easy), 3) == 0.1
    with connect(redis_url) as client:
        found = graded_run(client, easy, bad_from=0, tasks=10_000, seed=4)
    assert len(found.after) == BAD and found.good_out == 0
    assert found.median <= 32  # of 20 bots; over many fleets it is 24
