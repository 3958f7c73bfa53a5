"""Quarantined bots: none is checked out, none is lost, and each comes back with what it carries."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import redis

from fleet.errors import BotsQuarantined, ConfigurationError
from fleet.roster import LOAD_UNIT, Checkout, Roster, quarantine, read_quarantined, release
from fleet.roster.quarantine import OUT
from fleet.store import keys
from fleet.store.client import connect
from tests.roster.test_roster import loads, settings_of, take, with_roster


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


async def nothing(roster: Roster) -> None:
    """Seeding is all that is needed."""


def bots_of(taken: list[Checkout]) -> set[str]:
    return {checkout.bot for checkout in taken}


def test_a_quarantined_bot_takes_no_new_task(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> list[Checkout]:
        assert quarantine(client, "p", "p-002", by="me")
        return await take(roster, "p", 30)

    assert bots_of(with_roster(redis_url, settings_of(p=3), work)) == {"p-001", "p-003"}


def test_a_released_bot_comes_back_with_what_it_still_runs(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> list[Checkout]:
        first = await take(roster, "p", 6)
        quarantine(client, "p", "p-001", by="me")
        mine = [checkout for checkout in first if checkout.bot == "p-001"]
        client.zincrby(keys.bots("p"), -LOAD_UNIT, "p-001")  # as one of its tasks is finished
        assert await roster.renew(mine) == ()
        assert release(client, "p", "p-001")
        assert loads(client, "p") == {"p-001": 1, "p-002": 2, "p-003": 2}
        return await take(roster, "p", 1, first=10)

    assert bots_of(with_roster(redis_url, settings_of(p=3), work)) == {"p-001"}
    assert read_quarantined(client, ["p"]) == {}


def test_a_repeated_checkout_answers_the_same_bot_though_it_was_quarantined_since(
    redis_url: str, client: redis.Redis
) -> None:
    async def work(roster: Roster) -> None:
        first = await roster.check_out("p", task_id="t", token="a")
        assert first
        quarantine(client, "p", first.bot, by="me")
        assert await roster.check_out("p", task_id="t", token="a") == first

    with_roster(redis_url, settings_of(p=2), work)


def test_when_all_bots_are_out_it_says_so_until_one_is_released(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> None:
        for bot in ("p-001", "p-002"):
            quarantine(client, "p", bot, by="me")
        with pytest.raises(BotsQuarantined, match="pool p: all its bots are quarantined"):
            await roster.check_out("p", task_id="t", token="a")
        assert client.zcard(keys.bot_leases("p")) == 0
        release(client, "p", "p-002")
        found = await roster.check_out("p", task_id="t", token="a")
        assert found and found.bot == "p-002"

    with_roster(redis_url, settings_of(p=2), work)


def test_a_quarantine_with_an_end_is_over_by_itself(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> None:
        quarantine(client, "p", "p-001", by="me", for_s=0.05)
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await roster.check_out("p", task_id="t", token="a")
                    return
                except BotsQuarantined:
                    await asyncio.sleep(0.005)

    with_roster(redis_url, settings_of(p=1), work)
    assert read_quarantined(client, ["p"]) == {}
    assert loads(client, "p") == {"p-001": 1}


def test_seeding_keeps_quarantines_also_of_bots_that_were_gone_for_a_while(redis_url: str, client: redis.Redis) -> None:
    async def out(roster: Roster) -> None:
        await take(roster, "p", 4)
        quarantine(client, "p", "p-001", by="me")
        quarantine(client, "p", "p-002", by="me")

    with_roster(redis_url, settings_of(p=2), out)
    with_roster(redis_url, settings_of(p=1), nothing)
    with_roster(redis_url, settings_of(p=3), nothing)
    scores = dict(client.zrange(keys.bots("p"), 0, -1, withscores=True))
    assert scores[b"p-003"] == 0
    assert [int(scores[name] - OUT) // LOAD_UNIT for name in (b"p-001", b"p-002")] == [2, 2]


def test_a_bot_whose_quarantine_was_forgotten_is_not_lost(redis_url: str, client: redis.Redis) -> None:
    with_roster(redis_url, settings_of(p=1), nothing)
    quarantine(client, "p", "p-001", by="me")
    client.delete(keys.quarantined("p"))
    with_roster(redis_url, settings_of(p=1), nothing)
    assert loads(client, "p") == {"p-001": 0}


def test_who_and_why_are_told_and_renewed(redis_url: str, client: redis.Redis) -> None:
    with_roster(redis_url, settings_of(p=1, q=1), nothing)
    before_s = time.time() - 1
    assert quarantine(client, "q", "q-001", by="me|too", reason="too\nslow | odd", for_s=60)
    found = read_quarantined(client, ["p", "q"])["q-001"]
    assert (found.by, found.reason) == ("me/too", "too slow | odd")
    assert found.until is not None and before_s < found.since < found.until < before_s + 70
    assert not quarantine(client, "q", "q-001", by="you")
    found = read_quarantined(client, ["p", "q"])["q-001"]
    assert (found.by, found.reason, found.until) == ("you", "", None)


def test_a_bot_that_does_not_exist_cannot_be_quarantined(redis_url: str, client: redis.Redis) -> None:
    with_roster(redis_url, settings_of(p=1), nothing)
    with pytest.raises(ConfigurationError, match="got 'p-002'"):
        quarantine(client, "p", "p-002", by="me")
    assert not release(client, "p", "p-002")


def test_every_key_of_a_quarantine_has_a_life(redis_url: str, client: redis.Redis) -> None:
    with_roster(redis_url, settings_of(p=1), nothing)
    quarantine(client, "p", "p-001", by="me")
    for name in (keys.bots("p"), keys.quarantined("p"), keys.quarantine_reasons("p")):
        assert 0 < client.ttl(name) <= keys.STATE_TTL_S


def test_who_comes_out_of_a_quarantine_by_its_health_gets_a_fifth_of_its_turns(
    redis_url: str, client: redis.Redis
) -> None:
    async def work(roster: Roster) -> Counter[str]:
        quarantine(client, "p", "p-001", by="health", for_s=0.001)
        quarantine(client, "p", "p-002", by="me", for_s=0.001)
        turns: Counter[str] = Counter()
        for number in range(500):
            (taken,) = await take(roster, "p", 1, first=number)
            turns[taken.bot] += 1
            await asyncio.sleep(0.004)
            client.zincrby(keys.bots("p"), -LOAD_UNIT, taken.bot)  # as it is finished
        return turns

    turns = with_roster(redis_url, settings_of(p=5), work)
    assert client.zscore(keys.probation("p"), "p-001") == 10
    assert client.zscore(keys.probation("p"), "p-002") is None
    assert 12 <= turns["p-001"] <= 45  # 24 are expected; each of the others has 119
    assert min(count for bot, count in turns.items() if bot != "p-001") > 100


def test_a_bot_on_probation_gets_its_fifth_also_when_all_bots_are_busy(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> Counter[str]:
        client.zadd(keys.probation("p"), {"p-001": 100, "p-002": 100})
        turns, chance = Counter[str](), random.Random(7)

        async def slot(first: int) -> None:
            for number in range(first, first + 40):
                (taken,) = await take(roster, "p", 1, first=number)
                turns[taken.bot] += 1
                await asyncio.sleep(0.05 * chance.lognormvariate(0, 0.4))
                client.zincrby(keys.bots("p"), -LOAD_UNIT, taken.bot)

        await asyncio.gather(*(slot(1000 * number) for number in range(12)))  # more than there are bots
        return turns

    turns = with_roster(redis_url, settings_of(p=10), work)
    others = [count for bot, count in turns.items() if bot not in ("p-001", "p-002")]
    for bot in ("p-001", "p-002"):
        assert 0.05 <= turns[bot] / (sum(others) / len(others)) <= 0.5


def test_a_bot_on_probation_works_when_there_is_no_other(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster) -> list[Checkout]:
        client.zadd(keys.probation("p"), {"p-001": 10, "p-002": 10})
        return await take(roster, "p", 20)

    assert len(with_roster(redis_url, settings_of(p=2), work)) == 20


def test_a_released_bot_is_on_probation_no_more(redis_url: str, client: redis.Redis) -> None:
    with_roster(redis_url, settings_of(p=2), nothing)
    client.zadd(keys.probation("p"), {"p-001": 10})
    assert release(client, "p", "p-001")
    assert client.exists(keys.probation("p")) == 0


def test_a_share_of_a_class_goes_to_its_specialists_and_others_keep_their_turns(
    redis_url: str, client: redis.Redis
) -> None:
    async def work(roster: Roster) -> Counter[str]:
        for number in range(1, 11):
            good = 99.0 if number == 4 else 60.0
            row = struct.pack("<4f", good, 100 - good, 5000, 250_000)
            client.setrange(keys.skills("p", "sql"), number * 16, row)
        client.zadd(keys.specialists("p", "sql"), {"p-004": 1.2})
        turns: Counter[str] = Counter()
        for number in range(400):
            taken = await roster.check_out("p", task_id=f"task-{number}", token=f"token-{number}", kind="sql")
            assert taken is not None
            turns[taken.bot] += 1
            client.zincrby(keys.bots("p"), -LOAD_UNIT, taken.bot)
        return turns

    turns = with_roster(redis_url, settings_of(p=10), work)
    assert 150 <= turns["p-004"] <= 270  # half of them, and its own turns
    assert min(turns.values()) >= 10
    assert len(turns) == 10
