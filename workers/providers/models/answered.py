"""An answer of pydantic-ai's in our words."""

from __future__ import annotations

import json

from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.usage import RequestUsage

from fleet.conversation import ThinkingPart as OurThought
from fleet.conversation import ToolCall
from fleet.usage import Usage
from fleet.workers.calls import Call, Completion
from fleet.workers.providers.finish_reasons import finish_reason
from fleet.workers.providers.models.asked import left_out
from fleet.workers.providers.models.exchange import Exchange
from fleet.workers.providers.usage import read_usage


def completion_of(response: ModelResponse, call: Call, exchange: Exchange) -> Completion:
    """Return an answer.

    Args:
        response: What pydantic-ai made of it.
        call: What was asked.
        exchange: What went over the wire.
    """
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    thoughts = "\n\n".join(part.content for part in response.parts if isinstance(part, ThinkingPart) and part.content)
    details = response.provider_details or {}
    tier = details.get("service_tier")
    return Completion(
        text=text,
        finish_reason=_reason(response, details.get("finish_reason")),
        usage=usage_of(response.usage, call, text + thoughts),
        headers=exchange.headers,
        reasoning=thoughts,
        tool_calls=tuple(
            ToolCall(
                id=part.tool_call_id,
                name=part.tool_name,
                arguments=_arguments(part),
                extra_content=part.provider_details,
            )
            for part in response.parts
            if isinstance(part, ToolCallPart)
        ),
        tier=tier if isinstance(tier, str) else None,
        left_out=left_out(call, exchange.asked_fields()),
        others=_others(exchange) if call.wishes.n > 1 else (),
        thoughts=_signed(response),
    )


def _signed(response: ModelResponse) -> tuple[OurThought, ...]:
    """Return the thoughts that their provider signed: it wants them back with the results of its calls."""
    signed = [part for part in response.parts if isinstance(part, ThinkingPart) and part.signature]
    return tuple(
        OurThought(type="thinking", data=part.signature)
        if part.id == "redacted_thinking"
        else OurThought(type="thinking", text=part.content, signature=part.signature)
        for part in signed
    )


def _others(exchange: Exchange) -> tuple[str, ...]:
    """Return the texts of further answers, which pydantic-ai passes over; only OpenAI's wire gives some."""
    try:
        choices = json.loads(exchange.raw)["choices"][1:]
        return tuple(choice["message"]["content"] or "" for choice in choices)
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()


def _arguments(part: ToolCallPart) -> str:
    """Return a tool's arguments as the model wrote them, where the wire has them as text."""
    return part.args if isinstance(part.args, str) else part.args_as_json_str()


def says_nothing(response: ModelResponse) -> bool:
    """True when a 2xx held nothing that an answer has: some SDKs read any object as one."""
    return not (response.parts or response.finish_reason or response.usage.has_values())


def _reason(response: ModelResponse, theirs: object) -> str:
    """Return why it ended: by the provider's own word where pydantic-ai hands it on, else by pydantic-ai's."""
    if isinstance(theirs, str) and theirs:
        return finish_reason(theirs)
    return finish_reason(response.finish_reason or "stop")


def usage_of(told: RequestUsage, call: Call, text: str) -> Usage:
    """Return what was used, in the classes in which it is billed; an estimate where the provider tells nothing."""
    if not told.input_tokens and not told.output_tokens:
        return read_usage(None, call, text)
    details = told.details or {}
    made, reasoned = told.output_tokens, told.output_reasoning_tokens or details.get("reasoning_tokens", 0)
    return Usage(
        input_tokens=told.input_tokens,
        output_tokens=made,
        cached_tokens=min(told.cache_read_tokens, told.input_tokens),
        cache_write_tokens=min(told.cache_write_tokens, told.input_tokens),
        cache_write_1h_tokens=min(details.get("ephemeral_1h_input_tokens", 0), told.cache_write_tokens),
        reasoning_tokens=min(reasoned, made),
        audio_input_tokens=told.input_audio_tokens,
        audio_output_tokens=told.output_audio_tokens,
        image_input_tokens=details.get("image_prompt_tokens", 0),
        cached_audio_tokens=min(told.cache_audio_read_tokens, told.cache_read_tokens, told.input_audio_tokens),
    )
