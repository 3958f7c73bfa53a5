"""Calls of tools and their results in Fleet's own messages: for `chat()`. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fleet.conversation import Message, Part, TextPart, ToolCall
from fleet.workers.watching.run import Came, Shown
from fleet.workers.watching.steps import WantedCall, digest_of

#: How a note begins that stands in the result of a tool: vendors differ in what they take behind one, not in this.
NOTE = "[A note by the system that runs this conversation, not by the tool: {}]"


def wanted_in(calls: Iterable[ToolCall]) -> tuple[WantedCall, ...]:
    """Return the calls of an answer."""
    return tuple(WantedCall(call.id, call.name, digest_of(call.arguments)) for call in calls)


def shown_in(turns: Sequence[Message]) -> Iterator[Shown]:
    """Yield the results and calls of a conversation, the last first."""
    for turn in reversed(turns):
        if turn.tool_call_id is not None:
            yield Came(turn.tool_call_id, _said(turn.content))
        elif turn.tool_calls:
            yield wanted_in(turn.tool_calls)


def _said(content: str | tuple[Part, ...]) -> object:
    return content if isinstance(content, str) else [part.model_dump() for part in content]


def noted(turns: Sequence[Message], told: str) -> tuple[Message, ...]:
    """Return a conversation with a note at the end of its last result of a tool."""
    number = max((n for n, turn in enumerate(turns) if turn.role == "tool"), default=None)
    if number is None:
        return tuple(turns)
    turn, note = turns[number], NOTE.format(told)
    content = turn.content
    said = f"{content}\n\n{note}" if isinstance(content, str) else (*content, TextPart(text=note))
    return (*turns[:number], turn.model_copy(update={"content": said}), *turns[number + 1 :])
