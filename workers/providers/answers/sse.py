"""Server-sent events, as they come: bytes in, events out. The format: https://html.spec.whatwg.org/#event-stream.

Ours differs in two ways: an event at the end of the stream counts although no empty line follows (some servers send
none), and lines are bounded. `id` and `retry` mean nothing here, as nobody connects again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

#: Longest event in bytes: a whole answer fits several times, and an endless line takes no worker's memory.
MAX_EVENT_BYTES = 8 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\r|\n")


class ServerEvent(NamedTuple):
    """One event: its name (mostly none) and its data, the lines joined."""

    name: str
    data: str


class TooLong(ValueError):
    """An event of more than `MAX_EVENT_BYTES`."""


class SseParser:
    """Reads one stream, in pieces of any size. Linear in the bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # of the line that has not ended
        self._lines: list[str] = []  # data of the event that has not ended
        self._name = ""
        self._bytes = 0
        self._is_first = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """Yield the events that end in `chunk`.

        Raises:
            TooLong: When one does not end.
        """
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return
        self._after_cr = chunk.endswith(b"\r")
        *ended, rest = _LINE_END.split(chunk)
        for part in ended:
            yield from self._line(part)
        self._keep(rest)

    def close(self) -> Iterator[ServerEvent]:
        """Yield the event with which the stream ended, if nothing followed it."""
        yield from self._line(b"")
        yield from self._line(b"")

    def _keep(self, part: bytes) -> None:
        self._bytes += len(part)
        if self._bytes > MAX_EVENT_BYTES:
            raise TooLong(f"expected events of at most {MAX_EVENT_BYTES} bytes")
        if part:
            self._parts.append(part)

    def _line(self, part: bytes) -> Iterator[ServerEvent]:
        self._keep(part)
        line = b"".join(self._parts).decode("utf-8", "replace")
        self._parts.clear()
        if self._is_first:
            line, self._is_first = line.removeprefix("\ufeff"), False
        if not line:
            if self._lines:
                yield ServerEvent(self._name, "\n".join(self._lines))
            self._lines, self._name, self._bytes = [], "", 0
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._lines.append(value)
        elif field == "event":
            self._name = value
