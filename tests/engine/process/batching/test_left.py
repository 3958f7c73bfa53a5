"""Jobs that process, key or tasks have left: another process goes on, and nothing is paid for nobody unsaid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from fleet.batches import BatchApi, VendorBatch
from fleet.economy.bill.reader import read_bill
from fleet.economy.lanes.jobs import JobStore, LaneJob
from fleet.economy.prices import PriceList
from fleet.engine.process.batching.duty import BatchDuty
from fleet.engine.process.ladders import batches_of
from fleet.errors import StoreUnavailable
from fleet.store import keys, lane_keys
from fleet.store.client import Store, connect
from fleet.store.running.brokers import AnyStore, Brokers
from fleet.waits import Wait
from fleet.workers.providers.openai_compatible import OpenAICompatible
from fleet.workers.rungs import Route
from tests.engine.process.batching.deaths import LIMIT, MOST_PICOS, QUICK, api_of, enrol, settings_of
from tests.engine.process.batching.test_deaths import CLOCK
from tests.redis_server import RedisServer
from tests.workers.simulator.running import running, total
from tests.workers.simulator.running import send as ask

TASKS = [f"task-{number}" for number in range(4)]
WITHIN_S = 30.0


class Fleet:
    """Tasks in a batch, and processes that may send it."""

    def __init__(self, store: Store, kind: str, url: str) -> None:
        self.store, self.jobs, self.api = store, JobStore(store), api_of(kind, url)
        self._settings = settings_of(kind, url)

    def process(
        self,
        name: str,
        api: BatchApi | None,
        api_of: Callable[[str], BatchApi | None] | None = None,
        *,
        broker: AnyStore | None = None,
    ) -> BatchDuty:
        return BatchDuty(
            self.store, broker or self.store, self._settings, PriceList(self._settings),
            api_of=api_of or (lambda limit: api), process=name, timings=QUICK,
        )  # fmt: skip

    async def only(self) -> LaneJob:
        (name,) = await self.jobs.jobs()
        job = await self.jobs.job(name)
        assert job is not None
        return job

    async def until(self, is_so: Callable[[], Awaitable[bool]], *duties: BatchDuty) -> None:
        ends = asyncio.get_running_loop().time() + WITHIN_S
        while not await is_so():
            assert asyncio.get_running_loop().time() < ends, "it did not come to that in time"
            for duty in duties:
                await duty.round(duty._has_turn)
            await asyncio.sleep(0.01)

    async def until_over(self, *duties: BatchDuty) -> None:
        async def is_over() -> bool:
            return not (await self.jobs.jobs() or await self.jobs.gathered())

        await self.until(is_over, *duties)

    async def until_in(self, state: str, *duties: BatchDuty) -> None:
        async def is_in() -> bool:
            return bool(await self.jobs.jobs()) and (await self.only()).state == state

        await self.until(is_in, *duties)

    async def end(self, tasks: Iterable[str]) -> None:
        """Let tasks have a result, as those have that are cancelled."""
        for task in tasks:
            await self.store.command("SET", keys.result(task), "{}")

    async def came(self) -> tuple[int, int]:
        found = [await self.jobs.came(task) for task in TASKS]
        return (
            sum(bool(one and one.answer) for one in found),
            sum(bool(one and one.is_freed and not one.answer) for one in found),
        )


@asynccontextmanager
async def waiting(redis_url: str, kind: str, url: str, *, rescue_s: float = 3600) -> AsyncIterator[Fleet]:
    with connect(redis_url) as client:
        client.flushall()
    store = Store(redis_url)
    fleet = Fleet(store, kind, url)
    try:
        await enrol(store, TASKS, by_s=7200, rescue_s=rescue_s)
        yield fleet
    finally:
        await store.close()
        await fleet.api._http._provider.close()  # type: ignore[attr-defined]


def test_a_process_without_the_key_holds_up_nobody_who_has_it(redis_url: str) -> None:
    async def run(url: str) -> None:
        async with waiting(redis_url, "openai", url) as fleet:
            await fleet.until_over(fleet.process("keyless", None), fleet.process("able", fleet.api))
            assert await fleet.came() == (4, 0)

    with running(**CLOCK) as url:
        asyncio.run(run(url))


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_job_whose_key_nobody_has_any_more_frees_its_tasks_when_they_must_go_on(redis_url: str, kind: str) -> None:
    async def run(url: str) -> None:
        async with waiting(redis_url, kind, url, rescue_s=2) as fleet:
            await fleet.until_in("running", fleet.process("first", fleet.api))
            keyless = fleet.process("second", None)
            await keyless.round(keyless._has_turn)
            assert await fleet.came() == (0, 0), "their time has not come"
            await fleet.store.command("DEL", lane_keys.lane_turn(LIMIT))  # which ends by itself within 15 s
            await fleet.until_over(keyless)
            assert await fleet.came() == (0, 4)

    with running(clock_speed=1.0, batch_median_s=600.0, batch_p95_s=1200.0) as url:
        asyncio.run(run(url))
    with connect(redis_url) as client:
        bill = read_bill(client, since_s=0, until_s=2**33).total
    assert (bill.unknown_calls, bill.unknown_usd_picos) == (4, 4 * MOST_PICOS), "what nobody can tell is not silent"


def test_nothing_is_asked_under_a_key_that_was_revoked_and_its_tasks_go_on_when_they_must(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    waits: dict[str, Wait] = {}

    async def run(url: str) -> None:
        async with waiting(redis_url, "openai", url, rescue_s=2) as fleet:
            adapter = OpenAICompatible(URL(f"{url}/v1"))
            route = Route(adapter, "api", "m", LIMIT, "test-key", 30.0)
            duty = fleet.process("only", None, batches_of([route], waits.get))
            await fleet.until_in("running", duty)
            waits[LIMIT] = Wait("key", None, "api", "key 0123 is revoked")
            await fleet.until_over(duty)
            assert await fleet.came() == (0, 4)
            await adapter.close()

    with running(clock_speed=1.0, batch_median_s=600.0, batch_p95_s=1200.0) as url:
        asyncio.run(run(url))
        assert [one["status"] for one in ask(url, "/v1/batches").json["data"]] != ["cancelling"]
    assert caplog.text.count("batch_given_up") == 1 and "key 0123 is revoked" in caplog.text


def test_a_job_at_which_something_breaks_holds_up_no_other(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    class Breaking:
        def __init__(self, api: Any) -> None:
            self._api, self.broken = api, ""

        def __getattr__(self, name: str) -> Any:
            return getattr(self._api, name)

        async def look(self, batch: str) -> VendorBatch:
            self.broken = self.broken or batch
            if batch == self.broken:
                raise TypeError("a very private prompt")
            found: VendorBatch = await self._api.look(batch)
            return found

    async def run(url: str) -> None:
        async with waiting(redis_url, "openai", url) as fleet:
            api: Any = Breaking(fleet.api)
            duty = fleet.process("only", api)

            async def is_broken() -> bool:
                return bool(api.broken)

            await fleet.until(is_broken, duty)
            await enrol(fleet.store, ["late"], by_s=7200, rescue_s=3600)

            async def has_come() -> bool:
                late = await fleet.jobs.came("late")
                return late is not None and bool(late.answer)

            await fleet.until(has_come, duty)

    with running(**CLOCK) as url:
        asyncio.run(run(url))
    assert "batch_step_broke" in caplog.text and "error=TypeError" in caplog.text and "private" not in caplog.text


def test_tasks_are_not_taken_for_cancelled_while_the_broker_that_may_have_them_is_away(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.engine.process.batching.duty.GONE_S", 0.0)
    away = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")

    async def run(url: str) -> None:
        async with waiting(redis_url, "openai", url) as fleet:
            with connect(away.url) as client:
                client.hset(keys.parked(), TASKS[0], "list\n{}\nmessage")
            await fleet.store.command("HDEL", keys.parked(), TASKS[0])
            away.kill()
            branch = Store(away.url, timeout_s=0.5)
            duty = fleet.process("one", fleet.api, broker=Brokers({"main": fleet.store, "west": branch}, {}))
            await fleet.until_in("running", duty)
            assert await fleet.jobs.tasks((await fleet.only()).id) == TASKS[1:], "those of the other broker go"
            assert await fleet.jobs.came(TASKS[0]) is not None, "it is not forgotten"
            with pytest.raises(StoreUnavailable):
                await JobStore(fleet.store, Brokers({"main": fleet.store, "west": branch}, {})).still_wait(TASKS)
            away.start()
            await fleet.until_over(duty)
            assert await fleet.came() == (4, 0)
            await branch.close()

    try:
        with running(**CLOCK) as url:
            asyncio.run(run(url))
    finally:
        away.stop()


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_task_that_is_cancelled_before_its_batch_is_made_is_not_sent(redis_url: str, kind: str) -> None:
    async def run(url: str) -> None:
        ask(url, "/batch-faults?refused_create=1", method="POST")
        async with waiting(redis_url, kind, url) as fleet:
            duty = fleet.process("only", fleet.api)

            async def is_refused() -> bool:
                return bool(await fleet.jobs.jobs()) and (await fleet.only()).tries > 0

            await fleet.until(is_refused, duty)
            if kind == "openai":
                await fleet.end(["task-1"])
            else:  # as one is cancelled whose result nobody wants
                await fleet.store.command("HDEL", keys.parked(), "task-1")
            await fleet.until_over(duty)
            assert await fleet.came() in ((3, 1), (4, 0))

    with running(**CLOCK) as url:
        asyncio.run(run(url))
        assert total(url)["served"] == 3
        if kind == "openai":  # what has it already is sent with it where its file cannot be taken back
            ask(url, "/batch-faults?refused_delete=1", method="POST")
            asyncio.run(run(url))
            assert total(url)["served"] == 3 + 4
        assert not ask(url, "/v1/files").json["data"]


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_what_is_paid_for_cancelled_tasks_is_told_and_a_batch_of_them_alone_is_cancelled(
    redis_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(url: str, ended: Iterable[str]) -> None:
        async with waiting(redis_url, kind, url) as fleet:
            duty = fleet.process("only", fleet.api)
            await fleet.until_in("running", duty)
            await fleet.end(ended)
            await fleet.until_over(duty)

    with running(clock_speed=2000.0, batch_median_s=4000.0, batch_p95_s=4100.0) as url:
        asyncio.run(run(url, TASKS[:1]))
        assert "count=1: they are paid, though" in caplog.text and total(url)["served"] == 4
        asyncio.run(run(url, TASKS))
        assert "its tasks have ended" in caplog.text and total(url)["served"] < 8
