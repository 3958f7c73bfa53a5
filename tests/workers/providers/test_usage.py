"""What every vendor says was used, read into one set of classes: wholes, and their parts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.conversation import Message
from fleet.usage import Usage, clamped
from fleet.workers.calls import Call
from fleet.workers.providers.usage import read_told_usage, read_usage
from tests.every import every

CALL = Call("m", (Message(role="user", content="how much is it?"),), None, 100, 5.0)

SPELLINGS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "plain": (
        {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60},
        {"input_tokens": 50, "output_tokens": 10},
    ),
    "OpenAI chat": (
        {"prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
         "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 30},
         "completion_tokens_details": {"reasoning_tokens": 128, "audio_tokens": 7, "accepted_prediction_tokens": 0}},
        {"input_tokens": 2006, "cached_tokens": 1920, "audio_input_tokens": 30, "output_tokens": 300,
         "reasoning_tokens": 128, "audio_output_tokens": 7},
    ),
    "OpenAI Responses": (
        {"input_tokens": 328, "input_tokens_details": {"cached_tokens": 128}, "output_tokens": 52,
         "output_tokens_details": {"reasoning_tokens": 32}, "total_tokens": 380},
        {"input_tokens": 328, "cached_tokens": 128, "output_tokens": 52, "reasoning_tokens": 32},
    ),
    "Anthropic": (
        {"input_tokens": 9, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 17002, "output_tokens": 10},
        {"input_tokens": 17111, "cached_tokens": 17002, "cache_write_tokens": 100, "output_tokens": 10},
    ),
    "Anthropic, written for an hour": (
        {"input_tokens": 9, "cache_creation_input_tokens": 556, "cache_read_input_tokens": 0, "output_tokens": 503,
         "cache_creation": {"ephemeral_5m_input_tokens": 456, "ephemeral_1h_input_tokens": 100},
         "server_tool_use": {"web_search_requests": 2}, "service_tier": "standard"},
        {"input_tokens": 565, "cache_write_tokens": 556, "cache_write_1h_tokens": 100, "output_tokens": 503,
         "web_searches": 2},
    ),
    "Anthropic, nothing cached": (
        {"input_tokens": 9, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 10},
        {"input_tokens": 9, "output_tokens": 10},
    ),
    "a proxy that spells Anthropic's in OpenAI's words": (
        {"prompt_tokens": 17111, "completion_tokens": 10, "total_tokens": 17121, "cache_creation_input_tokens": 100,
         "cache_read_input_tokens": 17002, "prompt_tokens_details": {"cached_tokens": 17002}},
        {"input_tokens": 17111, "cached_tokens": 17002, "cache_write_tokens": 100, "output_tokens": 10},
    ),
    "a proxy whose input is less than what it read from the cache": (
        {"prompt_tokens": 9, "completion_tokens": 10, "cache_read_input_tokens": 17002},
        {"input_tokens": 17011, "cached_tokens": 17002, "output_tokens": 10},
    ),
    "DeepSeek": (
        {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120, "prompt_cache_hit_tokens": 64,
         "prompt_cache_miss_tokens": 36},
        {"input_tokens": 100, "cached_tokens": 64, "output_tokens": 20},
    ),
    "Groq": (
        {"queue_time": 0.1, "prompt_tokens": 4641, "prompt_time": 0.2, "completion_tokens": 60, "total_tokens": 4701,
         "prompt_tokens_details": {"cached_tokens": 4608}, "completion_tokens_details": {"reasoning_tokens": 21}},
        {"input_tokens": 4641, "cached_tokens": 4608, "output_tokens": 60, "reasoning_tokens": 21},
    ),
    "Mistral": (
        {"prompt_tokens": 500, "completion_tokens": 5, "total_tokens": 505, "num_cached_tokens": 400},
        {"input_tokens": 500, "cached_tokens": 400, "output_tokens": 5},
    ),
    "OpenRouter": (
        {"prompt_tokens": 194, "completion_tokens": 2, "total_tokens": 196, "cost": 0.00095, "is_byok": False,
         "prompt_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 100, "audio_tokens": 0},
         "completion_tokens_details": {"reasoning_tokens": 0}},
        {"input_tokens": 194, "cached_tokens": 10, "cache_write_tokens": 100, "output_tokens": 2,
         "told_usd_picos": 950_000_000},
    ),
    "Moonshot": (
        {"prompt_tokens": 300, "completion_tokens": 8, "total_tokens": 308, "cached_tokens": 256},
        {"input_tokens": 300, "cached_tokens": 256, "output_tokens": 8},
    ),
    "xAI: thinking beside the completion": (
        {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
         "prompt_tokens_details": {"cached_tokens": 6}, "completion_tokens_details": {"reasoning_tokens": 94},
         "cost_in_usd_ticks": 12_345},
        {"input_tokens": 32, "cached_tokens": 6, "output_tokens": 103, "reasoning_tokens": 94,
         "told_usd_picos": 1_234_500},
    ),
    "Gemini": (
        {"promptTokenCount": 100, "cachedContentTokenCount": 40, "candidatesTokenCount": 20, "thoughtsTokenCount": 30,
         "toolUsePromptTokenCount": 5, "totalTokenCount": 155,
         "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 60}, {"modality": "IMAGE", "tokenCount": 40}]},
        {"input_tokens": 105, "cached_tokens": 40, "image_input_tokens": 40, "output_tokens": 50,
         "reasoning_tokens": 30},
    ),
    "OpenAI, sound and images that were cached": (
        {"input_tokens": 200, "output_tokens": 50, "total_tokens": 250,
         "input_token_details": {"text_tokens": 60, "audio_tokens": 100, "image_tokens": 40, "cached_tokens": 90,
                                 "cached_tokens_details": {"text_tokens": 10, "audio_tokens": 60, "image_tokens": 20}},
         "output_token_details": {"text_tokens": 10, "image_tokens": 40}},
        {"input_tokens": 200, "audio_input_tokens": 100, "image_input_tokens": 40, "cached_tokens": 90,
         "cached_audio_tokens": 60, "cached_image_tokens": 20, "output_tokens": 50, "image_output_tokens": 40},
    ),
    "Gemini, sound that was cached, and an image": (
        {"promptTokenCount": 100, "cachedContentTokenCount": 40, "candidatesTokenCount": 20, "totalTokenCount": 120,
         "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 60}, {"modality": "TEXT", "tokenCount": 40}],
         "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 40}],
         "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 20}]},
        {"input_tokens": 100, "audio_input_tokens": 60, "cached_tokens": 40, "cached_audio_tokens": 40,
         "output_tokens": 20, "image_output_tokens": 20},
    ),
    "Gemini, all of it thinking": (
        {"promptTokenCount": 100, "thoughtsTokenCount": 30, "totalTokenCount": 130},
        {"input_tokens": 100, "output_tokens": 30, "reasoning_tokens": 30},
    ),
    "Gemini in OpenAI's words: only the total has the thinking": (
        {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 150},
        {"input_tokens": 100, "output_tokens": 50, "reasoning_tokens": 30},
    ),
    "Bedrock": (
        {"inputTokens": 10, "outputTokens": 5, "totalTokens": 165, "cacheReadInputTokens": 100,
         "cacheWriteInputTokens": 50, "cacheDetails": [{"ttl": "1h", "inputTokens": 20}]},
        {"input_tokens": 160, "cached_tokens": 100, "cache_write_tokens": 50, "cache_write_1h_tokens": 20,
         "output_tokens": 5},
    ),
    "Perplexity": (
        {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, "num_search_queries": 3,
         "cost": {"total_cost": 0.005}},
        {"input_tokens": 10, "output_tokens": 20, "web_searches": 3, "told_usd_picos": 5 * 10**9},
    ),
    "parts above their whole": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
         "prompt_tokens_details": {"audio_tokens": 99}, "completion_tokens_details": {"audio_tokens": 99}},
        {"input_tokens": 10, "audio_input_tokens": 10, "output_tokens": 5, "audio_output_tokens": 5},
    ),
    "whole numbers as floats": (
        {"prompt_tokens": 50.0, "completion_tokens": 10.0, "total_tokens": 60.0},
        {"input_tokens": 50, "output_tokens": 10},
    ),
}  # fmt: skip


@pytest.mark.parametrize("vendor", SPELLINGS)
def test_every_vendors_spelling_is_read(vendor: str) -> None:
    told, right = SPELLINGS[vendor]
    assert read_usage(told, CALL, "fine") == Usage(**right)
    assert read_told_usage(told) == Usage(**right)


@pytest.mark.parametrize("told", [None, [], "many", {}, {"prompt_tokens": -1}, {"prompt_tokens": True}])
def test_what_is_not_said_is_estimated_and_only_there(told: Any) -> None:
    usage = read_usage(told, CALL, "seven words are more than one token")
    assert 0 < usage.input_tokens < 30 and 0 < usage.output_tokens < 20
    assert read_told_usage(told) is None


names = st.sampled_from(sorted({name for told, _ in SPELLINGS.values() for name in told}))
inner = st.sampled_from(
    sorted(
        {name for told, _ in SPELLINGS.values() for part in told.values() if isinstance(part, dict) for name in part}
    )
)
numbers = st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=3)
objects = st.dictionaries(inner, numbers, max_size=4)
bodies = st.dictionaries(names, numbers | objects | st.lists(objects | numbers, max_size=3), max_size=8)


@given(told=bodies)
def test_arbitrary_usage_is_never_negative_and_no_part_is_above_its_whole(told: dict[str, Any]) -> None:
    usage = read_usage(told, CALL, "fine")
    assert every(count >= 0 for count in vars(usage).values())
    assert usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens
    assert usage.cache_write_1h_tokens <= usage.cache_write_tokens
    assert max(usage.audio_input_tokens, usage.image_input_tokens) <= usage.input_tokens
    assert max(usage.reasoning_tokens, usage.audio_output_tokens) <= usage.output_tokens
    assert vars(Usage(**clamped(vars(usage)))) == vars(usage)


def test_a_class_is_written_out_only_where_it_is_not_zero() -> None:
    assert repr(Usage(input_tokens=5, cached_tokens=2)) == "Usage(input_tokens=5, output_tokens=0, cached_tokens=2)"
    assert Usage(input_tokens=5).model_dump() == {"input_tokens": 5, "output_tokens": 0}
    assert (
        Usage(input_tokens=5, cached_tokens=2).model_dump_json()
        == '{"input_tokens":5,"output_tokens":0,"cached_tokens":2}'
    )
    assert Usage.model_validate({"input_tokens": 5, "output_tokens": 0}) == Usage(input_tokens=5)


def test_usage_is_summed_class_by_class() -> None:
    one = Usage(input_tokens=5, cached_tokens=2)
    two = Usage(input_tokens=1, output_tokens=3, reasoning_tokens=1)
    assert one + two == Usage(input_tokens=6, output_tokens=3, cached_tokens=2, reasoning_tokens=1)
    assert sum((one, two), Usage()) == two + one
