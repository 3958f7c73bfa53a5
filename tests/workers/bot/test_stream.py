"""`bot.stream()` in a bot function, over real HTTP: pieces as they come, one request a grant, and what a cut costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from fleet.errors import BadAnswer, BotFunctionFailed, DeadlineExceeded, OutOfTries, ProviderUnavailable
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE, Before, Outcome
from fleet.waits import Ruling, Wait
from fleet.workers.agent import Agent
from fleet.workers.bot.elsewhere import BlockingBotContext, LoopBotContext
from fleet.workers.gateway import Gateway, Route
from fleet.workers.ports import Provider
from tests.workers.fakes import (
    LIMIT,
    OTHERS_DID_WELL,
    FakeBreakers,
    FakeLimiter,
    FakeProvider,
    a_bot,
    said,
    settings_of,
)
from tests.workers.providers.models.vendors import models
from tests.workers.providers.raw_server import provider, response
from tests.workers.providers.test_streams import ANTHROPIC, OPENAI, STREAMS, chunk, events, streamed

HERE = "tests.workers.bot.test_stream"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
#: What the functions below leave behind for their tests.
seen: dict[str, Any] = {}


async def collects(task: BotTask, bot: LoopBotContext) -> str:
    seen["pieces"] = []
    async for piece in bot.stream(task.prompt or ""):
        seen["pieces"].append(piece)
        seen["first"].set()
    return "".join(seen["pieces"])


def collects_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    seen["pieces"] = []
    for piece in bot.stream(task.prompt or "", max_output_tokens=9):
        seen["pieces"].append(piece)
        seen["first"].set()
    return "".join(seen["pieces"])


async def leaves_early(task: BotTask, bot: LoopBotContext) -> str:
    async with contextlib.aclosing(bot.stream(task.prompt or "")) as pieces:
        async for piece in pieces:
            return piece
    return ""


def leaves_its_thread_early(task: BotTask, bot: BlockingBotContext) -> str:
    with contextlib.closing(bot.stream(task.prompt or "")) as pieces:
        return next(pieces)


async def lets_it_through_as_a_cause(task: BotTask, bot: LoopBotContext) -> str:
    try:
        return await collects(task, bot)
    except ProviderUnavailable as error:
        raise ValueError("no answer") from error


async def lets_it_through_in_a_group(task: BotTask, bot: LoopBotContext) -> str:
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(collects(task, bot))
    return asked.result()


async def asks_twice(task: BotTask, bot: LoopBotContext) -> str:
    return await collects(task, bot) + await collects(task, bot)


async def streams_twice(task: BotTask, bot: LoopBotContext) -> str:
    told = [[piece async for piece in bot.stream(task.prompt or "")] for _ in range(2)]
    return "|".join(map("".join, told))


async def copes(task: BotTask, bot: LoopBotContext) -> str:
    said = ""
    try:
        async for piece in bot.stream(task.prompt or ""):
            said += piece
    except ProviderUnavailable:
        said += " (it broke off)"
    return said


def road(url: str, kind: str) -> AbstractAsyncContextManager[Provider]:
    """Give an adapter: our own, or pydantic-ai's for OpenAI's wire."""
    return models(url) if kind == "openai-chat" else provider(url, kind)


FUNCTIONS = ["collects", "collects_in_a_thread"]


@asynccontextmanager
async def slow_server(*answers: list[bytes]) -> AsyncIterator[Any]:
    """Serve the parts of each answer, one request each; a part after the first waits until the first piece was seen.

    An empty part holds the connection open until the client leaves.
    """
    requests: list[bytes] = []
    serving: set[asyncio.Task[Any] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split()[0])
            requests.append(await reader.readexactly(length))
            for i, part in enumerate(answers[min(len(requests), len(answers)) - 1]):
                while i and not seen["first"].is_set():
                    await asyncio.sleep(0.005)
                writer.write(part)
                await writer.drain()
                if not part:
                    await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
        seen["first"].set()
        await asyncio.gather(*(task for task in serving if task is not None))


def work(
    function: str,
    *answers: list[bytes],
    limiter: FakeLimiter | None = None,
    kind: str = "openai",
    deadline_s_left: float = 20.0,
    with_provider: Callable[[Provider], Provider] = lambda adapter: adapter,
    breakers: FakeBreakers | None = None,
    before: Before | None = None,
    **pool: Any,
) -> tuple[Outcome, list[dict[str, Any]]]:
    """Run one task of a function against a server; give its outcome and the requests that were sent."""
    seen["first"] = threading.Event()

    async def run() -> tuple[Outcome, list[dict[str, Any]]]:
        async with slow_server(*answers) as (url, requests), road(url, kind) as adapter:
            model = "openai-chat:model-1" if kind == "openai-chat" else "model-1"
            route = Route(with_provider(adapter), "api", model, LIMIT, "s3cret", 60.0)
            price: Any = lambda model, usage, tier: usage.total_tokens  # noqa: E731
            gateway = Gateway(
                limiter or FakeLimiter(), {"research": route}, price, breakers=breakers or FakeBreakers(answers=True)
            )
            config = settings_of(function=f"{HERE}:{function}", **pool)
            agent = Agent(gateway, config, share=lambda: 0.0)
            try:
                outcome = await agent.run(
                    BotTask(prompt="2+2?"), a_bot(), task_id="t1", deadline_s_left=deadline_s_left, before=before
                )
            finally:
                await agent.close()
            return outcome, [json.loads(request) for request in requests]

    return asyncio.run(run())


@pytest.mark.parametrize("kind", [*STREAMS, "openai-chat"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_pieces_come_while_the_answer_is_made_and_its_own_usage_is_charged(function: str, kind: str):
    limiter, cut = FakeLimiter(), 8 if kind == "anthropic" else 3
    stream = STREAMS.get(kind, OPENAI)
    parts = [HEAD + events(stream[:cut]), events(stream[cut:])]  # the second: once a piece was seen
    outcome, requests = work(function, parts, limiter=limiter, kind=kind)
    assert (outcome.status, outcome.answer, seen["pieces"]) == ("ok", "four", ["fo", "ur"])
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.cost_usd_picos) == (12, 3, 15)
    assert [used for _, used in limiter.settled] == [15] and limiter.is_settled_once
    assert len(requests) == len(limiter.granted) == 1 and outcome.reasoning == "hm"


def test_thinking_in_the_text_is_no_piece():
    said = ["<thi", "nk>\nhm", "\n</thi", "nk>\n\n", "fo", "ur"]
    outcome, _ = work("collects", [streamed([*map(chunk, said), chunk(finish="stop"), "[DONE]"])])
    assert (outcome.answer, seen["pieces"], outcome.reasoning) == ("four", ["fo", "ur"], "hm")


def test_thinking_that_a_model_only_closes_is_no_piece_once_its_model_is_known_for_it():
    said = [chunk("hm, so"), chunk("me</thi"), chunk("nk>\n\nfo"), chunk("ur"), chunk(finish="stop"), "[DONE]"]
    outcome, _ = work("streams_twice", [streamed(said)])
    assert outcome.answer == "hm, some</think>\n\nfour|four"  # nobody could know it of the first


@pytest.mark.parametrize("function", [*FUNCTIONS, "lets_it_through_as_a_cause", "lets_it_through_in_a_group"])
def test_a_function_that_lets_a_cut_stream_through_begins_anew_and_pays_for_both(function: str):
    limiter = FakeLimiter()
    outcome, requests = work(function, [streamed(OPENAI[:4])], [streamed(OPENAI)], limiter=limiter)
    assert (outcome.status, outcome.answer, outcome.error) == ("ok", "four", None)
    assert len(requests) == 2 and outcome.provider_errors == {"ProviderUnavailable": 1}
    cut, whole = (used for _, used in limiter.settled)
    assert (whole, outcome.usage.total_tokens, outcome.cost_usd_picos) == (15, cut + 15, cut + 15) and cut > 10


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_that_begins_anew_has_all_of_its_turns_again(function: str):
    outcome, requests = work(function, [streamed(OPENAI[:4])], [streamed(OPENAI)], max_turns=1)
    assert (outcome.status, outcome.answer, len(requests)) == ("ok", "four", 2)


@pytest.mark.parametrize(("function", "kind"), [*((one, "openai") for one in FUNCTIONS), ("collects", "openai-chat")])
def test_a_stream_that_breaks_while_others_do_well_counts_as_a_try_and_is_charged_with_what_came(
    function: str, kind: str
):
    limiter, breakers = FakeLimiter(), FakeBreakers(rulings=[OTHERS_DID_WELL])
    outcome, requests = work(
        function, [streamed(OPENAI[:4])], limiter=limiter, breakers=breakers, max_attempts=2, kind=kind
    )
    assert isinstance(outcome.error, OutOfTries) and "broke off" in str(outcome.error)
    assert len(requests) == 2 and outcome.provider_errors == {"ProviderUnavailable": 2}
    usage = outcome.usage
    assert usage.input_tokens > 20 and 0 < usage.output_tokens < 10
    assert sum(used for _, used in limiter.settled) == usage.total_tokens == outcome.cost_usd_picos


def test_a_stream_that_an_outage_breaks_lets_its_task_wait_with_what_it_has_cost():
    wait = Wait("outage", time.time() + 60, LIMIT)
    breakers = FakeBreakers(rulings=[Ruling(wait, 0.0, counts=0.0)])
    outcome, requests = work("collects", [streamed(OPENAI[:4])], breakers=breakers, before=NOTHING_BEFORE)
    parking = outcome.parking
    assert parking is not None and outcome.error is None and len(requests) == 1
    assert (parking.wait, parking.sent, parking.before.tries) == (wait, True, 0)
    assert parking.before.usage == outcome.usage and parking.before.cost_usd_picos == outcome.usage.total_tokens


def test_a_function_whose_other_calls_are_answered_begins_anew_no_more_than_max_attempts_times():
    answers = [streamed(OPENAI), streamed(OPENAI[:4])] * 3  # what is paid for each time is lost each time
    outcome, requests = work("asks_twice", *([answer] for answer in answers), max_attempts=3)
    assert isinstance(outcome.error, OutOfTries) and len(requests) == 6


def test_a_cut_stream_is_charged_by_what_the_provider_told_of_it():
    outcome, _ = work("collects", [streamed(ANTHROPIC[:9])], [streamed(ANTHROPIC)], kind="anthropic")
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens > 3) == (24, True)


def test_a_function_may_go_on_with_what_came():
    assert work("copes", [streamed(OPENAI[:4])])[0].answer == "four (it broke off)"


@pytest.mark.parametrize(
    "first",
    [
        response({"error": {"message": "busy"}}, status=503),
        response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"}),
        streamed([{"error": {"message": "slow down", "code": 429}}]),
        streamed(OPENAI[:1]),
        streamed([chunk(""), chunk(finish="stop"), "[DONE]"]),
    ],
)
def test_what_fails_before_the_first_piece_is_tried_again_with_a_grant_of_its_own(first: bytes):
    limiter = FakeLimiter()
    outcome, requests = work("collects", [first], [streamed(OPENAI)], limiter=limiter)
    assert (outcome.status, outcome.answer, len(requests)) == ("ok", "four", 2)
    assert len(limiter.granted) == 2 and limiter.is_settled_once


def test_a_stream_that_spends_all_on_thinking_gets_more_room_once():
    thinks = [{"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": "length"}]}, "[DONE]"]
    outcome, requests = work("collects", [streamed(thinks)], [streamed(OPENAI)])
    assert (outcome.answer, [request["max_tokens"] > 512 for request in requests]) == ("four", [False, True])
    outcome, requests = work("collects", [streamed(thinks)])
    assert len(requests) == 2 and str(outcome.error).startswith("spent: ")


@pytest.mark.parametrize(
    ("function", "kind"),
    [("leaves_early", "openai"), ("leaves_its_thread_early", "openai"), ("leaves_early", "openai-chat")],
)
def test_whoever_leaves_early_ends_the_call_and_pays_for_what_came(function: str, kind: str):
    limiter = FakeLimiter()
    seen["first"] = threading.Event()
    outcome, requests = work(function, [HEAD + events(OPENAI[:3]), b""], limiter=limiter, kind=kind)
    assert (outcome.status, outcome.answer, len(requests)) == ("ok", "fo", 1)
    assert limiter.is_settled_once
    assert 0 < limiter.settled[0][1] < 100


def test_a_stream_that_stands_is_cut_at_the_deadline_and_charged():
    limiter = FakeLimiter()
    outcome, _ = work("collects", [HEAD + events(OPENAI[:3]), b""], limiter=limiter, deadline_s_left=0.5)
    assert isinstance(outcome.error, DeadlineExceeded) and seen["pieces"] == ["fo"]
    assert limiter.is_settled_once
    assert outcome.usage.input_tokens > 10 and outcome.usage.output_tokens > 0


@pytest.mark.parametrize(("text", "finish"), [("so", "content_filter"), ("I cannot assist with that.", "stop")])
def test_a_refusal_is_known_at_the_end(text: str, finish: str):
    outcome, requests = work("collects", [streamed([chunk(text), chunk(finish=finish), "[DONE]"])])
    assert isinstance(outcome.error, BadAnswer) and str(outcome.error).startswith("refused: ")
    assert len(requests) == 1 and seen["pieces"] == [text]


class Whole:
    """A provider that cannot stream."""

    def __init__(self) -> None:
        self._inner = FakeProvider([said("<think>hm</think>four")])
        self.complete, self.close = self._inner.complete, self._inner.close


def test_a_provider_that_cannot_stream_answers_in_one_piece():
    outcome, requests = work("collects", [b""], with_provider=lambda _: Whole())
    assert (outcome.answer, seen["pieces"], requests) == ("four", ["four"], [])


async def streams_a_number(task: BotTask, bot: LoopBotContext) -> str:
    return "".join([piece async for piece in bot.stream(42)])  # type: ignore[arg-type]


def test_a_wrong_prompt_is_explained():
    outcome, requests = work("streams_a_number", [b""])
    assert isinstance(outcome.error, BotFunctionFailed) and "got int" in str(outcome.error) and requests == []
