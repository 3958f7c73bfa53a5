"""Answers in pieces through pydantic-ai's models: one request, the usage of the last event, and what a cut costs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest

from fleet.errors import FleetError, KeySpent, ProviderUnavailable, RateLimited, Relearnt
from fleet.workers.calls import Completion, Delta
from fleet.workers.ports import StreamingProvider
from tests.every import every
from tests.workers.providers.models.test_requests import ANTHROPIC, CHAT, GOOGLE, RESPONSES, call
from tests.workers.providers.models.vendors import ENVIRONMENT, GOOD, PIECES, models, streamed
from tests.workers.providers.raw_server import KEY, RawServer, raw_server, response

Came = list[Delta | Completion]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return


def ask(model: str, *answers: bytes) -> tuple[list[tuple[Came, FleetError | None]], RawServer]:
    """Stream one call for each answer; give what came and the error at the end of each, and what the server saw."""

    async def main() -> tuple[list[tuple[Came, FleetError | None]], RawServer]:
        found: list[tuple[Came, FleetError | None]] = []
        async with raw_server(*answers) as server, models(server.url) as adapter:
            assert isinstance(adapter, StreamingProvider)
            for _ in answers:
                came: Came = []
                failure = None
                try:
                    async with aclosing(adapter.stream(call(model=model), api_key=KEY)) as pieces:
                        async for piece in pieces:
                            came.append(piece)
                except FleetError as error:
                    failure = error
                found.append((came, failure))
        return found, server

    return asyncio.run(main())


def vendor(model: str) -> str:
    return model.partition(":")[0]


def begun(model: str) -> list[Any]:
    """Return the events of an answer up to its first piece of text."""
    said = PIECES[vendor(model)]
    return said[: next(i for i, event in enumerate(said, 1) if "'fo'" in str(event))]


def text_of(came: Came) -> str:
    return "".join(piece.text for piece in came if isinstance(piece, Delta))


@pytest.mark.parametrize("model", GOOD)
def test_each_vendors_answer_comes_in_pieces_by_one_request_and_what_is_cut_is_no_answer(model: str) -> None:
    """Given a whole stream, one without its end, one with fewer bytes than announced, a 429 and a 500, I expect five
    requests for five calls."""
    said = PIECES[vendor(model)]
    half = begun(model)
    limited = {"error": {"message": "slow down", "type": "rate_limit_error"}, "message": "slow down"}
    (whole, *cut, refused, failed), server = ask(
        model,
        streamed(vendor(model), said),
        streamed(vendor(model), half),
        streamed(vendor(model), half, missing=10),
        response(limited, status=429, headers={"Content-Type": "application/json", "Retry-After": "7"}),
        response({"error": {"message": "oops"}}, status=500, headers={"Content-Type": "application/json"}),
    )
    came, failure = whole
    assert failure is None and isinstance(came[-1], Completion)
    assert text_of(came) == came[-1].text == "four" and len(came) > 2
    assert (came[-1].usage.input_tokens, came[-1].usage.output_tokens) == (20, 5)
    assert (came[-1].finish_reason, came[-1].left_out) == ("stop", ())
    for came, failure in cut:
        assert text_of(came) == "fo" and isinstance(failure, ProviderUnavailable) and failure.sent
        assert every(isinstance(piece, Delta) for piece in came)
    assert isinstance(refused[1], RateLimited) and refused[1].retry_after_s == 7
    assert isinstance(failed[1], ProviderUnavailable)
    assert len(server.heads) == 5


ERRORS: dict[str, tuple[str, Any, type[FleetError]]] = {
    "a code": (CHAT, {"error": {"message": "slow down", "code": 429}}, RateLimited),
    "no money": (CHAT, {"error": {"message": "x", "code": "insufficient_quota"}}, KeySpent),
    "a failed response": (
        RESPONSES,
        {"type": "response.failed", "sequence_number": 9, "response": {**GOOD[RESPONSES], "status": "failed",
         "error": {"code": "rate_limit_exceeded", "message": "slow down"}}},
        RateLimited,
    ),
    "an error event": (
        RESPONSES,
        {"type": "error", "sequence_number": 9, "code": "server_error", "message": "oops", "param": None},
        ProviderUnavailable,
    ),
    "overloaded": (
        ANTHROPIC, {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, ProviderUnavailable
    ),
    "a status by name": (
        GOOGLE, {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}, RateLimited
    ),
    "throttled": (
        "bedrock:amazon.nova-lite-v1:0", {"throttlingException": {"message": "slow down"}}, RateLimited
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_within_a_stream_is_one_like_any_other(name: str) -> None:
    model, event, expected = ERRORS[name]
    found, server = ask(model, streamed(vendor(model), [event]), streamed(vendor(model), [*begun(model), event]))
    assert [type(failure) for _, failure in found] == [expected, expected], found
    assert [text_of(came) for came, _ in found] == ["", "fo"] and len(server.heads) == 2


def test_a_refused_temperature_is_learnt_from_a_stream_too() -> None:
    told = {"error": {"message": "temperature is not supported", "param": "temperature"}}
    good = streamed("openai-chat", PIECES["openai-chat"])
    ((_, first), (came, second)), server = ask(CHAT, response(told, status=400), good)
    assert isinstance(first, Relearnt) and second is None
    assert isinstance(came[-1], Completion) and came[-1].left_out == ("temperature",)
    assert [body["stream"] for body in server.bodies] == [True, True]
    assert server.bodies[1]["stream_options"] == {"include_usage": True}


def test_a_server_that_does_not_stream_is_asked_for_whole_answers_from_then_on_and_its_first_is_paid() -> None:
    whole = response(GOOD[CHAT], headers={"Content-Type": "application/json; charset=utf-8"})
    ((came, first), (later, second)), server = ask(CHAT, whole, whole)
    assert came == [] and isinstance(first, Relearnt)
    assert first.usage is not None and (first.usage.input_tokens, first.usage.output_tokens) == (20, 5)
    assert second is None and [piece.text for piece in later] == ["4"]
    assert ["stream" in body and body["stream"] for body in server.bodies] == [True, False]


def test_leaving_a_stream_closes_the_connection_and_so_does_its_time_out() -> None:
    async def main() -> None:
        async with raw_server(None) as server, models(server.url) as adapter:
            pieces = adapter.stream(call(model=CHAT), api_key=KEY)
            first = asyncio.ensure_future(anext(pieces))
            while not server.heads:
                await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.wait([first])
            await pieces.aclose()
            await asyncio.wait_for(server.left.wait(), 5)
        async with raw_server(None) as server, models(server.url) as adapter:
            async with aclosing(adapter.stream(call(model=CHAT, timeout_s=0.3), api_key=KEY)) as pieces:
                with pytest.raises(ProviderUnavailable) as failed:
                    await anext(pieces)
            assert failed.value.timed_out and failed.value.sent
            await asyncio.wait_for(server.left.wait(), 5)

    asyncio.run(main())
