"""Streamed answers over real HTTP: pieces, the whole, its usage; and what comes instead."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from fleet.conversation import Tool
from fleet.errors import BadRequest, FleetError, KeyRejected, ProviderUnavailable, RateLimited, Relearnt
from fleet.workers.calls import Call, Completion, Delta, Wishes
from tests.every import every
from tests.workers.providers.raw_server import KEY, RawServer, call, provider, raw_server, response
from tests.workers.simulator.running import running


def chunk(content: str | None = None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice], **more}


OPENAI: list[Any] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
    chunk("fo"),
    chunk("ur"),
    chunk(finish="stop"),
    {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}, "service_tier": "flex"},
    "[DONE]",
]
ANTHROPIC: list[Any] = [
    {"type": "message_start", "message": {"type": "message", "role": "assistant", "content": [], "stop_reason": None,
     "usage": {"input_tokens": 5, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "fo"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ur"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]  # fmt: skip
STREAMS = {"openai": OPENAI, "anthropic": ANTHROPIC}


def events(said: list[Any]) -> bytes:
    return "".join(f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in said).encode()


def streamed(said: list[Any], *, missing: int = 0) -> bytes:
    """An HTTP response with these events; `missing` bytes more are announced than come."""
    raw = events(said)
    return response(raw, headers={"Content-Type": "text/event-stream"}, length=len(raw) + missing)


def ask(kind: str, answer: bytes) -> tuple[list[Delta | Completion], FleetError | None, RawServer]:
    """Stream one call; give what came, the error at its end, and what the server saw: one request."""

    async def main() -> tuple[list[Delta | Completion], FleetError | None, RawServer]:
        came: list[Delta | Completion] = []
        failure = None
        async with raw_server(answer) as server, provider(server.url, kind) as adapter:
            try:
                async with aclosing(adapter.stream(call(), api_key=KEY)) as pieces:
                    async for piece in pieces:
                        came.append(piece)
            except FleetError as error:
                failure = error
        assert len(server.heads) == 1
        return came, failure, server

    return asyncio.run(main())


def text_of(came: list[Delta | Completion]) -> str:
    return "".join(piece.text for piece in came if isinstance(piece, Delta))


@pytest.mark.parametrize("kind", STREAMS)
def test_an_answer_comes_in_pieces_and_whole_with_the_usage_of_its_last_event(kind: str):
    came, failure, server = ask(kind, streamed(STREAMS[kind]))
    assert failure is None and server.bodies[0]["stream"] is True
    assert ("stream_options" in server.bodies[0]) == (kind == "openai")
    whole = came[-1]
    assert isinstance(whole, Completion)
    assert text_of(came) == whole.text == "four"
    assert "".join(piece.reasoning for piece in came[:-1]) == whole.reasoning == "hm"
    assert (whole.finish_reason, whole.usage.input_tokens, whole.usage.output_tokens) == ("stop", 12, 3)


def test_what_the_provider_tells_at_the_beginning_is_known_at_once():
    came, *_ = ask("anthropic", streamed(ANTHROPIC[:8]))
    told = [piece.usage for piece in came if piece.usage is not None]
    assert [(usage.input_tokens, usage.output_tokens) for usage in told] == [(12, 1)]


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_without_an_end_is_an_answer_that_broke_off(kind: str):
    for missing in (0, 10):
        came, failure, _ = ask(
            kind, streamed(STREAMS[kind][:4] if kind == "openai" else ANTHROPIC[:9], missing=missing)
        )
        assert text_of(came) == "four" and isinstance(failure, ProviderUnavailable) and failure.sent
        assert every(not isinstance(piece, Completion) for piece in came)


def test_an_answer_whose_last_words_came_is_whole_though_its_usage_was_lost():
    came, failure, _ = ask("openai", streamed(OPENAI[:5], missing=10))
    assert failure is None and isinstance(came[-1], Completion) and came[-1].usage.input_tokens > 0


def test_a_server_that_does_not_stream_is_believed():
    body = {"choices": [{"message": {"content": "four"}, "finish_reason": "stop"}], "usage": None}
    came, failure, _ = ask("openai", response(body, headers={"Content-Type": "application/json; charset=utf-8"}))
    assert failure is None and [piece.text for piece in came] == ["four"]


def of_tools(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"tool_calls": list(calls)}}]}


def piece(name: str | None = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {**more, "function": {field: value for field, value in function.items() if value is not None}}


ROME, OSLO = '{"place": "Rome"}', '{"place": "Oslo"}'
BOTH = [("c1", "temperature", ROME), ("c2", "temperature", OSLO)]


def begun(index: int | None, **block: Any) -> dict[str, Any]:
    where = {} if index is None else {"index": index}
    return {"type": "content_block_start", **where, "content_block": {"type": "tool_use", "input": {}, **block}}


def said(index: int | None, text: str) -> dict[str, Any]:
    where = {} if index is None else {"index": index}
    return {"type": "content_block_delta", **where, "delta": {"type": "input_json_delta", "partial_json": text}}


#: Parallel calls of tools as servers tell them in pieces, in order and out of it.
TOOL_STREAMS: dict[str, tuple[str, list[Any]]] = {
    "as OpenAI does": ("openai", [
        of_tools(piece("temperature", "", index=0, id="c1", type="function")), of_tools(piece(None, '{"pla', index=0)),
        of_tools(piece(None, 'ce": "Rome"}', index=0)), of_tools(piece("temperature", "", index=1, id="c2")),
        of_tools(piece(None, OSLO, index=1)),
    ]),
    "side by side, the second first": ("openai", [
        of_tools(piece("temperature", '{"place"', index=1, id="c2"), piece("temperature", '{"pla', index=0, id="c1")),
        of_tools(piece(None, 'ce": "Rome"}', index=0), piece(None, ': "Oslo"}', index=1)),
    ]),
    "each whole, all numbered 0": ("openai", [
        of_tools(piece("temperature", ROME, index=0, id="c1")), of_tools(piece("temperature", OSLO, index=0, id="c2")),
    ]),
    "all numbered 0, in pieces": ("openai", [
        of_tools(piece("temperature", ROME, index=0, id="c1")), of_tools(piece("temperature", "", index=0, id="c2")),
        of_tools(piece(None, '{"place": ', index=0)), of_tools(piece(None, '"Oslo"}', index=0)),
    ]),
    "without numbers": ("openai", [
        of_tools(piece("temperature", ROME, id="c1")), of_tools(piece("temperature", '{"pla', id="c2")),
        of_tools(piece(None, 'ce": "Oslo"}')),
    ]),
    "objects, not texts": ("openai", [
        of_tools(piece("temperature", {"place": "Rome"}, id="c1"), piece("temperature", {"place": "Oslo"}, id="c2")),
    ]),
    "names and ids again with every piece": ("openai", [
        of_tools(piece("temperature", '{"place": ', index=0, id="c1")),
        of_tools(piece("temperature", '"Rome"}', index=0, id="c1")),
        of_tools(piece("temperature", OSLO, index=1, id="c2")),
    ]),
    "a new id with every piece": ("openai", [
        of_tools(piece("temperature", "", index=0, id="c1")), of_tools(piece(None, ROME, index=0, id="x7")),
        of_tools(piece("temperature", "", index=1, id="c2")), of_tools(piece(None, OSLO, index=1, id="x8")),
    ]),
    "all in one message at the end": ("openai", [
        {"choices": [{"index": 0, "message": {"content": None, "tool_calls": [
            piece("temperature", ROME, id="c1"), piece("temperature", OSLO, id="c2")]}}]},
    ]),
    "as Anthropic does": ("anthropic", [
        begun(0, id="c1", name="temperature"), said(0, '{"place": '), said(0, '"Rome"}'),
        {"type": "content_block_stop", "index": 0}, begun(1, id="c2", name="temperature"), said(1, OSLO),
    ]),
    "blocks side by side": ("anthropic", [
        begun(0, id="c1", name="temperature"), begun(1, id="c2", name="temperature"), said(1, '{"place": '),
        said(0, '{"place": "Ro'), said(1, '"Oslo"}'), said(0, 'me"}'),
    ]),
    "the second block first": ("anthropic", [
        begun(1, id="c2", name="temperature"), said(1, OSLO), begun(0, id="c1", name="temperature"), said(0, ROME),
    ]),
    "blocks without numbers": ("anthropic", [
        begun(None, id="c1", name="temperature"), said(None, ROME), begun(None, id="c2", name="temperature"),
        said(None, OSLO),
    ]),
    "blocks all numbered 0": ("anthropic", [
        begun(0, id="c1", name="temperature"), said(0, ROME), begun(0, id="c2", name="temperature"), said(0, OSLO),
    ]),
    "whole at their begin": ("anthropic", [
        begun(0, id="c1", name="temperature", input={"place": "Rome"}),
        begun(1, id="c2", name="temperature", input={"place": "Oslo"}),
    ]),
}  # fmt: skip
#: What begins and ends such a stream.
FRAMES: dict[str, tuple[list[Any], list[Any]]] = {
    "openai": ([chunk("")], [chunk(finish="tool_calls"), *OPENAI[-2:]]),
    "anthropic": (
        ANTHROPIC[:1],
        [{"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}}, ANTHROPIC[-1]],
    ),
}


@pytest.mark.parametrize("name", TOOL_STREAMS)
@pytest.mark.parametrize("asked", [True, False])
def test_parallel_calls_of_tools_are_put_together_from_their_pieces_in_whatever_order(name: str, asked: bool):
    """Also where nobody has asked for a stream: some servers always send one."""
    kind, pieces = TOOL_STREAMS[name]
    before, after = FRAMES[kind]
    answer = streamed([*before, *pieces, *after])
    if asked:
        came, failure, _ = ask(kind, answer)
        assert failure is None and text_of(came) == ""
        whole = came[-1]
    else:
        whole = complete(kind, answer)
    assert isinstance(whole, Completion)
    calls = [(one.id, one.name, json.loads(one.arguments)) for one in whole.tool_calls]
    assert calls == [(called, tool, json.loads(arguments)) for called, tool, arguments in BOTH]
    assert (whole.finish_reason, whole.text, whole.usage.output_tokens) == ("tool_calls", "", 3)


def complete(kind: str, answer: bytes, request: Call | None = None) -> Completion:
    """Return the answer to a call that asks for no stream."""

    async def main() -> Completion:
        async with raw_server(answer) as server, provider(server.url, kind) as adapter:
            found = await adapter.complete(request or call(), api_key=KEY)
            assert "stream" not in server.bodies[0]
            return found

    return asyncio.run(main())


def test_what_a_provider_adds_to_a_call_and_arguments_that_are_no_json_come_as_they_were_made():
    signed = {"google": {"thought_signature": "s"}}
    pieces = of_tools(piece("temperature", "{", index=0, id="c1", extra_content=signed))
    came, _, _ = ask("openai", streamed([pieces, chunk(finish="tool_calls"), "[DONE]"]))
    assert isinstance(came[-1], Completion)
    assert [(one.arguments, one.extra_content) for one in came[-1].tool_calls] == [("{", signed)]
    cut = [*ANTHROPIC[:1], begun(0, id="c1", name="temperature"), said(0, '{"place'), *FRAMES["anthropic"][1]]
    came, _, _ = ask("anthropic", streamed(cut))
    assert isinstance(came[-1], Completion) and [one.arguments for one in came[-1].tool_calls] == ['{"place']


def test_the_old_form_of_a_call_and_the_other_answers_come_in_streams_too():
    legacy = [{"choices": [{"index": 0, "delta": {"function_call": piece}}]}
              for piece in ({"name": "temperature", "arguments": ""}, {"arguments": ROME})]  # fmt: skip
    came, _, _ = ask("openai", streamed([*legacy, chunk(finish="function_call"), "[DONE]"]))
    assert isinstance(came[-1], Completion) and came[-1].tool_calls[0].arguments == ROME
    # fmt: off
    two = [{"choices": [{"index": index, "delta": {"content": text}, "finish_reason": reason}]}
           for index, text, reason in ((1, "fi", None), (0, "four", None), (1, "ve", "stop"), (0, "", "stop"))]
    # fmt: on
    whole = complete("openai", streamed([*two, "[DONE]"]), replace(call(), wishes=Wishes(n=2)))
    assert (whole.text, whole.others) == ("four", ("five",))


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_that_nobody_asked_for_is_read(kind: str):
    for headers in ({"Content-Type": "text/event-stream"}, {"Content-Type": "application/json"}, {}):
        whole = complete(kind, response(events(STREAMS[kind]), headers=headers))
        assert (whole.text, whole.reasoning, whole.finish_reason) == ("four", "hm", "stop")
        assert (whole.usage.input_tokens, whole.usage.output_tokens) == (12, 3)
    with pytest.raises(ProviderUnavailable):  # half an answer is none
        complete(kind, streamed(STREAMS[kind][:4]))


@pytest.mark.parametrize("kind", STREAMS)
def test_an_answer_in_one_piece_where_a_stream_was_asked_for_is_read_whatever_type_it_says(kind: str):
    body = {
        "openai": {"choices": [{"message": {"content": "four"}, "finish_reason": "stop"}], "usage": None},
        "anthropic": {"type": "message", "content": [{"type": "text", "text": "four"}], "stop_reason": "end_turn"},
    }[kind]
    for answer in (response(body, headers={"Content-Type": "text/plain"}), response(body), streamed([body])):
        came, failure, _ = ask(kind, answer)
        assert failure is None and isinstance(came[-1], Completion) and came[-1].text == "four"


@pytest.mark.parametrize(
    "words",
    [
        {"error": {"message": "Unknown parameter: 'stream_options'.", "param": "stream_options"}},
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra input"}]},
        {"message": "Unrecognized request argument supplied: stream_options"},
        {"error": {"message": "upstream said: stream_options.include_usage is not supported"}},
    ],
)
def test_a_server_that_refuses_stream_options_streams_without_and_its_usage_is_called_an_estimate(words: Any):
    async def main() -> tuple[list[Delta | Completion], list[dict[str, Any]]]:
        came: list[Delta | Completion] = []
        good = streamed([*OPENAI[:5], "[DONE]"])
        async with raw_server(response(words, status=400), good) as server, provider(server.url) as adapter:
            for _ in range(2):
                with contextlib.suppress(Relearnt):
                    async with aclosing(adapter.stream(call(), api_key=KEY)) as pieces:
                        came += [one async for one in pieces]
            return came, server.bodies

    came, bodies = asyncio.run(main())
    assert [body.get("stream_options", {}).get("include_usage") for body in bodies] == [True, None]
    assert bodies[1]["stream"] is True and text_of(came) == "four"
    whole = came[-1]
    assert isinstance(whole, Completion) and whole.left_out and whole.left_out[0].startswith("stream_options")
    assert whole.usage.estimated_calls == 1 and whole.usage.output_tokens > 0


@pytest.mark.parametrize("kind", STREAMS)
def test_the_simulators_calls_of_tools_are_the_same_in_a_stream_and_in_one_piece(kind: str):
    place = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
    tools = tuple(Tool(name=name, parameters=place) for name in ("temperature", "rain"))
    request = replace(call("How warm is Rome, and does it rain?", max_output_tokens=500),
                      wishes=Wishes(tools=tools, tool_choice="required"))  # fmt: skip

    async def main(url: str) -> list[Completion]:
        async with provider(url, kind) as adapter, aclosing(adapter.stream(request, api_key=KEY)) as pieces:
            came = [one async for one in pieces]
            last = came[-1]
            assert isinstance(last, Completion)
            return [last, await adapter.complete(request, api_key=KEY)]

    with running() as url:
        stream, whole = asyncio.run(main(url))
    assert stream.tool_calls and stream.finish_reason == whole.finish_reason == "tool_calls"
    for one in (*stream.tool_calls, *whole.tool_calls):
        assert one.id and one.name in ("temperature", "rain") and json.loads(one.arguments).keys() == {"place"}
    assert stream.usage.input_tokens == whole.usage.input_tokens and not stream.usage.estimated_calls


ERRORS: dict[str, tuple[str, Any, type[FleetError]]] = {
    "a code": ("openai", {"error": {"message": "slow down", "code": 429}}, RateLimited),
    "a code as text": ("openai", {"error": {"message": "bad gateway", "code": "502"}}, ProviderUnavailable),
    "no code": ("openai", {"error": {"message": "oops"}}, ProviderUnavailable),
    "no money": ("openai", {"error": {"message": "x", "code": "insufficient_quota"}}, KeyRejected),
    "a type": ("openai", {"error": {"message": "bad", "type": "invalid_request_error"}}, BadRequest),
    "a status by name": ("openai", {"error": {"message": "x", "status": "RESOURCE_EXHAUSTED"}}, RateLimited),
    "overloaded": ("anthropic", {"type": "error", "error": {"type": "overloaded_error"}}, ProviderUnavailable),
    "too many": ("anthropic", {"type": "error", "error": {"type": "rate_limit_error"}}, RateLimited),
    "no JSON": ("openai", "<html>", ProviderUnavailable),
    "nothing but a detail": ("openai", {"detail": "slow down", "status": 429}, RateLimited),
    "an error in the choice": ("openai", chunk("x", error={"code": 502, "message": "upstream"}), ProviderUnavailable),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("before", [0, 4])
def test_an_error_within_a_stream_is_one_like_any_other(name: str, before: int):
    kind, event, expected = ERRORS[name]
    _, failure, _ = ask(kind, streamed([*STREAMS[kind][:before], event]))
    assert isinstance(failure, expected)


@pytest.mark.parametrize(("status", "expected"), [(429, RateLimited), (401, KeyRejected), (503, ProviderUnavailable)])
def test_a_status_before_the_stream_is_an_error_like_any_other(status: int, expected: type[FleetError]):
    came, failure, _ = ask("openai", response({"error": {"message": "no"}}, status=status))
    assert came == [] and type(failure) is expected


def test_leaving_a_stream_closes_the_connection():
    async def main() -> None:
        async with raw_server(None) as server, provider(server.url) as adapter:
            pieces = adapter.stream(call(), api_key=KEY)
            first = asyncio.ensure_future(anext(pieces))
            while not server.heads:
                await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.wait([first])
            await pieces.aclose()
            await asyncio.wait_for(server.left.wait(), 5)

    asyncio.run(main())
