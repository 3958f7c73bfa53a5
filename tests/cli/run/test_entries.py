"""Input lines of `fleet run`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.cli.run.entries import Entry, FileSource, LineFormat, PipeSource, read_entries, read_entry
from fleet.models import Priority
from tests.waiting import wait_until


def entry(value: Any, reading: LineFormat | None = None) -> Entry:
    return read_entry(7, json.dumps(value).encode(), reading or LineFormat())


def prompt_of(found: Entry) -> str | None:
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


def test_blank_lines_are_skipped_but_counted_and_done_lines_left_out() -> None:
    lines = [b'\xef\xbb\xbf"one"\n', b"\n", b'"three"\r\n', b'"four"']
    assert [(e.line, prompt_of(e)) for e in read_entries(lines, LineFormat())] == [
        (1, "one"),
        (3, "three"),
        (4, "four"),
    ]
    assert [e.line for e in read_entries(lines, LineFormat(), done={3})] == [1, 4]


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
    taken: list[Entry] = []
    wait_until(lambda: taken.extend(source.take(10)) or taken)
    assert not source.ended
    more.set()
    wait_until(lambda: taken.extend(source.take(10)) or source.ended)
    assert [prompt_of(e) for e in taken] == ["first", "second"]
