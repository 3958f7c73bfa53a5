"""`Limiter` on a real Redis: what a caller sees. What the scripts guarantee: `test_scripts.py`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from fleet.config import LimitSettings
from fleet.errors import ConfigurationError, DeadlineExceeded, StoreUnavailable
from fleet.grants import Caller, Grant
from fleet.limiter import Limiter, LimitSnapshot
from fleet.limiter.layouts import STATE, At
from fleet.limiter.limits import MINUTE_US
from fleet.limiter.snapshot import last_minute
from fleet.models import Priority
from fleet.rates import RateReading
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.workers.loops import patient_loop
from tests.every import every
from tests.redis_server import RedisServer

LIMIT = "provider/model/key"
UNCOUNTED = LimitSettings(input_tpm=1_000_000, count_cached=False)


def with_limiter(
    url: str,
    body: Callable[[Limiter, Store], Awaitable[Any]],
    *,
    limits: Mapping[str, LimitSettings] | None = None,
    timeout_s: float = 5.0,
    make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
    **rates: Any,
) -> Any:
    """Run `body` with a limiter of one limit in a loop of its own; no jitter."""

    async def main() -> Any:
        store = Store(url, timeout_s=timeout_s)
        try:
            return await body(Limiter(store, limits or {LIMIT: LimitSettings(**rates)}, draw=lambda: 0.0), store)
        finally:
            await store.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(main())


async def sent(store: Store) -> None:
    """Wait until what was sent before has been carried out."""
    await store.command("PING")


def test_a_first_call_goes_at_once(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Store) -> Grant:
        return await limiter.acquire(LIMIT, tokens=100, timeout_s=0)

    grant = with_limiter(redis_url, body, rpm=60, tpm=6000)
    assert (grant.limit, grant.reserved_tokens, grant.charged[0]) == (LIMIT, 100, 100)
    assert grant.waited_ms < 1000


@pytest.mark.parametrize("rates", [{"rpm": 6000}, {"tpm": 60_000}, {"rpm": 6000, "tpm": 60_000}])
def test_calls_beyond_the_burst_are_paced(redis_url: str, rates: dict[str, int]) -> None:
    async def body(limiter: Limiter, _: Store) -> tuple[float, list[Grant]]:
        begin = time.monotonic()
        grants = await asyncio.gather(*[limiter.acquire(LIMIT, tokens=10, timeout_s=5) for _ in range(25)])
        return time.monotonic() - begin, grants

    limits = {LIMIT: LimitSettings(**rates, burst=0.0005)}  # 10 ms a call, 30 ms of burst
    took_s, grants = with_limiter(redis_url, body, limits=limits)
    assert took_s >= 0.21
    assert max(grant.waited_ms for grant in grants) >= 210


def test_a_thousand_acquires_of_one_tick_share_a_round_trip(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> tuple[int, int]:
        await sent(store)
        before = store.writes
        await asyncio.gather(*[limiter.acquire(LIMIT, tokens=1, timeout_s=5) for _ in range(1000)])
        return store.writes - before, (await limiter.snapshot(LIMIT)).granted

    assert with_limiter(redis_url, body, rpm=6_000_000) == (1, 1000)


def test_a_limit_without_rates_lets_everything_through_at_once(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Store) -> int:
        for _call in range(10):
            limiter.settle(await limiter.acquire(LIMIT, tokens=10**9, timeout_s=0), used_tokens=5)
        return (await limiter.snapshot(LIMIT)).granted

    assert with_limiter(redis_url, body) == 10


def test_a_turn_after_the_deadline_reserves_nothing_and_says_when_it_would_be(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Store) -> LimitSnapshot:
        await limiter.acquire(LIMIT, tokens=0, timeout_s=0)
        for _attempt in range(5):
            with pytest.raises(DeadlineExceeded, match=r"within 1\.0 s, the next one is in (59|60)\.\d s"):
                await limiter.acquire(LIMIT, tokens=0, timeout_s=1)
        return await limiter.snapshot(LIMIT)

    snapshot = with_limiter(redis_url, body, rpm=1)
    assert snapshot.granted == 1
    assert 59 < snapshot.queue_s <= 60


def test_a_call_larger_than_the_burst_passes_and_the_next_one_pays_for_it(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Store) -> float:
        await limiter.acquire(LIMIT, tokens=30_000, timeout_s=0)
        return (await limiter.snapshot(LIMIT)).queue_s

    assert 28 < with_limiter(redis_url, body, tpm=60_000) < 30


def test_settling_gives_unused_tokens_back_however_late(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> tuple[float, float]:
        large = await limiter.acquire(LIMIT, tokens=30_000, timeout_s=0)
        with pytest.raises(DeadlineExceeded):
            await limiter.acquire(LIMIT, tokens=100, timeout_s=1)
        before_s = (await limiter.snapshot(LIMIT)).queue_s
        limiter.settle(large, used_tokens=10_000)
        await sent(store)
        return before_s, (await limiter.snapshot(LIMIT)).queue_s

    before_s, after_s = with_limiter(redis_url, body, tpm=60_000)
    assert before_s - after_s == pytest.approx(20, abs=0.5)


def test_an_excess_over_the_reservation_is_charged(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> LimitSnapshot:
        grant = await limiter.acquire(LIMIT, tokens=10, timeout_s=0)
        limiter.settle(grant, used_tokens=10_010)
        await sent(store)
        return await limiter.snapshot(LIMIT)

    snapshot = with_limiter(redis_url, body, tpm=60_000)
    assert 8 < snapshot.queue_s <= 9
    assert (snapshot.granted_tokens, snapshot.used_tpm) == (10_010, pytest.approx(10_010))


def test_a_cancelled_sender_gives_its_slot_back(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> LimitSnapshot:
        await limiter.acquire(LIMIT, tokens=1400, timeout_s=0)
        waiter = asyncio.ensure_future(limiter.acquire(LIMIT, tokens=1000, timeout_s=600))
        while (await limiter.snapshot(LIMIT)).granted < 2:
            await asyncio.sleep(0)
        await sent(store)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await sent(store)
        return await limiter.snapshot(LIMIT)

    snapshot = with_limiter(redis_url, body, tpm=60_000)
    assert snapshot.queue_s < 1
    assert (snapshot.granted_tokens, snapshot.used_rpm) == (1400, 0)


def test_a_cancelled_waiter_leaves_the_order(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> tuple[int, int]:
        await limiter.acquire(LIMIT, tokens=1, timeout_s=0)
        waiter = asyncio.ensure_future(limiter.acquire(LIMIT, tokens=1, timeout_s=600))
        while (await limiter.snapshot(LIMIT)).waiting < 1:
            await asyncio.sleep(0)
        await sent(store)
        await asyncio.sleep(0)  # the waiter takes its answer and goes to sleep
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await sent(store)
        snapshot = await limiter.snapshot(LIMIT)
        return snapshot.waiting, snapshot.granted

    assert with_limiter(redis_url, body, rpm=1) == (0, 1)


def test_a_penalty_holds_every_process_until_it_is_over(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> tuple[LimitSnapshot, list[float]]:
        limiter.penalise(LIMIT, retry_after_s=0.3)
        await sent(store)
        snapshot = await limiter.snapshot(LIMIT)
        begin = time.monotonic()
        other_store = Store(redis_url)
        other = Limiter(other_store, {LIMIT: LimitSettings(rpm=6000)}, draw=lambda: 0.0)

        async def call(one: Limiter) -> float:
            await one.acquire(LIMIT, tokens=1, timeout_s=5)
            return time.monotonic() - begin

        gone_at_s = await asyncio.gather(*[call(one) for one in (limiter, other) * 5])
        await other_store.close()
        return snapshot, sorted(gone_at_s)

    snapshot, gone_at_s = with_limiter(redis_url, body, rpm=6000)
    assert snapshot.held_until is not None
    assert snapshot.refused == 1
    assert snapshot.refused_at == pytest.approx(snapshot.held_until - 0.3, abs=1e-5)
    assert gone_at_s[0] >= 0.28
    assert gone_at_s[-1] >= gone_at_s[0] + 0.08  # 10 calls, 10 ms apart: the burst is forfeited


def test_nobody_finds_a_burst_under_a_limit_that_was_calmed(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> tuple[list[float], int]:
        limiter.calm(LIMIT)
        limiter.calm("other/model/key")  # a limit that is not known is none of ours
        await sent(store)
        await asyncio.sleep(0.2)  # earns no burst
        begin = time.monotonic()

        async def call() -> float:
            await limiter.acquire(LIMIT, tokens=1, timeout_s=5)
            return time.monotonic() - begin

        gone_at_s = sorted(await asyncio.gather(*[call() for _ in range(10)]))
        return gone_at_s, (await limiter.snapshot(LIMIT)).refused

    gone_at_s, refused = with_limiter(redis_url, body, rpm=1200)
    assert gone_at_s[-1] >= gone_at_s[0] + 0.4  # 10 calls, 50 ms apart; with a burst all would go at once
    assert refused == 0


def test_what_comes_back_during_a_penalty_is_no_new_burst(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> float:
        grant = await limiter.acquire(LIMIT, tokens=900, timeout_s=0)
        limiter.penalise(LIMIT, retry_after_s=30)
        limiter.settle(grant, used_tokens=0)
        await sent(store)
        with pytest.raises(DeadlineExceeded) as caught:
            await limiter.acquire(LIMIT, tokens=900, timeout_s=30.5)
        return float(str(caught.value).split("is in ")[1].split(" s")[0])

    assert with_limiter(redis_url, body, tpm=60_000) == pytest.approx(30.9, abs=0.11)


def test_a_penalty_without_rates_holds_every_process(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> tuple[int, int]:
        limiter.penalise(LIMIT, retry_after_s=0.1)
        await sent(store)
        other = Limiter(store, {LIMIT: LimitSettings()})
        with pytest.raises(DeadlineExceeded):
            await other.acquire(LIMIT, tokens=1, timeout_s=0.01)
        grant = await other.acquire(LIMIT, tokens=1, timeout_s=1)
        return grant.waited_ms, (await limiter.snapshot(LIMIT)).refused

    waited_ms, refused = with_limiter(redis_url, body)
    assert 50 < waited_ms < 200
    assert refused == 1


def test_a_slot_that_was_promised_before_a_429_is_given_back_and_asked_for_again(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> tuple[float, LimitSnapshot]:
        begin = time.monotonic()
        calls = [asyncio.ensure_future(limiter.acquire(LIMIT, tokens=1, timeout_s=5)) for _ in range(3)]
        await calls[0]
        limiter.penalise(LIMIT, retry_after_s=0.4)
        await asyncio.gather(*calls)
        return time.monotonic() - begin, await limiter.snapshot(LIMIT)

    limits = {LIMIT: LimitSettings(rpm=600, burst=0.0001)}  # 100 ms a call: the two others are promised at once
    took_s, snapshot = with_limiter(redis_url, body, limits=limits)
    assert took_s >= 0.5
    assert snapshot.granted == 3


def test_a_loop_that_was_too_late_for_its_slots_asks_again_and_sends_no_herd(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Store) -> list[float]:
        gone_at_s: list[float] = []

        async def call() -> None:
            await limiter.acquire(LIMIT, tokens=1, timeout_s=5)
            gone_at_s.append(time.monotonic())

        calls = [asyncio.ensure_future(call()) for _ in range(20)]
        await calls[0]
        time.sleep(0.3)  # the loop stands still: all the others are late by then
        await asyncio.gather(*calls)
        return gone_at_s

    limits = {LIMIT: LimitSettings(rpm=6000, burst=0.0005, counting="bucket")}  # 10 ms a call, 30 ms of burst
    gone_at_s = with_limiter(redis_url, body, limits=limits)
    late = gone_at_s[1:]
    assert late[-1] - late[0] >= 0.1  # promised within 0.19 s, which had all passed


def test_a_slot_that_came_while_a_loop_stood_whose_clock_leaves_that_out_is_asked_for_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent when the loop's clock says so, the calls would meet those that Redis has promised for that later time."""
    monkeypatch.setattr(patient_loop, "STALL_S", 0.3)
    monkeypatch.setattr(patient_loop, "TICK_S", 0.05)

    async def body(limiter: Limiter, _: Store) -> tuple[int, int]:
        calls = [asyncio.ensure_future(limiter.acquire(LIMIT, tokens=1, timeout_s=5)) for _ in range(20)]
        await calls[0]
        before = limiter.questions
        time.sleep(0.5)
        await asyncio.gather(*calls)
        return before, limiter.questions

    limits = {LIMIT: LimitSettings(rpm=6000, burst=0.0005, counting="bucket")}  # 10 ms a call, 30 ms of burst
    before, after = with_limiter(redis_url, body, limits=limits, make_loop=patient_loop.PatientLoop)
    assert after - before >= 15, "all but those that went before the stall"


def test_a_call_that_is_cancelled_while_it_asks_gives_back_what_it_is_promised(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> LimitSnapshot:
        await sent(store)
        waiter = asyncio.ensure_future(limiter.acquire(LIMIT, tokens=100, timeout_s=5))
        await asyncio.sleep(0)  # it has asked
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await sent(store)  # it was granted, and the settlement is on its way
        await sent(store)
        return await limiter.snapshot(LIMIT)

    snapshot = with_limiter(redis_url, body, rpm=60, tpm=6000)
    assert (snapshot.granted, snapshot.granted_tokens, snapshot.waiting) == (0, 0, 0)


def test_calls_that_would_ask_soon_join_the_question_of_another(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> float:
        await sent(store)
        before = store.writes
        await asyncio.gather(*[limiter.acquire(LIMIT, tokens=1, timeout_s=30) for _ in range(200)])
        return (store.writes - before) / 200

    limits = {LIMIT: LimitSettings(rpm=6000, burst=0.0005, counting="bucket")}  # two seconds
    assert with_limiter(redis_url, body, limits=limits) < 0.5


async def crowded(limiter: Limiter, calls: int) -> list[asyncio.Future[Grant]]:
    """Let so many calls ask, and sleep, all but a few."""
    waiting = [asyncio.ensure_future(limiter.acquire(LIMIT, tokens=100, timeout_s=600)) for _ in range(calls)]
    while (await limiter.snapshot(LIMIT)).waiting < calls - 3:
        await asyncio.sleep(0)
    return waiting


async def cancelled(calls: list[asyncio.Future[Grant]]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


def test_who_asks_behind_a_call_that_makes_room_finds_it(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Store) -> float:
        flying = await limiter.acquire(LIMIT, tokens=1, timeout_s=5)
        begin, loop = time.monotonic(), asyncio.get_running_loop()
        before = asyncio.ensure_future(limiter.acquire(LIMIT, tokens=1, timeout_s=5))
        loop.call_soon(lambda: limiter.settle(flying, used_tokens=1))
        behind = asyncio.ensure_future(limiter.acquire(LIMIT, tokens=1, timeout_s=5))
        async with asyncio.timeout(5):
            await asyncio.wait([before, behind], return_when=asyncio.FIRST_COMPLETED)
        took_s = time.monotonic() - begin
        await cancelled([before, behind])
        return took_s

    assert with_limiter(redis_url, body, rpm=60_000, in_flight=1) < 0.5, "it slept as long as a call usually takes"


def test_where_the_wait_is_long_new_calls_ask_together_and_urgent_ones_at_once(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> tuple[int, int]:
        def call(priority: Priority) -> asyncio.Future[Grant]:
            return asyncio.ensure_future(
                limiter.acquire(LIMIT, tokens=100, timeout_s=600, caller=Caller(priority=priority))
            )

        waiting = await crowded(limiter, 20)
        questions = limiter.questions
        waiting += [call(Priority.NORMAL) for _ in range(5)]
        await asyncio.sleep(0)
        alone = limiter.questions - questions
        waiting.append(call(Priority.CRITICAL))
        await asyncio.sleep(0)
        together = limiter.questions - questions
        await cancelled(waiting)
        await sent(store)
        assert (await limiter.snapshot(LIMIT)).waiting == 0
        return alone, together

    assert with_limiter(redis_url, body, rpm=30) == (0, 6)


@pytest.mark.parametrize(
    ("used", "rates", "waits"),
    [
        ({"used_tokens": 60, "used_output_tokens": 20}, {}, True),
        ({"used_tokens": 120}, {}, False),
        ({"used_tokens": 60, "used_output_tokens": 60}, {}, False),  # fifty of output were reserved
        ({"used_tokens": 60, "cost_usd_micros": 1}, {}, False),
        ({"used_tokens": 60}, {"in_flight": 50}, False),
    ],
)
def test_what_is_given_back_to_a_crowd_waits_for_company_but_not_what_is_charged_or_makes_room(
    redis_url: str, used: dict[str, int], rates: dict[str, int], waits: bool
) -> None:
    async def body(limiter: Limiter, store: Store) -> int:
        grant = await limiter.acquire(LIMIT, tokens=100, input_tokens=50, timeout_s=5)
        waiting = await crowded(limiter, 20)
        writes = store.writes
        limiter.settle(grant, **used)
        await asyncio.sleep(0)  # what leaves at once leaves here
        leaves_at_once = store.writes - writes
        await cancelled(waiting)
        return leaves_at_once

    assert with_limiter(redis_url, body, rpm=30, **rates) == (0 if waits else 1)


def test_a_limit_of_a_model_holds_for_each_key_by_itself(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Store) -> None:
        await limiter.acquire("provider/model/one", tokens=1, timeout_s=0)
        await limiter.acquire("provider/model/two", tokens=1, timeout_s=0)
        with pytest.raises(DeadlineExceeded):
            await limiter.acquire("provider/model/one", tokens=1, timeout_s=0)

    with_limiter(redis_url, body, limits={"provider/model": LimitSettings(rpm=1)})


def test_an_unknown_limit_is_a_configuration_error_that_names_the_known_ones(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> None:
        with pytest.raises(ConfigurationError, match=r"provider/model/key.*got 'other/model/key'"):
            await limiter.acquire("other/model/key", tokens=1, timeout_s=1)
        limiter.penalise("other/model/key", retry_after_s=1)
        limiter.settle(Grant("other/model/key", 5), used_tokens=1)
        assert store.writes == 0

    with_limiter(redis_url, body, rpm=1)


def test_without_redis_nothing_may_be_sent(own_redis: RedisServer) -> None:
    own_redis.kill()

    async def body(limiter: Limiter, _: Store) -> None:
        with pytest.raises(StoreUnavailable):
            await limiter.acquire(LIMIT, tokens=1, timeout_s=60)
        limiter.penalise(LIMIT, retry_after_s=1)
        limiter.settle(Grant(LIMIT, 5), used_tokens=1)

    with_limiter(own_redis.url, body, rpm=60_000, timeout_s=0.2)


def test_a_limit_that_nobody_used_has_an_empty_snapshot(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Store) -> LimitSnapshot:
        return await limiter.snapshot(LIMIT)

    expected = LimitSnapshot(LIMIT, 5, 6, 0, 0, 0, None, 0, 0, 0, None, rate=pytest.approx(5 / 60))
    assert with_limiter(redis_url, body, rpm=5, tpm=6) == expected


def test_the_keys_of_one_model_share_a_hash_tag(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Store) -> None:
        for _call in range(30):
            with contextlib.suppress(DeadlineExceeded):
                await limiter.acquire(["provider/model/one", "provider/model/two"], tokens=1, timeout_s=0)

    with_limiter(redis_url, body, limits={"provider/model": LimitSettings(rpm=5)})
    with connect(redis_url) as client:
        found = [key.decode() for key in client.scan_iter()]
        assert {key.split(":")[3] for key in found} == {"one", "two"}
        assert every(key.startswith("fleet:limit:{provider/model}:") and client.ttl(key) > 0 for key in found)


def test_of_several_keys_the_one_that_can_go_soonest_is_taken(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Store) -> list[str]:
        names = ["provider/model/one", "provider/model/two", "provider/model/three"]
        grants = [await limiter.acquire(names, tokens=1, timeout_s=0) for _ in range(3)]
        with pytest.raises(DeadlineExceeded):
            await limiter.acquire(names, tokens=1, timeout_s=0)
        return sorted(grant.limit for grant in grants)

    taken = with_limiter(redis_url, body, limits={"provider/model": LimitSettings(rpm=1)})
    assert taken == ["provider/model/one", "provider/model/three", "provider/model/two"]


def test_all_waiting_calls_are_granted_once_and_none_is_forgotten(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> tuple[int, LimitSnapshot, float]:
        async def call(number: int) -> None:
            caller = Caller(bot=f"bot-{number % 7}", priority=Priority(number % 5))
            grant = await limiter.acquire(LIMIT, tokens=100, timeout_s=30, caller=caller)
            limiter.settle(grant, used_tokens=40 + number % 60)

        await asyncio.gather(*[call(number) for number in range(200)])
        await sent(store)
        return 200, await limiter.snapshot(LIMIT), limiter.questions / 200

    limits = {LIMIT: LimitSettings(tpm=1_200_000, burst=0.001)}
    count, snapshot, questions = with_limiter(redis_url, body, limits=limits)
    assert (snapshot.granted, snapshot.waiting) == (count, 0)
    assert questions < 8


@pytest.mark.parametrize(
    ("counted_minutes_ago", "second", "expected"), [(0, 0, 130), (0, 30, 80), (0, 60, 30), (1, 30, 15), (2, 0, 0)]
)
def test_use_in_the_last_minute_slides(counted_minutes_ago: int, second: int, expected: float) -> None:
    now_us = 1000 * MINUTE_US + second * 1_000_000 - (second == 60)
    state = list(STATE.unpack(b""))
    state[At.MINUTE], state[At.MINUTE_REQUESTS], state[At.BEFORE_REQUESTS] = (
        1000 - counted_minutes_ago,
        30,
        100,
    )
    assert last_minute(state, now_us)[0] == pytest.approx(expected, abs=0.01)


def test_callers_without_a_name_leave_one_entry_among_the_bots(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> int:
        await asyncio.gather(*[limiter.acquire(LIMIT, tokens=1, timeout_s=5) for _ in range(20)])
        return int(await store.command("ZCARD", keys.limit_keys(LIMIT).bots))

    assert with_limiter(redis_url, body, rpm=60_000) == 1


def test_a_refusal_of_too_many_at_once_is_learnt_by_all_and_ends_no_later_than_a_call_does(redis_url: str) -> None:
    """A provider takes 4 calls at once, says a minute in `Retry-After`, and 24 calls come together."""
    flying, most, refused, answered = 0, 0, 0, 0

    async def call(limiter: Limiter, number: int) -> None:
        nonlocal flying, most, refused, answered
        while True:
            grant = await limiter.acquire(LIMIT, tokens=10, timeout_s=60, caller=Caller(f"bot-{number}"))
            if flying >= 4:
                refused += 1
                limiter.narrow(LIMIT)
                limiter.settle(grant, used_tokens=0)
                await asyncio.sleep(0.05)
                continue
            flying, answered = flying + 1, answered + 1
            most = max(most, flying)
            await asyncio.sleep(0.2)
            flying -= 1
            limiter.settle(grant, used_tokens=10)
            return

    async def body(limiter: Limiter, _: Store) -> LimitSnapshot:
        await asyncio.gather(*[call(limiter, number) for number in range(24)])
        return await limiter.snapshot(LIMIT)

    shown = with_limiter(redis_url, body, rpm=6_000_000)
    assert answered == 24 and refused <= 40
    assert shown.in_flight_is_learnt and 1 <= (shown.most_in_flight or 0) <= 4


def test_input_read_from_the_providers_cache_counts_unless_the_limit_says_not(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Store) -> tuple[int, int]:
        for _call in range(3):
            grant = await limiter.acquire(LIMIT, tokens=1020, input_tokens=1000, timeout_s=5)
            limiter.settle(grant, used_tokens=1010, used_output_tokens=10, cached_tokens=900)
        failed = await limiter.acquire(LIMIT, tokens=1020, input_tokens=1000, timeout_s=5)
        limiter.settle(failed, used_tokens=0)
        last = await limiter.acquire(LIMIT, tokens=1020, input_tokens=1000, timeout_s=5)
        limiter.settle(last, used_tokens=0)
        return (await limiter.snapshot(LIMIT)).granted_tokens, last.reserved_tokens

    assert with_limiter(redis_url, body, input_tpm=1_000_000) == (3 * 1010, 1020)
    counted, reserved = with_limiter(redis_url, body, limits={LIMIT: UNCOUNTED})
    assert counted - 3 * 1010 == 3 * 110
    assert reserved < 1020  # and what is surely in the cache need not be reserved


def test_nothing_is_taken_for_cached_that_was_not_lately(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Store) -> list[int]:
        reserved = []
        for cached in (900, 900, 900, 0, 10**9, -5):
            grant = await limiter.acquire(LIMIT, tokens=1020, input_tokens=1000, timeout_s=5)
            reserved.append(grant.reserved_tokens)
            limiter.settle(grant, used_tokens=1010, used_output_tokens=10, cached_tokens=cached)
        return reserved

    reserved = with_limiter(redis_url, body, limits={LIMIT: UNCOUNTED})
    assert reserved[:4] == sorted(reserved[:4], reverse=True) and reserved[3] < 1020
    assert reserved[4] == 1020  # the last one had nothing in the cache
    assert reserved[5] > 950  # one lucky call says little


def test_a_limit_that_surely_is_lower_than_configured_is_said_once(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(limiter: Limiter, store: Store) -> None:
        for number in range(6):
            limiter._find(LIMIT).observe_at = 0.0  # type: ignore[union-attr]
            grant = await limiter.acquire(LIMIT, tokens=1, timeout_s=5)
            limiter.settle(grant, used_tokens=1)
            day = RateReading(1000, 999 - number, (1 + number) * 86.4)
            assert limiter.listens(grant)
            limiter.observe(grant, (day, RateReading(9000, 8000, 5.0), RateReading(), RateReading()))
            assert not limiter.listens(grant)  # it has just heard
            await sent(store)

    with_limiter(redis_url, body, rpm=2000, tpm=10_000)
    said = [record.getMessage() for record in caplog.records if "limit_lowered" in record.getMessage()]
    assert said == [f"limit_lowered limit={LIMIT} tpm=10000 provider_allows=9000"]  # not of the day: rpm=2000 holds
