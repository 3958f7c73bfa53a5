"""Why a model stopped, in one set of words for all vendors: `stop`, `length`, `content_filter`, `tool_calls`.

A word that is in no list and looks like none of them is handed on as it is; the judge takes it for an answer that
broke off. Pure.
"""

from __future__ import annotations

import re

_WORDS = {
    "stop": "stop stop_sequence stop_token stop_str end_turn end end_of_text end_of_turn eos eos_token endoftext "
    "complete completed finish finished done success normal matched_stop",
    "length": "length max_tokens max_token max_length max_new_tokens max_output_tokens max_completion_tokens "
    "model_length model_context_window_exceeded context_length context_window_exceeded token_limit truncated "
    "incomplete error_limit pause_turn",
    "content_filter": "content_filter content_filtered refusal refused safety recitation prohibited_content blocklist "
    "spii guardrail_intervened sensitive content_policy_violation policy_violation moderation moderated blocked "
    "content_blocked error_toxic model_armor data_inspection_failed censored",
    "tool_calls": "tool_calls tool_call tool_use function_call function_calls",
}
_KNOWN = {word: meaning for meaning, words in _WORDS.items() for word in words.split()}
#: Parts of words that vendors coin anew. Not `block` alone, nor `length` alone: "blocking_error" is neither.
_COINED = (
    (re.compile(r"filter|safety|guardrail|moderat|prohibited|blocklist|polic(y|ies)|sensitive|refus|recit|toxic"),
     "content_filter"),
    (re.compile(r"max_?\w*token|token_?limit|max_?length|length_?limit|context_?(length|window)"), "length"),
)  # fmt: skip


def finish_reason(told: str) -> str:
    """Return what a vendor's word means: `stop`, `length`, `content_filter`, `tool_calls`, or the word itself.

    Args:
        told: As the provider spells it, in any case.
    """
    if told in _KNOWN:
        return _KNOWN[told]
    word = re.sub(r"[\s-]+", "_", told.strip().lower()).removeprefix("finish_reason_").removeprefix("finishreason_")
    if word in _KNOWN:
        return _KNOWN[word]
    if "error" not in word and "unspecified" not in word:
        for pattern, meaning in _COINED:
            if pattern.search(word):
                return meaning
    return told
