"""The bars of `python -m benchmarks.answers` hold."""

from __future__ import annotations

from pathlib import Path

from benchmarks.answers import MODELS, bars, figures, read


def test_the_recorded_answers_of_four_models_are_counted_as_the_bars_say(data_dir: Path) -> None:
    questions = read(data_dir / "gsm8k_model_solutions.jsonl")
    shares = [sum(q.votes[n].key == q.right for q in questions) / len(questions) for n in range(len(MODELS))]
    assert [round(share, 3) for share in shares] == [0.217, 0.39, 0.347, 0.563]
    found = figures(questions)
    assert round(found["majority"].right, 3) == 0.443
    assert found["majority, until it can't change"].right == found["majority"].right
    assert found["weighted, until it can't change"].right == found["weighted"].right
    assert [name for name, _, holds in bars(found) if not holds] == []
