"""What a provider says was used, from every vendor's spelling. Pure.

Vendors agree on no name, and not on what is part of what: Anthropic's and Bedrock's input stands beside what was read
from the cache or written to it, everybody else's holds it; xAI's and Gemini's output stands beside the thinking. What
comes of it is always of one kind: the whole, and its parts, none above its whole and none below zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fleet.money import PICOS
from fleet.usage import Usage, clamped
from fleet.workers.calls import Call
from fleet.workers.context import count_tokens
from fleet.workers.load import sent_tokens
from fleet.workers.providers.written.wishes import MARK, marks_in

#: Counts above this are no counts: no model takes or makes so many tokens in one call.
ABSURD = 10**12
#: Dollars of one call above which a provider's word about its own charge is not believed.
MOST_TOLD_USD = 1000.0

_INPUT = ("prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens", "prompt_token_count")
_OUTPUT = ("completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens", "candidates_token_count")
_TOTAL = ("total_tokens", "totalTokenCount", "totalTokens", "total_token_count")
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cachedContentTokenCount", "num_cached_tokens",
           "cached_content_token_count")  # fmt: skip
_READ = ("cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount")
_WRITTEN = ("cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount")
_THOUGHTS = ("thoughtsTokenCount", "thoughts_token_count")
_TOOL_PROMPT = ("toolUsePromptTokenCount", "tool_use_prompt_token_count")
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_INPUT_BY_KIND = ("promptTokensDetails", "prompt_tokens_details")
_CACHED_BY_KIND = ("cacheTokensDetails", "cache_tokens_details")
_OUTPUT_BY_KIND = ("candidatesTokensDetails", "candidates_tokens_details")
#: Names of a plain answer: nothing else is looked for.
_PLAIN = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
#: Class -> where a list tells it by modality, and which.
_LISTED = {
    "audio_input_tokens": (_INPUT_BY_KIND, "audio"),
    "audio_output_tokens": (_OUTPUT_BY_KIND, "audio"),
    "image_input_tokens": (_INPUT_BY_KIND, "image"),
    "image_output_tokens": (_OUTPUT_BY_KIND, "image"),
    "cached_audio_tokens": (_CACHED_BY_KIND, "audio"),
    "cached_image_tokens": (_CACHED_BY_KIND, "image"),
}
#: Names beside those of most vendors.
_OTHERS = frozenset({
    *_CACHED, *_READ, *_WRITTEN, *_THOUGHTS, *_TOOL_PROMPT, "promptTokensDetails", *_OUTPUT_BY_KIND, *_CACHED_BY_KIND,
    "reasoning_tokens", "cache_creation", "cacheDetails", "server_tool_use", "server_tool_use_details",
    "num_search_queries", "cost", "cost_in_usd_ticks",
})  # fmt: skip
#: Spellings of the input that stands beside what was read from the cache or written to it.
_BESIDE = frozenset({"input_tokens", "inputTokens"})

_NOTHING: Mapping[str, Any] = {}


def read_usage(told: object, call: Call, text: str) -> Usage:
    """Return what an answer used, in the classes in which it is billed.

    Args:
        told: The answer's `usage` object, of any wire; servers that send none (some local ones) get an estimate.
        call: What was sent.
        text: What came back, thinking included.
    """
    usage: Mapping[str, Any] = told if isinstance(told, dict) else _NOTHING
    given, made = told_counts(usage)
    is_told = given is not None and made is not None
    if given is None:
        given = sent_tokens(call.messages, call.wishes)
    if made is None:
        made = count_tokens(text)
    found = _classes(usage, given, made)
    if not is_told:
        found = found.model_copy(update={"estimated_calls": 1})
    if found.cache_write_tokens and not _tells_lives(usage) and keeps_an_hour(call):
        return found.model_copy(update={"cache_write_1h_tokens": found.cache_write_tokens})
    return found


def keeps_an_hour(call: Call) -> bool:
    """True when all that a call may write to the provider's cache is to be kept for an hour."""
    own = call.wishes.extra_body.get(MARK)
    marks = {*marks_in(call), *((str(own.get("ttl")),) if isinstance(own, dict) else ())}
    return marks == {"1h"}


def _tells_lives(usage: Mapping[str, Any]) -> bool:
    """True when it is told how long what was written is kept."""
    details = _object(usage, _INPUT_DETAILS)
    return "cacheDetails" in usage or bool(
        _object(usage, ("cache_creation",)) or _object(details, ("cache_creation_token_details",))
    )


def read_told_usage(told: object) -> Usage | None:
    """Return what an answer says it used; None when it says nothing. Nothing is estimated."""
    usage: Mapping[str, Any] = told if isinstance(told, dict) else _NOTHING
    given, made = told_counts(usage)
    return None if given is None else _classes(usage, given, made or 0)


def told_counts(usage: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return input and output as they are spelled; None: not said."""
    given, made = _first(usage, _INPUT), _first(usage, _OUTPUT)
    if given is None and made is None and isinstance(usage.get("tokens"), dict):  # Cohere's own
        return _first(usage["tokens"], _INPUT), _first(usage["tokens"], _OUTPUT)
    if given is None and (missed := _count(usage.get("prompt_cache_miss_tokens"))) is not None:
        given = missed + (_first(usage, _CACHED) or 0)
    if made is None and _first(usage, _THOUGHTS) is not None:  # all was thinking
        made = 0
    return given, made


def _classes(usage: Mapping[str, Any], given: int, made: int) -> Usage:
    parts = _NOTHING if usage.keys() <= _PLAIN else _parts(usage, given)
    given += parts.get("beside_input", 0)
    reasoning = parts.get("reasoning_tokens", 0)
    made += parts.get("beside_output", 0)
    total = _first(usage, _TOTAL)
    # Where thinking stands beside the output, the total has both; who tells no total tells more thinking than output.
    spare = (reasoning if reasoning > made else 0) if total is None else total - given - made
    if spare > 0:
        made, reasoning = made + spare, max(reasoning, spare)
    if not parts and not reasoning:
        return Usage(input_tokens=given, output_tokens=made)
    counts = {**parts, "input_tokens": given, "output_tokens": made, "reasoning_tokens": reasoning}
    return Usage(**clamped(counts))


def _parts(usage: Mapping[str, Any], given: int) -> dict[str, int]:
    """Return the parts by class, and what stands beside the input and the output as they are spelled."""
    into, out = _object(usage, _INPUT_DETAILS), _object(usage, _OUTPUT_DETAILS)
    parts = {name: count for name, count in _told_apart(into, out) if count}
    if _OTHERS.isdisjoint(usage):  # the wire of most vendors
        return parts
    thoughts = _first(usage, _THOUGHTS)
    reasoning = parts.get("reasoning_tokens") or thoughts or _count(usage.get("reasoning_tokens")) or 0
    parts |= {"reasoning_tokens": reasoning, "beside_output": thoughts or 0, **_caches(usage, into, parts)}
    parts |= {name: sum(_listed(usage, *where)) for name, where in _LISTED.items() if name not in parts}
    parts |= {"web_searches": _searches(usage), "told_usd_picos": _told_usd_picos(usage)}
    in_cache = parts["cached_tokens"] + parts["cache_write_tokens"]
    beside = in_cache if _is_beside(usage, given, in_cache) else 0
    return {**parts, "beside_input": beside + (_first(usage, _TOOL_PROMPT) or 0)}


def _told_apart(into: Mapping[str, Any], out: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the classes that the details of input and output tell apart."""
    if into:
        yield "cached_tokens", _first(into, _CACHED) or 0
        yield "cache_write_tokens", _first(into, ("cache_write_tokens", "cache_creation_tokens")) or 0
        yield "audio_input_tokens", _count(into.get("audio_tokens")) or 0
        yield "image_input_tokens", _count(into.get("image_tokens")) or 0
        cached = _object(into, ("cached_tokens_details",))
        yield "cached_audio_tokens", _count(cached.get("audio_tokens")) or 0
        yield "cached_image_tokens", _count(cached.get("image_tokens")) or 0
    if out:
        yield "reasoning_tokens", _first(out, ("reasoning_tokens", "thinking_tokens")) or 0
        yield "audio_output_tokens", _count(out.get("audio_tokens")) or 0
        yield "image_output_tokens", _count(out.get("image_tokens")) or 0


def _caches(usage: Mapping[str, Any], details: Mapping[str, Any], parts: Mapping[str, int]) -> dict[str, int]:
    """Return what was read from the cache, written to it, and of that for an hour."""
    by_life = _object(usage, ("cache_creation",)) or _object(details, ("cache_creation_token_details",))
    for_1h = _count(by_life.get("ephemeral_1h_input_tokens")) or _bedrock_1h(usage)
    written = parts.get("cache_write_tokens") or _first(usage, _WRITTEN)
    if not written:
        written = (_count(by_life.get("ephemeral_5m_input_tokens")) or 0) + for_1h
    return {
        "cached_tokens": parts.get("cached_tokens") or _first(usage, _CACHED) or _first(usage, _READ) or 0,
        "cache_write_tokens": written,
        "cache_write_1h_tokens": for_1h,
    }


def _bedrock_1h(usage: Mapping[str, Any]) -> int:
    details = usage.get("cacheDetails")
    rows = details if isinstance(details, list) else ()
    return sum(_count(row.get("inputTokens")) or 0 for row in rows if isinstance(row, dict) and row.get("ttl") == "1h")


def _is_beside(usage: Mapping[str, Any], given: int, parts: int) -> bool:
    """True when the input does not hold what was read from the cache or written to it."""
    if not parts:
        return False
    spelled_so = any(name in usage for name in _BESIDE) and "prompt_tokens" not in usage
    return parts > given or (spelled_so and any(name in usage for name in (*_READ, *_WRITTEN, "cache_creation")))


def _listed(usage: Mapping[str, Any], lists: tuple[str, ...], kind: str) -> Iterator[int]:
    for name in lists:
        rows = usage.get(name)
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and str(row.get("modality")).lower() == kind:
                yield _first(row, ("tokenCount", "token_count")) or 0


def _searches(usage: Mapping[str, Any]) -> int:
    tools = _object(usage, ("server_tool_use", "server_tool_use_details"))
    return _count(tools.get("web_search_requests")) or _count(usage.get("num_search_queries")) or 0


def _told_usd_picos(usage: Mapping[str, Any]) -> int:
    """Return the charge that the provider tells itself: OpenRouter's, Perplexity's, xAI's."""
    if ticks := _count(usage.get("cost_in_usd_ticks")):  # of 10^-10 dollars
        return ticks * 100 if ticks < MOST_TOLD_USD * 10**10 else 0
    cost = usage.get("cost")
    cost = cost.get("total_cost") if isinstance(cost, dict) else cost
    if isinstance(cost, int | float) and 0 < cost < MOST_TOLD_USD:
        return round(cost * PICOS)
    return 0


def _object(usage: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the first of these that is an object."""
    return next((value for name in names if isinstance(value := usage.get(name), dict)), _NOTHING)


def _first(usage: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """Return the first of these that is a number of tokens."""
    for name in names:
        if name in usage and (count := _count(usage[name])) is not None:
            return count
    return None


def _count(value: object) -> int | None:
    """Return a number of tokens; None for what is none."""
    if type(value) is int:
        return value if 0 <= value < ABSURD else None
    if type(value) is float and 0 <= value < ABSURD and value.is_integer():
        return int(value)
    return None
