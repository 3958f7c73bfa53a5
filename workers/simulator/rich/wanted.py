"""What a request asks for beyond a plain answer to plain messages, wire format aside; and how single fields are read.

Plain requests have none of it (`CompletionRequest.wanted` is None) and cost nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fleet.quoting import quote

#: Texts at which an answer ends, at most.
MAX_STOPS = 4
#: Tools of a request at most.
MAX_TOOLS = 128
#: Calls of one turn at most. The vendors differ; a model that fans out was seen to make 792.
MAX_CALLS = 1000
#: How the tool is named, or described, by which an agent's framework takes a formed answer.
_FINAL_NAME, _FINAL_WORDS = "final_result", "final response"
#: Letters of a tool's name at most.
MAX_NAME_CHARS = 64


class WireError(Exception):
    """The request is not what the wire says.

    Args:
        message: Expected and got; never quotes the prompt.
        param: The field in question.
        code: The vendor's word for it.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class CachePlace(NamedTuple):
    """A place in a prompt up to which a cache may know it.

    Args:
        digest: Identifies all that stands before it.
        tokens: Of all that.
        ttl_s: Seconds for which it is to be kept; None: it is only looked up.
    """

    digest: bytes
    tokens: int
    ttl_s: float | None


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool that the model may call.

    Args:
        name: As it is called by.
        parameters: JSON schema of its arguments.
        is_final: To call it is to answer: its arguments are the result of an agent's run.
    """

    name: str
    parameters: Mapping[str, Any]
    is_final: bool = False


def offered(name: str, description: object, parameters: Mapping[str, Any]) -> OfferedTool:
    """Return a tool as offered; its name or description tells whether it ends a run."""
    is_final = name.startswith(_FINAL_NAME) or (isinstance(description, str) and _FINAL_WORDS in description.lower())
    return OfferedTool(name, parameters, is_final)


class ToolTurns(NamedTuple):
    """How far a run with tools is.

    Args:
        question: What the user said last; results of tools are not the user's.
        made: Turns since then in which tools were called.
    """

    question: str = ""
    made: int = 0


#: A run that has not begun.
NO_TURNS = ToolTurns()


class Responding(NamedTuple):
    """What the Responses API keeps and repeats of a request.

    Args:
        items: The whole conversation.
        repeated: Fields of the request that stand in the response, too.
        is_stored: It can be gone on from.
    """

    items: Sequence[Mapping[str, Any]]
    repeated: Mapping[str, Any]
    is_stored: bool


@dataclass(slots=True)
class Media:
    """Tokens of what is no text in a prompt, and whether anything asks for a cache."""

    tokens: int = 0
    image_tokens: int = 0
    audio_tokens: int = 0
    is_cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked beyond an answer.

    Args:
        schema: JSON schema that the answer must fit; an empty one for any JSON object.
        tools: What may be called.
        choice: `auto`, `none`, `required`, or the name of one tool.
        is_parallel: Several calls may come at once.
        is_answered: The last turn holds results of tools.
        tool_turns: How far the run with tools is.
        effort: How long it thinks, in the words of `spoken.THINKING_TOKENS`; None: not at all.
        thinking_limit: Most tokens of thinking; None: no bound.
        shows_thinking: The answer tells what was thought.
        verbosity: `low`, `medium` or `high`.
        seed: With the same one, the same question gets the same answer again.
        stop: Texts at which the answer ends.
        n: Answers.
        tier: The service tier that answers; None: none was asked for.
        is_streamed: The answer comes as server-sent events.
        tells_usage: The last of these events tells the usage.
        image_tokens: Of the input: images.
        audio_tokens: Of the input: sound.
        places: Where a prefix cache is looked up or written.
        cache_key: By which OpenAI is told what begins alike; None: this wire does not send calls by how they begin.
        responding: What the Responses API keeps of it; None on other wires.
    """

    schema: Mapping[str, Any] | None = None
    tools: tuple[OfferedTool, ...] = ()
    choice: str = "auto"
    is_parallel: bool = True
    is_answered: bool = False
    tool_turns: ToolTurns = NO_TURNS
    effort: str | None = None
    thinking_limit: int | None = None
    shows_thinking: bool = True
    verbosity: str = "medium"
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    tier: str | None = None
    is_streamed: bool = False
    tells_usage: bool = False
    image_tokens: int = 0
    audio_tokens: int = 0
    places: Sequence[CachePlace] = ()
    cache_key: str | None = None
    responding: Responding | None = None


def read_choice(value: object, allowed: Sequence[str], param: str) -> str | None:
    """Return one of the allowed words, None when absent. Raises `WireError`, worded as OpenAI does."""
    if value is None or (isinstance(value, str) and value in allowed):
        return value
    *most, last = (f"'{word}'" for word in allowed)
    supported = f"{', '.join(most)}, and {last}" if most else last
    raise WireError(
        f"Invalid value: {quote(value)}. Supported values are: {supported}.", param=param, code="invalid_value"
    )


def read_flag(value: object, param: str, *, default: bool) -> bool:
    """Return a truth value, the default when absent. Raises `WireError`."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise WireError(f"{param}: expected true or false, got {quote(value)}", param=param, code="invalid_type")
    return value


def read_share(value: object, param: str) -> None:
    """Check a number from 0 to 1. Raises `WireError`."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
        raise WireError(f"{param}: expected a number from 0 to 1, got {quote(value)}", param=param)


def read_whole(value: object, param: str, *, least: int, most: int) -> int | None:
    """Return a whole number within bounds, None when absent. Raises `WireError`."""
    if value is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise WireError(f"{param}: expected a whole number from {least} to {most}, got {quote(value)}", param=param)
    return value


def read_object_at(value: object, param: str) -> Mapping[str, Any]:
    """Return a JSON object. Raises `WireError`."""
    if not isinstance(value, dict):
        raise WireError(
            f"Invalid type for '{param}': expected an object, but got {_kind(value)} instead.",
            param=param,
            code="invalid_type",
        )
    return value


def read_list_at(value: object, param: str, *, most: int) -> list[Any]:
    """Return a list, empty when absent. Raises `WireError`."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most:
        raise WireError(f"{param}: expected a list of at most {most}, got {_kind(value)}", param=param)
    return value


def read_name(value: object, param: str) -> str:
    """Return the name of a tool or a schema. Raises `WireError`."""
    if not isinstance(value, str) or not value:
        raise WireError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    is_plain = value.isascii() and value.replace("_", "").replace("-", "").isalnum()
    if not is_plain or len(value) > MAX_NAME_CHARS:
        raise WireError(
            f"Invalid '{param}': string does not match pattern. Expected a string that matches the pattern "
            f"'^[a-zA-Z0-9_-]+$' of at most {MAX_NAME_CHARS} characters.",
            param=param,
            code="invalid_value",
        )
    return value


def read_stops(value: object, param: str) -> tuple[str, ...]:
    """Return the texts at which an answer ends. Raises `WireError`."""
    found = [value] if isinstance(value, str) else read_list_at(value, param, most=MAX_STOPS)
    if not all(isinstance(one, str) and one for one in found):
        raise WireError(f"{param}: expected texts that are not empty", param=param)
    return tuple(found)


def _kind(value: object) -> str:
    if isinstance(value, list):
        return f"an array of {len(value)}"
    return {str: "a string", bool: "a boolean", int: "an integer", float: "a decimal", type(None): "null"}.get(
        type(value), "an object"
    )
