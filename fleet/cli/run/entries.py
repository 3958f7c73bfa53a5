"""Input lines of `fleet run` as tasks: objects with a prompt or messages, or plain JSON strings.

A line that isn't a valid task becomes an entry with an error, so that one bad line never stops a run.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from fleet.errors import ConfigurationError, InvalidTask
from fleet.models import BotTask
from fleet.quoting import quote

#: Fields that hold the prompt when none is named, the first one present counts.
PROMPT_FIELDS = ("prompt", "question")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class LineFormat:
    """How a line becomes a task.

    Args:
        prompt_field: Field of the prompt; None: `messages`, else the first of PROMPT_FIELDS.
        id_field: Field of the line's id; without it, the line number is the id.
        options: Options of every task: pool, priority, kind and so on.
    """

    prompt_field: str | None = None
    id_field: str = "id"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One input line: its number (from 1), its id, and its task or why it is none."""

    line: int
    id: Any
    task: BotTask | None = None
    error: InvalidTask | None = None


def numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield number and text of every line that is not blank. Numbers count blank lines too, from 1."""
    for number, line in enumerate(lines, start=1):
        text = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
        if text:
            yield number, text


def read_entries(lines: Iterable[bytes], line_format: LineFormat, *, done: Container[int] = ()) -> Iterator[Entry]:
    """Yield an entry per line that is not blank and whose number is not in `done`."""
    for number, text in numbered(lines):
        if number not in done:
            yield read_entry(number, text, line_format)


def read_entry(number: int, text: bytes, line_format: LineFormat) -> Entry:
    """Turn one line into an entry; never raises for what the line holds."""
    name: Any = number
    try:
        value = _parse(text)
        if isinstance(value, dict):
            name = value.get(line_format.id_field, number)
        return Entry(number, name, task=BotTask.parse(**_content(value, line_format), **line_format.options))
    except InvalidTask as error:
        return Entry(number, name, error=error)


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or not UTF-8
        reason = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise InvalidTask(f"expected one JSON object or string per line, got {len(text)} bytes: {reason}") from error


def _content(value: Any, line_format: LineFormat) -> dict[str, Any]:
    """The prompt or the messages of a line, under the name that BotTask has for it."""
    if isinstance(value, str):
        return {"prompt": value}
    if not isinstance(value, dict):
        raise InvalidTask(f"expected a JSON object or string, got {type(value).__name__}")
    if line_format.prompt_field is None and "messages" in value:
        return {"messages": value["messages"]}
    wanted = (line_format.prompt_field,) if line_format.prompt_field else PROMPT_FIELDS
    for name in wanted:
        if name in value:
            return {"prompt": value[name]}
    there = quote(", ".join(map(str, value)))
    raise InvalidTask(f"expected a field {' or '.join(wanted)}, got {there}; name it with --field")


class FileSource:
    """Entries of a file, as many as are asked for."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self.ended = False

    def take(self, count: int) -> list[Entry]:
        """Return the next `count` entries; fewer at the end."""
        taken = list(islice(self._entries, count))
        self.ended = len(taken) < count
        return taken


class PipeSource:
    """Entries of a pipe, as they come: a thread reads ahead, so that a slow writer holds nothing up.

    Args:
        entries: Read in the thread.
        ahead: Most entries read ahead.
    """

    def __init__(self, entries: Iterator[Entry], *, ahead: int) -> None:
        self._queue: queue.Queue[Entry | None] = queue.Queue(maxsize=ahead)
        self._error: OSError | None = None
        self.ended = False
        threading.Thread(target=self._read, args=(entries,), name="read-input", daemon=True).start()

    def _read(self, entries: Iterator[Entry]) -> None:
        try:
            for entry in entries:
                self._queue.put(entry)
        except OSError as error:
            self._error = error
        finally:
            self._queue.put(None)

    def take(self, count: int) -> list[Entry]:
        """Return up to `count` entries that have come; never waits.

        Raises:
            ConfigurationError: When the pipe cannot be read on.
        """
        taken: list[Entry] = []
        while len(taken) < count and not self.ended:
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                break
            if entry is None:
                self.ended = True
                if self._error is not None:
                    raise ConfigurationError(f"IN: expected a pipe to read, got: {self._error}") from self._error
            else:
                taken.append(entry)
        return taken
