"""Prompts that are too long, in the words of many servers: recognised, with the figures."""

# ruff: noqa: E501
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.workers.providers.taught.overflow import Overflow, overflow_in
from fleet.workers.providers.taught.refusals import read_words


def read(told: object) -> Overflow | None:
    body = {"error": {"message": told}} if isinstance(told, str) else told
    return overflow_in(read_words(json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ('maximum context length of this model is 2048 tokens, 2723 were requested', Overflow(2048, None, 2723)),
        ('prompt is too long: 210000 tokens > 200000 maximum', Overflow(200000, 210000, None)),
        ("This model's maximum context length is 4097 tokens. However, you requested 4927 tokens (3927 in the messages, 1000 in the completion). Please reduce the length of the messages or completion.", Overflow(4097, 3927, None)),
        ({'error': {'message': "This model's maximum context length is 128000 tokens. However, your messages resulted in 130123 tokens. Please reduce the length of the messages.", 'code': 'context_length_exceeded'}}, Overflow(128000, None, 130123)),
        ('The input token count (1200000) exceeds the maximum number of tokens allowed (1048575).', Overflow(1048575, 1200000, None)),
        ('The input token count exceeds the maximum number of tokens allowed 1048576.', Overflow(1048576, None, None)),
        ({'error': {'code': 400, 'message': 'request (5423 tokens) exceeds the available context size (4096 tokens), try increasing it', 'type': 'exceed_context_size_error', 'n_prompt_tokens': 5423, 'n_ctx': 4096}}, Overflow(4096, 5423, None)),
        ('the request exceeds the available context size. try increasing the context size or enable context shift', Overflow(None, None, None)),
        ('request (5423 tokens) exceeds the available context size (4096 tokens), try increasing it', Overflow(4096, 5423, None)),
        ('input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000, decrease input length or `max_tokens` and try again', Overflow(200000, 199000, None)),
        ('Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 512 `max_new_tokens`', Overflow(4096, 5000, None)),
        ("This model's maximum prompt length is 131072 but the request contains 150000 tokens.", Overflow(131072, 150000, None)),
        ('Range of input length should be [1, 30720]', Overflow(30720, None, None)),
        ('Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length', Overflow(32768, 40000, None)),
        ('The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that', Overflow(4096, 5000, None)),
        ("Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a total of 9000 tokens: 8500 tokens from the input messages and 500 tokens for the completion.", Overflow(8192, 8500, None)),
        ('Input is too long for requested model.', Overflow(None, None, None)),
        ('Your input exceeds the context window of this model. Please adjust your input and try again.', Overflow(None, None, None)),
        ('the input length exceeds the context length', Overflow(None, None, None)),
        ("'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 4096 tokens and your request has 50 input tokens (8192 > 4096 - 50).", Overflow(4096, 50, None)),
        ("This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens. Please reduce the length of the input messages.", Overflow(4096, 5000, None)),
        ("You passed 2049 input tokens and requested 100 output tokens. However, the model's context length is only 2048 tokens, resulting in a maximum input length of 1948 tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=2049)", Overflow(2048, 2049, None)),
        ('Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.', None),
        ('field max_tokens: value is larger than the server allows (256)', None),
        ('max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000.', None),
        ("litellm.ContextWindowExceededError: litellm.BadRequestError: ... This model's maximum context length is 8,192 tokens. However, your messages resulted in 9,001 tokens.", Overflow(8192, None, 9001)),
        ('too many tokens: the request has 5000 tokens, the limit is 4096', Overflow(4096, None, 5000)),
        ('temperature is too high', None),
        ('the prompt has 3011 tokens, but the model takes only 2048', Overflow(2048, 3011, None)),
        ('The prompt is too long: 3011, model maximum context length: 2048', Overflow(2048, None, 3011)),
        ('Please reduce the length of the messages or completion.', Overflow(None, None, None)),
        ('input too long. got 9000 tokens, max 8192', Overflow(8192, None, 9000)),
        ('The total number of tokens (input 5000 + output 500) exceeds the model limit of 4096', Overflow(4096, None, 5000)),
        ('exceeded model token limit: 8192 (requested: 9000)', Overflow(8192, None, 9000)),
        ('Invalid request: Your request exceeded model token limit: 8192', Overflow(8192, None, None)),
        ("This model's maximum context length is 4096 tokens. However, you requested 1 output tokens and your prompt contains at least 4096 input tokens, for a total of at least 4097 tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=4096)", Overflow(4096, None, None)),
        ({"message": "This endpoint's maximum context length is 200000 tokens. However, you requested about 264437 tokens (262437 of text input, 2000 in the output). Please reduce the length of either one.", "metadata": {"provider_name": None}}, Overflow(200000, 262437, None)),
        ("input length and `max_tokens` exceed context limit: 184915 +\n20000 > 204648, decrease input length or `max_tokens`", Overflow(204648, 184915, None)),
        ("input length too long", Overflow(None, None, None)),
        ("InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]", Overflow(129024, None, None)),
    ],
)  # fmt: skip
def test_the_figures_of_a_prompt_that_is_too_long_are_read(told: object, expected: Overflow | None) -> None:
    assert read(told) == expected


def test_a_total_with_the_answers_allowance_in_it_is_told_from_one_without() -> None:
    assert Overflow(2048, None, 2723).true_input(estimated=2200, output_tokens=512) == 2211
    assert Overflow(2048, None, 2723).true_input(estimated=2700, output_tokens=512) == 2723
    assert Overflow(2048, 2500, None).true_input(estimated=100, output_tokens=512) == 2500
    assert Overflow(2048, None, None).true_input(estimated=100, output_tokens=512) is None


@given(st.text(max_size=200), st.lists(st.integers(0, 10**15), max_size=4))
def test_any_text_gives_figures_in_order_or_none(text: str, numbers: list[int]) -> None:
    found = read(f"context length {text} {numbers}")
    if found is not None and found.total_tokens is not None:
        assert found.window_tokens is not None
        assert found.total_tokens > found.window_tokens
