"""What the limiter does when Redis forgets, freezes, fails over, or has its clock set."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.config import LimitSettings
from fleet.errors import DeadlineExceeded, StoreUnavailable
from fleet.limiter import Grant, Limiter, open_limiter
from fleet.limiter.layouts import STATE, At
from fleet.store import keys
from fleet.store.client import connect
from tests.redis_server import RedisServer
from tests.waiting import wait_until

LIMIT = "provider/model/key"
#: 200 calls a second, a burst of 4.
FAST = LimitSettings(rpm=12_000, burst=0.02 / 60, counting="bucket")
HOUR_US = 3_600_000_000


async def spend(limiter: Limiter, seconds: float, callers: int = 20, at_least: int = 0) -> list[Grant]:
    """Call as often as it is allowed, and return the grants; where the machine stalls, until there are `at_least`."""
    grants: list[Grant] = []
    end = time.monotonic() + seconds
    at_last = end + 10

    async def caller() -> None:
        while (left_s := (end if len(grants) >= at_least else at_last) - time.monotonic()) > 0:
            try:
                grants.append(await limiter.acquire(LIMIT, tokens=1, timeout_s=left_s))
            except DeadlineExceeded:
                return
            limiter.settle(grants[-1], used_tokens=1)

    await asyncio.gather(*[caller() for _ in range(callers)])
    return grants


def most_in(grants: list[Grant], window_us: int) -> int:
    """Return the most grants that any window holds, by the time of Redis."""
    times = sorted(grant.mark[0] for grant in grants)
    first, most = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - window_us:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_scripts_that_redis_forgets_in_the_middle_are_sent_again(redis_url: str) -> None:
    async def main() -> list[Grant]:
        async with open_limiter(redis_url, {LIMIT: FAST}) as limiter:
            spending = asyncio.ensure_future(spend(limiter, 0.8))
            with connect(redis_url) as client:
                for _ in range(4):
                    await asyncio.sleep(0.1)
                    client.script_flush()
            grants = await spending
            assert (await limiter.snapshot(LIMIT)).granted == len(grants)
            return grants

    assert most_in(asyncio.run(main()), 500_000) <= 100 + 4 + 1


def test_a_frozen_redis_stops_calls_within_the_timeout_and_they_go_on_when_it_is_back(own_redis: RedisServer) -> None:
    async def main() -> int:
        async with open_limiter(own_redis.url, {LIMIT: FAST}, timeout_s=0.3) as limiter:
            await limiter.acquire(LIMIT, tokens=1, timeout_s=60)
            own_redis.freeze()
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await limiter.acquire(LIMIT, tokens=1, timeout_s=60)
            own_redis.thaw()
            return len(await spend(limiter, 0.2, at_least=10))

    assert asyncio.run(main()) >= 10


def test_after_a_failover_to_a_replica_that_lags_no_more_is_granted_again_than_it_had_missed(tmp_path: Path) -> None:
    (tmp_path / "replica").mkdir()
    master = RedisServer(tmp_path)
    replica = RedisServer(
        tmp_path / "replica", "--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0"
    )

    async def spend_at(url: str, seconds: float) -> list[Grant]:
        async with open_limiter(url, {LIMIT: FAST}) as limiter:
            return await spend(limiter, seconds, at_least=50)

    with connect(replica.url) as client:
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", 20, "the replica is in sync")
        before = asyncio.run(spend_at(master.url, 0.5))
        wait_until(lambda: client.exists(keys.limit(LIMIT)), 10, "the replica has the limit")
        client.execute_command("REPLICAOF NO ONE")
    missed = asyncio.run(spend_at(master.url, 0.5))
    master.kill()
    after = asyncio.run(spend_at(replica.url, 0.5))
    replica.stop()
    grants = before + missed + after
    assert min(len(before), len(missed), len(after)) >= 50
    # Each server alone keeps the pace; together they grant again what the replica had missed, and a burst.
    for part in (before + missed, after):
        assert most_in(part, 400_000) <= 80 + 4 + 1
    lasted_us = max(grant.mark[0] for grant in grants) - min(grant.mark[0] for grant in grants)
    assert len(grants) <= lasted_us / 5000 + len(missed) + 4 + 1


@pytest.mark.parametrize("limit", [FAST, FAST.model_copy(update={"counting": "window"})])
def test_when_the_clock_is_set_back_by_an_hour_calls_go_on_at_their_pace(redis_url: str, limit: LimitSettings) -> None:
    async def main() -> list[Grant]:
        async with open_limiter(redis_url, {LIMIT: limit}) as limiter:
            await spend(limiter, 0.3)
            with connect(redis_url) as client:
                put_forward(client, HOUR_US)
            return await spend(limiter, 0.5, at_least=50)

    grants = asyncio.run(main())
    assert len(grants) >= 50
    assert most_in(grants, 250_000) <= 50 + 4 + 1


def test_when_the_clock_is_set_forward_no_more_than_a_burst_goes_at_once(redis_url: str) -> None:
    async def main() -> list[Grant]:
        async with open_limiter(redis_url, {LIMIT: FAST}) as limiter:
            await spend(limiter, 0.3)
            with connect(redis_url) as client:
                put_forward(client, -HOUR_US)
            return await spend(limiter, 0.5)

    assert most_in(asyncio.run(main()), 250_000) <= 50 + 4 + 1


def put_forward(client: Any, by_us: int) -> None:
    """Let a limit's state be as a clock that was `by_us` ahead would have left it."""
    names = keys.limit_keys(LIMIT)
    state = list(STATE.unpack(client.get(names.state)))
    clocks = [At.CLOCK + k for k in (1, 2, 3, 4)]
    for k in (*clocks, At.HELD_UNTIL, At.REFUSED_AT, At.SWEEP_AT):
        state[k] += by_us if state[k] else 0
    for k in (At.ASKED_MS + class_ for class_ in range(4)):
        state[k] += by_us / 1000 if state[k] else 0
    state[At.MINUTE] += by_us // 60_000_000
    client.set(names.state, STATE.pack(state[1:]), ex=3600)
    for name in (names.due, names.log, names.leases):
        for member in client.zrange(name, 0, -1):
            client.zincrby(name, by_us, member)
