"""Answers of pydantic-ai's that come in pieces, in our words; and a task of its own for who makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TypeVar

from pydantic_ai.messages import (
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
)
from pydantic_ai.models import StreamedResponse
from pydantic_ai.usage import RequestUsage

from fleet.workers.calls import Call, Delta
from fleet.workers.providers.base import LAST_EVENT
from fleet.workers.providers.models.answered import usage_of
from fleet.workers.providers.models.exchange import Exchange

#: Bytes at the end of a stream among which its last event is.
LAST_BYTES = 100

T = TypeVar("T")


async def deltas_of(answer: StreamedResponse, call: Call) -> AsyncIterator[Delta]:
    """Yield what an answer says and thinks, and what is told of its usage, as it comes.

    Args:
        answer: As pydantic-ai reads it.
        call: What was asked.
    """
    known = _counts(answer.usage)
    async for event in answer:
        text, thought = _said(event)
        usage, told = None, _counts(answer.usage)
        if told != known:
            known, usage = told, usage_of(answer.usage, call, "")
        if text or thought or usage:
            yield Delta(text, thought, usage)


def is_whole(answer: StreamedResponse, exchange: Exchange) -> bool:
    """True once the provider has said why the model stopped: what comes later is about the answer, not of it.

    On OpenAI's wire pydantic-ai makes up a reason for a stream that ends without one, so that half an answer would be
    taken for a whole one: there only the provider's own word counts, or that it is done.
    """
    details = answer.provider_details or {}
    if details.get("finish_reason") or details.get("refusal"):
        return True
    if hasattr(answer, "_missing_finish_reason"):
        return LAST_EVENT.encode() in exchange.raw[-LAST_BYTES:]
    return answer.finish_reason is not None


async def in_a_task(source: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Yield what a generator yields, which runs in a task of its own.

    Context variables that it sets are its own, and time-outs and cancel scopes in it end nothing but it, whoever asks
    for the next value. Leaving ends it. Weakness: it runs ahead of who reads.
    """
    made: asyncio.Queue[T | None] = asyncio.Queue()

    async def run() -> None:
        try:
            async with aclosing(source):
                async for one in source:
                    made.put_nowait(one)
        finally:
            made.put_nowait(None)

    task = asyncio.create_task(run())
    try:
        while (one := await made.get()) is not None:
            yield one
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen already, or nobody waits for it any more


def _said(event: ModelResponseStreamEvent) -> tuple[str, str]:
    """Return what an event adds to the text, and to the thoughts."""
    match event:
        case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return text, ""
        case PartStartEvent(part=ThinkingPart(content=thought)):
            return "", thought
        case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=thought)):
            return "", thought or ""
    return "", ""


def _counts(usage: RequestUsage) -> tuple[int, int, int, int]:
    return usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens
