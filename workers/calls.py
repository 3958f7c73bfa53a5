"""The words of one call to a model: what is asked, what is wished, what comes back, wire format aside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fleet.conversation import Kept, Message, ThinkingPart, Tool, ToolCall
from fleet.schema import Schema
from fleet.usage import Usage


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of a model beyond an answer to the messages; what is None or empty is not sent.

    Args:
        schema: What the answer must fit, told by the wire.
        tools: What the model may call.
        tool_choice: `auto`, `none`, `required`, or the name of one tool.
        parallel_tool_calls: False: at most one call of a tool in an answer.
        effort: How long a model thinks: `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, or what it calls it.
        thinking_tokens: Most tokens of thinking, for models that take a number.
        verbosity: `low`, `medium` or `high`.
        seed: For the same answer again, as far as a model can.
        top_p: Share of the likeliest tokens that are drawn from.
        stop: Texts at which the answer ends.
        tier: Service tier: `flex`, `priority`, or what the provider calls it.
        n: Answers wanted; each is paid.
        by_at: Unix time (s) by which the answer is needed: the gateway takes the tier; None: `tier` says it.
        may_leave: Its task may leave its slot for hours: nothing has begun that would be lost.
        may_be_back: It is its task's own first call: it may have left, and be back or on its way.
        extra_body: Further fields of the request's body.
        extra_headers: Further headers.
        form: How the schema is told: `strict`, or `loose` where a model refuses it so.
        asked: Names of those that the task itself asks for; the others are its pool's or its persona's.
        prefix: Name of the documents with which its prompt begins, as those of other tasks do; empty: none.
        keep: How long the provider's cache is to keep them, where a call says so; None: it does not pay.
        drop_params: What the model refuses of these is left out; without it the call fails when the task asked for it.
    """

    schema: Schema | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    effort: str | None = None
    thinking_tokens: int | None = None
    verbosity: str | None = None
    seed: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    tier: str | None = None
    n: int = 1
    by_at: float | None = None
    may_leave: bool = False
    may_be_back: bool = False
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    form: Literal["strict", "loose"] = "strict"
    asked: frozenset[str] = frozenset()
    drop_params: bool = False
    prefix: str = ""
    keep: Kept | None = None


#: Nothing beyond an answer.
PLAIN = Wishes()


def staying(wishes: Wishes) -> Wishes:
    """Return what is asked by a task that keeps its slot."""
    return replace(wishes, may_leave=False, may_be_back=False) if wishes.may_be_back else wishes


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a provider, wire format aside.

    Args:
        model: As the provider spells it.
        messages: The conversation.
        temperature: Sampling temperature; None: the model's own.
        max_output_tokens: Longest answer, thinking included.
        timeout_s: Seconds until it is given up.
        wishes: What is asked beyond that.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float | None
    max_output_tokens: int
    timeout_s: float
    wishes: Wishes = PLAIN


#: Finish reason of an answer without a text, because the prompt has filled the model's context.
CONTEXT_FULL = "context_full"


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a provider, wire format aside.

    Args:
        text: What the model says; thinking is apart.
        finish_reason: Why it stopped, in one set of words: `stop`, `length`, `content_filter`, `tool_calls`, or what
            the provider said when it is none of these.
        usage: What was used, in the classes in which it is billed.
        headers: Of the answer.
        reasoning: What it thought, where the provider shows it.
        tool_calls: The tools that it wants called.
        tier: The service tier that answered, when the provider says it.
        left_out: Names of what was not sent because the model refuses it or the wire lacks it, whoever chose it.
        others: Texts of the other answers, when `n` of them were asked for.
        thoughts: What the provider wants back with the results of its tool calls.
        came_by: `provider/model/key` by which it has come in a batch; empty: it came at once.
    """

    text: str
    finish_reason: str
    usage: Usage
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    reasoning: str = field(default="", repr=False)
    tool_calls: tuple[ToolCall, ...] = ()
    tier: str | None = None
    left_out: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    thoughts: tuple[ThinkingPart, ...] = field(default=(), repr=False)
    came_by: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer that comes as it is made.

    Args:
        text: What the model says next.
        reasoning: What it thinks next.
        usage: What the provider has told so far of what the call uses; None: nothing new.
    """

    text: str = ""
    reasoning: str = field(default="", repr=False)
    usage: Usage | None = None
