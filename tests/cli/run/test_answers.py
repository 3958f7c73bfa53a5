"""The OUT file of `fleet run` and its sidecar."""

from __future__ import annotations

import hashlib
import json
import resource
from pathlib import Path
from typing import Any

import pytest

from fleet.cli.run.answers import HEAD_BYTES, AnswerFile, RunNote
from fleet.errors import ConfigurationError, FleetError


def record(line: int, **more: Any) -> dict[str, Any]:
    return {"id": line, "line": line, "status": "ok", "answer": f"answer {line}", **more}


def lines_of(path: Path) -> list[int]:
    return [json.loads(line)["line"] for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


# ---- OUT


def test_what_was_appended_is_read_back(path: Path) -> None:
    with AnswerFile(path) as out:
        out.append([record(1), record(2, answer="ünï \ud83d half")])
        assert [r["line"] for r in out.records(repair=True)] == [1, 2]
        assert out.sync(force=True)


@pytest.mark.parametrize(
    "torn", [b'{"id": 3, "li', b'{"id": 3, "line": 3, "status": "ok"}', b"\x00" * 50, b"\x00\n\x00\n"]
)
def test_a_torn_end_is_cut_off_and_writing_goes_on(path: Path, torn: bytes) -> None:
    with AnswerFile(path) as out:
        out.append([record(1), record(2)])
    path.write_bytes(path.read_bytes() + torn)
    with AnswerFile(path) as out:
        assert [r["line"] for r in out.records(repair=True)] == [1, 2]
        out.append([record(3)])
    assert lines_of(path) == [1, 2, 3]


def test_a_foreign_file_is_refused_and_left_as_it_is(path: Path) -> None:
    for content in (b"my only copy", b'{"name": "x"}\n', b'{"line": 1, "status": "ok"}\nmine\n'):
        path.write_bytes(content)
        with AnswerFile(path) as out, pytest.raises(ConfigurationError, match="--overwrite"):
            list(out.records(repair=False))
        assert path.read_bytes() == content


def test_garbage_between_answers_is_refused_even_when_repairing(path: Path) -> None:
    content = b'{"line": 1, "status": "ok"}\nmine\n{"line": 2, "status": "ok"}\n'
    path.write_bytes(content)
    with AnswerFile(path) as out, pytest.raises(ConfigurationError, match="line 3"):
        list(out.records(repair=True))
    assert path.read_bytes() == content


def test_two_runs_cannot_write_the_same_file(path: Path) -> None:
    with AnswerFile(path), pytest.raises(ConfigurationError, match="only one"):
        AnswerFile(path)
    AnswerFile(path).close()


def test_the_lock_survives_a_rewriting(path: Path) -> None:
    with AnswerFile(path) as out:
        path.chmod(0o600)
        out.append([record(1), record(2, status="failed"), record(3)])
        out.rewrite(lambda row: None if row["status"] == "failed" else row)
        with pytest.raises(ConfigurationError, match="only one"):
            AnswerFile(path)
        out.append([record(2)])
    assert lines_of(path) == [1, 3, 2]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_or_a_missing_folder_is_refused(tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "nowhere" / "out.jsonl"):
        with pytest.raises(ConfigurationError, match="expected"):
            AnswerFile(wrong)


# ---- the sidecar


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text('"a"\n"b"\n')
    return path


def note_of(source: Path) -> RunNote:
    return RunNote.of(source, prompt_field=None, id_field="id")


def old_note_of(source: Path) -> RunNote:
    """What the previous release wrote of a run."""
    content = source.read_bytes()
    old = {
        "run_id": "r", "input": str(source), "size_bytes": len(content),
        "head_sha256": hashlib.sha256(content[:HEAD_BYTES]).hexdigest(), "started_at": 1.5, "prompt_field": None,
        "id_field": "id",
    }  # fmt: skip
    path = source.with_name("old.run")
    path.write_text(json.dumps(old))
    note = RunNote.read(path)
    assert note is not None and note.by_place
    return note


def test_a_note_is_read_back_as_it_was_written(source: Path, tmp_path: Path) -> None:
    note = note_of(source)
    note.write(tmp_path / "note")
    assert RunNote.read(tmp_path / "note") == note
    assert RunNote.read(tmp_path / "none") is None


def test_every_run_has_an_id_of_its_own(source: Path) -> None:
    assert note_of(source).run_id != note_of(source).run_id


def test_an_input_that_has_grown_is_the_same_input(source: Path) -> None:
    note = old_note_of(source)
    source.write_text(source.read_text() + '"c"\n')
    note.check(source, prompt_field=None, id_field="id")


@pytest.mark.parametrize("content", ['"a"\n', '"x"\n"b"\n'])
def test_another_input_is_refused(source: Path, content: str) -> None:
    note = old_note_of(source)
    source.write_text(content)
    with pytest.raises(ConfigurationError, match="input"):
        note.check(source, prompt_field=None, id_field="id")


def test_another_reading_of_the_input_is_refused(source: Path) -> None:
    with pytest.raises(ConfigurationError, match="--field"):
        note_of(source).check(source, prompt_field="text", id_field="id")
    with pytest.raises(ConfigurationError, match="--id-field"):
        note_of(source).check(source, prompt_field=None, id_field="key")


@pytest.mark.parametrize("content", ["", "[]", '{"run_id": "x"}', "{"])
def test_a_note_that_is_none_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "note"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="--overwrite"):
        RunNote.read(path)


def test_a_full_disk_is_one_line_of_advice_and_takes_nothing_that_was_written(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with AnswerFile(path) as out:
        out.append([record(1)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
        try:
            with pytest.raises(FleetError, match="run the same command again: nothing is paid twice"):
                out.append([record(2)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with AnswerFile(path) as out:
        assert [found["line"] for found in out.records(repair=True)] == [1]
        out.append([record(2)])
    assert lines_of(path) == [1, 2]
