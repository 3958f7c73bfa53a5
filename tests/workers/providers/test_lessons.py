"""What adapters do about refused parameters: learnt for the call that carried them, never asked for in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fleet.config import ProviderSettings
from fleet.conversation import Message
from fleet.errors import BadRequest, ContextTooLong, FleetError, Relearnt
from fleet.lessons import PROBE_AFTER_S, Notebook
from fleet.workers.calls import CONTEXT_FULL, Call, Completion, Wishes
from fleet.workers.providers import make_provider
from fleet.workers.providers.base import HttpProvider
from fleet.workers.providers.taught.student import asked_of, shaped
from tests.every import every
from tests.workers.providers.raw_server import KEY, call, raw_server, response
from tests.workers.providers.test_wire import ANSWERS, KINDS

EXTRA = {
    "type": "extra_forbidden",
    "loc": ["body", "temperature"],
    "msg": "Extra inputs are not permitted",
    "input": 0.7,
}
UNKNOWN = {"error": {"code": 400, "message": 'Unknown name "temperature": Cannot find field.'}}
PROXIED = "upstream said - 'temperature' is a parameter that this model does not support."
AT_ROLE = "Unsupported value: 'messages[0].role' does not support 'system' with this model."


def refusal(message: str, *, status: int = 400, **more: object) -> bytes:
    return response(
        {"error": {"message": message, "type": "invalid_request_error", "param": None, **more}}, status=status
    )


NO_TEMPERATURE = refusal("`temperature` is deprecated for this model.")


def talk(
    *answers: bytes,
    calls: Sequence[Call],
    kind: str = "openai",
    notebook: Notebook | None = None,
    at_once: bool = False,
) -> tuple[list[Completion | BaseException], list[dict[str, Any]]]:
    """Send calls to a server with these answers, in turn or at once; return what came of them, and its bodies."""

    async def main() -> tuple[list[Completion | BaseException], list[dict[str, Any]]]:
        async with raw_server(*answers) as server:
            settings = ProviderSettings.model_validate({"kind": kind})
            made = make_provider(settings, base_url=server.url, name="api", lessons=notebook)
            assert isinstance(made, HttpProvider)
            try:
                sent = [made.complete(each, api_key=KEY) for each in calls]
                if at_once:
                    return await asyncio.gather(*sent, return_exceptions=True), server.bodies
                return [(await asyncio.gather(each, return_exceptions=True))[0] for each in sent], server.bodies
            finally:
                await made.close()

    return asyncio.run(main())


def ok(kind: str = "openai") -> bytes:
    return response(ANSWERS[kind])


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("openai", refusal("Unsupported: 'temperature' does not support 0.7 here.", param="temperature")),
        ("openai", response({"detail": [EXTRA]}, status=422)),
        ("openai", response([UNKNOWN], status=400)),
        ("openai", refusal(PROXIED, status=500, code="500")),
        ("anthropic", refusal("`temperature` is deprecated for this model.")),
    ],
)  # fmt: skip
def test_a_model_that_refuses_the_temperature_gets_none_from_the_next_call_on(kind: str, refused: bytes) -> None:
    came, bodies = talk(refused, ok(kind), calls=[call(), call(), call(model="another")], kind=kind)
    assert isinstance(came[0], Relearnt)
    assert isinstance(came[1], Completion)
    assert came[1].left_out == ("temperature",)
    assert ["temperature" in body for body in bodies] == [True, False, True]


def test_every_call_in_flight_with_what_is_refused_is_told_to_be_repeated() -> None:
    came, bodies = talk(NO_TEMPERATURE, calls=[call()] * 20, at_once=True)
    assert [type(error) for error in came] == [Relearnt] * 20
    assert every("temperature" in body for body in bodies)


def test_a_call_that_did_not_carry_what_is_refused_is_not_repeated() -> None:
    came, _ = talk(NO_TEMPERATURE, calls=[call(), call(), replace(call(), temperature=None)])
    assert [type(error) for error in came] == [Relearnt, BadRequest, BadRequest]


def test_a_value_out_of_range_is_no_refusal_of_its_field() -> None:
    came, bodies = talk(
        refusal("temperature: 0.7 is larger than the maximum of 0.5", param="temperature"), calls=[call()] * 2
    )
    assert [type(error) for error in came] == [BadRequest] * 2
    assert every("temperature" in body for body in bodies)


@pytest.mark.parametrize(("first", "second"), [("max_tokens", "max_completion_tokens")])
def test_the_limit_of_an_answer_is_renamed_and_never_dropped(first: str, second: str) -> None:
    refused = refusal(f"Unsupported parameter: '{first}' is not supported with this model. Use '{second}' instead.")
    came, bodies = talk(refused, ok(), calls=[call()] * 2)
    assert isinstance(came[1], Completion)
    assert [(body.get(first), body.get(second)) for body in bodies] == [(100, None), (None, 100)]


def test_a_model_that_takes_neither_name_of_the_limit_is_a_bad_request() -> None:
    names = [refusal(f"Unrecognized request argument supplied: {n}") for n in ("max_tokens", "max_completion_tokens")]
    came, bodies = talk(*names, calls=[call()] * 2)
    assert [type(error) for error in came] == [Relearnt, BadRequest]
    assert [len({"max_tokens", "max_completion_tokens"} & body.keys()) for body in bodies] == [1, 1]


@pytest.mark.parametrize(
    "words",
    [
        {"object": "error", "message": "the system role is not supported", "param": None, "code": 400},
        {"error": "Template error: System role not supported (in <string>:1)", "error_type": "template_error"},
        {"error": {"message": AT_ROLE, "param": "messages[0].role"}},
    ],
)  # fmt: skip
def test_a_system_prompt_that_is_refused_stands_before_the_first_users_turn(words: dict[str, Any]) -> None:
    came, bodies = talk(response(words, status=400), ok(), calls=[call(), call()])
    assert isinstance(came[0], Relearnt)
    assert isinstance(came[1], Completion)
    assert bodies[1]["messages"] == [{"role": "user", "content": "You are an analytical bot.\n\nWhat is 2+2?"}]


def test_the_system_text_of_the_other_wire_is_folded_too() -> None:
    _, bodies = talk(
        refusal("system: Extra inputs are not permitted"), ok("anthropic"), calls=[call()] * 2, kind="anthropic"
    )
    assert "system" not in bodies[1]
    assert bodies[1]["messages"][0]["content"] == "You are an analytical bot.\n\nWhat is 2+2?"


def test_folding_keeps_parts_and_a_conversation_that_begins_with_the_assistant() -> None:
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]
    body = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]}
    folded = shaped(body, {"role:system"}).body
    assert folded["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Be brief."}, *parts]}]
    body = {"messages": [{"role": "assistant", "content": "Hello"}, {"role": "system", "content": "Be brief."}]}
    folded = shaped(body, {"role:system"}).body
    assert [turn["role"] for turn in folded["messages"]] == ["user", "assistant"]


def test_a_developer_message_that_is_refused_becomes_a_system_message() -> None:
    asked = replace(
        call(), messages=(Message(role="developer", content="Be brief."), Message(role="user", content="Hi"))
    )
    refused = refusal("unknown variant `developer`, expected one of `system`, `user`, `assistant`, `tool`")
    came, bodies = talk(refused, ok(), calls=[asked] * 2)
    assert isinstance(came[1], Completion)
    assert [turn["role"] for turn in bodies[1]["messages"]] == ["system", "user"]


def test_what_a_task_asked_for_is_a_bad_request_that_names_it() -> None:
    asked = replace(call(), wishes=Wishes(asked=frozenset({"temperature"})))
    came, bodies = talk(NO_TEMPERATURE, calls=[asked] * 2)
    assert [type(error) for error in came] == [BadRequest] * 2
    assert "refuses 'temperature'" in str(came[0])
    assert every("temperature" in body for body in bodies)  # the provider says no itself, each time


def test_with_drop_params_what_a_task_asked_for_is_left_out_and_listed() -> None:
    asked = replace(call(), wishes=Wishes(asked=frozenset({"temperature"}), drop_params=True))
    came, bodies = talk(NO_TEMPERATURE, ok(), calls=[asked] * 2)
    assert isinstance(came[0], Relearnt)
    assert isinstance(came[1], Completion)
    assert came[1].left_out == ("temperature",)
    assert "temperature" not in bodies[1]


def test_of_two_fields_that_exclude_each_other_fleets_own_goes() -> None:
    body = {"temperature": 0.5, "top_p": 0.9, "model": "m"}
    pair = {"temperature+top_p"}
    both = frozenset({"temperature", "top_p"})
    assert "temperature" not in shaped(body, pair, Wishes(asked=frozenset({"top_p"}))).body
    assert "top_p" not in shaped(body, pair).body
    assert shaped(body, pair, Wishes(asked=both)).body == body
    assert shaped(body, pair, Wishes(asked=both, drop_params=True)).left_out == ("top_p",)


def test_a_field_inside_an_object_goes_alone() -> None:
    body = {"tools": [{"function": {"name": "a", "strict": True}}], "stream_options": {"include_usage": True}}
    left = shaped(body, {"tools.function.strict", "stream_options.include_usage"})
    assert left.body == {"tools": [{"function": {"name": "a"}}]}
    assert left.left_out == ("stream_options.include_usage", "tools.function.strict")
    assert body["tools"] == [{"function": {"name": "a", "strict": True}}]  # the one given stays as it was


def test_after_a_day_one_call_tries_again_and_what_is_taken_is_forgotten() -> None:
    now = [0.0]
    notebook = Notebook(lambda: now[0])
    notebook.learn("api/simulated-1", "temperature")
    now[0] = PROBE_AFTER_S
    assert [lesson.what for lesson in notebook.due()] == ["temperature"]
    notebook.let_probe({("api/simulated-1", "temperature")})
    _, bodies = talk(ok(), calls=[replace(call(), temperature=None), call(), call()], notebook=notebook)
    assert ["temperature" in body for body in bodies] == [False, True, True]
    assert notebook.refused("api/simulated-1") == frozenset()


def test_a_probe_that_is_refused_again_holds_for_another_day() -> None:
    now = [0.0]
    notebook = Notebook(lambda: now[0])
    notebook.learn("api/simulated-1", "temperature")
    now[0] = PROBE_AFTER_S
    notebook.let_probe({("api/simulated-1", "temperature")})
    came, bodies = talk(NO_TEMPERATURE, ok(), calls=[call()] * 2, notebook=notebook)
    assert isinstance(came[0], Relearnt)
    assert isinstance(came[1], Completion)
    assert ["temperature" in body for body in bodies] == [True, False]
    assert notebook.due() == []


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_prompt_that_is_too_long_says_what_fits(status: int) -> None:
    words = "maximum context length of this model is 2048 tokens, 2723 were requested"
    came, _ = talk(response({"object": "error", "message": words, "code": status}, status=status), calls=[call()])
    assert isinstance(came[0], ContextTooLong)
    assert came[0].window_tokens == 2048
    assert came[0].true_input_tokens in (2623, 2723)


@KINDS
def test_an_answer_without_a_text_because_the_context_is_full_says_so(kind: str) -> None:
    reason = "model_context_window_exceeded"
    empty: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": ""}, "finish_reason": reason}]}
    if kind == "anthropic":
        empty = {"type": "message", "content": [], "stop_reason": reason}
    came, _ = talk(response(empty), calls=[call()], kind=kind)
    assert isinstance(came[0], Completion)
    assert came[0].finish_reason == CONTEXT_FULL


def test_no_refusal_shows_the_key_or_the_prompt() -> None:
    secret = f"'temperature' is not supported; {KEY} asked: tell me of the grand plan of my company"
    came, _ = talk(refusal(secret), calls=[call("tell me of the grand plan of my company")])
    assert isinstance(came[0], FleetError)
    assert KEY not in str(came[0])
    assert "grand plan" not in str(came[0])


def test_what_is_left_out_goes_by_fleets_own_names() -> None:
    wishes = Wishes(effort="high", asked=frozenset({"effort"}), drop_params=True)
    body = {"reasoning_effort": "high", "output_config": {"effort": "high", "format": {}}, "service_tier": "flex"}
    refused = {"reasoning_effort", "output_config.effort", "service_tier"}
    left = shaped(body, refused, wishes)
    assert left.body == {"output_config": {"format": {}}}
    assert set(left.left_out) == {"effort", "tier"}
    assert asked_of(left.left_out, wishes) == ["effort", "effort"]
    assert "reasoning_effort" in shaped(body, refused, replace(wishes, drop_params=False)).body


def test_a_tasks_own_further_field_that_is_refused_is_named() -> None:
    wishes = Wishes(extra_body={"guided_regex": "a+"}, asked=frozenset({"extra_body"}))
    asked = replace(call(), wishes=wishes)
    came, _ = talk(refusal("guided_regex: Extra inputs are not permitted"), calls=[asked])
    assert isinstance(came[0], BadRequest)
    assert "refuses 'guided_regex'" in str(came[0])
    came, bodies = talk(
        refusal("guided_regex: Extra inputs are not permitted"), ok(),
        calls=[replace(call(), wishes=replace(wishes, asked=frozenset()))] * 2,
    )  # fmt: skip
    assert isinstance(came[1], Completion)
    assert came[1].left_out == ("guided_regex",)
    assert "guided_regex" not in bodies[1]
