"""Every vendor's word for why a model stopped, and what becomes of an answer with a word that nobody knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.workers.judge import is_known
from fleet.workers.providers.finish_reasons import finish_reason


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("stop STOP end_turn stop_sequence COMPLETE eos EOS_TOKEN FINISH_REASON_STOP finished", "stop"),
        ("length max_tokens MAX_TOKENS max_output_tokens model_length model_context_window_exceeded", "length"),
        ("FINISH_REASON_MAX_TOKENS max-tokens token_limit_reached incomplete pause_turn", "length"),
        ("content_filter refusal SAFETY RECITATION PROHIBITED_CONTENT BLOCKLIST SPII", "content_filter"),
        ("guardrail_intervened sensitive content_filtered IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT", "content_filter"),
        ("ERROR_TOXIC MODEL_ARMOR content_policy_violation output_moderation", "content_filter"),
        ("tool_calls tool_use function_call TOOL_CALL", "tool_calls"),
    ],
)
def test_all_vendors_words_are_read_as_one_of_four(words: str, meaning: str) -> None:
    assert {word: finish_reason(word) for word in words.split()} == dict.fromkeys(words.split(), meaning)


@pytest.mark.parametrize(
    "word",
    [
        "error", "network_error", "ERROR", "OTHER", "FINISH_REASON_UNSPECIFIED", "insufficient_system_resource",
        "abort", "cancelled", "MALFORMED_FUNCTION_CALL", "LANGUAGE", "timeout", "safety_check_error", "unheard of",
    ],
)  # fmt: skip
def test_a_word_that_nobody_knows_is_handed_on_and_known_to_nobody(word: str) -> None:
    assert finish_reason(word) == word and not is_known(finish_reason(word))


@given(st.text())
def test_any_word_has_a_reading(word: str) -> None:
    assert is_known(finish_reason(word)) or finish_reason(word) == word
