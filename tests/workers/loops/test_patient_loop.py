"""A stall of the loop is nobody's delay: its clock stands with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from yarl import URL

from fleet.conversation import Message
from fleet.errors import DeadlineExceeded
from fleet.models import BotTask
from fleet.workers.agent import Agent
from fleet.workers.calls import Call
from fleet.workers.deadline import Deadline
from fleet.workers.loops import patient_loop
from fleet.workers.loops.patient_loop import PatientLoop
from fleet.workers.providers.openai_compatible import OpenAICompatible
from tests.workers.fakes import FakeLimiter, FakeProvider, a_bot, a_gateway, settings_of

#: Seconds that count as a stall here, and of a stall that outlasts every deadline and timeout below.
STALL_S, LONG_S = 0.4, 0.8

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_loop, "STALL_S", STALL_S)
    monkeypatch.setattr(patient_loop, "TICK_S", 0.1)


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await work()

    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        return runner.run(main())


def test_the_clock_leaves_a_stall_out_and_goes_on_as_usual_otherwise() -> None:
    async def work() -> tuple[float, float]:
        clock = asyncio.get_running_loop().time
        started = clock()
        await asyncio.sleep(0.1)
        slept_s, before = clock() - started, clock()
        time.sleep(LONG_S)
        return slept_s, clock() - before

    slept_s, stood_s = run(work)
    assert 0.09 <= slept_s < STALL_S and 0 <= stood_s < 0.5


def test_who_waits_on_the_clock_of_a_loop_that_it_blocks_is_not_fooled() -> None:
    async def work() -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + LONG_S
        while clock() < end:
            pass

    run(work)  # ends


def test_a_stall_that_outlasts_the_deadline_does_not_fail_the_task() -> None:
    async def work() -> object:
        agent = Agent(a_gateway(FakeLimiter(wait_s=0.3), FakeProvider(["an answer"])), settings_of())
        job = asyncio.ensure_future(agent.run(BotTask(prompt="hi"), a_bot(), task_id="t1", deadline_s_left=0.6))
        await asyncio.sleep(0.05)
        time.sleep(LONG_S)
        return await job

    outcome = run(work)
    assert (outcome.status, outcome.error) == ("ok", None) and outcome.ran_ms < 600  # type: ignore[attr-defined]


def test_the_deadline_itself_still_strikes() -> None:
    async def work() -> object:
        agent = Agent(a_gateway(FakeLimiter(), FakeProvider(["hang"])), settings_of())
        return (await agent.run(BotTask(prompt="hi"), a_bot(), task_id="t1", deadline_s_left=0.05)).error

    assert isinstance(run(work), DeadlineExceeded)


def test_an_answer_that_came_while_the_loop_stood_is_no_timeout_of_the_provider() -> None:
    """The body is in the socket when the timer is due; asyncio's own loop would run the timer first."""
    body = b'{"choices":[{"message":{"content":"paid for"},"finish_reason":"stop"}],"usage":{}}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        await writer.drain()
        await asyncio.sleep(0.2)
        asyncio.get_running_loop().call_soon(time.sleep, LONG_S)
        writer.write(body)
        await asyncio.sleep(0)
        writer.close()

    async def work() -> str:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            provider = OpenAICompatible(URL(f"http://127.0.0.1:{port}/v1"))
            call = Call("m", (Message(role="user", content="hi"),), 0.0, 10, timeout_s=0.6)
            try:
                return (await provider.complete(call, api_key="k")).text
            finally:
                await provider.close()

    assert run(work) == "paid for"


def test_a_deadline_that_has_struck_does_not_move() -> None:
    async def work() -> float:
        deadline = Deadline(asyncio.get_running_loop().time() + 0.01)
        with pytest.raises(TimeoutError):
            async with deadline.scope():
                await asyncio.sleep(10)
        deadline.stand(5.0)
        return deadline.stood_s

    assert run(work) == 0.0
