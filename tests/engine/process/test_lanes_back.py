"""Answers that come back from a batch: read by whoever was asked, whoever serves now, and paid once."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest

from fleet.economy.lanes.jobs import Enrolled, JobStore
from fleet.economy.prices import PriceList
from fleet.engine.process.lanes import LaneChooser
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE, Outcome
from fleet.store.clock import CLOCK
from fleet.workers.simulator import SimulatorOptions
from fleet.workers.simulator.server import Simulator
from tests.engine.process.test_ladders import bot_of, fails, settings_for, worker
from tests.every import every
from tests.workers.simulator.running import total

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
GOOD = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "large", "usage": USAGE,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "forty-two"}, "finish_reason": "stop"}],
}  # fmt: skip


def test_an_answer_is_read_by_who_was_asked_while_another_rung_serves_and_none_is_asked_anew_unless_it_cannot_be_read(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> tuple[dict[str, Outcome], list[int]]:
        async with AsyncExitStack() as stack:
            urls = []
            for _ in range(2):
                simulator = Simulator(SimulatorOptions(rpm=10**9, tpm=10**12))
                urls.append(await simulator.start())
                stack.push_async_callback(simulator.stop)
            settings = settings_for(*urls)
            agent, gateway, store = await stack.enter_async_context(worker(redis_url, settings))
            chooser = LaneChooser(
                settings, PriceList(settings), store, norms_of=lambda pool, kind: None, lets_leave=False
            )  # fmt: skip
            gateway.take_lanes(chooser)
            jobs, bot, now_s = JobStore(store), bot_of("p-001", settings), CLOCK.now_s()

            async def ask(name: str, by_s: float | None = None, tries: int = 1) -> Outcome:
                task, before = BotTask(prompt=f"{name}?", by_s=by_s), NOTHING_BEFORE.parked_again()
                while True:  # the first rung is tried again now and then
                    outcome = await agent.run(task, bot, task_id=name, before=before)
                    tries -= 1
                    if outcome.parking is None or not tries:
                        return outcome
                    before = outcome.parking.before

            for name in ("good", "odd", "gone", "away"):
                limit = "removed/large/default" if name == "gone" else "one/large/default"
                asked = Enrolled("p", "p-001", "", "", "", limit, now_s + 9e4, now_s + 8e4, now_s)
                await jobs.enrol(name, asked, b"{}", life_s=9e4)
                await jobs.form(f"job-{name}", limit, [name], by_at=now_s + 9e4, rescue_at=now_s + 8e4)
            await jobs.keep(["good", "gone"], [json.dumps(GOOD).encode()] * 2)
            await jobs.keep(["odd"], [json.dumps({"usage": USAGE}).encode()])

            await fails(urls[0], 1.0)
            while (await ask("down")).rung != 1:
                pass
            found, served = {}, [await asyncio.to_thread(total, urls[1])]
            for name in ("good", "away", "odd", "gone"):
                found[name] = await ask(name, 90_000, tries=1 if name == "away" else 20)
                served.append(await asyncio.to_thread(total, urls[1]))
            return found, [one["served"] for one in served]

    found, served = asyncio.run(work())
    good, away = found["good"], found["away"]
    assert (good.answer, good.provider, good.model, good.rung, good.tier) == ("forty-two", "one", "large", 0, "batch")
    assert (good.usage.input_tokens, good.usage.output_tokens) == (10, 5)
    assert away.parking is not None, "it waits for its batch, whichever rung serves"
    assert [after - before for before, after in pairwise(served)] == [0, 0, 1, 1]
    assert every((found[name].provider, found[name].error) == ("two", None) for name in ("odd", "gone"))
    assert found["odd"].usage.input_tokens > 10, "it is charged with what it could not read"
    assert caplog.text.count("batch_answer_unread") == 2
