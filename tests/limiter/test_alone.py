"""The limiter in a program that is no fleet: asyncio, threads, and what importing it costs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fleet.config import LimitSettings
from fleet.errors import ConfigurationError, DeadlineExceeded, StoreUnavailable
from fleet.limiter import LimitedCall, Limiter, LimitSnapshot, ThreadedLimiter, limited, open_limiter
from tests.forks import in_child
from tests.redis_server import RedisServer
from tests.waiting import wait_until

LIMIT = "openai/gpt-5/default"
LIMITS = {"openai/gpt-5": LimitSettings(rpm=60_000, tpm=600_000)}


def snapshot(url: str) -> LimitSnapshot:
    async def read() -> LimitSnapshot:
        async with open_limiter(url, LIMITS) as limiter:
            return await limiter.snapshot(LIMIT)

    return asyncio.run(read())


def refused(call: LimitedCall) -> None:
    call.refused(retry_after_s=30)


def failed(call: LimitedCall) -> None:
    raise ZeroDivisionError


ENDS = [
    (lambda call: call.used(70), (70, 0)),
    (lambda call: None, (100, 0)),  # nothing said: all of it counts
    (failed, (100, 0)),
    (refused, (0, 1)),
]


@pytest.mark.parametrize(("end", "expected"), ENDS)
def test_a_limited_block_settles_whatever_comes_of_it(
    redis_url: str, end: Callable[[LimitedCall], None], expected: tuple[int, int]
) -> None:
    async def in_asyncio(limiter: Limiter) -> None:
        async with limited(limiter, LIMIT, tokens=100) as call:
            end(call)

    async def main() -> None:
        async with open_limiter(redis_url, LIMITS) as limiter:
            await in_asyncio(limiter)

    if end is failed:
        with pytest.raises(ZeroDivisionError):
            asyncio.run(main())
    else:
        asyncio.run(main())
    found = snapshot(redis_url)
    assert (found.used_tpm, found.refused) == (pytest.approx(expected[0]), expected[1])


@pytest.mark.parametrize(("end", "expected"), ENDS)
def test_a_limited_block_settles_in_a_thread_as_well(
    redis_url: str, end: Callable[[LimitedCall], None], expected: tuple[int, int]
) -> None:
    def use(limiter: ThreadedLimiter) -> None:
        with limiter.limited(LIMIT, tokens=100) as call:
            end(call)

    with ThreadedLimiter(redis_url, LIMITS) as limiter:
        if end is failed:
            with pytest.raises(ZeroDivisionError):
                use(limiter)
        else:
            use(limiter)
    found = snapshot(redis_url)
    assert (found.used_tpm, found.refused) == (pytest.approx(expected[0]), expected[1])


def test_fifty_threads_share_one_limit(redis_url: str) -> None:
    limits = {"openai/gpt-5": LimitSettings(rpm=6000, burst=0.0005, counting="bucket")}  # 10 ms a call
    granted: list[str] = []

    def call(limiter: ThreadedLimiter) -> None:
        with limiter.limited(LIMIT, tokens=10) as call:
            granted.append(call.grant.ticket)

    begin = time.monotonic()
    with ThreadedLimiter(redis_url, limits) as limiter:
        threads = [threading.Thread(target=call, args=(limiter,)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(set(granted)) == 50
    assert time.monotonic() - begin >= 0.45  # 50 calls, 10 ms apart, less a small burst


def test_errors_come_out_of_the_blocking_call(redis_url: str, own_redis: RedisServer) -> None:
    with ThreadedLimiter(redis_url, {"openai/gpt-5": LimitSettings(rpm=1)}) as limiter:
        limiter.acquire(LIMIT, tokens=1)
        with pytest.raises(DeadlineExceeded):
            limiter.acquire(LIMIT, tokens=1, timeout_s=0.5)
        with pytest.raises(ConfigurationError, match="expected a known limit"):
            limiter.acquire("nobody/nothing/default", tokens=1)
    own_redis.kill()
    with ThreadedLimiter(own_redis.url, LIMITS, timeout_s=0.3) as limiter, pytest.raises(StoreUnavailable):
        limiter.acquire(LIMIT, tokens=1)


def test_a_closed_limiter_ends_its_thread(redis_url: str) -> None:
    before = threading.active_count()
    limiter = ThreadedLimiter(redis_url, LIMITS)
    limiter.acquire(LIMIT, tokens=1)
    limiter.close()
    limiter.close()
    assert threading.active_count() == before


def test_threads_that_wait_are_told_when_the_limiter_is_closed(redis_url: str) -> None:
    limiter = ThreadedLimiter(redis_url, {"openai/gpt-5": LimitSettings(rpm=1, counting="bucket")})
    grant = limiter.acquire(LIMIT, tokens=1)
    told: list[BaseException] = []

    def wait() -> None:
        try:
            limiter.acquire(LIMIT, tokens=1, timeout_s=600)
        except StoreUnavailable as error:
            told.append(error)

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: snapshot(redis_url).waiting == 2, 10, "one has a slot far ahead, the others wait for theirs")
    limiter.close()
    for thread in threads:
        thread.join(10)
    limiter.settle(grant, used_tokens=1)
    with pytest.raises(StoreUnavailable, match="got one that was closed"):
        limiter.acquire(LIMIT, tokens=1)
    assert [str(error).count("got one that was closed") for error in told] == [1, 1, 1]
    found = snapshot(redis_url)
    assert (found.waiting, found.granted) == (0, 1)


def test_money_of_a_call_that_nobody_knows_the_cost_of_stays_spent(redis_url: str) -> None:
    limits = {"openai/gpt-5": LimitSettings(usd_per_day=1.0)}
    with ThreadedLimiter(redis_url, limits) as limiter:
        with limiter.limited(LIMIT, tokens=10, cost_usd_micros=400_000) as call:
            call.used(5)
        with pytest.raises(ZeroDivisionError), limiter.limited(LIMIT, tokens=10, cost_usd_micros=400_000):
            raise ZeroDivisionError
        with pytest.raises(DeadlineExceeded):
            limiter.acquire(LIMIT, tokens=10, cost_usd_micros=400_000, timeout_s=0.1)
        with pytest.raises(ConfigurationError, match="expected cost_usd_micros, for usd_per_day is limited, got none"):
            limiter.acquire(LIMIT, tokens=10, timeout_s=0.1)


def test_importing_the_limiter_brings_in_neither_celery_nor_an_http_client() -> None:
    code = "import sys, fleet.limiter; print(*{name.partition('.')[0] for name in sys.modules})"
    found: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"celery", "kombu", "flower", "aiohttp", "workers"} & set(found.split())


def test_a_forked_process_gets_turns_of_its_own_while_its_parent_goes_on(redis_url: str) -> None:
    with ThreadedLimiter(redis_url, LIMITS) as limiter:
        limiter.settle(limiter.acquire(LIMIT, tokens=10), used_tokens=10)
        answers = [in_child(lambda: limiter.acquire(LIMIT, tokens=10, timeout_s=10).limit) for _ in range(3)]
        assert limiter.acquire(LIMIT, tokens=10, timeout_s=10).limit == LIMIT
        assert [answer() for answer in answers] == [LIMIT] * 3
        assert limiter.acquire(LIMIT, tokens=10, timeout_s=10).limit == LIMIT  # the children ended; our loop lives
