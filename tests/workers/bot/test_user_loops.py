"""A user's `async def` function that blocks its loop is named, and harms no other slot."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from fleet.config import PoolSettings, Settings
from fleet.errors import BotFunctionFailed, DeadlineExceeded, HeldUp
from fleet.models import BotTask
from fleet.outcome import Before, Outcome
from fleet.usage import Usage
from fleet.workers.agent import Agent
from fleet.workers.bot import user_loops
from fleet.workers.bot.elsewhere import LoopBotContext
from fleet.workers.bot.persona import make_bot
from fleet.workers.bot.user_loops import Block
from fleet.workers.gateway import Gateway, Route
from fleet.workers.loops.patient_loop import PatientLoop
from tests.every import every
from tests.workers.fakes import LIMIT, FakeBreakers, FakeLimiter, FakeProvider

HERE = "tests.workers.bot.test_user_loops"
WHO: ContextVar[str] = ContextVar("who", default="nobody")
#: What the functions below leave behind for their tests.
seen: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tenth of the usual seconds."""
    monkeypatch.setattr(user_loops, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(user_loops, "LAST_WORD_S", 0.05)
    monkeypatch.setattr(user_loops, "BLOCKED_S", 0.4)
    monkeypatch.setattr("fleet.workers.loops.patient_loop.TICK_S", 0.02)
    seen.clear()
    seen["go on"] = threading.Event()
    yield
    seen["go on"].set()


async def blocks(task: BotTask, bot: LoopBotContext) -> str:
    seen["blocks"] = threading.current_thread().name
    time.sleep(task.metadata["s"])
    return "blocked"


async def blocks_in_a_task_of_its_own(task: BotTask, bot: LoopBotContext) -> str:
    return "".join(await asyncio.gather(blocks(task, bot), bot.chat("x")))


async def blocks_until_told(task: BotTask, bot: LoopBotContext) -> str:
    seen["go on"].wait(20)
    return "at last"


async def chats(task: BotTask, bot: LoopBotContext) -> str:
    answer = await bot.chat("a question")
    seen.setdefault("chats", []).append(threading.current_thread().name)
    return answer


async def shares_a_lock(task: BotTask, bot: LoopBotContext) -> str:
    lock = seen.setdefault("lock", asyncio.Lock())
    async with lock:
        return await bot.chat("one at a time")


async def loses_patience(task: BotTask, bot: LoopBotContext) -> str:
    try:
        async with asyncio.timeout(0.05):
            return await bot.chat("too long")
    except TimeoutError:
        return f"timed out in {WHO.get()}"


async def starts_a_task_that_leaves(task: BotTask, bot: LoopBotContext) -> str:
    async def leave() -> None:
        raise SystemExit(3)

    leaving = asyncio.ensure_future(leave())
    while not leaving.done():
        await asyncio.sleep(0)
    leaving.exception()
    return await bot.chat("still here")


async def waits_for_its_loop(task: BotTask, answer: str) -> bool:
    time.sleep(task.metadata.get("s", 0))
    return True


class House:
    """An agent with a pool for each function that is named, and what came of its blocks."""

    def __init__(self, *functions: str, hang_s: float = 60.0, provider: FakeProvider | None = None) -> None:
        pools = {name.replace("_", "-"): PoolSettings(function=f"{HERE}:{name}") for name in functions}
        pools["checked"] = PoolSettings(validator=f"{HERE}:waits_for_its_loop")
        settings = Settings(pools=pools)
        worker = settings.worker.model_copy(update={"hang_s": hang_s})
        self.settings = settings.model_copy(update={"worker": worker})
        self.limiter = FakeLimiter()
        self.provider = provider or FakeProvider(["an answer"])
        route = Route(provider=self.provider, provider_name="api", model="m", limit=LIMIT, api_key="k", timeout_s=60)
        self.blocks: list[Block] = []
        gateway = Gateway(
            self.limiter, dict.fromkeys(pools, route), lambda model, usage, tier: None, breakers=FakeBreakers()
        )
        self.agent = Agent(gateway, self.settings, share=lambda: 0.0, on_block=self.blocks.append)

    def start(
        self, pool: str, *, deadline_s: float = 5.0, before: Before | None = None, **metadata: Any
    ) -> asyncio.Task[Outcome]:
        pool = pool.replace("_", "-")
        bot = make_bot(pool, 1, self.settings.pools[pool].persona)
        task = BotTask(prompt="hi", metadata=metadata)
        return asyncio.ensure_future(self.agent.run(task, bot, task_id="t", deadline_s_left=deadline_s, before=before))


def run(house: House, work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        try:
            async with asyncio.timeout(20):
                return await work()
        finally:
            seen["go on"].set()
            await house.agent.close()

    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        return runner.run(main())


def test_a_function_that_blocks_its_loop_is_named_and_those_that_come_later_run_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House("blocks", "chats")

    async def work() -> tuple[Outcome, list[Outcome], bool]:
        blocker = house.start("blocks", s=1.5)
        await asyncio.sleep(0.1)
        others = await asyncio.gather(*(house.start("chats", deadline_s=1.0) for _ in range(5)))
        first_done = not blocker.done()
        outcome = await blocker
        await asyncio.sleep(0.2)
        others.append(await house.start("chats"))
        return outcome, others, first_done

    with caplog.at_level(logging.INFO):
        blocker, others, first_done = run(house, work)
    assert blocker.answer == "blocked" and first_done
    assert [other.status for other in others] == ["ok"] * 6 and len(house.limiter.granted) == 6
    assert set(seen["chats"][:5]) == {"fleet-user-loop-2"} and seen["chats"][5] == "fleet-user-loop-1"
    named = [block for block in house.blocks if block.function == f"{HERE}:blocks"]
    assert [block.is_over for block in named] == [False, True] and named[1].seconds > 1.0
    assert named[0].at.startswith("test_user_loops.py:")
    assert caplog.text.count(f"function_blocks function={HERE}:blocks at=test_user_loops.py:") == 1


@pytest.mark.parametrize("blocker", ["blocks", "blocks_in_a_task_of_its_own"])
def test_those_that_had_begun_on_its_loop_keep_their_time_and_what_they_paid_for(blocker: str) -> None:
    """The block outlasts their deadlines; their answers come while their loop stands."""
    house = House(blocker, "chats", provider=FakeProvider(["an answer"], steps=200))

    async def work() -> list[Outcome]:
        jobs = [house.start("chats", deadline_s=0.8) for _ in range(5)]
        await asyncio.sleep(0.01)
        jobs.append(house.start(blocker, s=1.5))
        return list(await asyncio.gather(*jobs))

    outcomes = run(house, work)
    assert [(outcome.status, outcome.attempts) for outcome in outcomes[:5]] == [("ok", 1)] * 5
    assert every(outcome.ran_ms < 800 for outcome in outcomes[:5]), "nobody is slow because another one blocks"


def test_a_function_that_blocks_past_its_deadline_fails_by_it_and_nobody_else_does() -> None:
    house = House("blocks_until_told", "chats")

    async def work() -> tuple[Outcome, Outcome]:
        begun = house.start("chats", deadline_s=0.8)
        blocker = await house.start("blocks_until_told", deadline_s=0.6)
        seen["go on"].set()
        return blocker, await begun

    blocker, other = run(house, work)
    assert isinstance(blocker.error, DeadlineExceeded) and other.status == "ok"


def test_those_that_a_blocked_loop_holds_up_for_too_long_go_back_to_their_queues_with_what_they_have_had() -> None:
    house = House("blocks_until_told", "chats", hang_s=0.8, provider=FakeProvider(["hang"]))
    had = Before(attempts=3, parked=1, ran_ms=100, usage=Usage(input_tokens=7))

    async def work() -> tuple[object, Outcome]:
        stays, goes = house.start("chats", deadline_s=0.7), house.start("chats", deadline_s=0.7, before=had)
        await asyncio.sleep(0.05)
        blocker = house.start("blocks_until_told", deadline_s=30)
        await asyncio.wait({stays, goes}, timeout=5)
        seen["go on"].set()
        await blocker
        return stays.exception(), goes.result()

    error, outcome = run(house, work)
    assert isinstance(error, HeldUp) and f"{HERE}:blocks_until_told has blocked the loop" in str(error)
    assert outcome.error is None and outcome.parking is not None and outcome.parking.wait.cause == "function"
    before = outcome.parking.before
    assert (before.attempts, before.parked) == (4, 2)
    assert 100 <= before.ran_ms < 500, "its time begins anew with it: it was held up for more than 800 ms"
    assert before.usage.input_tokens > 7, "the call that was cut is counted"


def test_when_every_loop_is_blocked_the_others_wait_and_the_watch_of_the_process_can_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(user_loops, "MOST_LOOPS", 1)
    house = House("blocks_until_told", "chats")

    async def work() -> tuple[float | None, float | None, Outcome]:
        blocker = house.start("blocks_until_told")
        await asyncio.sleep(0.1)
        waiting = house.start("chats", deadline_s=0.5)
        await asyncio.sleep(1.2)
        beats = house.agent.loops.beat_at
        seen["go on"].set()
        outcome = await waiting
        await blocker
        return beats, house.agent.loops.beat_at, outcome

    waited_since, idle, outcome = run(house, work)
    assert waited_since is not None and time.monotonic() - waited_since > 0.5 and idle is None
    assert outcome.status == "ok", outcome.error


def test_a_validator_that_blocks_harms_no_answer_of_others() -> None:
    house = House("chats")

    async def work() -> list[Outcome]:
        jobs = [house.start("checked", s=1.2), house.start("checked", deadline_s=0.8), house.start("chats")]
        return list(await asyncio.gather(*jobs))

    assert [outcome.status for outcome in run(house, work)] == ["ok"] * 3
    assert house.blocks[0].function == f"{HERE}:waits_for_its_loop"


def test_what_a_function_shares_with_the_next_call_belongs_to_one_loop() -> None:
    house = House("shares_a_lock", provider=FakeProvider(["an answer"], steps=50))

    async def work() -> list[Outcome]:
        return list(await asyncio.gather(*(house.start("shares_a_lock") for _ in range(8))))

    assert [outcome.status for outcome in run(house, work)] == ["ok"] * 8


def test_nothing_is_kept_of_a_call_that_is_over() -> None:
    house = House("chats")

    async def work() -> tuple[int, int]:
        await asyncio.gather(*(house.start("chats") for _ in range(20)))
        await asyncio.sleep(0.1)
        (loop,) = house.agent.loops._loops
        return len(loop.calls), len(loop.loop.call_of)

    assert run(house, work) == (0, 0)


def test_a_timeout_of_the_users_cuts_the_call_which_is_settled_and_context_variables_come_along() -> None:
    house = House("loses_patience", provider=FakeProvider(["hang"]))

    async def work() -> Outcome:
        WHO.set("the context of the task")
        return await house.start("loses_patience")

    outcome = run(house, work)
    assert outcome.answer == "timed out in the context of the task"
    assert outcome.attempts == 1 and house.limiter.is_settled_once


def test_a_task_of_the_users_that_raises_system_exit_ends_no_loop() -> None:
    house = House("starts_a_task_that_leaves", "chats")

    async def work() -> tuple[Outcome, Outcome]:
        return await house.start("starts_a_task_that_leaves"), await house.start("chats")

    assert [outcome.status for outcome in run(house, work)] == ["ok", "ok"]


def test_an_error_inside_a_function_is_still_named_with_its_line() -> None:
    house = House("blocks")

    async def work() -> Outcome:
        return await house.start("blocks")  # without its metadata

    error = run(house, work).error
    assert isinstance(error, BotFunctionFailed) and "KeyError raised at test_user_loops.py:" in str(error)
