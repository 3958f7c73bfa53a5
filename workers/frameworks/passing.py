"""A streamed answer on its way to an SDK: event by event, as the provider wrote it.

Nothing is handed on before something is said, so that what fails until then is tried again and nobody hears of it. What
Fleet itself asked for (the usage) is taken out, and an error in the middle is not passed on but raised. Weakness: what
is no stream of events passes as it comes, and its usage is what was reserved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fleet.usage import Usage
from fleet.workers.frameworks.asked import RawAsk
from fleet.workers.frameworks.raw import Take
from fleet.workers.limited_streams import StreamWatch
from fleet.workers.providers.answers.sse import MAX_EVENT_BYTES, ServerEvent, SseParser, TooLong
from fleet.workers.providers.answers.streams import AnswerStream, AnthropicStream, OpenAIStream

#: Bytes that are held back at most until something is said: a long thought that is not shown has events, too.
MOST_HELD_BYTES = 256 * 1024
#: What stands between two events.
_BETWEEN = re.compile(rb"\r\n\r\n|\n\n|\n\r\n|\r\r")
#: Events that end a whole answer of the Responses API.
_ENDS = frozenset({"response.completed", "response.incomplete"})
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
        self._is_events = "event-stream" in content_type
        self._hides_usage = hides_usage
        self._watch = StreamWatch(content_type)
        self._rest = b""
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
        return self._is_events and self._is_over

    @property
    def is_whole(self) -> bool:
        """True when it has ended as this wire ends; a wire that is not known here ends whenever it does."""
        return self._is_over or self._ask.endpoint not in ("chat/completions", "messages", "responses")

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            TooLong: When an event does not end.
        """
        if not self._is_events:
            self._watch.feed(chunk)
            self._tell(chunk)
            return
        *blocks, self._rest = _split(self._rest + chunk)
        if len(self._rest) > MAX_EVENT_BYTES:
            raise TooLong(f"expected events of at most {MAX_EVENT_BYTES} bytes")
        for block in blocks:
            self._take(block)

    def close(self) -> None:
        """Take what is left at the end; what was held back is handed on, if it is an answer."""
        if self._rest.strip():
            self._take(self._rest)
        self._rest = b""
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
        parser = SseParser()
        for event in [*parser.feed(block), *parser.close()]:
            if not self._is_passed(event):
                return
        self._held.append(block)
        self._held_bytes += len(block)
        if self._has_said or self._held_bytes > MOST_HELD_BYTES:
            self._release()

    def _is_passed(self, event: ServerEvent) -> bool:
        """Look at an event; False for what is not the SDK's."""
        if event.data == "[DONE]":
            self._is_over = True
            return True
        told = self._watch.take(event)
        if self.error is not None:
            return False
        if told is None:
            return True
        self._note(told)
        if self._hides_usage and told.get("usage") and not told.get("choices"):
            return False
        self._has_said = self._has_said or _says(told)
        return True

    def _note(self, told: Mapping[str, Any]) -> None:
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
            ended = (one for one in choices if isinstance(one, dict) and one.get("finish_reason"))
            self._is_over = self._is_over or next(ended, None) is not None

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
