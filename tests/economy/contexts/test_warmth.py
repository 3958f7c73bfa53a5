"""Who goes first with a cold beginning, in a real Redis: one of the fleet, whoever asks, and another one if it dies."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest

from fleet.economy.contexts import warmth as module
from fleet.economy.contexts.warmth import MOST_FAILED, NOTE_EVERY_S, Warmth
from fleet.store import context_keys
from fleet.store.client import Store, connect
from tests.every import every

A, B = "api/m/a", "api/m/b"


def with_processes(redis_url: str, work: Callable[[str, Warmth, Warmth, list[float]], Awaitable[None]]) -> None:
    """Run `work` with a beginning that nobody knows and two processes of one clock."""

    async def go() -> None:
        now, prefix = [1000.0], uuid.uuid4().hex
        stores = [Store(redis_url), Store(redis_url)]
        try:
            one, other = (Warmth(store, clock=lambda: now[0]) for store in stores)
            await work(prefix, one, other, now)
        finally:
            for store in stores:
                await store.close()
            with connect(redis_url) as client:
                assert 0 < client.ttl(context_keys.warmth(prefix)) <= module.LIFE_S
                client.delete(context_keys.warmth(prefix))

    asyncio.run(go())


async def settled(process: Warmth) -> None:
    """Wait until Redis has heard what was sent."""
    await process._state.command("PING")


def test_one_task_of_the_fleet_goes_first_and_the_others_wait_until_its_answer_has_begun(redis_url: str) -> None:
    async def work(prefix: str, one: Warmth, other: Warmth, now: list[float]) -> None:
        asked = [(process, f"t{number}") for number, process in enumerate([one, other] * 20)]
        starts = await asyncio.gather(*(process.look(prefix, who, [A, B]) for process, who in asked))
        assert {start.limit for start in starts} == {A}
        ((process, who),) = [asked[n] for n, start in enumerate(starts) if start.waits_until is None]
        assert process.limits(prefix, who) == (A,)
        again = await process.look(prefix, who, [A, B])
        assert again.waits_until is None, "asked again after a lost reply, it goes all the same"
        assert process.begun(prefix, A, who) and not process.begun(prefix, A, "another")
        await settled(process)
        assert (await other.look(prefix, "t", [B, A])).waits_until is None
        assert (await one.look(prefix, "t", [B, A])).limit == A, "the warm key before the cold one"

    with_processes(redis_url, work)


def test_a_warm_key_that_may_not_be_used_now_lets_one_task_warm_another(redis_url: str) -> None:
    async def work(prefix: str, one: Warmth, other: Warmth, now: list[float]) -> None:
        assert (await one.look(prefix, "t1", [A])).limit == A
        one.begun(prefix, A, "t1")
        assert (await other.look(prefix, "t2", [B])).waits_until is None
        assert other.limits(prefix, "t2") == (B,), "it goes with the key that it is to warm"
        assert (await one.look(prefix, "t3", [B])).waits_until is not None
        other.begun(prefix, B, "t2")
        await settled(other)
        assert (await one.look(prefix, "t3", [B])).waits_until is None

    with_processes(redis_url, work)


def test_who_goes_first_and_leaves_lets_the_next_one_go_and_after_a_few_failures_nobody_waits(redis_url: str) -> None:
    async def work(prefix: str, one: Warmth, other: Warmth, now: list[float]) -> None:
        for number in range(MOST_FAILED + 2):
            assert (await one.look(prefix, f"t{number}", [A])).waits_until is None
            one.leave(prefix, f"t{number}", failed=False)  # it waits for its turn
        for number in range(MOST_FAILED):
            assert (await one.look(prefix, f"f{number}", [A])).waits_until is None
            assert (await other.look(prefix, "t", [A])).waits_until is not None
            one.leave(prefix, f"f{number}", failed=True)
            await settled(one)
        starts = [await who.look(prefix, f"g{number}", [A]) for number in range(5) for who in (one, other)]
        assert every(start.waits_until is None for start in starts)
        one.begun(prefix, A, "g1")
        assert other.limits(prefix, "g9") == ()

    with_processes(redis_url, work)


def test_the_claim_of_a_dead_process_ends_and_that_of_a_living_one_does_not(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLAIM_S", 2)
    monkeypatch.setattr(module, "RENEW_EVERY_S", 0.3)

    async def work(prefix: str, one: Warmth, other: Warmth, now: list[float]) -> None:
        await one.look(prefix, "t1", [A])
        for _ in range(12):  # well beyond the claim's life
            await asyncio.sleep(0.25)
            assert (await other.look(prefix, "t2", [A])).waits_until is not None
        one._claims[prefix, "t1"].renewing.cancel()  # as its process does that dies
        async with asyncio.timeout(10):
            while (await other.look(prefix, "t2", [A])).waits_until is not None:
                await asyncio.sleep(0.1)
        one.leave(prefix, "t1", failed=True)
        await settled(one)
        assert (await one.look(prefix, "t3", [A])).waits_until is not None, "its late word ends no claim of others"

    with_processes(redis_url, work)


def test_how_long_a_beginning_lies_idle_is_learnt_without_a_round_trip_for_each_answer(redis_url: str) -> None:
    async def work(prefix: str, one: Warmth, other: Warmth, now: list[float]) -> None:
        for _ in range(50):
            one.begun(prefix, A, "t")
        now[0] += NOTE_EVERY_S
        one.begun(prefix, A, "t")
        await settled(one)
        await other.look(prefix, "t", [A])
        assert other.habits(prefix) == (51, 0, 0)
        with connect(redis_url) as client:
            client.hincrby(context_keys.warmth(prefix), "last", -1000)
        now[0] += NOTE_EVERY_S
        one.begun(prefix, A, "t")
        await settled(one)
        await other.look(prefix, "t", [A])
        assert other.habits(prefix) == (51, 1, 0)

    with_processes(redis_url, work)
