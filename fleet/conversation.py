"""What is said in a chat: messages with texts, images and files, tools, and the calls of tools.

No I/O. How each wire spells it: `workers/providers/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from fleet.frozen import Frozen

Role = Literal["system", "developer", "user", "assistant", "tool"]
#: How long a provider's cache is asked to keep a prompt up to a marked place.
Kept = Literal["5m", "1h"]
#: Marked places that a provider takes in one request (count).
MOST_MARKS = 4


class Tagged(Frozen):
    """A part of a message, known by its `type`: that is written also where defaults are left out."""

    @model_serializer(mode="wrap")
    def _with_type(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"type": type(self).model_fields["type"].default, **write(self)}


class TextPart(Tagged):
    """A piece of text in a message of several parts."""

    type: Literal["text"] = "text"
    text: str
    cache: Kept | None = None


class ImagePart(Tagged):
    """An image, by its address (handed on, never fetched here) or as base64 `data` with its `media_type`."""

    type: Literal["image"] = "image"
    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    detail: str | None = Field(None, pattern=r"^[a-z]{1,16}$")
    cache: Kept | None = None


class FilePart(Tagged):
    """A document, by its address (handed on, never fetched here) or as base64 `data` with its `media_type`."""

    type: Literal["file"] = "file"
    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    name: str | None = None
    cache: Kept | None = None


class ThinkingPart(Tagged):
    """What a model thought before it called a tool, signed by its provider, which wants it back with the results."""

    type: Literal["thinking"] = "thinking"
    text: str = ""
    signature: str | None = None
    data: str | None = Field(None, description="Thoughts that only the provider can read.")


Part = Annotated[TextPart | ImagePart | FilePart | ThinkingPart, Field(discriminator="type")]


class ToolCall(Frozen):
    """A model's wish to call a tool; whoever asked runs it.

    Args:
        id: The provider's name of this call: the answer to it carries it.
        name: Which tool.
        arguments: A JSON object, as the model wrote it: it may not fit the tool's schema, or not be JSON at all.
        extra_content: What the provider added and wants back with the result, such as a signature of its thoughts.
    """

    id: str = Field(min_length=1, max_length=256)
    name: str = Field(min_length=1, max_length=128)
    arguments: str = "{}"
    extra_content: JsonValue = None


class Tool(Frozen):
    """A tool that the model may call."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str = ""
    parameters: dict[str, JsonValue] = Field(default_factory=dict, description="JSON schema of its arguments.")
    strict: bool | None = None
    cache: Kept | None = Field(None, description="The provider's cache keeps all tools up to this one.")


class Message(Frozen):
    """One turn of a conversation."""

    role: Role
    content: str | tuple[Part, ...] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = Field(None, description="With role `tool`: which call this is the result of.")
    is_error: bool = Field(False, description="With role `tool`: the call has failed.")
    cache: Kept | None = Field(None, description="The provider's cache keeps the prompt up to the end of this turn.")

    @property
    def text(self) -> str:
        """All its text; images and files have none."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def calls_tools(self) -> bool:
        """True for a turn about tools: one that calls some, or the result of a call."""
        return bool(self.tool_calls) or self.role == "tool"

    @property
    def marks(self) -> Iterator[Kept]:
        """How long a provider's cache is to keep the prompt up to each marked place of this turn, in order."""
        if type(self.content) is not str:
            yield from (mark for part in self.content if (mark := getattr(part, "cache", None)) is not None)
        if self.cache is not None:
            yield self.cache


def texts_in_order(messages: Iterable[Message]) -> list[str]:
    """Return all that a conversation holds, as texts, once it is seen to make sense; raises as `check_order`."""
    texts: list[str] = []
    is_plain = True
    for message in messages:
        content = message.content
        if type(content) is str and not message.tool_calls and message.tool_call_id is None and message.role != "tool":
            texts.append(content)
        else:
            is_plain = False
            texts += sizes_of((message,))
    if not is_plain:
        check_order(messages)
    return texts


def sizes_of(messages: Iterable[Message]) -> Iterator[str]:
    """Yield all that a conversation holds, as texts: what is said, data of images and files, arguments of calls."""
    for message in messages:
        if isinstance(message.content, str):
            yield message.content
        else:
            for part in message.content:
                yield part.text if isinstance(part, TextPart | ThinkingPart) else part.url or ""
                yield getattr(part, "data", None) or ""
        for call in message.tool_calls:
            yield call.arguments


def check_order(messages: Iterable[Message]) -> None:
    """Check that what is said about tools makes sense.

    Raises:
        ValueError: When the result of a tool has no call before it, or another role calls one.
    """
    called: set[str] = set()
    for number, message in enumerate(messages):
        if message.tool_calls:
            if message.role != "assistant":
                raise ValueError(f"messages: {number}.tool_calls: expected role `assistant`, got `{message.role}`")
            called.update(call.id for call in message.tool_calls)
        if message.role == "tool":
            if message.tool_call_id is None:
                raise ValueError(f"messages: {number}.tool_call_id: expected the id of a call, got none")
            if message.tool_call_id not in called:
                raise ValueError(
                    f"messages: {number}.tool_call_id: expected the id of a call in an assistant's turn before it, got "
                    "one that nobody made"
                )
        elif message.tool_call_id is not None:
            raise ValueError(f"messages: {number}.tool_call_id: expected role `tool`, got `{message.role}`")


def marks_of(messages: Iterable[Message], tools: Iterable[Tool] = ()) -> Iterator[Kept]:
    """Yield how long a provider's cache is to keep the prompt up to each marked place: of tools, then of messages."""
    yield from (tool.cache for tool in tools if tool.cache is not None)
    for message in messages:
        if message.cache is not None or type(message.content) is not str:
            yield from message.marks


def check_marks(messages: Sequence[Message], tools: Iterable[Tool] = ()) -> None:
    """Check that no more places are marked for the cache than a provider takes, and those for long first.

    Raises:
        ValueError: Otherwise. A prompt holds the tools first, then what its system says, then the other turns.
    """
    if not any(True for _ in marks_of(messages, tools)):
        return
    ordered = sorted(messages, key=lambda message: message.role not in ("system", "developer"))
    marks = list(marks_of(ordered, tools))
    if len(marks) > MOST_MARKS:
        raise ValueError(f"cache_control: expected at most {MOST_MARKS} marked places, got {len(marks)}")
    if marks != sorted(marks, key=lambda mark: mark != "1h"):
        raise ValueError("cache_control: expected places that are kept for 1h before those for 5m, got one behind them")
