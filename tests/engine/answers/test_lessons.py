"""What models have taught, shared by processes over a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fleet.engine.answers import lessons
from fleet.engine.answers.lessons import SharedLessons, forget_lessons, read_lessons
from fleet.lessons import PROBE_AFTER_S, RATIO, Notebook
from fleet.store import keys
from fleet.store.client import Store, connect
from tests.redis_server import RedisServer

API = "openai/gpt-5|mini"  # names of models may hold anything


@pytest.fixture(autouse=True)
def read_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lessons, "READ_EVERY_S", 0.2)


class Process:
    """A process's notebook and what keeps it in step, as long as the block runs."""

    def __init__(self, url: str, clock: Callable[[], float] | None = None) -> None:
        self.notebook = Notebook(clock) if clock else Notebook()
        self._store = Store(url, timeout_s=1.0)
        self._shared = SharedLessons(self._store, self.notebook)

    async def __aenter__(self) -> Notebook:
        self._duty = asyncio.create_task(self._shared.keep())
        return self.notebook

    async def __aexit__(self, *error: object) -> None:
        self._duty.cancel()
        await asyncio.wait([self._duty])
        await self._shared.close()
        await self._store.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)


def test_what_one_process_learns_all_know_soon_and_those_that_start_later(redis_url: str) -> None:
    async def main() -> None:
        async with Process(redis_url) as one, Process(redis_url) as two:
            one.learn(API, "temperature")
            one.counted(API, estimated=1000, true=1500, weight=0.5)
            await until(lambda: two.refused(API) == {"temperature"} and two.measure(API).ratio == 1.25)
        async with Process(redis_url) as later:
            await until(lambda: later.refused(API) == {"temperature"})

    asyncio.run(main())
    with connect(redis_url) as client:
        assert [(lesson.api, lesson.what) for lesson in read_lessons(client)] == [(API, RATIO), (API, "temperature")]
        assert client.ttl(keys.lessons()) > 0


def test_what_is_learnt_as_a_process_ends_is_told_all_the_same(redis_url: str) -> None:
    async def main() -> None:
        async with Process(redis_url) as one:
            one.learn(API, "temperature")

    asyncio.run(main())
    with connect(redis_url) as client:
        assert [lesson.what for lesson in read_lessons(client)] == ["temperature"]


def test_what_an_operator_forgets_workers_forget(redis_url: str) -> None:
    async def main() -> None:
        async with Process(redis_url) as one:
            one.learn(API, "temperature")
            one.learn(API, "role:system")
            with connect(redis_url) as client:
                await until(lambda: len(read_lessons(client)) == 2)
                assert [lesson.what for lesson in forget_lessons(client, API, "temperature")] == ["temperature"]
                await until(lambda: one.refused(API) == {"role:system"})
                forget_lessons(client, API)
                await until(lambda: one.refused(API) == frozenset())
                assert forget_lessons(client, API) == []

    asyncio.run(main())


def test_after_a_day_one_process_of_the_fleet_may_try_again(redis_url: str) -> None:
    now = [1000.0]

    async def main() -> None:
        async with Process(redis_url, lambda: now[0]) as one, Process(redis_url, lambda: now[0]) as two:
            one.learn(API, "temperature")
            await until(lambda: two.refused(API) == {"temperature"})
            now[0] += PROBE_AFTER_S
            tried: list[Notebook] = []

            def try_again() -> bool:
                tried.extend(each for each in (one, two) if each.may_probe(API, "temperature"))
                return bool(tried)

            await until(try_again)
            await asyncio.sleep(0.8)  # some more turns of both
            try_again()
            assert len(tried) == 1
            tried[0].forget(API, "temperature")
            await until(lambda: one.refused(API) == two.refused(API) == frozenset())

    asyncio.run(main())


def test_without_redis_a_process_goes_by_what_it_knows_and_tells_it_later(own_redis: RedisServer) -> None:
    async def main() -> None:
        async with Process(own_redis.url) as one:
            own_redis.freeze()
            one.learn(API, "temperature")
            await asyncio.sleep(1.5)  # longer than the store's patience
            assert one.refused(API) == {"temperature"}
            own_redis.thaw()
            with connect(own_redis.url) as client:
                await until(lambda: bool(read_lessons(client)))

    asyncio.run(main())
