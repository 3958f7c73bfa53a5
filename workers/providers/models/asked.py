"""A call of ours in the words of pydantic-ai: messages, settings, tools and the form of the answer."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from pydantic_ai.messages import (
    BinaryContent,
    CachePoint,
    DocumentUrl,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from fleet.config import vendor_of
from fleet.conversation import FilePart, ImagePart, Message, ToolCall, marks_of
from fleet.conversation import TextPart as OurText
from fleet.conversation import ThinkingPart as OurThought
from fleet.errors import BadRequest
from fleet.quoting import quote
from fleet.schema import Schema
from fleet.workers.calls import Call, Wishes
from fleet.workers.providers.models.exchange import MARKS, Forbidden
from fleet.workers.providers.taught.student import is_asked
from fleet.workers.providers.wire_schema import SchemaRefused, loose_schema, strict_schema
from fleet.workers.providers.written.attachments import media_type_of
from fleet.workers.providers.written.wishes import MARK, has_marks

#: Ways in which a setting is spelled in a request's body; one of them must be there, or it was left out.
SPELLINGS: Mapping[str, frozenset[str]] = {
    "temperature": frozenset({"temperature"}),
    "top_p": frozenset({"top_p", "topP", "p"}),
    "seed": frozenset({"seed", "random_seed"}),
    "stop": frozenset({"stop", "stop_sequences", "stopSequences"}),
    "effort": frozenset({"reasoning_effort", "effort", "thinking", "thinkingConfig"}),
    "thinking_tokens": frozenset({"budget_tokens", "thinking_budget", "thinkingBudget"}),
    "verbosity": frozenset({"verbosity"}),
    "tier": frozenset({"service_tier", "serviceTier"}),
    "parallel_tool_calls": frozenset({"parallel_tool_calls", "disable_parallel_tool_use"}),
    "n": frozenset({"n", "candidateCount", "num_generations"}),
    MARK: frozenset(MARKS),
}
#: Roles whose marks stand for all that the system says: pydantic-ai marks its end.
_SYSTEM = ("system", "developer")
#: Highest temperature of vendors that take less than 2; a hotter persona gets this one.
_MOST_TEMPERATURE: Mapping[str, float] = {"anthropic": 1.0, "bedrock": 1.0, "cohere": 1.0, "mistral": 1.5}
#: Efforts that pydantic-ai translates for each vendor; other words are passed on to those who take words.
_EFFORTS = frozenset({"minimal", "low", "medium", "high", "xhigh", "max"})


def messages_of(call: Call) -> list[ModelMessage]:
    """Return the conversation: what the assistant said as responses, everything between as one request each.

    Raises:
        BadRequest: When a part of it cannot be sent.
    """
    names = {made.id: made.name for message in call.messages for made in message.tool_calls}
    turns: list[ModelMessage] = []
    for message in call.messages:
        if message.role == "assistant":
            turns.append(ModelResponse(parts=[*_said(message, vendor_of(call.model))]))
            continue
        part = _request_part(message, names)
        if turns and isinstance(turns[-1], ModelRequest):
            turns[-1].parts = [*turns[-1].parts, part]
        else:
            turns.append(ModelRequest(parts=[part]))
    return turns


def _said(message: Message, vendor: str) -> Iterator[ThinkingPart | TextPart | ToolCallPart]:
    """Yield an assistant's turn; signed thoughts are for the vendor that signed them."""
    for part in message.content if not isinstance(message.content, str) else ():
        if isinstance(part, OurThought) and (part.signature or part.data):
            hidden = part.data is not None
            yield ThinkingPart(
                "" if hidden else part.text,
                id="redacted_thinking" if hidden else None,
                signature=part.data or part.signature,
                provider_name=vendor,
            )
    if message.text:
        yield TextPart(message.text)
    for made in message.tool_calls:
        extra = made.extra_content if isinstance(made.extra_content, dict) else None
        yield ToolCallPart(
            made.name, _arguments(made), tool_call_id=made.id, provider_name=vendor if extra else None,
            provider_details=extra,
        )  # fmt: skip


def _arguments(made: ToolCall) -> str | dict[str, Any]:
    """Return what a tool was called with; what is no object goes as the text that it is."""
    try:
        found = json.loads(made.arguments)
    except (ValueError, RecursionError):
        return made.arguments
    return found if isinstance(found, dict) else made.arguments


def _request_part(message: Message, names: Mapping[str, str]) -> ModelRequestPart:
    if message.role in ("system", "developer"):
        return SystemPromptPart(message.text)
    if message.role == "tool":
        called = message.tool_call_id or ""
        return ToolReturnPart(names.get(called, called), message.text, tool_call_id=called)
    if isinstance(message.content, str) and message.cache is None:
        return UserPromptPart(message.content)
    return UserPromptPart([*_marked(message)])


def _marked(message: Message) -> Iterator[UserContent]:
    """Yield what a turn says, with a mark behind each place up to which the vendor's cache is to keep the prompt."""
    if isinstance(message.content, str):
        yield message.content
    for part in message.content if not isinstance(message.content, str) else ():
        if not isinstance(part, OurThought):
            yield _content(part)
            if part.cache is not None:
                yield CachePoint(ttl=part.cache)
    if message.cache is not None:
        yield CachePoint(ttl=message.cache)


def _content(part: OurText | ImagePart | FilePart) -> UserContent:
    if isinstance(part, OurText):
        return part.text
    if part.data is not None:
        return BinaryContent(_decoded(part.data), media_type=media_type_of(part))
    if part.url is None:
        raise BadRequest(f"{part.type}: expected `url` or `data`, got neither; nothing was sent")
    detail = {"detail": part.detail} if isinstance(part, ImagePart) and part.detail else None
    url: ImageUrl | DocumentUrl
    if isinstance(part, ImagePart):
        url = ImageUrl(part.url, media_type=part.media_type, vendor_metadata=detail)
    else:
        url = DocumentUrl(part.url, media_type=part.media_type)
    url.force_download = cast(Any, _HandedOn())
    return url


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise BadRequest("data: expected base64, got something else; nothing was sent") from error


class _HandedOn:
    """Stands where pydantic-ai asks whether to fetch an address itself: no, also where a vendor takes none."""

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        raise Forbidden("this vendor's wire takes no such address, and a worker fetches none: send base64 `data`")

    __hash__ = object.__hash__


def settings_of(call: Call, *, without: frozenset[str]) -> ModelSettings:
    """Return the settings of a call.

    Args:
        call: What is asked.
        without: Settings, in pydantic-ai's words, and names in `extra_body`, that this model has not, or is known to
            refuse.
    """
    wishes = call.wishes
    extra = {name: value for name, value in wishes.extra_body.items() if name not in without}
    found: dict[str, Any] = {
        "max_tokens": call.max_output_tokens,
        "timeout": call.timeout_s,
        "max_retries": 0,
        "framing_announcement": "never",  # what it would add to a system prompt nobody asked for
        "temperature": _temperature(call),
        "top_p": wishes.top_p,
        "seed": wishes.seed,
        "stop_sequences": list(wishes.stop) or None,
        "parallel_tool_calls": wishes.parallel_tool_calls,
        "tool_choice": _choice(wishes),
        "service_tier": wishes.tier,
        "openai_service_tier": wishes.tier,
        "openai_text_verbosity": wishes.verbosity,
        "extra_body": {**({"n": wishes.n} if wishes.n > 1 else {}), **extra} or None,
        "extra_headers": dict(wishes.extra_headers) or None,
        "anthropic_cache_instructions": next(marks_of(m for m in call.messages if m.role in _SYSTEM), None),
        "anthropic_cache_tool_definitions": next(marks_of((), wishes.tools), None),
        **_thinking(call),
    }
    return cast(ModelSettings, {k: v for k, v in found.items() if v is not None and k not in without})


def _choice(wishes: Wishes) -> str | list[str] | None:
    if wishes.tool_choice is None or wishes.tool_choice in ("auto", "none", "required"):
        return wishes.tool_choice
    return [wishes.tool_choice]


def _temperature(call: Call) -> float | None:
    most = _MOST_TEMPERATURE.get(vendor_of(call.model))
    return call.temperature if call.temperature is None or most is None else min(call.temperature, most)


def _thinking(call: Call) -> dict[str, Any]:
    """Return what says how long to think; a number of tokens is more exact than a word."""
    wishes = call.wishes
    if wishes.thinking_tokens:
        enabled = {"type": "enabled", "budget_tokens": wishes.thinking_tokens}
        on_bedrock = {"bedrock_additional_model_requests_fields": {"thinking": enabled}}
        return {
            "anthropic_thinking": enabled,
            "google_thinking_config": {"thinking_budget": wishes.thinking_tokens},
            **(on_bedrock if "anthropic" in call.model else {}),
        }
    if wishes.effort is None:
        return {}
    if wishes.effort == "none":
        return {"thinking": False}
    if wishes.effort in _EFFORTS:
        return {"thinking": wishes.effort}
    return {"openai_reasoning_effort": wishes.effort, "anthropic_effort": wishes.effort}


def parameters_of(wishes: Wishes, model: Model) -> ModelRequestParameters:
    """Return tools and the form of the answer.

    Raises:
        SchemaRefused: When pydantic-ai knows that the model takes no schema by its wire; nothing is sent.
    """
    tools = [
        ToolDefinition(
            name=tool.name,
            description=tool.description or None,
            parameters_json_schema=dict(tool.parameters) or {"type": "object", "properties": {}},
            strict=tool.strict,
        )
        for tool in wishes.tools
    ]
    if wishes.schema is None:
        return ModelRequestParameters(function_tools=tools)
    if not model.profile.get("supports_json_schema_output", False):
        raise SchemaRefused(f"{model.model_name} takes no schema by its wire: asked again by the prompt", whole=True)
    return ModelRequestParameters(
        function_tools=tools, output_mode="native", output_object=_form(wishes, wishes.schema), allow_text_output=True
    )


def _form(wishes: Wishes, schema: Schema) -> OutputObjectDefinition:
    """Return how the answer must look; strict mode only where that changes nothing of what fits."""
    is_strict = wishes.form == "strict"
    rules = strict_schema(schema.text) if is_strict else loose_schema(schema.text)
    return OutputObjectDefinition(json_schema=rules, name="answer", strict=None if is_strict else False)


def left_out(call: Call, sent: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of what was asked for and is not in what is sent: this model, or its wire, has none.

    Args:
        call: What was asked.
        sent: The fields of the request, by name.
    """
    asked, extra = asked_for(call), call.wishes.extra_body
    if not sent or not (asked or extra):
        return ()
    missing = [name for name in asked if not SPELLINGS[name] & sent.keys()]
    if call.wishes.n > 1 and sent.get("n", sent.get("candidateCount")) != call.wishes.n and "n" not in missing:
        missing.append("n")
    return (*missing, *(name for name in extra if name not in sent))


def refuse_left_out(call: Call, sent: Mapping[str, Any]) -> None:
    """Refuse a request that lacks what the task itself asks for, unless it may be left out.

    Raises:
        BadRequest: Naming the field.
    """
    wishes = call.wishes
    for name in () if wishes.drop_params or not wishes.asked else left_out(call, sent):
        if name in wishes.asked or name in wishes.extra_body:
            raise BadRequest(
                f"{name}: expected a task without it, {quote(call.model)} has no such field; take it out, or set "
                "drop_params; nothing was sent",
                blame="prompt",
            )


_THINKING = ("thinking", "openai_reasoning_effort", "anthropic_effort", "anthropic_thinking", "google_thinking_config",
             "bedrock_additional_model_requests_fields")  # fmt: skip
#: Fields of the wires that a model may refuse, and the settings of pydantic-ai without which they are not sent.
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "temperature": ("temperature",), "top_p": ("top_p",), "topP": ("top_p",), "seed": ("seed",),
    "stop": ("stop_sequences",), "stop_sequences": ("stop_sequences",), "stopSequences": ("stop_sequences",),
    "parallel_tool_calls": ("parallel_tool_calls",), "service_tier": ("service_tier", "openai_service_tier"),
    "serviceTier": ("service_tier",), "random_seed": ("seed",), "verbosity": ("openai_text_verbosity",),
    **dict.fromkeys(("reasoning_effort", "reasoning", "effort", "thinking", "budget_tokens"), _THINKING),
    **dict.fromkeys(("thinkingConfig", "thinkingBudget", "thinkingLevel"), _THINKING),
}  # fmt: skip


def refusable(refused: Iterable[str], wishes: Wishes) -> frozenset[str]:
    """Return what to leave out for what a model refuses; what a task asked for stays, unless `drop_params`.

    Args:
        refused: Fields of its wire.
        wishes: What is asked.

    Returns:
        Settings in pydantic-ai's words, and names in `extra_body`.
    """
    gone = (what for what in refused if wishes.drop_params or not is_asked(what, wishes))
    return frozenset(name for what in gone for name in names_without(what, wishes))


def names_without(field: str, wishes: Wishes) -> tuple[str, ...]:
    """Return the settings, or the name in `extra_body`, without which a field is not sent; nothing: it always is."""
    return SETTINGS.get(field) or ((field,) if field in wishes.extra_body else ())


def asked_for(call: Call) -> Sequence[str]:
    """Return the names, in our words, of the settings that a call carries."""
    wishes = call.wishes
    carried = {
        "temperature": call.temperature is not None,
        "top_p": wishes.top_p is not None,
        "seed": wishes.seed is not None,
        "stop": bool(wishes.stop),
        "effort": wishes.effort is not None,
        "thinking_tokens": wishes.thinking_tokens is not None,
        "verbosity": wishes.verbosity is not None,
        "tier": wishes.tier is not None,
        "parallel_tool_calls": wishes.parallel_tool_calls is not None,
        "n": wishes.n > 1,
        MARK: has_marks(call),
    }
    return [name for name, is_carried in carried.items() if is_carried]
