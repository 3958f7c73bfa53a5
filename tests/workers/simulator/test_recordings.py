"""Reading recorded answers, and the errors that say what is wrong with a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet.errors import ConfigurationError
from fleet.workers.simulator.recordings import Recordings, read_recordings
from tests.every import every


def write(folder: Path, *records: object) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n", "utf-8")
    return path


def read(path: Path, answer_field: str = "answer") -> Recordings:
    return read_recordings(path, answer_field=answer_field, question_field="question")


def test_answers_are_found_by_stripped_question(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "  Why?\n", "answer": " Because. "}, "", {"question": "How?", "answer": "So."})
    assert read(path).answers == {"Why?": " Because. ", "How?": "So."}


def test_a_dotted_field_reaches_into_objects(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "q", "175b_verification": {"solution": "a"}})
    assert read(path, "175b_verification.solution").answers == {"q": "a"}


def test_of_two_records_with_one_question_the_first_stays_and_the_other_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "q", "answer": "first"}, {"question": "q ", "answer": "second"})
    assert read(path) == Recordings({"q": "first"}, duplicates=1)


def test_a_missing_field_is_an_error_that_names_the_fields_there_are(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "q", "model": {"solution": "a", "score": 1}})
    with pytest.raises(ConfigurationError, match=r"line 1: expected a field 'answer', got only: question, model\.sol"):
        read(path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{not json", "line 2: expected a JSON object, got something else"),
        ([1], "line 2: expected a JSON object, got list"),
        ({"question": "q", "answer": 4}, "line 2: expected text in field 'answer', got int"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, record: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read(write(tmp_path, {"question": "p", "answer": "a"}, record))


def test_a_missing_empty_or_binary_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read(tmp_path / "absent.jsonl")
    with pytest.raises(ConfigurationError, match="expected at least one record"):
        read(write(tmp_path, ""))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"expected .* to be UTF-8"):
        read(tmp_path / "binary.jsonl")


def test_all_recorded_answers_to_the_gsm8k_questions_are_found(data_dir: Path) -> None:
    recordings = read(data_dir / "gsm8k_model_solutions.jsonl", "175b_verification.solution")
    with (data_dir / "gsm8k_test.jsonl").open("rb") as lines:
        questions = [json.loads(line)["question"].strip() for line in lines]
    assert len(questions) == 1319
    assert every(recordings.answers[question] for question in questions)
    assert recordings.duplicates == 0
