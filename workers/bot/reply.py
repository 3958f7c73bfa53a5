"""What `chat()` returns: the model's text, as the `str` that it is, with what else came with it."""

from __future__ import annotations

from fleet.conversation import Message, Part, TextPart, ToolCall
from fleet.usage import Usage
from fleet.workers.calls import Completion


class ChatReply(str):
    """The text of an answer; empty when the model only calls tools.

    Attributes:
        tool_calls: The tools that the model wants called. Nobody but the bot function runs them.
        reasoning: What the model thought, where its provider shows it.
        usage: What this call used.
        finish_reason: Why the model stopped.
        tier: The service tier that answered, if the provider says it.
        others: The other answers, when `n` of them were asked for.
        left_out: Names of what was asked and not sent.
    """

    tool_calls: tuple[ToolCall, ...]
    reasoning: str
    usage: Usage
    finish_reason: str
    tier: str | None
    others: tuple[str, ...]
    left_out: tuple[str, ...]
    _completion: Completion

    @classmethod
    def of(cls, completion: Completion, text: str | None = None) -> ChatReply:
        """Return a completion as a reply.

        Args:
            completion: What came.
            text: Instead of its text: the bare JSON of an answer.
        """
        reply = cls(completion.text if text is None else text)
        reply.tool_calls = completion.tool_calls
        reply.reasoning = completion.reasoning
        reply.usage = completion.usage
        reply.finish_reason = completion.finish_reason
        reply.tier = completion.tier
        reply.others = completion.others
        reply.left_out = completion.left_out
        reply._completion = completion
        return reply

    @property
    def message(self) -> Message:
        """The reply as a turn of the conversation: put it before the results of its tool calls."""
        completion = self._completion
        said: str | tuple[Part, ...] = completion.text
        if completion.thoughts:
            texts = (TextPart(type="text", text=completion.text),) if completion.text else ()
            said = (*completion.thoughts, *texts)
        return Message.model_construct(role="assistant", content=said, tool_calls=completion.tool_calls)

    def but(self, text: str) -> ChatReply:
        """Return this reply with another text."""
        reply = type(self)(text)
        reply.__dict__.update(self.__dict__)
        return reply
