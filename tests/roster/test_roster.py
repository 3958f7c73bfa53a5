"""Seeding, checking out and renewing on a real Redis. Checking in: `engine/outcomes/test_completion.py`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest
import redis

from fleet.config import PoolSettings, Settings
from fleet.errors import BotsQuarantined, ConfigurationError
from fleet.models import bot_name
from fleet.roster import LOAD_UNIT, Checkout, Roster, read_bots
from fleet.store import keys
from fleet.store.client import Store, connect

T = TypeVar("T")


def settings_of(**bots: int) -> Settings:
    return Settings(pools={pool: PoolSettings(bots=number) for pool, number in bots.items()})


def with_roster(
    url: str, settings: Settings, work: Callable[[Roster], Awaitable[T]], *, lease_s: float = 60.0, seed: bool = True
) -> T:
    async def run() -> T:
        store = Store(url)
        try:
            roster = Roster(store, settings, lease_s=lease_s)
            if seed:
                await roster.seed()
            return await work(roster)
        finally:
            await store.close()

    return asyncio.run(run())


def loads(client: redis.Redis, pool: str) -> dict[str, int]:
    rows = client.zrange(keys.bots(pool), 0, -1, withscores=True)
    return {bot.decode(): int(score) // LOAD_UNIT for bot, score in rows}


async def take(roster: Roster, pool: str, number: int, *, first: int = 0) -> list[Checkout]:
    """Check `number` bots out in parallel, for different tasks."""
    tokens = [f"token-{index}" for index in range(first, first + number)]
    taken = await asyncio.gather(*(roster.check_out(pool, task_id=f"task-of-{t}", token=t) for t in tokens))
    return [checkout for checkout in taken if checkout is not None]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def test_seeding_makes_every_configured_bot_and_nothing_else(redis_url: str, client: redis.Redis) -> None:
    with_roster(redis_url, settings_of(research=2, writing=3), lambda roster: roster.seed())
    assert loads(client, "research") == {"research-001": 0, "research-002": 0}
    assert loads(client, "writing") == {"writing-001": 0, "writing-002": 0, "writing-003": 0}


def test_seeding_again_keeps_the_loads(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> None:
        await take(roster, "p", 3)
        before = client.zrange(keys.bots("p"), 0, -1, withscores=True)
        await roster.seed()
        assert client.zrange(keys.bots("p"), 0, -1, withscores=True) == before

    with_roster(redis_url, settings_of(p=2), work)
    assert sorted(loads(client, "p").values()) == [1, 2]


def test_a_bot_beyond_the_configured_number_takes_no_new_task(redis_url: str, client: redis.Redis) -> None:
    with_roster(redis_url, settings_of(p=4), lambda roster: take(roster, "p", 4))
    later = with_roster(redis_url, settings_of(p=2), lambda roster: take(roster, "p", 6, first=4))
    assert {checkout.bot for checkout in later} == {"p-001", "p-002"}
    assert loads(client, "p") == {"p-001": 4, "p-002": 4}


def test_a_bot_that_comes_back_carries_what_it_still_runs(redis_url: str, client: redis.Redis) -> None:
    with_roster(redis_url, settings_of(p=3), lambda roster: take(roster, "p", 6))
    with_roster(redis_url, settings_of(p=1), lambda roster: roster.seed())
    with_roster(redis_url, settings_of(p=3), lambda roster: roster.seed())
    assert loads(client, "p") == {"p-001": 2, "p-002": 2, "p-003": 2}


@pytest.mark.parametrize(("bots", "tasks"), [(1, 20), (7, 7), (7, 100), (100, 250), (100, 30)])
def test_parallel_checkouts_spread_evenly(redis_url: str, client: redis.Redis, bots: int, tasks: int) -> None:
    taken = with_roster(redis_url, settings_of(p=bots), lambda roster: take(roster, "p", tasks))
    assert len(taken) == tasks
    counts = loads(client, "p")
    assert max(counts.values()) - min(counts.values()) <= 1
    assert Counter(checkout.bot for checkout in taken) == Counter({bot: n for bot, n in counts.items() if n})
    assert client.zcard(keys.bot_leases("p")) == client.hlen(keys.bot_claims("p")) == tasks


def test_checkouts_from_two_stores_at_once_spread_evenly(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> None:
        other = Store(redis_url)
        try:
            second = Roster(other, settings_of(p=10))
            await asyncio.gather(take(roster, "p", 25), take(second, "p", 25, first=100))
        finally:
            await other.close()

    with_roster(redis_url, settings_of(p=10), work)
    assert set(loads(client, "p").values()) == {5}


def test_among_equal_loads_the_bot_that_waited_longest_goes_first(redis_url: str, client: redis.Redis) -> None:
    order = ["p-002", "p-003", "p-001"]

    async def work(roster: Roster) -> list[Checkout]:
        client.zadd(keys.bots("p"), {bot: LOAD_UNIT + 1000 + rank for rank, bot in enumerate(order)})
        return [checkout for n in range(3) for checkout in await take(roster, "p", 1, first=n)]

    assert [checkout.bot for checkout in with_roster(redis_url, settings_of(p=3), work)] == order


def test_the_score_stays_exact_up_to_8191_tasks_on_one_bot(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> None:
        client.zadd(keys.bots("p"), {"p-001": 8190 * LOAD_UNIT + LOAD_UNIT - 1})
        await take(roster, "p", 1)

    with_roster(redis_url, settings_of(p=1), work)
    score = client.zscore(keys.bots("p"), "p-001")
    now_ms = client.time()[0] * 1000 - 1_735_689_600_000
    assert int(score) // LOAD_UNIT == 8191
    assert abs(int(score) % LOAD_UNIT - now_ms) < 60_000


def test_the_same_token_again_answers_the_same_bot(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> None:
        first = await roster.check_out("p", task_id="t", token="a|b")
        await take(roster, "p", 3)
        assert await roster.check_out("p", task_id="t", token="a|b") == first

    with_roster(redis_url, settings_of(p=5), work)
    assert sum(loads(client, "p").values()) == 4


def test_a_task_that_has_a_result_gets_no_bot(redis_url: str, client: redis.Redis) -> None:
    client.set(keys.result("t"), "{}")
    taken = with_roster(redis_url, settings_of(p=1), lambda roster: roster.check_out("p", task_id="t", token="x"))
    assert taken is None
    assert loads(client, "p") == {"p-001": 0}


def test_an_empty_pool_is_seeded_by_the_first_checkout(redis_url: str, client: redis.Redis) -> None:
    taken = with_roster(redis_url, settings_of(p=2), lambda roster: take(roster, "p", 2), seed=False)
    assert {checkout.bot for checkout in taken} == {"p-001", "p-002"}


def test_an_unknown_pool_is_an_error_that_names_the_known_ones(redis_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected one of research, writing, got 'nope'"):
        with_roster(
            redis_url, settings_of(research=1, writing=1), lambda r: r.check_out("nope", task_id="t", token="x")
        )


def test_the_load_of_a_dead_holder_returns_when_its_leases_expire(redis_url: str, client: redis.Redis) -> None:
    with_roster(redis_url, settings_of(p=2), lambda roster: take(roster, "p", 10), lease_s=0.001)

    async def one_more_until_reaped(roster: Roster) -> None:
        async with asyncio.timeout(5):
            while client.zcard(keys.bot_leases("p")) > 1:
                await roster.check_out("p", task_id="t", token="living")
                await asyncio.sleep(0.005)

    with_roster(redis_url, settings_of(p=2), one_more_until_reaped)
    assert sorted(loads(client, "p").values()) == [0, 1]
    assert client.hkeys(keys.bot_claims("p")) == [b"living"]


def test_what_a_dead_holder_had_in_hand_is_shown_in_no_hand_though_nobody_has_reaped_it(
    redis_url: str, client: redis.Redis
) -> None:
    async def work(roster: Roster) -> None:
        for checkout in await take(roster, "p", 40):
            client.zadd(keys.bot_leases("p"), {checkout.member: 1})
        assert read_bots(client, ["p"])["p"].loads == {}
        living = await roster.check_out("p", task_id="t", token="living")
        assert living is not None and read_bots(client, ["p"])["p"].loads == {living.bot: 1}

    with_roster(redis_url, settings_of(p=3), work)


def test_one_checkout_reaps_a_bounded_number_of_leases(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> None:
        for checkout in await take(roster, "p", 40):
            client.zadd(keys.bot_leases("p"), {checkout.member: 1})
        await roster.check_out("p", task_id="t", token="living")

    with_roster(redis_url, settings_of(p=3), work)
    assert sum(loads(client, "p").values()) == 40 - 16 + 1


def test_an_expired_lease_of_a_dropped_bot_is_reaped_without_a_trace(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> None:
        for checkout in await take(roster, "p", 3):
            client.zadd(keys.bot_leases("p"), {checkout.member: 1})

    with_roster(redis_url, settings_of(p=3), work)
    with_roster(redis_url, settings_of(p=1), lambda r: r.check_out("p", task_id="t", token="living"))
    assert loads(client, "p") == {"p-001": 1}
    assert client.zcard(keys.bot_leases("p")) == 1


def test_renewing_keeps_leases_of_several_pools_in_one_call(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> None:
        held = [*await take(roster, "p", 2), *await take(roster, "q", 3, first=10)]
        for checkout in held:
            client.zadd(keys.bot_leases(checkout.pool), {checkout.member: 1})
        assert await roster.renew(held) == ()
        assert await roster.renew([]) == ()

    with_roster(redis_url, settings_of(p=2, q=2), work)
    soon_us = client.time()[0] * 1_000_000 + 30_000_000
    assert client.zcount(keys.bot_leases("p"), soon_us, "+inf") == 2
    assert client.zcount(keys.bot_leases("q"), soon_us, "+inf") == 3


def test_renewing_says_which_leases_were_lost_and_does_not_bring_them_back(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> None:
        held = [*await take(roster, "p", 3), *await take(roster, "q", 1, first=10)]
        client.zrem(keys.bot_leases("p"), held[1].member)
        client.zrem(keys.bot_leases("q"), held[3].member)
        assert await roster.renew(held) == (held[1], held[3])

    with_roster(redis_url, settings_of(p=2, q=2), work)
    assert client.zcard(keys.bot_leases("p")) == 2
    assert client.zcard(keys.bot_leases("q")) == 0


def test_every_roster_key_has_a_life(redis_url: str, client: redis.Redis) -> None:
    with_roster(redis_url, settings_of(p=1), lambda roster: take(roster, "p", 1))
    for name in (keys.bots("p"), keys.bot_leases("p"), keys.bot_claims("p")):
        assert 0 < client.ttl(name) <= keys.STATE_TTL_S


@pytest.mark.parametrize(("bots", "tasks"), [(1, 9), (3, 20), (40, 31), (7, 2)])
def test_tasks_that_come_together_get_the_bots_that_they_would_get_one_by_one_in_the_same_millisecond(
    redis_url: str, client: redis.Redis, bots: int, tasks: int
) -> None:
    order = {bot_name("p", n): (n * 7 % 3) * LOAD_UNIT + n * 5 % 11 for n in range(1, bots + 1)}
    client.zadd(keys.bots("p"), order)

    async def work(roster: Roster) -> list[str]:
        asked = [roster.check_out("p", task_id=f"t{n}", token=f"x{n}") for n in range(tasks)]
        found = await asyncio.gather(*asked)
        assert found == await asyncio.gather(
            *(roster.check_out("p", task_id=f"t{n}", token=f"x{n}") for n in range(tasks))
        )
        return [one.bot for one in found if one]

    expected = []
    for _ in range(tasks):
        bot = min(order, key=lambda name: (order[name], name))
        expected.append(bot)
        order[bot] = (order[bot] // LOAD_UNIT + 1) * LOAD_UNIT + 1_000_000
    assert with_roster(redis_url, settings_of(p=bots), work, seed=False) == expected
    assert client.zcard(keys.bot_leases("p")) == client.hlen(keys.bot_claims("p")) == tasks
    assert loads(client, "p") == {bot: score // LOAD_UNIT for bot, score in order.items()}


def test_of_tasks_that_come_together_none_has_a_bot_that_is_done_and_one_token_has_one_bot(
    redis_url: str, client: redis.Redis
) -> None:
    client.set(keys.result("t1"), '{"status": "SUCCESS"}')
    client.set(keys.result("t2"), '{"status": "REVOKED"}')

    async def work(roster: Roster) -> list[Checkout | None]:
        asked = [("t0", "a"), ("t1", "b"), ("t2", "c"), ("t3", "d"), ("t3", "d")]
        return list(await asyncio.gather(*(roster.check_out("p", task_id=t, token=token) for t, token in asked)))

    first, done, anew, twice, same = with_roster(redis_url, settings_of(p=4), work)
    assert done is None and twice == same and len({first.bot, anew.bot, twice.bot}) == 3
    assert sum(loads(client, "p").values()) == client.zcard(keys.bot_leases("p")) == 3
    assert not client.exists(keys.result("t2"))


def test_leases_have_a_life_after_all_of_them_were_reaped_in_the_same_step(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> None:
        for checkout in await take(roster, "p", 3):
            client.zadd(keys.bot_leases("p"), {checkout.member: 1})
        await roster.check_out("p", task_id="t", token="living")

    with_roster(redis_url, settings_of(p=3), work)
    assert client.hkeys(keys.bot_claims("p")) == [b"living"]
    for name in (keys.bot_leases("p"), keys.bot_claims("p")):
        assert 0 < client.ttl(name) <= keys.STATE_TTL_S


@pytest.mark.parametrize("besides", [[], ["p-011"]], ids=["a task", "a second opinion"])
def test_bots_without_money_stop_neither_tasks_nor_second_opinions(
    redis_url: str, client: redis.Redis, besides: list[str]
) -> None:
    out = {f"p-{number:03d}" for number in range(1, 11)}

    async def run() -> list[Checkout | None]:
        store = Store(redis_url)
        try:
            roster = Roster(store, settings_of(p=20), avoid=lambda pool, priority: sorted(out))
            await roster.seed()
            client.zadd(keys.bots("p"), dict.fromkeys(out, 1000), xx=True)  # the first to be looked at
            client.zadd(keys.bots("p"), {f"p-{number:03d}": LOAD_UNIT + 1000 for number in range(11, 21)}, xx=True)
            tokens = [f"token-{number}" for number in range(40)]
            checks = (roster.check_out("p", task_id=f"task-{t}", token=t, besides=besides) for t in tokens)
            return [await check for check in checks]
        finally:
            await store.close()

    taken = [one.bot for one in asyncio.run(run()) if one is not None]
    assert len(taken) == 40 and not out.intersection(taken) and not set(besides).intersection(taken)
    loads_now = loads(client, "p")
    assert {loads_now[bot] for bot in out} == {0} and sum(loads_now.values()) == 40 + 10
    assert client.zcard(keys.bot_leases("p")) == client.hlen(keys.bot_claims("p")) == 40


def test_the_keys_of_leases_keep_a_life_when_the_only_claim_ends_for_a_bot_without_money(
    redis_url: str, client: redis.Redis
) -> None:
    out: list[str] = []

    async def run() -> list[str]:
        store = Store(redis_url)
        try:
            roster = Roster(store, settings_of(p=2), avoid=lambda pool, priority: out)
            await roster.seed()
            for _ in range(2):
                checkout = await roster.check_out("p", task_id="one", token="one")
                assert checkout is not None
                out.append(checkout.bot)
            return out
        finally:
            await store.close()

    assert sorted(asyncio.run(run())) == ["p-001", "p-002"]
    for name in (keys.bot_leases("p"), keys.bot_claims("p")):
        assert 0 < client.ttl(name) <= keys.STATE_TTL_S


def test_a_pool_whose_bots_all_lack_money_waits_and_one_on_probation_goes_before_that(
    redis_url: str, client: redis.Redis
) -> None:
    out = ["p-001", "p-002"]

    async def run() -> str:
        store = Store(redis_url)
        try:
            roster = Roster(store, settings_of(p=3), avoid=lambda pool, priority: out)
            await roster.seed()
            client.zadd(keys.bots("p"), {"p-003": LOAD_UNIT - 1}, xx=True)  # its turn is far in the future
            checkout = await roster.check_out("p", task_id="one", token="one")
            out.append("p-003")
            with pytest.raises(BotsQuarantined):
                await roster.check_out("p", task_id="two", token="two")
            return "" if checkout is None else checkout.bot
        finally:
            await store.close()

    assert asyncio.run(run()) == "p-003"
    assert loads(client, "p") == {"p-001": 0, "p-002": 0, "p-003": 1}
