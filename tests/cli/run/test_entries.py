"""Input lines of `fleet run`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.cli.run.entries import (
    OPTION_FIELDS,
    FileSource,
    FileTask,
    LineFormat,
    PipeSource,
    entry_of,
    read_entries,
    read_question,
    read_questions,
)
from fleet.cli.run.recognition import Occurrences
from fleet.errors import ConfigurationError, InvalidTask
from fleet.models import BotTask, Priority
from tests.waiting import wait_until


def read_entry(number: int, text: bytes, reading: LineFormat) -> FileTask:
    return entry_of(read_question(number, text, reading, Occurrences()), reading)


def asked(*values: Any) -> list[str]:
    """What each of these lines is known by."""
    lines = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    return [question.asked for question in read_questions(lines, LineFormat())]


def entry(value: Any, reading: LineFormat | None = None) -> FileTask:
    return read_entry(7, json.dumps(value).encode(), reading or LineFormat())


def prompt_of(found: FileTask) -> str | None:
    assert found.task is not None, found.error
    return found.task.prompt


def test_the_prompt_is_found_under_prompt_then_question() -> None:
    assert prompt_of(entry({"prompt": "p", "question": "q"})) == "p"
    assert prompt_of(entry({"question": "q", "answer": "a"})) == "q"


def test_a_named_field_is_the_only_one_looked_at() -> None:
    reading = LineFormat(prompt_field="text")
    assert prompt_of(entry({"text": "t", "prompt": "p", "messages": []}, reading)) == "t"
    assert entry({"prompt": "p"}, reading).task is None


def test_a_plain_string_is_a_prompt() -> None:
    assert prompt_of(entry("What is 2+2?")) == "What is 2+2?"


def test_messages_are_taken_as_they_are() -> None:
    found = entry({"messages": [{"role": "user", "content": "hello"}]})
    assert found.task is not None
    assert [message.content for message in found.task.conversation()] == ["hello"]


def test_the_id_is_the_id_field_or_else_the_line_number() -> None:
    assert entry({"id": "a1", "prompt": "p"}).id == "a1"
    assert entry({"key": 5, "prompt": "p"}, LineFormat(id_field="key")).id == 5
    assert entry({"prompt": "p"}).id == 7
    assert entry("p").id == 7


def test_options_reach_the_task() -> None:
    found = entry("p", LineFormat(options={"priority": "bulk", "pool": "research", "deadline_s": 5.0}))
    assert found.task is not None
    assert (found.task.priority, found.task.pool, found.task.deadline_s) == (Priority.BULK, "research", 5.0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "p"', "JSON"),
        (b'"\xff"', "UnicodeDecodeError"),
        (b"[" * 100_000, "RecursionError"),
        (b"[1, 2]", "list"),
        (b"17", "int"),
        (b'{"text": "p", "topic": 1}', "text, topic"),
        (b'{"prompt": 17}', "prompt"),
        (b'{"prompt": ""}', "prompt"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', "messages"),
        (b'"\\ud800"', "prompt"),
    ],
)
def test_a_line_that_is_no_task_is_an_entry_with_the_reason(line: bytes, reason: str) -> None:
    found = read_entry(3, line, LineFormat())
    assert found.task is None
    assert found.line == 3
    assert reason in str(found.error)


def test_a_bad_line_keeps_its_id_and_its_content_secret() -> None:
    found = entry({"id": "a1", "prompt": ["secret words"]})
    assert found.id == "a1"
    assert "secret" not in str(found.error)


def test_blank_lines_are_skipped_but_counted() -> None:
    lines = [b'\xef\xbb\xbf"one"\n', b"\n", b'"three"\r\n', b'"four"']
    assert [(e.line, prompt_of(e)) for e in read_entries(lines, LineFormat())] == [
        (1, "one"),
        (3, "three"),
        (4, "four"),
    ]


def test_the_options_of_a_line_win_over_those_of_the_command() -> None:
    line = {
        "id": 1, "prompt": "p", "kind": "plain", "pool": "research", "priority": "high", "max_output_tokens": 7,
        "deadline_s": 5, "answer_schema": {"type": "object"}, "tenant": "acme", "metadata": {"row": 3},
        "context": ["ctx-" + "0" * 24],
    }  # fmt: skip
    task = entry(line, LineFormat(options={"priority": "bulk", "pool": "review", "kind": "other"})).task
    assert task is not None
    del line["id"]
    assert task.model_dump(mode="json", exclude_unset=True) == line
    assert (
        entry({"prompt": "p", "pool": None}, LineFormat(options={"pool": "review"})).task
        == entry({"prompt": "p", "pool": "review"}).task
    )


def test_a_line_has_every_field_that_a_task_has_but_those_that_a_run_sets_itself() -> None:
    own = {"prompt", "messages", "right", "right_by"}
    assert set(BotTask.model_fields) - {*OPTION_FIELDS} == {*own, "idempotency_key", "run", "seat"}


def test_an_option_that_no_pool_takes_fails_its_line_alone() -> None:
    def check(task: Any) -> None:
        if task.pool == "nowhere":
            raise InvalidTask("pool: expected one of research, got 'nowhere'")

    reading = LineFormat(check=check)
    assert "nowhere" in str(entry({"prompt": "p", "pool": "nowhere"}, reading).error)
    assert entry({"prompt": "p", "pool": "research"}, reading).task is not None
    assert "priority" in str(entry({"prompt": "p", "priority": "soon"}, reading).error)


def test_fields_that_mean_nothing_are_named_once() -> None:
    reading = LineFormat(id_field="key")
    for number in range(3):
        entry({"key": number, "question": "q", "answer": "a", "source": {"x": 1}, "idempotency_key": "k"}, reading)
    told = reading.told_unused()
    assert told is not None
    assert [told.count(name) for name in ("answer,", "source", "idempotency_key", "key,")] == [1, 1, 1, 0]
    assert LineFormat().told_unused() is None


def test_a_line_is_known_by_what_it_asks_and_by_nothing_else() -> None:
    same = asked({"id": 1, "prompt": "p"})[0]
    for value in (
        {"prompt": "p", "id": 1},
        {"id": 1, "prompt": "p", "answer": "a"},
        b' {"id":1,  "prompt":"\\u0070"}\r\n',
    ):
        assert asked(value)[0] == same
    for other in ({"id": 2, "prompt": "p"}, {"id": 1, "prompt": "P"}, {"id": 1, "prompt": "p", "kind": "k"}, "p"):
        assert asked(other)[0] != same
    assert asked("x", {"prompt": "p"})[1] == asked({"prompt": "p"}, "x")[0]  # without an id the number does not count


def test_equal_lines_are_as_many_questions_and_the_kth_is_the_kth() -> None:
    first, second, other, third = asked("p", "p", "q", "p")
    assert len({first, second, third, other}) == 4
    assert asked("q", "p", "p", "p") == [other, first, second, third]
    assert len(set(asked(b"nonsense", b"nonsense"))) == 2


def test_an_id_that_json_does_not_have_is_none() -> None:
    for text in (b'{"id": NaN, "prompt": "p"}', b'{"id": 1e999, "prompt": "p"}', b'{"id": [-Infinity], "prompt": "p"}'):
        found = read_entry(3, text, LineFormat())
        assert (found.id, prompt_of(found)) == (3, "p")
        assert found.asked.startswith("line:")


@pytest.mark.parametrize("name", ["metadata", "answer_schema"])
def test_nan_where_a_task_would_carry_it_fails_the_line(name: str) -> None:
    found = read_entry(3, b'{"id": "a", "prompt": "p", "%b": {"x": NaN}}' % name.encode(), LineFormat())
    assert found.id == "a"
    assert "NaN" in str(found.error)


def test_half_a_surrogate_pair_fails_its_line_wherever_it_is() -> None:
    for text in (b'{"id": "a", "prompt": "p \\ud83d"}', b'{"id": "a", "prompt": "p", "metadata": {"x": "\\udfff"}}'):
        found = read_entry(3, text, LineFormat())
        assert (found.id, found.task) == ("a", None)
        assert str(found.error).isascii()
    assert read_entry(3, b'{"id": "\\ud83d", "prompt": "p"}', LineFormat()).task is not None


def test_a_pipe_that_is_no_json_lines_is_named() -> None:
    source = PipeSource(read_entries(iter([b"\x1f\x8b\x08rest"]), LineFormat()), ahead=10)
    with pytest.raises(ConfigurationError, match="a gzip file"):
        wait_until(lambda: source.take(10) or source.ended)


def test_a_file_is_read_no_further_than_asked() -> None:
    lines = iter([b'"a"', b'"b"', b'"c"'])
    source = FileSource(read_entries(lines, LineFormat()))
    assert len(source.take(2)) == 2
    assert next(lines) == b'"c"'
    assert source.take(2) == []
    assert source.ended


def test_a_slow_pipe_holds_nobody_up() -> None:
    more = threading.Event()

    def lines() -> Iterator[bytes]:
        yield b'"first"'
        more.wait(10)
        yield b'"second"'

    source = PipeSource(read_entries(lines(), LineFormat()), ahead=10)
    taken: list[FileTask] = []
    wait_until(lambda: taken.extend(source.take(10)) or taken)
    assert not source.ended
    more.set()
    wait_until(lambda: taken.extend(source.take(10)) or source.ended)
    assert [prompt_of(e) for e in taken] == ["first", "second"]
