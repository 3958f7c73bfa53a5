"""Answers that come in pieces: what each piece says, and the whole answer put together again, of either wire.

The whole has the form of an answer that was not streamed, so whoever reads those reads these. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet.workers.calls import Delta
from fleet.workers.providers.answers.parts import read_content, read_message

_NOTHING = Delta()
#: Where each kind of delta of a block has its piece.
_PIECES = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
#: The block that each of them belongs to.
_KINDS = {"thinking_delta": "thinking", "signature_delta": "thinking", "input_json_delta": "tool_use"}
#: Tools that one answer may want called, answers of one call, and blocks of one; an index beyond is no wire (count).
MOST_TOOL_CALLS, MOST_CHOICES, MOST_BLOCKS = 1024, 128, 4096
#: Fields of a piece of a tool's call that are put together; others, such as a signature, are kept as they come.
_OWN = frozenset({"index", "id", "function", "type"})


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
    """Chunks of a chat completion. With several answers (`n`) the pieces are the first one's."""

    def __init__(self) -> None:
        self.is_over = self.is_whole = False
        self.usage: dict[str, Any] = {}
        self._whole: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {0: _Choice()}

    def knows(self, event: Mapping[str, Any]) -> bool:
        return "choices" in event or "usage" in event or str(event.get("object")).startswith("chat.completion")

    def take(self, event: Mapping[str, Any]) -> Delta:
        self._whole.update({name: value for name, value in event.items() if name not in ("choices", "usage")})
        told = event.get("usage") or _inner(event, "x_groq", "usage")
        if isinstance(told, dict):
            self.usage = told
        choices, said = event.get("choices"), _NOTHING
        for choice in choices if isinstance(choices, list) else ():
            index = choice.get("index") if isinstance(choice, dict) else None
            if isinstance(choice, dict) and (index is None or (type(index) is int and 0 <= index < MOST_CHOICES)):
                piece = self._choices.setdefault(index or 0, _Choice()).take(choice)
                said = said if index else piece
        self.is_whole = all(choice.is_whole for choice in self._choices.values())
        return said

    def answer(self) -> dict[str, Any]:
        choices = [self._choices[index].answer() for index in sorted(self._choices)]
        return {**self._whole, "choices": choices, "usage": self.usage or None}


class _Choice:
    """One answer of a completion: what was told of it, and its pieces."""

    def __init__(self) -> None:
        self.is_whole = False
        self._told: dict[str, Any] = {}
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._refusals: list[str] = []
        self._tools: dict[int, dict[str, Any]] = {}
        self._places: dict[int, int] = {}  # where calls stand whose number was another's already
        self._legacy: dict[str, Any] = {}

    def take(self, choice: Mapping[str, Any]) -> Delta:
        self._told.update({name: value for name, value in choice.items() if name not in ("delta", "message")})
        self.is_whole = self.is_whole or bool(choice.get("finish_reason"))
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(delta, dict) or not isinstance(message, dict):
            return self._piece(delta) if isinstance(delta, dict) else _NOTHING
        is_told = bool(self._texts or self._tools)  # of servers that say all of it in one event, maybe once more
        for pieces in (self._texts, self._thoughts, self._refusals, self._tools, self._places, self._legacy):
            pieces.clear()
        whole = self._piece(message)
        return _NOTHING if is_told else whole

    def _piece(self, delta: Mapping[str, Any]) -> Delta:
        said = read_message(delta)
        self._texts += [said.text] if said.text else []
        self._thoughts += [said.reasoning] if said.reasoning else []
        if isinstance(refusal := delta.get("refusal"), str):
            self._refusals.append(refusal)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                self._take_call(call)
        if isinstance(legacy := delta.get("function_call"), dict):
            _add_function(self._legacy, legacy)
        return Delta(said.text, said.reasoning)

    def _take_call(self, call: Mapping[str, Any]) -> None:
        whole = self._tools.setdefault(self._place_of(call), {"id": "", "type": "function", "function": {}})
        whole.update({name: value for name, value in call.items() if name not in _OWN and value is not None})
        whole["id"] = whole["id"] or call.get("id") or ""
        if isinstance(function := call.get("function"), dict):
            _add_function(whole["function"], function)

    def _place_of(self, call: Mapping[str, Any]) -> int:
        """Return where a piece of a call belongs.

        Some servers number no calls, or all of them 0: there a new id beside a name begins the next call, or a name
        behind arguments where there are neither numbers nor ids. An id alone does not: others make a new one for each
        piece.
        """
        told, last = call.get("index"), max(self._tools, default=0)
        index = told if type(told) is int and 0 <= told < MOST_TOOL_CALLS else None
        at = last if index is None else self._places.get(index, index)
        known = self._tools.get(at)
        if known is None or not (_inner(call, "function", "name") and known["function"].get("name")):
            return at
        another = call["id"] != known["id"] if call.get("id") else index is None and known["function"].get("arguments")
        if not another:
            return at
        if index is not None:
            self._places[index] = last + 1
        return last + 1

    def answer(self) -> dict[str, Any]:
        """Return the choice of an answer that came in one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._texts)}
        if thought := "".join(self._thoughts):
            message["reasoning_content"] = thought
        if refusal := "".join(self._refusals):
            message["refusal"] = refusal
        if self._tools:
            message["tool_calls"] = [self._tools[index] for index in sorted(self._tools)]
        elif self._legacy:
            message["function_call"] = self._legacy
        return {**self._told, "message": message}


def _add_function(whole: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Add a piece of a function's name and arguments; a name that is said again is no more of it."""
    name, arguments = piece.get("name"), piece.get("arguments")
    if isinstance(name, str) and name != whole.get("name"):
        whole["name"] = f"{whole.get('name', '')}{name}"
    if isinstance(arguments, dict):  # some servers send the object itself
        arguments = json.dumps(arguments)
    if isinstance(arguments, str):
        whole["arguments"] = f"{whole.get('arguments', '')}{arguments}"


class AnthropicStream:
    """Events of a message; its blocks may come side by side."""

    def __init__(self) -> None:
        self.is_over = self.is_whole = False
        self.usage: dict[str, Any] = {}
        self._message: dict[str, Any] = {"type": "message", "role": "assistant"}
        self._blocks: dict[int, _Block] = {}
        self._places: dict[int, int] = {}  # where blocks stand whose number was another's already

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
            made = self._blocks[self._begin(event)] = _Block(block if isinstance(block, dict) else {})
            return made.begin()
        elif kind == "content_block_delta":
            delta = event.get("delta")
            return self._block_of(event, delta).take(delta) if isinstance(delta, dict) else _NOTHING
        elif kind == "message_delta":
            delta = event.get("delta")
            self._message.update(delta if isinstance(delta, dict) else {})
            self._take_usage(event.get("usage"))
            self.is_whole = bool(self._message.get("stop_reason"))
        elif kind == "message_stop":
            self.is_over = True
        elif kind == "message":  # of servers that say all of it in one event
            return self._take_all(event)
        return _NOTHING

    def _take_all(self, message: Mapping[str, Any]) -> Delta:
        content = message.get("content")
        blocks = [_Block(block) for block in content if isinstance(block, dict)] if isinstance(content, list) else []
        self._blocks = dict(enumerate(blocks))
        self._message.update({name: value for name, value in message.items() if name not in ("content", "usage")})
        self._take_usage(message.get("usage"))
        self.is_whole = bool(self._message.get("stop_reason"))
        said = read_content(content)
        return Delta(said.text, said.reasoning)

    def _begin(self, event: Mapping[str, Any]) -> int:
        """Return the place of the block that begins: the one that the event names, unless it is taken."""
        index, after = event.get("index"), max(self._blocks, default=-1) + 1
        if type(index) is not int or not 0 <= index < MOST_BLOCKS:
            return after
        self._places[index] = after if index in self._blocks else index
        return self._places[index]

    def _block_of(self, event: Mapping[str, Any], delta: Mapping[str, Any]) -> _Block:
        """Return the block that a piece belongs to: the named one, else the last; it begins where it never did."""
        index, last = event.get("index"), max(self._blocks, default=0)
        at = self._places.get(index, index) if type(index) is int and 0 <= index < MOST_BLOCKS else last
        kind = _KINDS.get(str(delta.get("type")), "text")
        return self._blocks.setdefault(at, _Block({"type": kind}))

    def _take_usage(self, told: object) -> None:
        """Add what is told last: it counts from the beginning, and leaves out what has not changed."""
        if isinstance(told, dict):
            self.usage.update({name: value for name, value in told.items() if value is not None})

    def answer(self) -> dict[str, Any]:
        content = [self._blocks[index].whole() for index in sorted(self._blocks)]
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
