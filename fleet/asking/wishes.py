"""What a task may ask of a model beyond an answer: tools, effort, structure, tiers, fields of the provider's own.

One place for the names, their bounds and their checks; tasks and pools share them. How each wire spells them:
`workers/providers/`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from fleet import bounds, spellings
from fleet.conversation import Tool
from fleet.frozen import Frozen
from fleet.quoting import listed, quote

#: Fields of a request's body that Fleet sets, or that would change how its answer is read, on any wire.
OWN_FIELDS = frozenset({
    "model", "messages", "system", "input", "max_tokens", "max_completion_tokens", "max_output_tokens", "temperature",
    "top_p", "stop", "stop_sequences", "seed", "n", "stream", "stream_options", "tools", "tool_choice", "functions",
    "function_call", "parallel_tool_calls", "response_format", "output_config", "output_format", "reasoning_effort",
    "verbosity", "service_tier",
})  # fmt: skip
#: Headers that Fleet or HTTP itself sets, in lower case: who asks, where, in what form.
OWN_HEADERS = frozenset({
    "authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "host", "content-type",
    "content-length", "content-encoding", "transfer-encoding", "connection", "keep-alive", "upgrade", "te",
    "trailer", "expect", "accept", "accept-encoding", "user-agent", "anthropic-version",
})  # fmt: skip
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_WORD = r"^[A-Za-z0-9_.-]{1,32}$"


def _tools(tools: object) -> object:
    if isinstance(tools, list | tuple):
        if len(tools) > bounds.MAX_TOOLS:
            raise ValueError(f"expected at most {bounds.MAX_TOOLS} tools, got {len(tools):,}")
        bounds.check_json([tool for tool in tools if isinstance(tool, Mapping)], bounds.TOOLS)
        return [spellings.read_tool(tool, str(number)) for number, tool in enumerate(tools)]
    return tools


def _distinct(tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    names = [tool.name for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"expected tools of different names, got more than one {listed(twice, len(twice))}")
    return tools


def _stop(stop: object) -> object:
    return (stop,) if isinstance(stop, str) else stop


def _extra_body(fields: object) -> object:
    bounds.check_json(fields, bounds.EXTRAS)
    if isinstance(fields, Mapping) and (own := sorted(OWN_FIELDS.intersection(fields))):
        raise ValueError(f"expected fields that Fleet does not set, got {listed(own, len(own))}; use Fleet's own names")
    return fields


def _extra_headers(headers: object) -> object:
    if not isinstance(headers, Mapping):
        return headers
    bounds.check_json(headers, bounds.EXTRAS)
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            raise ValueError(f"expected names of HTTP headers, got {quote(name)}")
        if name.lower() in OWN_HEADERS:
            raise ValueError(f"expected headers that Fleet does not set, got {name}; keys belong in `api_key_env`")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise ValueError(f"{name}: expected printable ASCII text, got {type(value).__name__} or other text")
    return headers


#: How long a model thinks, by the provider's word.
Effort = Annotated[str, Field(pattern=_WORD)]
#: How long its answers are, by the provider's word.
Verbosity = Annotated[str, Field(pattern=_WORD)]
#: A service tier, by the provider's word.
Tier = Annotated[str, Field(pattern=_WORD)]
ThinkingTokens = Annotated[int, Field(ge=0, le=1_000_000)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
TopP = Annotated[float, Field(gt=0, le=1)]
Stop = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=bounds.MAX_STOP_CHARS)], ...],
    BeforeValidator(_stop),
    Field(max_length=bounds.MAX_STOPS),
]
ExtraBody = Annotated[dict[str, JsonValue], BeforeValidator(_extra_body)]
ExtraHeaders = Annotated[dict[str, str], BeforeValidator(_extra_headers)]
Tools = Annotated[tuple[Tool, ...], BeforeValidator(_tools), AfterValidator(_distinct)]
ToolChoice = Annotated[str, BeforeValidator(spellings.read_tool_choice), Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Asks(Frozen):
    """The fields of a task that say what is asked of the model; what is None or empty is not sent."""

    tools: Tools = Field((), description="Functions that the model may call, as OpenAI or Anthropic spells them.")
    tool_choice: ToolChoice | None = Field(None, description="auto, none, required, or the name of one tool.")
    parallel_tool_calls: bool | None = Field(None, description="False: at most one tool call in an answer.")
    effort: Effort | None = Field(None, description="How long the model thinks: none, minimal, low, medium, high, ...")
    thinking_tokens: ThinkingTokens | None = Field(
        None, description="Most tokens of thinking, for models that take a number."
    )
    verbosity: Verbosity | None = Field(None, description="How long answers are: low, medium or high.")
    seed: Seed | None = Field(None, description="For the same answer again, as far as a model can.")
    top_p: TopP | None = Field(None, description="Share of the likeliest tokens that are drawn from.")
    stop: Stop = Field((), description="Texts at which the answer ends.")
    tier: Tier | None = Field(None, description="Service tier: flex, priority, standard, or the provider's word.")
    n: int = Field(1, ge=1, le=bounds.MAX_N, description="Answers wanted; each is paid.")
    drop_params: bool | None = Field(
        None, description="True: what the model refuses of these is left out, and listed in the result."
    )
    extra_body: ExtraBody | None = Field(None, description="Further fields of the request; see `allow`.")
    extra_headers: ExtraHeaders | None = Field(None, description="Further headers; see `allow`.")


#: Names of what a task may ask for.
ASKED = frozenset(Asks.model_fields)


def check_tool_choice(asked: Asks) -> None:
    """Check that the choice of a tool is one of the tools.

    Raises:
        ValueError: When it is not, or there are none.
    """
    choice = asked.tool_choice
    if choice is None or (choice == "none" and asked.tools):
        return
    if not asked.tools:
        raise ValueError(f"tool_choice: expected `tools` beside it, got none with {quote(choice)}")
    names = [tool.name for tool in asked.tools]
    if choice not in ("auto", "required", *names):
        raise ValueError(
            f"tool_choice: expected auto, none, required or {listed(names, len(names))}, got {quote(choice)}"
        )


def asks(task: Asks) -> bool:
    """True when a task asks for anything beyond an answer. O(1)."""
    return not ASKED.isdisjoint(task.model_fields_set)


def not_allowed(asked: Asks, allowed: Collection[str]) -> list[tuple[str, list[str]]]:
    """Return what a task sets of a request's further fields and headers and its pool does not allow, by field.

    Headers are compared without regard to case.
    """
    headers = {name.lower() for name in allowed}
    wrong = {
        "extra_body": [name for name in asked.extra_body or () if name not in allowed],
        "extra_headers": [name for name in asked.extra_headers or () if name.lower() not in headers],
    }
    return [(field, names) for field, names in wrong.items() if names]
