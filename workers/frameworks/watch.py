"""Calls of tools and their results in requests of SDKs, in the words of each wire. Pure; no I/O.

Chat completions, Responses and Messages are told apart by what their bodies hold. What is made of it:
`watching/run.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fleet.workers.providers.written import anthropic_body, openai_body
from fleet.workers.watching.circles import Track
from fleet.workers.watching.messages import NOTE, wanted_in
from fleet.workers.watching.run import Came, RunWatch, Shown
from fleet.workers.watching.steps import WantedCall, digest_of

#: Where items of Responses have what a tool is called with.
_ARGUMENTS = ("arguments", "input", "action", "operation")


class RequestWatch:
    """Looks at one request of a run, and at the answer to it.

    Args:
        run: The watch over the run, which all of its requests share.
    """

    def __init__(self, run: RunWatch) -> None:
        self._run = run
        self._track = Track()

    def before(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body to send instead: with a warning when the model goes round in circles.

        Raises:
            CapReached: The run has had its turns.
            NoProgress: The model was warned, and goes on.
        """
        follows = body.get("previous_response_id")
        self._track, told = self._run.asks(shown_in(body), follows if isinstance(follows, str) else None)
        return body if told is None else noted(body, told)

    def moved(self) -> None:
        """Note that the request was not sent: it is written anew for another wire, and comes again."""
        self._run.unasked()

    def after(self, answer: Mapping[str, Any]) -> None:
        """Hear an answer, put together where it came in pieces.

        Raises:
            CapReached: It calls more tools than the pool allows.
        """
        known = answer.get("id") if isinstance(answer.get("output"), list) else None
        self._run.heard(self._track, wanted_by(answer), known if isinstance(known, str) else None)


def shown_in(body: Mapping[str, Any]) -> Iterator[Shown]:
    """Yield the results and calls that a request shows, the last first."""
    items = body.get("messages", body.get("input"))
    for item in reversed(items) if isinstance(items, list) else ():
        if isinstance(item, dict):
            yield from _shown_by(item)


def _shown_by(item: dict[str, Any]) -> Iterator[Shown]:
    content = item.get("content")
    if isinstance(called := item.get("call_id"), str):  # an item of Responses
        if str(item.get("type")).endswith("_output"):
            yield Came(called, item.get("output"))
        else:
            yield (_item(item, called),)
    elif item.get("role") == "tool":
        yield Came(str(item.get("tool_call_id")), content)
    elif item.get("role") == "assistant":
        calls = _calls_of(item)
        if calls:
            yield calls
    elif isinstance(content, list):
        for block in content:
            if isinstance(block, dict) and block.get("type") == "tool_result":
                yield Came(str(block.get("tool_use_id")), block.get("content"))


def _calls_of(turn: Mapping[str, Any]) -> tuple[WantedCall, ...]:
    """Return the calls of a turn of the model, as chat completions or Messages write it."""
    content = turn.get("content")
    blocks = anthropic_body.read_tool_calls(content) if isinstance(content, list) else ()
    return wanted_in((*openai_body.read_tool_calls(dict(turn)), *blocks))


def _item(item: Mapping[str, Any], called: str) -> WantedCall:
    kind, name = str(item.get("type")), item.get("name")
    arguments = next((item[field] for field in _ARGUMENTS if field in item), None)
    return WantedCall(called, name if isinstance(name, str) else kind.removesuffix("_call"), digest_of(arguments))


def wanted_by(answer: Mapping[str, Any]) -> tuple[WantedCall, ...]:
    """Return the tools that an answer wants its client to call; what the provider runs itself is not among them."""
    if isinstance(choices := answer.get("choices"), list):
        said = (choice.get("message") for choice in choices if isinstance(choice, dict))
        return tuple(call for message in said if isinstance(message, dict) for call in _calls_of(message))
    if isinstance(items := answer.get("output"), list):
        named = ((item, item.get("call_id")) for item in items if isinstance(item, dict))
        return tuple(_item(item, called) for item, called in named if isinstance(called, str))
    return _calls_of(answer)


def noted(body: dict[str, Any], told: str) -> dict[str, Any]:
    """Return a request with a note for the model behind the last results of tools, where each wire takes one.

    In chat completions it ends the last result: Mistral's models take no user's turn behind one. In Messages it is a
    text behind all results of the turn, in Responses the user's last word.
    """
    if isinstance(items := body.get("input"), list):
        return {**body, "input": [*items, {"type": "message", "role": "user", "content": told}]}
    turns = body.get("messages")
    if not isinstance(turns, list):
        return body
    for number in reversed(range(len(turns))):
        if (turn := _noted_turn(turns[number], told)) is not None:
            return {**body, "messages": [*turns[:number], turn, *turns[number + 1 :]]}
    return body


def _noted_turn(turn: Any, told: str) -> dict[str, Any] | None:
    """Return a turn of results with the note; None for any other turn."""
    content = turn.get("content") if isinstance(turn, dict) else None
    if isinstance(turn, dict) and turn.get("role") == "tool":
        note = NOTE.format(told)
        if isinstance(content, list):
            return {**turn, "content": [*content, {"type": "text", "text": note}]}
        return {**turn, "content": f"{'' if content is None else content}\n\n{note}"}
    if isinstance(content, list) and any(_is_result(block) for block in content):
        return {**turn, "content": [*content, {"type": "text", "text": told}]}
    return None


def _is_result(block: object) -> bool:
    return isinstance(block, dict) and block.get("type") == "tool_result"
