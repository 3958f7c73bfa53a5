"""Input lines of `fleet run` as tasks: objects with a prompt or messages and options, batch lines, plain JSON strings.

A line that isn't a valid task becomes an entry with an error, so that one bad line never stops a run.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pydantic_core import PydanticSerializationError

from fleet.asking import Asks
from fleet.cli.run import batch_lines
from fleet.cli.run.file_kinds import refuse_other_kinds
from fleet.cli.run.recognition import Occurrences, digest_of
from fleet.errors import ConfigurationError, InvalidTask
from fleet.models import BotTask
from fleet.quoting import quote

#: Fields that hold the prompt when none is named, the first one present counts.
PROMPT_FIELDS = ("prompt", "question")
_OWN = (
    "kind", "pool", "priority", "max_output_tokens", "deadline_s", "expires_at", "by_s", "max_cost_usd",
    "answer_schema", "context", "tenant", "metadata", "reuse",
)  # fmt: skip
#: Fields of a line that are options of its task, over those of the command line.
OPTION_FIELDS = (*_OWN, *Asks.model_fields)
#: Names of unused fields that are told, and remembered, at most (count).
_TOLD_MOST, _UNUSED_MOST = 8, 100
_BOM = b"\xef\xbb\xbf"


def _accept(task: BotTask) -> None:
    """Accept any task."""


@dataclass(frozen=True, slots=True)
class LineFormat:
    """How a line becomes a task.

    Args:
        prompt_field: Field of the prompt; None: `messages`, else the first of PROMPT_FIELDS, else a batch request.
        id_field: Field of the line's id; without it, the line number is the id.
        options: Options of every task whose line does not say otherwise: pool, priority, kind and so on.
        check: Raises InvalidTask for a task that no pool takes.
        unused: Fields of lines that mean nothing here; filled while lines are read.
    """

    prompt_field: str | None = None
    id_field: str = "id"
    options: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[BotTask], None] = _accept
    unused: dict[str, None] = field(default_factory=dict)

    @property
    def known_fields(self) -> tuple[str, ...]:
        """Names of the fields of prompt and id."""
        return (self.prompt_field or "prompt", *PROMPT_FIELDS, "messages", self.id_field)

    def told_unused(self) -> str | None:
        """Return one line about fields that are not used; None when there are none."""
        if not self.unused:
            return None
        names = quote(", ".join(list(self.unused)[:_TOLD_MOST]))
        more = f" and {len(self.unused) - _TOLD_MOST} more" if len(self.unused) > _TOLD_MOST else ""
        used = f"used are prompt, id, {', '.join(_OWN)} and what a task may ask"
        return f"fields of IN that are not used: {names}{more}; {used}"


@dataclass(frozen=True, slots=True)
class InputLine:
    """What a line asks, before it is known whether that is a valid task.

    Args:
        line: Its number, from 1.
        id: Its own id, or its number.
        asked: Names it whatever its number (`recognition.py`).
        fields: Of its task; None: see `error`.
    """

    line: int
    id: Any
    asked: str
    fields: Mapping[str, Any] | None = None
    error: InvalidTask | None = None


@dataclass(frozen=True, slots=True)
class FileTask:
    """One input line: its number (from 1), its id, what names it, and its task or why it is none."""

    line: int
    id: Any
    asked: str = ""
    task: BotTask | None = None
    error: InvalidTask | None = None


def numbered(lines: Iterable[bytes], known_fields: Iterable[str] = ()) -> Iterator[tuple[int, bytes]]:
    """Yield number and text of every line that is not blank. Numbers count blank lines too, from 1.

    Raises:
        ConfigurationError: When the first one shows that these are no JSON lines.
    """
    is_first = True
    for number, line in enumerate(lines, start=1):
        text = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
        if text:
            if is_first:
                refuse_other_kinds(text, tuple(known_fields))
                is_first = False
            yield number, text


def read_questions(lines: Iterable[bytes], line_format: LineFormat) -> Iterator[InputLine]:
    """Yield what each line that is not blank asks; raises as `numbered`."""
    occurrences = Occurrences()
    for number, text in numbered(lines, line_format.known_fields):
        yield read_question(number, text, line_format, occurrences)


def read_entries(
    lines: Iterable[bytes], line_format: LineFormat, *, answered: Callable[[InputLine], bool] | None = None
) -> Iterator[FileTask]:
    """Yield an entry per line that is not blank and whose question is not answered; raises as `numbered`."""
    for question in read_questions(lines, line_format):
        if answered is None or not answered(question):
            yield entry_of(question, line_format)


def read_question(number: int, text: bytes, line_format: LineFormat, occurrences: Occurrences) -> InputLine:
    """Read one line; never raises for what it holds."""
    name: Any = None
    try:
        value = _parse(text)
        if isinstance(value, dict):
            name = _id_of(value, line_format)
        fields = _fields(value, line_format)
        digest = _digest([name, fields])
    except InvalidTask as error:
        asked = occurrences.asked(hashlib.sha256(text).digest()[:16], has_id=name is not None)
        return InputLine(number, number if name is None else name, asked, error=error)
    asked = occurrences.asked(digest, has_id=name is not None)
    return InputLine(number, number if name is None else name, asked, fields=fields)


def entry_of(question: InputLine, line_format: LineFormat) -> FileTask:
    """Return a question as a task; never raises for what it holds."""
    error = question.error
    if question.fields is not None:
        try:
            task = BotTask.parse(**{**line_format.options, **question.fields})
            line_format.check(task)
            task.__pydantic_serializer__.to_json(task)  # half a surrogate pair cannot be sent
            return FileTask(question.line, question.id, question.asked, task=task)
        except InvalidTask as invalid:
            error = invalid
        except PydanticSerializationError:
            error = InvalidTask("expected text that UTF-8 can hold, got half of a surrogate pair (\\ud800 to \\udfff)")
    return FileTask(question.line, question.id, question.asked, error=error)


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or not UTF-8
        reason = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise InvalidTask(f"expected one JSON object or string per line, got {len(text)} bytes: {reason}") from error


def _id_of(value: Mapping[str, Any], line_format: LineFormat) -> Any:
    """Return a line's own id; None when it has none: the field is missing, null, or holds NaN."""
    name = value.get(line_format.id_field)
    if name is None and line_format.id_field == "id":
        name = value.get("custom_id")
    if isinstance(name, str | int):
        return name
    try:
        json.dumps(name, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return name


def _digest(question: Any) -> bytes:
    try:
        return digest_of(question)
    except (ValueError, RecursionError) as error:
        raise InvalidTask(
            "metadata: expected values that JSON has, got NaN or Infinity, or too deep a nesting"
        ) from error


def _fields(value: Any, line_format: LineFormat) -> dict[str, Any]:
    """Return the fields of a line's task: its prompt or messages, and its options."""
    if isinstance(value, str):
        return {"prompt": value}
    if not isinstance(value, dict):
        raise InvalidTask(f"expected a JSON object or string, got {type(value).__name__}")
    content, used, unused = _content(value, line_format)
    options = {name: value[name] for name in OPTION_FIELDS if name not in used and value.get(name) is not None}
    unused += [
        name for name in value if name not in used and name not in OPTION_FIELDS and name != line_format.id_field
    ]
    if len(line_format.unused) < _UNUSED_MOST:
        line_format.unused.update(dict.fromkeys(unused[:_UNUSED_MOST]))
    return {**content, **options}


def _content(value: Mapping[str, Any], line_format: LineFormat) -> tuple[dict[str, Any], frozenset[str], list[str]]:
    """Return a line's prompt or messages as `BotTask` names it, the fields read for it, and those left out of them."""
    if line_format.prompt_field is None and "messages" in value:
        messages = value["messages"]
        plain = batch_lines.plain_messages(messages) if isinstance(messages, list) else messages
        return {"messages": plain}, frozenset({"messages"}), []
    wanted = (line_format.prompt_field,) if line_format.prompt_field else PROMPT_FIELDS
    for name in wanted:
        if name in value:
            return {"prompt": value[name]}, frozenset({name}), []
    request = batch_lines.request_of(value) if line_format.prompt_field is None else None
    if request is None:
        there = quote(", ".join(map(str, value)))
        raise InvalidTask(f"expected a field {' or '.join(wanted)}, got {there}; name it with --field")
    content, unused = batch_lines.fields_of(*request, value.get("url"))
    return content, batch_lines.ENVELOPE, unused


class FileSource:
    """Entries of a file, as many as are asked for."""

    def __init__(self, entries: Iterator[FileTask]) -> None:
        self._entries = entries
        self.ended = False

    def take(self, count: int) -> list[FileTask]:
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

    def __init__(self, entries: Iterator[FileTask], *, ahead: int) -> None:
        self._queue: queue.Queue[FileTask | None] = queue.Queue(maxsize=ahead)
        self._error: OSError | ConfigurationError | None = None
        self.ended = False
        threading.Thread(target=self._read, args=(entries,), name="read-input", daemon=True).start()

    def _read(self, entries: Iterator[FileTask]) -> None:
        try:
            for entry in entries:
                self._queue.put(entry)
        except (OSError, ConfigurationError) as error:
            self._error = error
        finally:
            self._queue.put(None)

    def take(self, count: int) -> list[FileTask]:
        """Return up to `count` entries that have come; never waits.

        Raises:
            ConfigurationError: When the pipe cannot be read on.
        """
        taken: list[FileTask] = []
        while len(taken) < count and not self.ended:
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                break
            if entry is None:
                self.ended = True
                if isinstance(self._error, ConfigurationError):
                    raise self._error
                if self._error is not None:
                    raise ConfigurationError(f"IN: expected a pipe to read, got: {self._error}") from self._error
            else:
                taken.append(entry)
        return taken
