"""A worker's look at APIs that hang: whose breaker it opens, which pools it holds. On a real Redis."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Collection, Mapping

import pytest

from fleet import config
from fleet.engine.process.assembly import put_together
from fleet.engine.process.breaking import make_breakers
from fleet.engine.process.duties import silence
from fleet.engine.process.duties.silence import LOOKS_AFTER, SilenceWatch
from fleet.resilience import Breakers
from fleet.resilience.rules import SILENT_CALLS
from fleet.store.client import Store
from fleet.waits import Wait
from fleet.workers.rungs import together

LIMITS = ("api/model/red", "api/model/blue")
SETTINGS = config.Settings.model_validate(
    {
        "providers": {"api": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}},
        "pools": {"one": {"provider": "api", "model": "model"}},
    }
)


class Watched:
    """A watch over a pool of two keys, and the holds that it put."""

    def __init__(self, url: str, slots: int = 8, places: int | None = None) -> None:
        self.store = Store(url)
        self.breakers: Breakers = make_breakers(
            SETTINGS, self.store, self.store, dict.fromkeys(LIMITS, "key"), calm=lambda limit: None
        )
        self.silent: dict[str, tuple[int, float, float]] = {}
        self.holds: list[tuple[str, Wait]] = []
        self.looks = 0
        self.let_go: list[str] = []
        self.watch = SilenceWatch(
            self.breakers, self._silent, slots=lambda: slots, pools=("one",), closed=self._closed, hold=self._hold,
            places=lambda limit: places, let_go=self.let_go.append,
        )  # fmt: skip

    def _silent(self, *, at_least_s: float) -> Mapping[str, tuple[int, float, float]]:
        self.looks += 1
        return {limit: found for limit, found in self.silent.items() if found[1] >= at_least_s}

    def _closed(self, pool: str) -> Wait | None:
        waits = [wait for limit in LIMITS if (wait := self.breakers.standing(limit)) is not None]
        return together(waits) if len(waits) == len(LIMITS) else None

    async def _hold(self, pool: str, wait: Wait) -> None:
        self.holds.append((pool, wait))

    async def close(self) -> None:
        await self.breakers.close()
        await self.store.close()


def test_a_pool_waits_once_all_its_keys_hang_whichever_was_the_last(redis_url: str) -> None:
    async def work() -> None:
        one = Watched(redis_url)
        one.silent[LIMITS[0]] = (SILENT_CALLS, 13.0, 0.5)
        await one.watch.look()
        assert (one.breakers.is_open(LIMITS[0]), one.holds) == (True, []), "the other key still goes"
        one.silent[LIMITS[1]] = (SILENT_CALLS, 14.0, 0.5)
        await one.watch.look()
        ((pool, wait),) = one.holds
        assert (pool, wait.cause) == ("one", "outage")
        assert wait.told == "3 calls of a worker had no answer for 13 s; the slowest answer before took 500 ms"
        await one.watch.look()
        assert len(one.holds) == 1, "what is open is not opened again"
        await one.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("places", "calls", "opens"), [(1, 1, True), (2, 1, True), (4, 1, False), (4, 2, True), (100, 2, False)]
)
def test_half_of_the_calls_that_a_limit_allows_at_once_are_enough(
    redis_url: str, places: int, calls: int, opens: bool
) -> None:
    async def work() -> None:
        one = Watched(redis_url, places=places)
        one.silent[LIMITS[0]] = (calls, 20.0, 0.5)
        await one.watch.look()
        assert one.breakers.is_open(LIMITS[0]) is opens
        assert (one.breakers.opened(LIMITS[0]) is not None) is opens
        assert one.breakers.opened("nobody/knows/it") is None
        await one.close()

    asyncio.run(work())


def test_one_call_each_of_two_workers_is_enough_where_four_may_be_under_way(redis_url: str) -> None:
    async def work() -> None:
        one, other = Watched(redis_url, places=4), Watched(redis_url, places=4)
        for watched in (one, other):
            watched.silent = dict.fromkeys(LIMITS, (1, 20.0, 0.5))
            await watched.watch.look()
        assert not one.breakers.is_open(LIMITS[0])
        assert other.breakers.is_open(LIMITS[0])
        assert [pool for pool, _ in other.holds] == ["one"]
        await one.watch.look()
        assert one.breakers.is_open(LIMITS[0]), "it hears of it as it says so again"
        assert [pool for pool, _ in one.holds] == ["one"]
        await one.close()
        await other.close()

    asyncio.run(work())


def test_calls_that_hang_though_the_breaker_is_closed_are_let_go_after_some_looks(redis_url: str) -> None:
    async def work() -> None:
        one = Watched(redis_url)
        one.silent[LIMITS[0]] = (SILENT_CALLS, 20.0, 0.5)
        for _ in range(2 * LOOKS_AFTER):
            await one.watch.look()
        assert one.breakers.is_open(LIMITS[0])
        assert one.let_go == []
        one.breakers.did_well(LIMITS[0], who="probe", seconds=0.1, output_tokens=1, is_probe=True)
        await one.store.command("PING")
        assert not one.breakers.is_open(LIMITS[0])
        for looks in range(2 * LOOKS_AFTER):
            assert bool(one.let_go) is (looks > LOOKS_AFTER), (
                "those that are answered late, in any order, have time for it"
            )
            await one.watch.look()
        assert one.let_go == [LIMITS[0]]
        await one.close()

    asyncio.run(work())


@pytest.mark.parametrize(("calls", "slots", "opens"), [(2, 8, False), (3, 8, True), (1, 1, True)])
def test_a_call_or_two_without_an_answer_open_nothing_unless_a_worker_has_no_more_slots(
    redis_url: str, calls: int, slots: int, opens: bool
) -> None:
    async def work() -> None:
        one = Watched(redis_url, slots)
        one.silent[LIMITS[0]] = (calls, 20.0, 0.5)
        await one.watch.look()
        assert one.breakers.is_open(LIMITS[0]) is opens
        await one.close()

    asyncio.run(work())


@dataclasses.dataclass
class ScaledDown:
    """Of a worker that has one slot for the moment."""

    name: str = "w1@h"
    slots: int = 1
    most_slots: int | None = None
    busy: int = 1
    beat_at: float | None = None
    queues: tuple[str, ...] = ()

    def forgo(self, queues: Collection[str]) -> None: ...


@pytest.mark.parametrize(("most_slots", "opens"), [(20, False), (None, True)])
def test_one_slow_call_of_a_worker_that_was_scaled_down_to_one_slot_opens_nothing(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, most_slots: int | None, opens: bool
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    runtime, assembly = put_together(config.current(), ScaledDown(most_slots=most_slots))
    try:
        limit = assembly.routes[0].limit
        monkeypatch.setattr(assembly.silence, "_silent", lambda *, at_least_s: {limit: (1, 20.0, 0.5)})
        runtime.run(assembly.silence.look())
        assert assembly.breakers.is_open(limit) is opens
    finally:
        runtime.run(assembly.close())
        runtime.stop()


def test_a_process_that_stood_still_reads_its_answers_before_it_says_that_there_are_none(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "EVERY_S", 0.05)

    async def work() -> None:
        one = Watched(redis_url)
        duty = asyncio.create_task(one.watch.attend())
        await asyncio.sleep(0)
        time.sleep(0.3)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert one.looks == 0
        async with asyncio.timeout(30):
            while not one.looks:
                await asyncio.sleep(0.01)
        duty.cancel()
        await one.close()

    asyncio.run(work())
