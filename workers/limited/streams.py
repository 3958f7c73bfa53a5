"""Streamed answers under an SDK: what they say of their own usage, read as they pass by. No limiter here.

Weakness: a stream in other events than the vendors' own cannot be read, nor one that no library here unpacks
(`frameworks/unpacking.py`). What was reserved then counts as used.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

from fleet.usage import Usage
from fleet.workers.context import count_tokens
from fleet.workers.frameworks.unpacking import Events, events_of, unpacking
from fleet.workers.limited.asks import read_object
from fleet.workers.providers.answers.parts import read_message
from fleet.workers.providers.answers.sse import ServerEvent
from fleet.workers.providers.bodies import carries_error
from fleet.workers.providers.usage import read_told_usage

#: What ends a stream of chat completions, and the types of the last events of Anthropic's and of Responses.
_DONE, _LAST = "[DONE]", frozenset({"message_stop", "response.completed", "response.incomplete"})
#: Where deltas of Anthropic's events have their text.
_TEXTS = ("text", "thinking", "partial_json")


class StreamWatch:
    """Reads one stream.

    Args:
        content_type: Of the answer: decides how it is cut into events.
        content_encoding: How it is packed; empty: it is not.

    Attributes:
        error: The event that is an error, as it came; None: there was none.
        usage: What was told of the usage, in the words of the vendor.
        is_whole: The answer has come to its end.
    """

    def __init__(self, content_type: str = "", content_encoding: str = "") -> None:
        self.error: bytes | None = None
        self.usage: dict[str, Any] = {}
        self.is_whole = False
        self._pieces: list[str] = []
        self._events = 0
        self._is_first_usage = False  # Anthropic's first event tells the input, and an output of one token
        self._unpack = unpacking(content_encoding)
        self._parser: Events | None = events_of(content_type) if self._unpack is not None else None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if self._parser is None or self._unpack is None:
            return
        try:
            for event in self._parser.feed(self._unpack(chunk)):
                self.take(event)
        except Exception:  # noqa: BLE001 too long, or not packed as was said: each library has errors of its own
            self._parser = None

    def close(self) -> None:
        """Take what is left at the end."""
        if self._parser is not None:
            for event in self._parser.close():
                self.take(event)

    def ended(self) -> None:
        """Note that the stream has come to its end."""
        self.is_whole = True

    @property
    def has_said(self) -> bool:
        """True once something of the answer came."""
        return bool(self._pieces)

    def used(self, input_tokens: int) -> Usage | None:
        """Return what the answer has used so far; None: nothing is known of it, or not of all of it.

        Args:
            input_tokens: Of the request by estimate, until the answer tells them.
        """
        if not self._events or self._parser is None:
            return None
        told = read_told_usage(self.usage)
        came = count_tokens("".join(self._pieces))
        if told is None:
            return Usage(input_tokens=input_tokens, output_tokens=came, estimated_calls=1)
        if self._is_first_usage and came > told.output_tokens:
            return told.model_copy(update={"output_tokens": came, "estimated_calls": 1})
        return told

    def take(self, event: ServerEvent) -> dict[str, Any] | None:
        """Take one event; return what it says, None when that is nothing which this can read."""
        try:
            told = json.loads(event.data)
        except (ValueError, RecursionError):
            self.is_whole = self.is_whole or event.data.strip() == _DONE
            return None
        if not isinstance(told, dict):
            return None
        self._note(event, told)
        return told

    def _note(self, event: ServerEvent, told: dict[str, Any]) -> None:
        self._events += 1
        self.is_whole = self.is_whole or told.get("type") in _LAST
        if event.name == "error" or carries_error(told):
            self.error = event.data.encode("utf-8", "replace")
            return
        for usage in _usages(told):
            self._is_first_usage = told.get("type") == "message_start"
            self.usage.update({name: value for name, value in usage.items() if value is not None})
        self._pieces.extend(filter(None, _said(told)))


def usage_of(raw: bytes, content_type: str, input_tokens: int) -> Usage | None:
    """Return what a whole answer says was used, in any vendor's words, also in a stream that nobody asked for.

    Args:
        raw: Its body.
        content_type: Of it.
        input_tokens: Of the request by estimate, for a stream that doesn't tell them.

    Returns:
        None when it is not said.
    """
    answer = read_object(raw)
    if answer is not None:
        return read_told_usage(answer.get("usage") or answer.get("usageMetadata"))
    watch = StreamWatch(content_type)
    watch.feed(raw)
    watch.close()
    return watch.used(input_tokens)


def watched(stream: Any, feed: Callable[[bytes], None], end: Callable[[], None], ended: Callable[[], None]) -> Any:
    """Return a response's stream that passes on its bytes, and tells of them.

    Args:
        stream: Of httpx or httpx2, for either kind of client.
        feed: Gets each piece.
        end: Called at its end, or when it is left or breaks; maybe more than once.
        ended: Called before that at its end alone.
    """
    made: Any = _watched_class(cast(Hashable, type(stream)))()
    made.inner, made.feed, made.end, made.ended = stream, feed, end, ended
    return made


@lru_cache
def _watched_class(kind: Hashable) -> type[Any]:
    """Return the class for a kind of stream: it must be one of the library's own, of which there are two."""
    base = next(one for one in cast(type[Any], kind).__mro__ if one.__name__ in ("AsyncByteStream", "SyncByteStream"))
    return type("Watched", (_Async if base.__name__ == "AsyncByteStream" else _Blocking, base), {})


class _Async:
    inner: Any
    feed: Callable[[bytes], None]
    end: Callable[[], None]
    ended: Callable[[], None]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self.inner:
                self.feed(chunk)
                yield chunk
            self.ended()
        finally:
            self.end()

    async def aclose(self) -> None:
        self.end()
        await self.inner.aclose()


class _Blocking:
    inner: Any
    feed: Callable[[bytes], None]
    end: Callable[[], None]
    ended: Callable[[], None]

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self.inner:
                self.feed(chunk)
                yield chunk
            self.ended()
        finally:
            self.end()

    def close(self) -> None:
        self.end()
        self.inner.close()


def _usages(event: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield where an event tells the usage: at its top, in the message that begins, in the response that is whole."""
    for holder in _dicts([event.get("message"), event.get("response"), event.get("delta"), dict(event)]):
        yield from _dicts([holder.get("usage"), holder.get("usageMetadata")])
    if "prompt_eval_count" in event:  # Ollama's own
        yield {"input_tokens": event["prompt_eval_count"], "output_tokens": event.get("eval_count")}


def _said(event: Mapping[str, Any]) -> Iterator[str]:
    """Yield the text of an event, thinking and arguments of tools included."""
    for choice in _dicts(event.get("choices")):
        for piece in _dicts([choice.get("delta")]):
            yield from read_message(piece)
    delta = event.get("delta")
    if isinstance(delta, str):
        yield delta
    for piece in _dicts([delta]):
        yield from (text for name in _TEXTS if isinstance(text := piece.get(name), str))
    for message in _dicts([event.get("message")]):
        yield from read_message(message)
    for candidate in _dicts(event.get("candidates")):
        for content in _dicts([candidate.get("content")]):
            yield from (text for part in _dicts(content.get("parts")) if isinstance(text := part.get("text"), str))


def _dicts(value: object) -> list[dict[str, Any]]:
    """Return the objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
