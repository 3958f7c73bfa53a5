"""What is said in a chat: messages with texts, images and files, tools, and the calls of tools.

No I/O. How each wire spells it: `workers/providers/`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from fleet.frozen import Frozen

Role = Literal["system", "developer", "user", "assistant", "tool"]


class TextPart(Frozen):
    """A piece of text in a message of several parts."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(Frozen):
    """An image, by its address (handed on, never fetched here) or as base64 `data` with its `media_type`."""

    type: Literal["image"] = "image"
    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    detail: Literal["auto", "low", "high"] | None = None


class FilePart(Frozen):
    """A document, by its address (handed on, never fetched here) or as base64 `data` with its `media_type`."""

    type: Literal["file"] = "file"
    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    name: str | None = None


Part = Annotated[TextPart | ImagePart | FilePart, Field(discriminator="type")]


class ToolCall(Frozen):
    """A model's wish to call a tool; whoever asked runs it.

    Args:
        id: The provider's name of this call: the answer to it carries it.
        name: Which tool.
        arguments: A JSON object, as the model wrote it: it may not fit the tool's schema, or not be JSON at all.
    """

    id: str
    name: str
    arguments: str = "{}"


class Tool(Frozen):
    """A tool that the model may call."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str = ""
    parameters: dict[str, JsonValue] = Field(default_factory=dict, description="JSON schema of its arguments.")
    strict: bool | None = None


class Message(Frozen):
    """One turn of a conversation."""

    role: Role
    content: str | tuple[Part, ...] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = Field(None, description="With role `tool`: which call this is the result of.")

    @property
    def text(self) -> str:
        """All its text; images and files have none."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))
