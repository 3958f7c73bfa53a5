"""A limit that is changed while calls sleep under it."""

from __future__ import annotations

import asyncio

import pytest

from fleet.config import LimitSettings
from fleet.errors import ConfigurationError, DeadlineExceeded, NotSoon
from fleet.grants import Grant
from fleet.limiter import Limiter, live
from fleet.limiter.layouts import STATE, At
from fleet.store import keys
from fleet.store.client import Store, connect

LIMIT = "provider/model/key"
SLOW = LimitSettings(rpm=2, counting="bucket")


async def wait_for_sleepers(limiter: Limiter, count: int) -> None:
    async with asyncio.timeout(5):
        while (await limiter.snapshot(LIMIT)).waiting < count:
            await asyncio.sleep(0.01)


def test_a_raised_limit_reaches_sleeping_calls_of_every_worker_at_once(redis_url: str) -> None:
    async def main() -> list[Grant]:
        stores = [Store(redis_url), Store(redis_url)]
        workers = [Limiter(store, {LIMIT: SLOW}) for store in stores]
        # 30 s a call: the first goes, the second has a slot in 30 s, the others sleep for 15 s and more.
        calls = [asyncio.ensure_future(workers[n % 2].acquire(LIMIT, tokens=1, timeout_s=600)) for n in range(20)]
        await wait_for_sleepers(workers[0], 18)
        begin = asyncio.get_running_loop().time()
        with connect(redis_url) as client:
            held = live.change(client, LIMIT, {"rpm": 60_000}, configured=SLOW)
        grants = await asyncio.gather(*calls)
        assert held == {"rpm": 60_000}
        assert max(grant.sent_at for grant in grants) - begin < 10  # a busy machine; the others would take 9 minutes
        for store in stores:
            await store.close()
        return grants

    assert len(asyncio.run(main())) == 20


def test_what_was_granted_is_counted_at_the_new_rate(redis_url: str) -> None:
    async def main() -> tuple[float, float]:
        store = Store(redis_url)
        limiter = Limiter(store, {LIMIT: LimitSettings(tpm=6000, counting="bucket")})
        await limiter.acquire(LIMIT, tokens=6000, timeout_s=0)  # a minute's worth
        before = (await limiter.snapshot(LIMIT)).queue_s
        with connect(redis_url) as client:
            live.change(client, LIMIT, {"tpm": 60_000}, configured=LimitSettings(tpm=6000, counting="bucket"))
        after = (await limiter.snapshot(LIMIT)).queue_s
        await store.close()
        return before, after

    before, after = asyncio.run(main())
    assert before == pytest.approx(58.8, abs=1)
    assert after == pytest.approx(4.8, abs=1)


def test_a_reset_lets_the_configured_numbers_hold_and_forgets_what_was_learnt(redis_url: str) -> None:
    async def main() -> tuple[int | None, int | None]:
        store = Store(redis_url)
        limiter = Limiter(store, {LIMIT: SLOW})
        with connect(redis_url) as client:
            live.change(client, LIMIT, {"rpm": 1000}, configured=SLOW)
            changed = (await limiter.snapshot(LIMIT)).rpm
            live.reset(client, LIMIT, configured=SLOW)
        await limiter.acquire(LIMIT, tokens=1, timeout_s=0)
        with pytest.raises(DeadlineExceeded):
            await limiter.acquire(LIMIT, tokens=1, timeout_s=1)
        reset = (await limiter.snapshot(LIMIT)).rpm
        await store.close()
        return changed, reset

    assert asyncio.run(main()) == (1000, 2)


@pytest.mark.parametrize("changes", [{"rpm": 0.4}, {"usd_per_day": 0.0000001}])
def test_a_number_that_would_be_rounded_to_no_limit_is_refused(redis_url: str, changes: dict[str, float]) -> None:
    with connect(redis_url) as client:
        with pytest.raises(ConfigurationError, match='expected 0, "not limited", or at least 1'):
            live.change(client, LIMIT, changes, configured=SLOW)
        assert client.dbsize() == 0


def test_a_reset_ends_a_hold_for_who_waits_and_for_who_was_told_of_the_429(redis_url: str) -> None:
    async def main() -> tuple[float, int]:
        store, settings = Store(redis_url), LimitSettings(rpm=600, counting="bucket")
        limiter = Limiter(store, {LIMIT: settings})
        limiter.penalise(LIMIT, retry_after_s=3600)
        call = asyncio.ensure_future(limiter.acquire(LIMIT, tokens=1, timeout_s=7200))
        await wait_for_sleepers(limiter, 1)
        with connect(redis_url) as client:
            live.reset(client, LIMIT, configured=settings)
        async with asyncio.timeout(10):
            await call
        questions = limiter.questions
        async with asyncio.timeout(10):
            await limiter.acquire(LIMIT, tokens=1, timeout_s=5)
        snapshot = await limiter.snapshot(LIMIT)
        await store.close()
        assert snapshot.held_until is None
        return snapshot.queue_s, limiter.questions - questions

    queue_s, questions = asyncio.run(main())
    assert queue_s < 1
    assert questions <= 3


def test_a_hold_that_is_released_ends_for_who_waits_and_what_was_learnt_stays(redis_url: str) -> None:
    async def main() -> tuple[bytes | None, float | None, str, str]:
        store, settings = Store(redis_url), LimitSettings(rpm=600, counting="bucket")
        limiter = Limiter(store, {LIMIT: settings})
        with connect(redis_url) as client:
            live.change(client, LIMIT, {"rpm": 1200}, configured=settings)
        limiter.penalise(LIMIT, retry_after_s=3600, told="429, as its provider says")
        held_by = (await limiter.snapshot(LIMIT)).held_by
        with pytest.raises(NotSoon, match="429, as its provider says"):
            await limiter.acquire(LIMIT, tokens=1, timeout_s=7200, patience_s=5)
        call = asyncio.ensure_future(limiter.acquire(LIMIT, tokens=1, timeout_s=7200))
        await wait_for_sleepers(limiter, 1)
        with connect(redis_url) as client:
            live.release(client, LIMIT, configured=settings)
            was_set = client.hget(keys.limit_keys(LIMIT).facts, "set")
        async with asyncio.timeout(10):
            await call
            await limiter.acquire(LIMIT, tokens=1, timeout_s=7200, patience_s=5)
        after = await limiter.snapshot(LIMIT)
        await store.close()
        assert isinstance(was_set, bytes)
        return was_set, after.held_until, held_by, after.held_by

    was_set, held_until, held_by, after = asyncio.run(main())
    assert was_set is not None and was_set.startswith(b"1200 ")
    assert held_until is None
    assert (held_by, after) == ("429, as its provider says", "")


def test_promises_that_were_kept_or_given_up_are_forgotten(redis_url: str) -> None:
    async def main() -> int:
        store = Store(redis_url)
        limiter = Limiter(store, {LIMIT: LimitSettings(rpm=80, burst=0.0001, counting="bucket")})
        await limiter.acquire(LIMIT, tokens=1, timeout_s=5)
        await limiter.acquire(LIMIT, tokens=1, timeout_s=5)  # a slot that is 0.75 s ahead
        given_up = asyncio.ensure_future(limiter.acquire(LIMIT, tokens=1, timeout_s=5))
        async with asyncio.timeout(5):
            while not promises(limiter):
                await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.wait([given_up])
        await store.close()
        return promises(limiter)

    assert asyncio.run(main()) == 0


def test_a_call_that_asks_again_takes_no_place_with_a_slot_that_it_gives_back(redis_url: str) -> None:
    """Another one asks in the same turn of the loop: its question is on its way already."""
    settings = LimitSettings(rpm=80, in_flight=9, burst=0.0001)

    async def main() -> tuple[float, int, int]:
        store = Store(redis_url)
        limiter = Limiter(store, {LIMIT: settings})
        await limiter.acquire(LIMIT, tokens=1, timeout_s=5)
        promised = asyncio.ensure_future(limiter.acquire(LIMIT, tokens=1, timeout_s=9, note="{}"))  # 0.75 s ahead
        async with asyncio.timeout(5):
            while not promises(limiter):
                await asyncio.sleep(0.01)
        with connect(redis_url) as client:
            live.change(client, LIMIT, {"rpm": 600}, configured=settings)
            names = keys.limit_keys(LIMIT)
            was_set = client.hget(names.facts, "set")
            other = asyncio.ensure_future(limiter.acquire(LIMIT, tokens=1, timeout_s=9, note="{}"))
            await asyncio.sleep(0)
            assert isinstance(was_set, bytes)
            limiter._changes.heard(limiter._limits[LIMIT], was_set, asyncio.get_running_loop().time())
            async with asyncio.timeout(9):
                await asyncio.gather(promised, other)
            await store.command("PING")
            state = STATE.unpack(client.get(names.state))
            found = state[At.WINDOW + 1] - client.zcard(names.log), client.zcard(names.leases), client.hlen(names.open)
        await store.close()
        return found

    above_its_log, leases, notes = asyncio.run(main())
    assert above_its_log == 0, "else it has room for one less for good"
    assert (leases, notes) == (3, 2)


def promises(limiter: Limiter) -> int:
    return sum(len(limit.promised) for limit in limiter._limits.values())
