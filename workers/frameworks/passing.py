"""A streamed answer on its way to an SDK: event by event, as the provider wrote it.

Nothing is handed on before something is said, so that what fails until then is tried again and nobody hears of it. What
Fleet itself asked for (the usage) is taken out, and an error in the middle is not passed on but raised, as is what its
SDK could not read. Weakness: what is no stream of events of an endpoint that is known here passes as it comes, and its
usage is what was reserved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fleet.usage import Usage
from fleet.workers.frameworks.asked import RawAsk
from fleet.workers.frameworks.pieces import event_bytes, in_pieces
from fleet.workers.frameworks.raw import Take
from fleet.workers.frameworks.readable import NoAnswer, is_event, readable, readable_event
from fleet.workers.limited.streams import StreamWatch
from fleet.workers.providers.answers.sse import MAX_EVENT_BYTES, ServerEvent, SseParser, TooLong
from fleet.workers.providers.answers.streams import AnswerStream, AnthropicStream, OpenAIStream
from fleet.workers.providers.bodies import read_said

#: Bytes that are held back at most until something is said: a long thought that is not shown has events, too.
MOST_HELD_BYTES = 256 * 1024
#: What stands between two events.
_BETWEEN = re.compile(rb"\r\n\r\n|\n\n|\n\r\n|\r\r")
#: Most bytes of it that may have come before its last one.
MOST_BETWEEN = 3
#: Events that end a whole answer of the Responses API.
_ENDS = frozenset({"response.completed", "response.incomplete"})
#: Endpoints whose answers in pieces are events, whatever type their answer says it has.
STREAMING = frozenset({"chat/completions", "completions", "messages", "responses"})
#: Events that say nothing yet.
_SILENT = frozenset({"message_start", "ping", "response.created", "response.in_progress", "response.queued"})


class Passing:
    """One streamed answer, for as many tries as it takes until something is said.

    Args:
        ask: What was asked.
        on_head: Hears status and headers of the answer, once, before its first piece.
        put: Gets what the SDK is to read.
        collects: Put the whole answer together as well.

    Attributes:
        tier: Service tier that answers, if the provider says it.
        has_told: True once something was handed on: it cannot be asked for again.
    """

    def __init__(
        self, ask: RawAsk, on_head: Callable[[int, Mapping[str, str]], None], put: Take, *, collects: bool
    ) -> None:
        self._ask, self._on_head, self._put, self._collects = ask, on_head, put, collects
        self.has_told = False
        self.tier: str | None = None
        self.begin(200, {"content-type": "text/event-stream"}, hides_usage=False)

    def begin(self, status: int, headers: Mapping[str, str], *, hides_usage: bool) -> None:
        """Begin with the head of an answer.

        Args:
            status: Of HTTP.
            headers: By names in lower case.
            hides_usage: The client has not asked for the usage, and does not get it.
        """
        content_type = headers.get("content-type", "")
        self._status, self._headers = status, headers
        self._is_known = self._ask.endpoint in STREAMING
        self._is_events = self._is_known or "event-stream" in content_type
        self._hides_usage = hides_usage
        self._watch = StreamWatch("text/event-stream" if self._is_events else content_type)
        self._parts: list[bytes] = []  # of the event that has not ended
        self._part_bytes, self._tail = 0, b""
        self._has_events = False
        self._open: set[int] = set()
        self._ended: set[int] = set()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._has_said = False
        self._stream = self._collector()
        self._whole: Mapping[str, Any] | None = None
        self._is_over = not self._is_events

    @property
    def has_begun(self) -> bool:
        """True when something of the answer came, or of its usage."""
        return self._watch.has_said or bool(self._watch.usage)

    @property
    def error(self) -> bytes | None:
        """The event that is an error; None: there was none."""
        return self._watch.error

    @property
    def has_ended(self) -> bool:
        """True once the provider has said why the model stopped: what is lost later is about the answer, not of it."""
        return self._is_events and self._is_over and self._has_events

    @property
    def is_whole(self) -> bool:
        """True when it has ended as this wire ends; a wire that is not known here ends whenever it does."""
        return not self._is_known or (self._is_over and self._has_events)

    @property
    def unread(self) -> bytes:
        """What came, if it was no stream at all: maybe an answer in one piece."""
        return b"" if self._has_events or self.has_told else b"".join(self._held)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            TooLong: When an event does not end.
            NoAnswer: No SDK could read it.
        """
        if not self._is_events:
            self._watch.feed(chunk)
            self._tell(chunk)
            return
        self._parts.append(chunk)
        self._part_bytes += len(chunk)
        seam = self._tail + chunk
        self._tail = seam[-MOST_BETWEEN:]
        if _BETWEEN.search(seam) is not None:  # only then: a long event that comes in many pieces is joined once
            *blocks, rest = _split(b"".join(self._parts))
            self._parts, self._part_bytes, self._tail = [rest], len(rest), rest[-MOST_BETWEEN:]
            for block in blocks:
                self._take(block)
        if self._part_bytes > MAX_EVENT_BYTES:
            raise TooLong(f"expected events of at most {MAX_EVENT_BYTES} bytes")

    def close(self) -> None:
        """Take what is left at the end; what was held back is handed on, if it is an answer. Raises as `feed`."""
        rest = b"".join(self._parts)
        self._parts, self._part_bytes, self._tail = [], 0, b""
        try:
            if rest.strip():
                self._take(rest)
        except NoAnswer:
            if not self.has_ended:  # else it broke off in what only tells the usage
                raise
        self._watch.close()
        if self.error is None and self.is_whole:
            self._release()

    def used(self) -> Usage | None:
        """Return what it has used so far; None: nothing is known of it."""
        asked = self._ask.asked
        return self._watch.used(0 if asked is None else asked.input_tokens)

    def answer(self) -> Mapping[str, Any]:
        """Return the answer as if it had come in one piece."""
        if self._whole is not None:
            return self._whole
        return {} if self._stream is None else self._stream.answer()

    def _take(self, block: bytes) -> None:
        parser, pieces = SseParser(), [block]
        for event in [*parser.feed(block), *parser.close()]:
            if (told := self._passed(event, block)) is None:
                return
            pieces = [told]
        self._held += pieces
        self._held_bytes += len(block)
        if self._has_said or (self._has_events and self._held_bytes > MOST_HELD_BYTES):
            self._release()
        elif self._held_bytes > MAX_EVENT_BYTES:
            raise TooLong(f"expected events of at most {MAX_EVENT_BYTES} bytes")

    def _passed(self, event: ServerEvent, block: bytes) -> bytes | None:
        """Look at an event; return what the SDK gets of it, None: nothing."""
        if event.data == "[DONE]":
            self._is_over = True
            return block
        if self._is_known and not event.data.strip():
            return None
        told = self._watch.take(event)
        if self.error is not None:
            return None
        if told is None:
            if self._is_known:
                raise NoAnswer(f"expected events of JSON, got {len(event.data)} characters of something else")
            return block
        return self._read(event, told, block)

    def _read(self, event: ServerEvent, told: dict[str, Any], block: bytes) -> bytes | None:
        endpoint = self._ask.endpoint
        if not is_event(endpoint, told):
            raw = event.data.encode("utf-8", "replace")
            self._watch.error = raw if read_said(raw).tells else None
            return None
        if endpoint == "messages" and told["type"] == "message":  # of servers that say all of it in one event
            whole = readable(endpoint, told)
            self._note(whole)
            self._has_said = self._is_over = True
            return in_pieces(endpoint, whole, tells_usage=True)
        read = readable_event(endpoint, told)
        self._note(told if read is None else read)
        if read is None or (self._hides_usage and read.get("usage") and not read.get("choices")):
            return None
        self._has_said = self._has_said or _says(read)
        is_named = endpoint != "messages" or event.name == read["type"]  # its SDK passes over events without a name
        if "choices" in read and read.get("error"):  # it says that there is none: SDKs would raise
            read = {name: value for name, value in read.items() if name != "error"}
        return block if read is told and is_named else event_bytes(read)

    def _note(self, told: Mapping[str, Any]) -> None:
        self._has_events = self._has_events or "type" in told or bool(told.get("choices"))
        if self._stream is not None:
            self._stream.take(told)
        if isinstance(tier := told.get("service_tier"), str):
            self.tier = tier
        kind, delta = told.get("type"), told.get("delta")
        if kind in _ENDS and isinstance(response := told.get("response"), dict):
            self._whole, self._is_over = response, True
        elif kind == "message_stop" or (kind == "message_delta" and isinstance(delta, dict) and "stop_reason" in delta):
            self._is_over = True
        elif isinstance(choices := told.get("choices"), list):
            self._note_ends(choices)

    def _note_ends(self, choices: list[Any]) -> None:
        """Note which of several answers (`n`) have ended: it is over when all have that were begun."""
        for choice in choices:
            index = choice.get("index") if isinstance(choice, dict) else None
            self._open.add(at := index if type(index) is int else 0)
            if isinstance(choice, dict) and choice.get("finish_reason"):
                self._ended.add(at)
        self._is_over = self._is_over or (bool(self._open) and self._open <= self._ended)

    def _collector(self) -> AnswerStream | None:
        if not self._collects or self._ask.endpoint == "responses":
            return None
        return AnthropicStream() if self._ask.wire == "anthropic" else OpenAIStream()

    def _release(self) -> None:
        held, self._held = self._held, []
        for block in held:
            self._tell(block)

    def _tell(self, piece: bytes) -> None:
        if not self.has_told:
            self.has_told = True
            self._on_head(self._status, self._headers)
        self._put(piece)


def put_together(ask: RawAsk, raw: bytes) -> tuple[dict[str, Any] | None, bytes | None]:
    """Return the answer, or the error, that events make up which nobody asked for, as of servers that always stream.

    Args:
        ask: What was asked.
        raw: What came.

    Returns:
        Two times None when they are neither, or half of an answer.
    """
    if b"data:" not in raw or ask.endpoint not in STREAMING:
        return None, None
    passing = Passing(ask, lambda *_: None, lambda _: None, collects=True)
    try:
        passing.feed(raw)
        passing.close()
    except (TooLong, NoAnswer):
        return None, None
    return (dict(passing.answer()) if passing.error is None and passing.is_whole else None), passing.error


def _split(raw: bytes) -> list[bytes]:
    """Cut bytes behind each event; the last piece has not ended."""
    pieces, start = [], 0
    for found in _BETWEEN.finditer(raw):
        pieces.append(raw[start : found.end()])
        start = found.end()
    return [*pieces, raw[start:]]


def _says(event: Mapping[str, Any]) -> bool:
    """True for an event with which an answer begins to say something."""
    if (kind := event.get("type")) is not None:
        return kind not in _SILENT
    choices = event.get("choices")
    if not isinstance(choices, list):
        return False
    for choice in choices:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role"):
            return True
    return any(isinstance(choice, dict) and (choice.get("text") or choice.get("finish_reason")) for choice in choices)
