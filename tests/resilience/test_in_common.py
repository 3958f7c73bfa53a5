"""Several APIs that fail at once, as several processes meet it: their failures are one row, of what they share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fleet.errors import KeyRejected, ProviderUnavailable
from fleet.resilience import Breakers, read_breakers
from fleet.resilience.rules import COMMON_S, ROW_IN_COMMON, YOUNG_IN_A_ROW
from fleet.resilience.scripts import COMMON
from fleet.store.client import Script, Store
from tests.resilience.test_breakers import shift

ALPHA, BETA, GAMMA = LIMITS = tuple(f"{name}/m-1/default" for name in ("alpha", "beta", "gamma"))
OUTAGE = ProviderUnavailable("connection refused", sent=False)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


class Processes:
    """The breakers of several processes, and the calls that they make: each takes its turn."""

    def __init__(self, url: str, count: int) -> None:
        self.stores = [Store(url) for _ in range(count)]
        self.turned: list[str] = []
        self.all = [
            Breakers(
                store, dict.fromkeys(LIMITS, "aaaa"), on_closed=self._closed,
                on_turn=lambda limit, wait: self.turned.append("" if wait is None else wait.told),
            )
            for store in self.stores
        ]  # fmt: skip
        self._places = dict.fromkeys(LIMITS, 0)
        self._calls = 0

    async def _closed(self, limit: str, is_first: bool) -> None:
        """Do nothing."""

    def _next(self, limit: str) -> tuple[Breakers, int, str]:
        self._calls += 1
        self._places[limit] += 1
        return self.all[self._calls % len(self.all)], self._places[limit], f"task {self._calls}"

    async def fail(self, limit: str, calls: int = 1, error: Any = OUTAGE) -> None:
        for _ in range(calls):
            process, place, who = self._next(limit)
            await process.failed(limit, error, who=who, since_s=1.0, place=place)

    async def do_well(self, limit: str) -> None:
        process, place, who = self._next(limit)
        process.did_well(limit, who=who, seconds=0.1, output_tokens=1, place=place)
        await self.stores[self._calls % len(self.all)].command("PING")

    def leave(self, limit: str, calls: int) -> None:
        """Send calls that are under way still."""
        self._places[limit] += calls

    async def open_ones(self) -> Sequence[str]:
        return [view.limit for view in await read_breakers(self.stores[0], LIMITS) if not view.is_closed]


@asynccontextmanager
async def processes(url: str, count: int = 3) -> AsyncIterator[Processes]:
    found = Processes(url, count)
    try:
        for one in found.all:
            await one.load()
        yield found
    finally:
        for one, store in zip(found.all, found.stores, strict=True):
            await one.close()
            await store.close()


def test_failures_in_a_row_of_several_apis_are_one_row_whichever_process_meets_them(redis_url: str) -> None:
    async def work() -> None:
        async with processes(redis_url) as fleet:
            await fleet.fail(ALPHA, 5)
            await fleet.fail(BETA, 3)
            await fleet.fail(GAMMA)
            assert await fleet.open_ones() == []
            await fleet.fail(GAMMA)
            assert await fleet.open_ones() == list(LIMITS), "all are open after ten failures, not after ten of each"
            assert sorted(fleet.turned) == [
                "connection refused; so do those of 2 other APIs",
                *["its calls fail; so do those of 2 other APIs"] * 2,
            ]

    run(work)


async def _well(fleet: Processes, url: str) -> None:
    await fleet.do_well(ALPHA)


async def _long_before(fleet: Processes, url: str) -> None:
    shift(url, back_s=COMMON_S + 1, limit=ALPHA)


async def _under_way(fleet: Processes, url: str) -> None:
    fleet.leave(ALPHA, 2)
    await fleet.fail(ALPHA)


@pytest.mark.parametrize(
    "then", [_well, _long_before, _under_way], ids=["is answered", "began long before", "may be answered still"]
)
def test_an_api_that_is_answered_or_failed_long_before_or_may_be_answered_still_is_no_part_of_it(
    redis_url: str, then: Callable[[Processes, str], Coroutine[Any, Any, None]]
) -> None:
    async def work() -> None:
        async with processes(redis_url) as fleet:
            await fleet.fail(ALPHA, YOUNG_IN_A_ROW - 3)
            await then(fleet, redis_url)
            await fleet.fail(BETA, YOUNG_IN_A_ROW - 1)
            assert await fleet.open_ones() == []

    run(work)


def test_an_answer_to_a_call_that_was_sent_before_the_first_failure_proves_nothing(redis_url: str) -> None:
    async def work() -> None:
        async with processes(redis_url, 1) as fleet:
            fleet.leave(BETA, 1)
            await fleet.fail(BETA, 3)
            fleet.all[0].did_well(BETA, who="early", seconds=0.4, output_tokens=1, place=1)
            await fleet.fail(ALPHA, 5)
            await fleet.fail(GAMMA, 2)
            assert await fleet.open_ones() == list(LIMITS)

    run(work)


def test_one_failure_of_an_api_says_nothing_of_it_whatever_happens_to_others(redis_url: str) -> None:
    async def work() -> None:
        async with processes(redis_url) as fleet:
            await fleet.fail(GAMMA, ROW_IN_COMMON - 1)
            await fleet.fail(ALPHA, YOUNG_IN_A_ROW - 1)
            await fleet.fail(BETA, YOUNG_IN_A_ROW - 1)
            assert await fleet.open_ones() == [ALPHA, BETA]

    run(work)


def test_a_key_that_is_refused_opens_its_own_breaker_alone(redis_url: str) -> None:
    async def work() -> None:
        async with processes(redis_url) as fleet:
            await fleet.fail(ALPHA, YOUNG_IN_A_ROW, error=KeyRejected("401"))
            await fleet.fail(BETA, YOUNG_IN_A_ROW - 1)
            assert await fleet.open_ones() == [ALPHA]

    run(work)


@pytest.mark.parametrize("seed", range(3))
def test_bursts_of_errors_of_all_apis_at_once_open_none(redis_url: str, seed: int) -> None:
    async def work() -> None:
        async with processes(redis_url) as fleet:
            chance = random.Random(seed)
            for number in range(600):
                limit = LIMITS[number % 3]
                await (fleet.fail(limit) if number > 60 and chance.random() < 0.3 else fleet.do_well(limit))
            assert (await fleet.open_ones(), fleet.turned) == ([], [])

    run(work)


def test_whoever_dies_between_two_openings_leaves_the_rest_to_whoever_meets_the_next_failure(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of, opened = Store.run, []

    async def dies(self: Store, script: Script, *call: Any) -> Any:
        if script is COMMON:
            if opened:
                raise asyncio.CancelledError
            opened.append(script)
        return await run_of(self, script, *call)

    async def work() -> None:
        async with processes(redis_url) as fleet:
            await fleet.fail(ALPHA, 5)
            await fleet.fail(BETA, 3)
            await fleet.fail(GAMMA)
            monkeypatch.setattr(Store, "run", dies)
            with pytest.raises(asyncio.CancelledError):
                await fleet.fail(GAMMA)
            monkeypatch.undo()
            assert await fleet.open_ones() == [GAMMA]
            await fleet.fail(BETA)
            assert await fleet.open_ones() == list(LIMITS)

    run(work)


def test_retries_wait_while_several_tasks_have_failed_in_a_row(redis_url: str) -> None:
    async def work() -> None:
        async with processes(redis_url, 1) as fleet:
            one = fleet.all[0]
            assert not (await one.failed(ALPHA, OUTAGE, who="a", since_s=1.0, place=1)).retry_at
            assert not (await one.failed(ALPHA, OUTAGE, who="a", since_s=1.0, place=2)).retry_at
            assert (await one.failed(ALPHA, OUTAGE, who="b", since_s=1.0, place=3)).retry_at
            one.did_well(ALPHA, who="c", seconds=0.1, output_tokens=1, place=4)
            assert not (await one.failed(ALPHA, OUTAGE, who="b", since_s=1.0, place=5)).retry_at

    run(work)


def test_the_outage_of_one_api_does_not_open_another_that_fails_twice(redis_url: str) -> None:
    async def work() -> None:
        async with processes(redis_url) as fleet:
            for _ in range(200):
                await fleet.do_well(BETA)
            await fleet.fail(ALPHA, 2 * YOUNG_IN_A_ROW)
            await fleet.fail(BETA, 2)
            assert await fleet.open_ones() == [ALPHA]

    run(work)
