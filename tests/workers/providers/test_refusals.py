"""What error bodies refuse, in the words of many servers. Each is one that such a server is known to use."""

# ruff: noqa: E501
from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.workers.providers.taught.refusals import read_words, refused_in

TURNS = [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]
BODY: dict[str, Any] = {"model": "m", "messages": TURNS, "max_tokens": 5, "temperature": 0.3}
DEVELOPER: dict[str, Any] = {**BODY, "messages": [{"role": "developer", "content": "x"}, *TURNS]}
ANTHROPIC: dict[str, Any] = {"model": "m", "system": "x", "messages": TURNS[1:], "max_tokens": 5}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}}


def refused(body: object, sent: dict[str, Any]) -> tuple[str, ...]:
    return refused_in(read_words(json.dumps(body).encode()), sent)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("Unsupported value: 'temperature' cannot be 0.3 for this model; only its default (1) is supported.", ('temperature',)),
        ("gateway.BadRequest: upstream said - 'temperature' is a parameter that this model does not support.", ('temperature',)),
        ({'object': 'error', 'message': 'the system role is not supported', 'type': 'BadRequestError', 'param': None, 'code': 400}, ('role:system',)),
        ({'detail': 'field max_tokens: value is larger than the server allows (256)'}, ()),
        ('maximum context length of this model is 2048 tokens, 2723 were requested', ()),
        ("Unsupported parameter: 'temperature' cannot be used with this model.", ('temperature',)),
        ("Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1) value is supported.", ('temperature',)),
        ("Unsupported value: 'temperature' does not support 0.3 with this model.", ('temperature',)),
        ({'error': {'message': "Unsupported: 'temperature' does not support 0.7 here.", 'param': 'temperature'}}, ('temperature',)),
        ("Unsupported value: 'temperature' does not support 3 with this model. Must be between 0 and 2.", ()),
        ('`temperature` is deprecated for this model.', ('temperature',)),
        ('temperature is deprecated for this model.', ('temperature',)),
        ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", ('max_tokens',)),
        ('Unrecognized request argument supplied: max_tokens', ('max_tokens',)),
        ('Unrecognized request arguments supplied: temperature, max_tokens', ('temperature', 'max_tokens')),
        ('temperature: Extra inputs are not permitted', ('temperature',)),
        ('max_tokens: 300000 > 8192, which is the maximum allowed number of output tokens', ()),
        ('temperature: range: 0..1', ()),
        ('temperature must be <= 2', ()),
        ("2.5 is greater than the maximum of 2 - 'temperature'", ()),
        ('invalid temperature: only 1 is allowed for this model', ('temperature',)),
        ('`temperature` may only be set to 1 when thinking is enabled or in adaptive mode. Please consult our documentation', ('temperature',)),
        ("litellm.UnsupportedParamsError: gpt-5 models (including gpt-5-codex) don't support temperature=0.3. Only temperature=1 is supported. For gpt-5.1, temperature is supported when reasoning_effort='none'. To drop unsupported params set `litellm.drop_params = True`", ('temperature',)),
        ("litellm.UnsupportedParamsError: vertex_ai does not support parameters: ['temperature'], for model=o1. To drop these, set `litellm.drop_params=True`", ('temperature',)),
        ('litellm.BadRequestError: OpenAIException - {"error": {"message": "Unsupported parameter: \'temperature\' is not supported with this model."}}', ('temperature',)),
        ({'detail': [{'type': 'extra_forbidden', 'loc': ['body', 'temperature'], 'msg': 'Extra inputs are not permitted', 'input': 0.3}]}, ('temperature',)),
        ({'object': 'error', 'message': {'detail': [{'type': 'extra_forbidden', 'loc': ['body', 'temperature'], 'msg': 'Extra inputs are not permitted', 'input': 0.3}]}, 'type': 'invalid_request_error'}, ('temperature',)),
        ("[{'type': 'extra_forbidden', 'loc': ('body', 'temperature'), 'msg': 'Extra inputs are not permitted', 'input': 0.3}]", ('temperature',)),
        ('1 validation error for ChatCompletionRequest\ntemperature\n  Extra inputs are not permitted [type=extra_forbidden, input_value=0.3, input_type=float]', ('temperature',)),
        ([{'error': {'code': 400, 'message': 'Invalid JSON payload received. Unknown name "temperature": Cannot find field.', 'status': 'INVALID_ARGUMENT'}}], ('temperature',)),
        ("property 'temperature' is unsupported", ('temperature',)),
        ("Additional properties are not allowed ('temperature' was unexpected)", ('temperature',)),
        ("got an unexpected keyword argument 'temperature'", ('temperature',)),
        ('This model does not support the temperature parameter', ('temperature',)),
        ('model foo does not accept temperature when reasoning_effort is high', ('temperature',)),
        ('When max_tokens is set, temperature is not allowed', ('temperature',)),
        ('The parameter temperature is not recognised', ('temperature',)),
        ('unknown field `temperature`, expected one of `model`, `messages`, `max_tokens`', ('temperature',)),
        ('json: unknown field "temperature"', ('temperature',)),
        ({'error': {'message': 'This parameter is not supported', 'param': 'temperature'}}, ('temperature',)),
        ({'error': {'message': "The 'temperature' parameter is not supported", 'param': 'model'}}, ('temperature',)),
        ('models do not support sampling parameters', ('temperature',)),
        ('Setting temperature is not supported on this deployment.', ('temperature',)),
        ({'error': {'message': "Unsupported value: 'messages[0].role' does not support 'system' with this model.", 'param': 'messages[0].role'}}, ('role:system',)),
        ({'error': 'Template error: template error: System role not supported (in <string>:1)', 'error_type': 'template_error'}, ('role:system',)),
        ('Conversation roles must alternate user/assistant/user/assistant/...', ('role:system',)),
        ('Only user and assistant roles are supported!', ('role:system',)),
        ("messages.0.role: Input should be 'user' or 'assistant'", ('role:system',)),
        ("unexpected role 'system'", ('role:system',)),
        ('This model does not support system prompts', ('role:system',)),
        ("'foo' is not one of ['system', 'assistant', 'user', 'function'] - 'messages.0.role'", ()),
        ('Unexpected message role.', ('role:system',)),
        ('Rate limit exceeded', ()),
        ('The temperature is too high: the value is not supported, max_tokens fine', ()),
        ('temperature 1.5 is not supported, it must be at most 1', ()),
        ('Argument not supported on this model: temperature', ('temperature',)),
        ('temperature not supported', ('temperature',)),
        ("This model doesn't support temperature, please remove it", ('temperature',)),
        ('Model gpt-5 only supports temperature = 1', ('temperature',)),
        ('Model gpt-5 only supports temperature of 1.0', ('temperature',)),
        ("Only the default value of 'temperature' is accepted", ('temperature',)),
        ('The model `o3` has no parameter `temperature`', ('temperature',)),
        ('`temperature` cannot be set for reasoning models', ('temperature',)),
        ('temperature is ignored and must not be passed', ('temperature',)),
        ('The requested operation is unsupported: temperature', ('temperature',)),
        ("O-series models don't support temperature=0.0. Only temperature=1 is supported. To drop unsupported openai params from the call, set `litellm.drop_params = True`", ("temperature",)),
        ("Extra parameters ['temperature'] are not allowed when extra-parameters is not set or set to be 'error'. Set extra-parameters to 'pass-through' to pass to the model.", ("temperature",)),
        ("invalid params, chat content has invalid message role: system (2013)", ("role:system",)),
        ("Unknown role: system", ("role:system",)),
        ("Invalid option: expected one of \"user\"|\"assistant\" at \"params.messages[0].role\"", ("role:system",)),
        ("role 'system' is not supported on this model", ("role:system",)),
        ({"errors": [{"loc": ["body", "messages", 1, "role"], "msg": "Input should be 'user' or 'assistant'", "type": "literal_error"}]}, ("role:system",)),
        ("chat template rejected the request: Unexpected message role.", ("role:system",)),
        ("message[0].role cannot be system", ("role:system",)),
        ("System messages are not allowed for this model", ("role:system",)),
        ("This model only accepts user and assistant messages", ("role:system",)),
        ("The model `o1` supports neither temperature nor top_p", ("temperature",)),
        ("Parameter temperature is not available for this model", ("temperature",)),
        ("ValidationException: The model returned the following errors: temperature: this field is no longer accepted", ("temperature",)),
        ("request body has unknown key: temperature", ("temperature",)),
        ("Value error, temperature is unsupported", ("temperature",)),
        ("temperature must be 1 for this model", ("temperature",)),
        ("temperature must be 1 or less", ()),
        ("temperature should be in [0, 2]", ()),
        ("temperature is not a number", ()),
        ("the key is not allowed to sample from model m", ()),
    ],
)  # fmt: skip
def test_what_a_plain_request_is_refused_for_is_found_in_any_wording(told: object, expected: tuple[str, ...]) -> None:
    assert refused({"error": {"message": told}} if isinstance(told, str) else told, BODY) == expected


@pytest.mark.parametrize(
    ("told", "sent", "expected"),
    [
        ('Developer instruction is not enabled for models/gemma-3-27b-it', DEVELOPER, ('role:developer',)),
        ("'developer' is not one of ['system', 'assistant', 'user', 'function'] - 'messages.0.role'", DEVELOPER, ('role:developer',)),
        ('unknown variant `developer`, expected one of `system`, `user`, `assistant`, `tool` at line 1', DEVELOPER, ('role:developer',)),
        ('system: Extra inputs are not permitted', ANTHROPIC, ('role:system',)),
        ("Invalid schema for response_format 'x': In context=(), 'additionalProperties' is required to be supplied and to be false.", {**BODY, "response_format": SCHEMA}, ()),
        ('`temperature` and `top_p` cannot both be specified for this model. Please use only one.', {**BODY, "top_p": 0.5}, ('temperature+top_p',)),
        ('Unsupported parameters: `temperature`, `top_p`', {**BODY, "top_p": 0.5}, ('temperature', 'top_p')),
        ("Unknown parameter: 'tools[0].function.strict'.", {**BODY, "tools": [{"function": {"strict": True}}]}, ('tools.function.strict',)),
        ('stream_options is not supported', {**BODY, "stream_options": {"include_usage": True}}, ('stream_options',)),
        ("Unsupported value: 'reasoning_effort' does not support 'none' with this model. Supported values are: 'low', 'medium', and 'high'.", {**BODY, "reasoning_effort": "none"}, ()),
        ('registry.ollama.ai/library/gemma:2b does not support tools', {**BODY, "tools": []}, ('tools',)),
        ('Please stop sending requests; user is not allowed to use this model', {**BODY, "stop": ["x"], "user": "u"}, ()),
        ('No endpoints found that support tool use', {**BODY, "tools": []}, ()),
        ("Azure OpenAI does not support reasoning_effort='none' for this model. Supported values are: 'low', 'medium', and 'high'.", {**BODY, "reasoning_effort": "none"}, ()),
        ("chat template rejected the request: Unexpected message role.", DEVELOPER, ("role:developer",)),
        ("The `developer` role is not supported", DEVELOPER, ("role:developer",)),
        ("reasoning_effort is not supported with this model", {**BODY, "reasoning_effort": "low"}, ("reasoning_effort",)),
        ("'seed' is not supported", {**BODY, "seed": 1}, ("seed",)),
        ("Unknown parameter: 'verbosity'.", {**BODY, "verbosity": "low"}, ("verbosity",)),
        ("thinking: Extra inputs are not permitted", {**ANTHROPIC, "thinking": {"type": "enabled"}}, ("thinking",)),
        ("output_config.effort: Extra inputs are not permitted", {**ANTHROPIC, "output_config": {"effort": "low", "format": {}}}, ("output_config.effort",)),
        ("parallel_tool_calls is only allowed when tools are specified", {**BODY, "parallel_tool_calls": False}, ()),
    ],
)  # fmt: skip
def test_only_what_that_very_request_carried_is_refused(
    told: str, sent: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert refused({"error": {"message": told}}, sent) == expected


def test_a_refusal_inside_a_proxys_string_of_json_is_found() -> None:
    inner = json.dumps({"error": {"message": "Unsupported parameter: 'temperature'", "param": None}})
    assert refused(
        {"error": {"message": f"litellm.BadRequestError: OpenAIException - {inner}", "code": "400"}}, BODY
    ) == ("temperature",)


def test_what_a_server_quotes_of_the_request_refuses_nothing() -> None:
    echo = {
        "detail": [
            {"msg": "field required", "loc": ["body", "model"], "input": {"messages": "'temperature' is not supported"}}
        ]
    }
    assert refused(echo, BODY) == ()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=40)
    | st.sampled_from(["temperature", "not supported", "system role"]),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.sampled_from(["error", "message", "param", "loc", "detail"]), inside, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200), JSON)
def test_any_body_gives_names_of_what_was_sent_or_nothing(raw: bytes, extra: object) -> None:
    sent = {**BODY, "extra": extra}
    found = refused_in(read_words(raw), sent)
    names = {name.split(".")[0] for part in found for name in part.split("+")}
    assert names <= sent.keys() | {"role:system"}
