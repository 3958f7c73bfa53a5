"""Finishing on a real Redis: one result per task, counters that agree with the results, and Celery as the reader."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, TypeVar

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.config import PoolSettings, ProviderSettings, ResultSettings, Settings
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.engine.outcomes.stored import result_meta
from fleet.errors import StoreUnavailable
from fleet.faults import Fault
from fleet.models import BotResult, TaskError
from fleet.roster import LOAD_UNIT, Checkout, Deed, Roster
from fleet.roster.health import SAMPLE_BYTES
from fleet.signals import catalogue
from fleet.signals.catalogue import ErrorField
from fleet.signals.windows import PERIOD, BotRows, bot_rows_of, recent_of, record_keys, sketches_of
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.usage import Usage
from tests.every import every
from tests.redis_server import RedisServer
from tests.waiting import wait_until

T = TypeVar("T")
SETTINGS = Settings(
    providers={"openai": ProviderSettings(kind="openai")},
    pools={"p": PoolSettings(bots=3), "q": PoolSettings(bots=2, provider="openai", model="a|b")},
    results=ResultSettings(expires_s=600),
)


def result_of(task_id: str, **fields: Any) -> BotResult:
    return BotResult.model_validate(
        {"task_id": task_id, "status": "ok", "pool": "p", "finished_at": 1_760_000_000.5, **fields}
    )


def failure(kind: str) -> TaskError:
    return TaskError(type=kind, message="expected this, got that")


def with_engine(url: str, work: Callable[[Roster, Finisher], Awaitable[T]]) -> T:
    async def run() -> T:
        store = Store(url)
        try:
            return await work(Roster(store, SETTINGS), Finisher(store, SETTINGS))
        finally:
            await store.close()

    return asyncio.run(run())


def finish(url: str, result: BotResult, **options: Any) -> bool:
    return with_engine(url, lambda _, completion: completion.finish(Finish(result, **{"checkout": None, **options})))


async def check_out(roster: Roster, task_id: str, token: str, pool: str = "p") -> Checkout:
    checkout = await roster.check_out(pool, task_id=task_id, token=token)
    assert checkout is not None
    return checkout


def numbers(client: redis.Redis, name: str) -> dict[str, int]:
    return {field.decode(): int(value) for field, value in client.hgetall(name).items()}


def loads(client: redis.Redis, pool: str = "p") -> list[int]:
    return [int(score) // LOAD_UNIT for _, score in client.zrange(keys.bots(pool), 0, -1, withscores=True)]


def bot_rows(client: redis.Redis, pool: str = "p") -> BotRows:
    return bot_rows_of(client.get(keys.bot_rows(pool)) or b"", 0)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def celery(redis_url: str) -> Iterator[Celery]:
    """A Celery app that knows nothing of Fleet but where the results are."""
    app = Celery("stranger", backend=redis_url, set_as_current=False)
    yield app
    gc.collect()  # handles unsubscribe when they are collected: before the connection is closed, please
    app.backend.result_consumer.stop()
    app.backend.client.close()
    app.close()


def test_the_first_result_stands_and_later_ones_are_counted_and_dropped(redis_url: str, client: redis.Redis) -> None:
    assert finish(redis_url, result_of("t", answer="first"))
    assert not finish(redis_url, result_of("t", answer="second"))
    assert json.loads(client.get(keys.result("t")))["result"]["answer"] == "first"
    totals = numbers(client, keys.pool_totals("p"))
    assert (totals["completions"], totals["duplicates"]) == (1, 1)


def test_the_very_same_result_again_stands_and_counts_nothing(redis_url: str, client: redis.Redis) -> None:
    result = result_of("t", answer="only", usage=Usage(input_tokens=5))
    assert finish(redis_url, result)
    before = client.hgetall(keys.pool_totals("p"))
    assert finish(redis_url, result)
    assert client.hgetall(keys.pool_totals("p")) == before


def test_of_many_finishers_at_once_exactly_one_wins(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster, completion: Finisher) -> list[bool]:
        taken = [await check_out(roster, "t", f"token-{index}") for index in range(20)]
        return await asyncio.gather(
            *(completion.finish(Finish(result_of("t", answer=c.token), checkout=c)) for c in taken)
        )

    assert with_engine(redis_url, work).count(True) == 1
    assert numbers(client, keys.pool_totals("p")) == {"completions": 1, "ok": 1, "duplicates": 19}
    assert loads(client) == [0, 0, 0]


async def _end_some(roster: Roster, completion: Finisher, *, together: bool) -> list[bool]:
    """Finish 40 tasks of bots that answer well, and one of them twice; return which results stand."""
    taken = [await check_out(roster, f"t{n}", f"token-{n}") for n in range(40)]
    ends = [
        Finish(
            result_of(f"t{n}", bot=one.bot, provider="openai", model="a|b", attempts=1, ran_ms=1000 + n, queued_ms=n,
                      usage=Usage(input_tokens=n), cost_usd_micros=n, answer="x" * n),
            checkout=one, deeds=[Deed(one.bot, None, 100 + n, 1000 + n, 1.0 + n)],
        )
        for n, one in enumerate(taken)
    ]  # fmt: skip
    ends.insert(7, replace(ends[3], result=result_of("t3", answer="another", attempts=1)))
    if together:
        return list(await asyncio.gather(*(completion.finish(end) for end in ends)))
    return [await completion.finish(end) for end in ends]


def _told(client: redis.Redis) -> tuple[Any, ...]:
    """Return all that finishing has counted and does not depend on the time."""
    raw = client.get(record_keys("p")["series"]) or b""
    periods = [period for period in PERIOD.iter_unpack(raw) if any(period)]
    sums = [sum(period[place] for period in periods) for place in range(1, len(periods[0]))]
    rows = bot_rows_of(client.get(keys.bot_rows("p")) or b"", 3)
    sketch = client.get(keys.sketch("p")) or b""
    return (
        numbers(client, keys.pool_totals("p")), sums, client.hgetall(keys.norms("p")), rows.completions,
        rows.cost_usd_micros,
        sketches_of(sketch, now_s=time.time()), sorted(loads(client)), client.zcard(keys.bot_leases("p")),
        client.hlen(keys.bot_claims("p")),
        sorted(one.queued_ms for one in recent_of(client.get(keys.pool_recent("p")) or b"")),
    )  # fmt: skip


def test_tasks_that_end_together_are_counted_as_one_by_one(redis_url: str, client: redis.Redis) -> None:
    stand = with_engine(redis_url, lambda roster, completion: _end_some(roster, completion, together=False))
    one_by_one = _told(client)
    client.flushdb()
    assert with_engine(redis_url, lambda *engine: _end_some(*engine, together=True)) == stand
    assert _told(client) == one_by_one
    assert stand.count(False) == 1 and one_by_one[0]["completions"] == 40 and one_by_one[0]["duplicates"] == 1
    for key in client.scan_iter():
        assert (client.ttl(key) > 0) == (key.decode() != keys.pool_totals("p")), key


def test_each_of_several_tasks_that_end_together_has_a_place_among_the_latest(
    redis_url: str, client: redis.Redis
) -> None:
    async def work(roster: Roster, completion: Finisher) -> list[bool]:
        taken = [await check_out(roster, f"t{n}", f"token-{n}") for n in range(7)]
        ends = [
            Finish(result_of(f"t{n}", bot=one.bot), checkout=one, deeds=[Deed(one.bot, Fault.EMPTY)])
            for n, one in enumerate(taken)
        ]
        return list(await asyncio.gather(*(completion.finish(end) for end in ends)))

    assert with_engine(redis_url, work) == [True] * 7
    latest = (client.get(keys.health("p")) or b"")[: 5 * SAMPLE_BYTES]  # of a pool of three bots: two of each, but one
    assert every(any(latest[at : at + SAMPLE_BYTES]) for at in range(0, 5 * SAMPLE_BYTES, SAMPLE_BYTES))


def test_a_task_whose_result_key_is_somebody_elses_spoils_none_of_those_that_end_with_it(
    redis_url: str, client: redis.Redis
) -> None:
    client.lpush(keys.result("t1"), "not Celery's")

    async def work(roster: Roster, completion: Finisher) -> list[bool]:
        taken = [await check_out(roster, f"t{n}" if n != 1 else "free", f"token-{n}") for n in range(3)]
        ends = [Finish(result_of(f"t{n}"), checkout=one) for n, one in enumerate(taken)]
        return list(await asyncio.gather(*(completion.finish(end) for end in ends)))

    assert with_engine(redis_url, work) == [True, True, True]
    assert numbers(client, keys.pool_totals("p"))["completions"] == 2
    assert json.loads(client.get(keys.result("t1")))["result"]["status"] == "failed"
    assert json.loads(client.get(keys.result("t2")))["result"]["status"] == "ok"


def test_tasks_that_end_together_while_redis_is_full_are_to_be_finished_later(
    redis_url: str, client: redis.Redis
) -> None:
    async def work(_: Roster, completion: Finisher) -> list[Any]:
        ends = [Finish(result_of(f"t{n}")) for n in range(3)]
        client.config_set("maxmemory", 1)
        try:
            full = await asyncio.gather(*map(completion.finish, ends), return_exceptions=True)
        finally:
            client.config_set("maxmemory", 0)
        return [*full, *await asyncio.gather(*map(completion.finish, ends))]

    found = with_engine(redis_url, work)
    assert every(isinstance(one, StoreUnavailable) and "OOM" in str(one) for one in found[:3])
    assert found[3:] == [True, True, True]
    assert numbers(client, keys.pool_totals("p"))["completions"] == 3


@pytest.mark.parametrize("count", [1, 3])
def test_tasks_that_end_on_a_master_that_became_a_replica_let_the_new_one_be_looked_for(
    own_redis: RedisServer, count: int
) -> None:
    async def work() -> tuple[list[Any], bool]:
        store = Store(own_redis.url)
        completion, before = Finisher(store, SETTINGS), await store.command("CLIENT", "ID")
        await store.command("REPLICAOF", "127.0.0.1", 1)
        ends = [completion.finish(Finish(result_of(f"t{n}"))) for n in range(count)]
        found = await asyncio.gather(*ends, return_exceptions=True)
        connects_anew = await store.command("CLIENT", "ID") != before
        await store.close()
        return found, connects_anew

    found, connects_anew = asyncio.run(work())
    assert len(found) == count and every(isinstance(one, StoreUnavailable) and "READONLY" in str(one) for one in found)
    assert connects_anew


def test_finishing_checks_the_bot_in_and_a_second_time_lowers_nothing(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster, completion: Finisher) -> None:
        taken = [await check_out(roster, f"t{index}", f"token-{index}") for index in range(4)]
        assert sorted(loads(client)) == [1, 1, 2]
        for _ in range(2):
            await completion.finish(Finish(result_of("t0"), checkout=taken[0]))
        assert sorted(loads(client)) == [1, 1, 1]

    with_engine(redis_url, work)
    assert client.zcard(keys.bot_leases("p")) == client.hlen(keys.bot_claims("p")) == 3


def test_a_lease_that_was_reaped_is_not_given_back_twice(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster, completion: Finisher) -> None:
        lost = await check_out(roster, "lost", "lost")
        client.zadd(keys.bot_leases("p"), {lost.member: 1})
        for index in range(3):
            await check_out(roster, f"t{index}", f"token-{index}")
        assert loads(client) == [1, 1, 1]
        assert await completion.finish(Finish(result_of("lost"), checkout=lost))

    with_engine(redis_url, work)
    assert loads(client) == [1, 1, 1]
    assert client.exists(keys.result("lost"))


def test_a_bot_that_was_dropped_meanwhile_does_not_come_back(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster, completion: Finisher) -> None:
        checkout = await check_out(roster, "t", "token")
        client.zrem(keys.bots("p"), checkout.bot)
        assert await completion.finish(Finish(result_of("t"), checkout=checkout))

    with_engine(redis_url, work)
    assert client.zcard(keys.bots("p")) == 2
    assert client.zcard(keys.bot_leases("p")) == 0


@pytest.mark.parametrize("pool", [None, "invented-by-a-stranger"])
def test_a_task_that_never_got_a_bot_leaves_a_result_and_no_key_of_its_own(
    redis_url: str, client: redis.Redis, pool: str | None
) -> None:
    assert finish(redis_url, result_of("t", status="failed", pool=pool, error=failure("InvalidTask")))
    assert numbers(client, keys.pool_totals("-")) == {"completions": 1, "failed": 1}
    assert numbers(client, keys.errors("-")) == {"-|-|InvalidTask": 1}
    assert bot_rows(client, "-").completions == (1,)
    assert {name.decode() for name in client.keys("*")} <= {
        keys.result("t"), keys.pool_totals("-"), keys.errors("-"), *record_keys("-").values()
    }  # fmt: skip


def test_errors_are_kept_by_bot_api_and_type_and_calls_apart_from_tasks(redis_url: str, client: redis.Redis) -> None:
    async def work(roster: Roster, completion: Finisher) -> str:
        checkout = await check_out(roster, "t", "token")
        result = result_of(
            "t", status="failed", provider="openai", model="a|b", attempts=7, error=failure("ProviderUnavailable")
        )
        tries = {"RateLimited": 2, "ProviderUnavailable": 4}
        await completion.finish(Finish(result, checkout=checkout, provider_errors=tries))
        return checkout.bot

    bot = with_engine(redis_url, work)
    found = {ErrorField.parse(name): n for name, n in numbers(client, keys.errors("p")).items()}
    assert found == {
        ErrorField(bot, "openai/a|b", "ProviderUnavailable"): 1,
        ErrorField(bot, "openai/a|b", "ProviderUnavailable", "call"): 4,
        ErrorField(bot, "openai/a|b", "RateLimited", "call"): 2,
    }
    totals = numbers(client, keys.pool_totals("p"))
    assert (totals["attempts"], totals["calls"], totals["rate_limited"]) == (7, 1, 2)


@st.composite
def results(draw: st.DrawFn) -> tuple[BotResult, dict[str, int]]:
    status: Literal["ok", "degraded", "failed"] = draw(st.sampled_from(("ok", "degraded", "failed")))
    errors = draw(st.dictionaries(st.sampled_from(("RateLimited", "ProviderUnavailable")), st.integers(1, 3)))
    fields = {
        "status": status,
        "error": failure(draw(st.sampled_from(("BadAnswer", "BadRequest")))) if status == "failed" else None,
        "usage": Usage(input_tokens=draw(st.integers(0, 10**6)), output_tokens=draw(st.integers(0, 10**6))),
        "cost_usd_picos": draw(st.none() | st.integers(0, 10**13)),
        "attempts": sum(errors.values()) + 1,
        "provider": "simulator",
        "model": "m",
        "simulated": draw(st.booleans()),
        "served_by": "none" if status == "failed" else draw(st.sampled_from(("call", "fallback 1", "fallback 2"))),
        "pool": "p",
    }
    return result_of(str(draw(st.integers(0, 12))), **fields), errors


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(results(), max_size=25))
def test_the_counters_equal_the_sum_of_the_results_that_stand(
    redis_url: str, client: redis.Redis, batch: list[tuple[BotResult, dict[str, int]]]
) -> None:
    client.flushdb()

    async def work(roster: Roster, completion: Finisher) -> list[tuple[BotResult, dict[str, int]]]:
        standing = []
        for index, (result, errors) in enumerate(batch):
            result = result.model_copy(update={"finished_at": float(index)})
            checkout = await roster.check_out("p", task_id=f"other-{index}", token=str(index))
            if await completion.finish(Finish(result, checkout=checkout, provider_errors=errors)):
                standing.append((result, errors))
        return standing

    standing = with_engine(redis_url, work)
    assert len(standing) == len({result.task_id for result, _ in batch})
    results = [result for result, _ in standing]
    paid = [result for result, _ in batch]  # a discarded result was paid for all the same
    expected = Counter(
        completions=len(results),
        duplicates=len(batch) - len(standing),
        simulated=sum(r.simulated and r.served_by != "none" for r in results),
        fallbacks=sum(r.rung > 0 for r in results),
        input_tokens=sum(r.usage.input_tokens for r in paid),
        output_tokens=sum(r.usage.output_tokens for r in paid),
        cost_usd_micros=sum(r.spent_usd_picos // 10**6 for r in paid),
        cost_usd_picos_rest=sum(r.spent_usd_picos % 10**6 for r in paid),
        attempts=sum(r.attempts for r in paid),
        calls=len(paid),
        rate_limited=sum(errors.get("RateLimited", 0) for _, errors in batch),
        **Counter(r.status for r in results),
        **Counter(f"fallbacks|p|{r.rung}" for r in results if r.rung),
    )
    assert numbers(client, keys.pool_totals("p")) == {name: n for name, n in expected.items() if n}
    of_rungs = {f"fallbacks|p|{rung}" for rung in (1, 2)}
    assert set(expected) - of_rungs <= {counter.name for counter in catalogue.COUNTERS}
    assert sum(bot_rows(client).completions) == len(results)
    rows = {ErrorField.parse(name): n for name, n in numbers(client, keys.errors("p")).items()}
    assert sum(n for field, n in rows.items() if field.of == "task") == sum(r.status == "failed" for r in results)
    assert sum(n for field, n in rows.items() if field.of == "call") == sum(sum(e.values()) for _, e in standing)
    assert sum(loads(client)) == 0


def test_what_is_kept_does_not_grow_with_the_number_of_tasks(redis_url: str, client: redis.Redis) -> None:
    def fields() -> int:
        return sum(client.hlen(name) for name in client.scan_iter("{fleet*}:*", _type="HASH"))

    async def work(roster: Roster, completion: Finisher) -> list[int]:
        sizes = []
        for start in (0, 100):
            for index in range(start, start + 100):
                checkout = await check_out(roster, f"t{index}", f"token-{index}")
                await completion.finish(
                    Finish(result_of(f"t{index}", status="failed", error=failure("BadAnswer")), checkout=checkout)
                )
            sizes.append(fields())
        return sizes

    after_100, after_200 = with_engine(redis_url, work)
    assert after_100 == after_200
    assert client.dbsize() == 200 + 3 + len(record_keys("p")) - 1  # no event: nothing was buried


def test_every_key_written_by_finishing_has_a_life_but_counters(redis_url: str, client: redis.Redis) -> None:
    finish(redis_url, result_of("t", status="failed", error=failure("BadAnswer")))
    finish(redis_url, result_of("t", answer="a later one"))
    assert client.ttl(keys.result("t")) in range(595, 601)
    assert client.ttl(keys.pool_totals("p")) == -1, "a counter must not fall"
    for name in (
        *set(record_keys("p").values()) - {keys.bot_tasks("p"), keys.events()},
        keys.errors("p"),
    ):
        assert keys.STATE_TTL_S - 5 <= client.ttl(name) <= keys.STATE_TTL_S


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # Celery's own
def test_a_result_is_stored_as_celery_itself_would_store_it(
    redis_url: str, client: redis.Redis, celery: Celery
) -> None:
    result = result_of("fleets", answer="42", metadata={"row": 7})
    finish(redis_url, result)
    celery.backend.store_result("celerys", result.model_dump(mode="json"), "SUCCESS")
    ours, theirs = (json.loads(client.get(keys.result(name))) for name in ("fleets", "celerys"))
    assert ours.keys() == theirs.keys()
    same = ("status", "result", "traceback")
    assert [ours[name] for name in same] == [theirs[name] for name in same]
    assert (ours["task_id"], ours["children"]) == ("fleets", [])
    assert celery.backend.get_key_for_task("fleets").decode() == keys.result("fleets")
    assert ours["date_done"] == "2025-10-09T08:53:20.500000+00:00"


def test_a_result_is_delivered_though_redis_refuses_to_count_it(
    redis_url: str, client: redis.Redis, celery: Celery
) -> None:
    client.set(keys.pool_totals("p"), "not a hash")
    assert finish(redis_url, result_of("paid", answer="42"))
    assert AsyncResult("paid", app=celery).get(timeout=5)["answer"] == "42"
    assert not finish(redis_url, result_of("paid", answer="43"))
    assert client.ttl(keys.result("paid")) > 0


def test_a_result_whose_own_key_is_somebody_elses_ends_typed(
    redis_url: str, client: redis.Redis, celery: Celery
) -> None:
    client.rpush(keys.result("taken"), "a list")
    assert finish(redis_url, result_of("taken", answer="42", metadata={"a": 1}))
    got = AsyncResult("taken", app=celery).get(timeout=5)
    assert (got["status"], got["error"]["type"]) == ("failed", "StoreError")
    assert "WRONGTYPE" in got["error"]["message"]


def test_a_plain_celery_client_reads_the_result(redis_url: str, celery: Celery) -> None:
    result = result_of("t", answer='said "hi" — ünïcode 🤖', metadata={"id": 3})
    finish(redis_url, result)
    handle = AsyncResult("t", app=celery)
    assert handle.get(timeout=5) == result.model_dump(mode="json")
    assert handle.successful()
    assert BotResult.model_validate(handle.result) == result


def test_a_failed_task_is_a_delivered_result_and_not_an_exception(redis_url: str, celery: Celery) -> None:
    finish(redis_url, result_of("t", status="failed", error=failure("DeadlineExceeded")))
    assert AsyncResult("t", app=celery).get(timeout=5)["error"]["type"] == "DeadlineExceeded"


@pytest.mark.parametrize("number", [1, 3])
def test_finishing_wakes_celery_clients_that_already_wait(
    redis_url: str, client: redis.Redis, celery: Celery, number: int
) -> None:
    handles = [AsyncResult(f"t{index}", app=celery) for index in range(number)]
    answers: list[str] = []
    waiters = [threading.Thread(target=lambda h=h: answers.append(h.get(timeout=10)["answer"])) for h in handles]
    for waiter in waiters:
        waiter.start()
    channels = [keys.result(handle.id) for handle in handles]
    wait_until(lambda: every(listeners for _, listeners in client.pubsub_numsub(*channels)), timeout_s=5)
    for handle in handles:
        finish(redis_url, result_of(handle.id, answer=f"answer of {handle.id}"))
    for waiter in waiters:
        waiter.join()
    assert sorted(answers) == [f"answer of {handle.id}" for handle in handles]


@pytest.mark.parametrize("task_id", ["plain", 'with "quotes" and \\', "ünïcode 🤖", "line\nbreak"])
def test_any_task_id_gives_valid_json(task_id: str) -> None:
    assert json.loads(result_meta(result_of(task_id)))["task_id"] == task_id


def test_half_a_surrogate_pair_in_the_metadata_does_not_lose_the_result(redis_url: str, celery: Celery) -> None:
    finish(redis_url, result_of("t", metadata={"cut": "\ud83d"}))
    assert AsyncResult("t", app=celery).get(timeout=5)["metadata"] == {"cut": "\ud83d"}
