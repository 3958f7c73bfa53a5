"""The prefix caches of both vendors, over HTTP: how long a prompt must be, and where calls meet one cache."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.cached_lengths import least_cached_tokens
from tests.workers.simulator.running import running, send, total

PRICES = {"input_usd_per_mtok": 1.0, "cached_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.0}
WORDS = "The harbour of Oland has nine cranes and a pilot who knows the tides. "


def openai(url: str, text: str, **more: Any) -> dict[str, int]:
    asked = {"model": "m", "messages": [{"role": "system", "content": text}, {"role": "user", "content": "Why?"}]}
    answered = send(url, "/v1/chat/completions", {**asked, **more}).json["usage"]
    return {"given": answered["prompt_tokens"], "cached": answered["prompt_tokens_details"]["cached_tokens"]}


def anthropic(url: str, model: str, text: str) -> dict[str, int]:
    marked = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
    asked = {"model": model, "max_tokens": 50, "system": marked, "messages": [{"role": "user", "content": "Why?"}]}
    found: dict[str, int] = send(url, "/v1/messages", asked, **{"anthropic-version": "2023-06-01"}).json["usage"]
    return found


def test_calls_that_begin_alike_spill_over_to_machines_that_read_the_prompt_anew_and_pay_for_it() -> None:
    with running(cache_machine_rpm=15, clock_speed=0.001, **PRICES) as url:
        asked = [openai(url, WORDS * 150, prompt_cache_key="one") for _ in range(31)]
        assert [number for number, one in enumerate(asked) if not one["cached"]] == [0, 15, 30]
        assert openai(url, WORDS * 150, prompt_cache_key="two")["cached"] == 0, "another key, another machine"
        assert openai(url, WORDS * 150)["cached"] == 0
        counted = total(url)
        cached = sum(one["cached"] for one in asked)
        assert counted["cached_tokens"] == cached
        assert counted["billed_usd_picos"] == 10**6 * (counted["input_tokens"] - cached) + 10**5 * cached


def test_without_the_limit_one_cache_has_all_calls_that_begin_alike() -> None:
    with running(**PRICES) as url:
        assert [openai(url, WORDS * 150)["cached"] > 0 for _ in range(40)] == [False] + [True] * 39


def test_a_cache_key_that_is_no_text_is_refused() -> None:
    with running() as url:
        asked = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "prompt_cache_key": 7}
        assert send(url, "/v1/chat/completions", asked).status == 400


@pytest.mark.parametrize(
    ("model", "repeats", "is_cached"),
    [
        ("claude-sonnet-4-5", 40, False), ("claude-sonnet-4-5", 90, True), ("claude-opus-5", 40, True),
        ("claude-haiku-4-5", 90, False), ("claude-haiku-4-5", 400, True), ("claude-3-5-haiku-latest", 90, False),
        ("claude-3-5-haiku-latest", 200, True),
    ],
)  # fmt: skip
def test_anthropic_caches_from_the_length_of_each_model_on(model: str, repeats: int, is_cached: bool) -> None:
    with running() as url:
        first, second = (anthropic(url, model, WORDS * repeats) for _ in range(2))
    assert (first["cache_creation_input_tokens"] > 0, second["cache_read_input_tokens"] > 0) == (is_cached, is_cached)


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("gpt-5.2", 1024), ("claude-opus-4-5-20251101", 4096), ("anthropic.claude-opus-4-6-v1", 4096),
        ("claude-opus-4-8", 1024), ("claude-sonnet-4.6", 2048), ("claude-haiku-4-5", 4096), ("claude-3-haiku", 2048),
        ("claude-opus-4-1", 1024), ("claude-sonnet-5", 1024), ("claude-opus-5", 512), ("opus-5-of-mine", 1024),
    ],
)  # fmt: skip
def test_how_long_a_prompt_must_be_goes_by_the_models_name(model: str, tokens: int) -> None:
    assert least_cached_tokens(model) == tokens
