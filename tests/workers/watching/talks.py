"""Conversations as each wire writes them, with a model whose turns are told in a script."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet.workers.frameworks.watch import RequestWatch
from fleet.workers.watching.run import RunWatch

#: One call of a turn: tool, arguments, result.
Made = tuple[str, Any, str]


class Talk(Protocol):
    """A client's side of one conversation."""

    body: dict[str, Any]

    def answer(self, turn: Sequence[Made], number: int) -> dict[str, Any]: ...
    def take(self, answer: Mapping[str, Any], turn: Sequence[Made]) -> None: ...
    def say(self, text: str) -> None: ...


@dataclass
class ChatTalk:
    """Chat completions; `ids` False: a server that names each turn's calls alike."""

    ids: bool = True
    body: dict[str, Any] = field(
        default_factory=lambda: {"model": "m", "messages": [{"role": "user", "content": "find the tide"}]}
    )

    def answer(self, turn: Sequence[Made], number: int) -> dict[str, Any]:
        calls = [
            {"id": f"call_{number}_{n}" if self.ids else f"call_{n}", "type": "function",
             "function": {"name": name, "arguments": json.dumps(told)}}
            for n, (name, told, _) in enumerate(turn)
        ]  # fmt: skip
        return {
            "choices": [{"message": {"role": "assistant", "content": None if calls else "so", "tool_calls": calls}}]
        }

    def take(self, answer: Mapping[str, Any], turn: Sequence[Made]) -> None:
        message = copy.deepcopy(answer["choices"][0]["message"])
        self.body["messages"] += [message]
        for call, (_, _, result) in zip(message["tool_calls"], turn, strict=True):
            self.body["messages"] += [{"role": "tool", "tool_call_id": call["id"], "content": result}]

    def say(self, text: str) -> None:
        self.body["messages"] += [{"role": "user", "content": text}]


@dataclass
class SplitTalk(ChatTalk):
    """A client that writes each call of a turn as a turn of its own."""

    def take(self, answer: Mapping[str, Any], turn: Sequence[Made]) -> None:
        message = answer["choices"][0]["message"]
        for call, (_, _, result) in zip(message["tool_calls"], turn, strict=True):
            self.body["messages"] += [
                {"role": "assistant", "content": None, "tool_calls": [copy.deepcopy(call)]},
                {"role": "tool", "tool_call_id": call["id"], "content": [{"type": "text", "text": result}]},
            ]


@dataclass
class MessagesTalk:
    """Anthropic's Messages; the mark for the cache moves to the last result, as clients do."""

    body: dict[str, Any] = field(
        default_factory=lambda: {"model": "m", "messages": [{"role": "user", "content": "find the tide"}]}
    )

    def answer(self, turn: Sequence[Made], number: int) -> dict[str, Any]:
        calls = [
            {"type": "tool_use", "id": f"toolu_{number}_{n}", "name": name, "input": told}
            for n, (name, told, _) in enumerate(turn)
        ]
        return {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "let me see"}, *calls]}

    def take(self, answer: Mapping[str, Any], turn: Sequence[Made]) -> None:
        calls = [block for block in answer["content"] if block["type"] == "tool_use"]
        results = [
            {"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": result}]}
            for call, (_, _, result) in zip(calls, turn, strict=True)
        ]
        for one in self.body["messages"]:
            for block in one["content"] if isinstance(one["content"], list) else ():
                block.pop("cache_control", None)
        if results:
            results[-1]["cache_control"] = {"type": "ephemeral"}
        self.body["messages"] += [
            {"role": "assistant", "content": copy.deepcopy(answer["content"])},
            {"role": "user", "content": results or "go on"},
        ]

    def say(self, text: str) -> None:
        self.body["messages"] += [{"role": "user", "content": text}]


@dataclass
class ResponsesTalk:
    """Responses, whose whole history is in each request."""

    body: dict[str, Any] = field(
        default_factory=lambda: {"model": "m", "input": [{"role": "user", "content": "find the tide"}]}
    )

    def answer(self, turn: Sequence[Made], number: int) -> dict[str, Any]:
        calls = [
            {"type": "function_call", "id": f"fc_{number}_{n}", "call_id": f"call_{number}_{n}", "name": name,
             "arguments": json.dumps(told)}
            for n, (name, told, _) in enumerate(turn)
        ]  # fmt: skip
        return {"id": f"resp_{number}", "object": "response", "output": [{"type": "reasoning", "id": "r"}, *calls]}

    def take(self, answer: Mapping[str, Any], turn: Sequence[Made]) -> None:
        self.body["input"] += [*copy.deepcopy(answer["output"]), *self.results(answer, turn)]

    def results(self, answer: Mapping[str, Any], turn: Sequence[Made]) -> list[dict[str, Any]]:
        calls = [item for item in answer["output"] if item["type"] == "function_call"]
        return [
            {"type": "function_call_output", "call_id": call["call_id"], "output": result}
            for call, (_, _, result) in zip(calls, turn, strict=True)
        ]

    def say(self, text: str) -> None:
        self.body["input"] += [{"role": "user", "content": text}]


@dataclass
class RememberedTalk(ResponsesTalk):
    """Responses whose provider remembers what was: requests have only what is new."""

    def take(self, answer: Mapping[str, Any], turn: Sequence[Made]) -> None:
        self.body = {"model": "m", "previous_response_id": answer["id"], "input": self.results(answer, turn)}


#: Each way in which a conversation is written.
TALKS = (ChatTalk, SplitTalk, MessagesTalk, ResponsesTalk, RememberedTalk)


def play(run: RunWatch, talk: Talk, turns: Sequence[Sequence[Made]], *, first: int = 0) -> list[dict[str, Any]]:
    """Let a model make these turns, and its client carry them out; return the bodies that were sent.

    Args:
        run: The watch.
        talk: The client.
        turns: What each turn calls; one that calls nothing ends it.
        first: Number of the first turn.
    """
    sent = []
    for number, turn in enumerate((*turns, ()), first):
        request = RequestWatch(run)
        sent.append(copy.deepcopy(request.before(copy.deepcopy(talk.body))))
        answer = talk.answer(turn, number)
        request.after(answer)
        talk.take(answer, turn)
    return sent
