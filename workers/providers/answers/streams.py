"""Answers that come in pieces: what each piece says, and the whole answer put together again, of either wire.

The whole has the form of an answer that was not streamed, so whoever reads those reads these. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet.workers.ports import Delta
from fleet.workers.providers.answers.parts import read_content, read_message

_NOTHING = Delta()
#: Where each kind of delta of a block has its piece.
_PIECES = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
#: Tools that one answer may want called; an index beyond it is no wire (count).
MOST_TOOL_CALLS = 1024


class AnswerStream(Protocol):
    """One answer in the making.

    Attributes:
        is_over: True once the last event has come.
        is_whole: True once the provider has said why the model stopped: what comes later is about it, not of it.
        usage: What was told of it so far, as the wire says it.
    """

    is_over: bool
    is_whole: bool
    usage: dict[str, Any]

    def knows(self, event: Mapping[str, Any]) -> bool:
        """True for an event of this wire; another may be an error."""
        ...

    def take(self, event: Mapping[str, Any]) -> Delta:
        """Add one event; return what it says."""
        ...

    def answer(self) -> dict[str, Any]:
        """Return the answer as it is so far, as if it had come in one piece."""
        ...


class OpenAIStream:
    """Chunks of a chat completion."""

    def __init__(self) -> None:
        self.is_over = self.is_whole = False
        self.usage: dict[str, Any] = {}
        self._whole: dict[str, Any] = {}
        self._choice: dict[str, Any] = {}
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._refusals: list[str] = []
        self._tools: dict[int, dict[str, Any]] = {}

    def knows(self, event: Mapping[str, Any]) -> bool:
        return "choices" in event or "usage" in event or str(event.get("object")).startswith("chat.completion")

    def take(self, event: Mapping[str, Any]) -> Delta:
        self._whole.update({name: value for name, value in event.items() if name not in ("choices", "usage")})
        told = event.get("usage") or _inner(event, "x_groq", "usage")
        if isinstance(told, dict):
            self.usage = told
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or choice.get("index") not in (0, None):
            return _NOTHING
        self._choice.update({name: value for name, value in choice.items() if name not in ("delta", "message")})
        self.is_whole = self.is_whole or bool(choice.get("finish_reason"))
        delta = choice.get("delta")
        return self._piece(delta) if isinstance(delta, dict) else _NOTHING

    def _piece(self, delta: Mapping[str, Any]) -> Delta:
        said = read_message(delta)
        self._texts.append(said.text)
        self._thoughts.append(said.reasoning)
        if isinstance(refusal := delta.get("refusal"), str):
            self._refusals.append(refusal)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                self._take_call(call)
        return Delta(said.text, said.reasoning)

    def _take_call(self, call: Mapping[str, Any]) -> None:
        index = call.get("index")
        at = index if isinstance(index, int) and 0 <= index < MOST_TOOL_CALLS else max(self._tools, default=0)
        whole = self._tools.setdefault(at, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        whole["id"] = call.get("id") or whole["id"]
        for name in ("name", "arguments"):
            if isinstance(part := _inner(call, "function", name), str):
                whole["function"][name] += part

    def answer(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._texts)}
        if thought := "".join(self._thoughts):
            message["reasoning_content"] = thought
        if refusal := "".join(self._refusals):
            message["refusal"] = refusal
        if self._tools:
            message["tool_calls"] = [self._tools[index] for index in sorted(self._tools)]
        choices = [{**self._choice, "message": message}]
        return {**self._whole, "choices": choices, "usage": self.usage or None}


class AnthropicStream:
    """Events of a message."""

    def __init__(self) -> None:
        self.is_over = self.is_whole = False
        self.usage: dict[str, Any] = {}
        self._message: dict[str, Any] = {"type": "message", "role": "assistant"}
        self._blocks: list[_Block] = []

    def knows(self, event: Mapping[str, Any]) -> bool:
        return isinstance(event.get("type"), str)

    def take(self, event: Mapping[str, Any]) -> Delta:
        kind = event.get("type")
        if kind == "message_start":
            message = event.get("message")
            self._message.update(message if isinstance(message, dict) else {})
            self._take_usage(self._message.get("usage"))
        elif kind == "content_block_start":
            block = event.get("content_block")
            self._blocks.append(_Block(block if isinstance(block, dict) else {}))
            return self._blocks[-1].begin()
        elif kind == "content_block_delta" and self._blocks:
            delta = event.get("delta")
            return self._blocks[-1].take(delta) if isinstance(delta, dict) else _NOTHING
        elif kind == "message_delta":
            delta = event.get("delta")
            self._message.update(delta if isinstance(delta, dict) else {})
            self._take_usage(event.get("usage"))
            self.is_whole = bool(self._message.get("stop_reason"))
        elif kind == "message_stop":
            self.is_over = True
        return _NOTHING

    def _take_usage(self, told: object) -> None:
        """Add what is told last: it counts from the beginning, and leaves out what has not changed."""
        if isinstance(told, dict):
            self.usage.update({name: value for name, value in told.items() if value is not None})

    def answer(self) -> dict[str, Any]:
        content = [block.whole() for block in self._blocks]
        return {**self._message, "content": content, "usage": self.usage or None}


@dataclass(slots=True)
class _Block:
    """A block of a message: what it began with, and the pieces that came."""

    head: Mapping[str, Any]
    pieces: list[str] = field(default_factory=list)

    def begin(self) -> Delta:
        said = read_content([self.head])
        return Delta(said.text, said.reasoning)

    def take(self, delta: Mapping[str, Any]) -> Delta:
        if isinstance(signature := delta.get("signature"), str):
            self.head = {**self.head, "signature": f"{self.head.get('signature') or ''}{signature}"}
        name = _PIECES.get(str(delta.get("type")), "")
        piece = delta.get(name)
        if not isinstance(piece, str):
            return _NOTHING
        self.pieces.append(piece)
        return Delta(text=piece) if name == "text" else Delta(reasoning=piece) if name == "thinking" else _NOTHING

    def whole(self) -> dict[str, Any]:
        text, kind = "".join(self.pieces), self.head.get("type")
        if not text:
            return dict(self.head)
        if kind in ("text", "thinking"):
            return {**self.head, kind: f"{self.head.get(kind) or ''}{text}"}
        return {**self.head, "input": _object(text)}


def _object(text: str) -> object:
    """Return the arguments of a tool; as they were written, when they are no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _inner(event: Mapping[str, Any], *names: str) -> object:
    value: object = event
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
