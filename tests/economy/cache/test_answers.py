"""Kept answers in a real Redis: which tasks are equal, how long an answer is kept, and how much of them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from fleet.config import PoolSettings, ProviderSettings, Settings
from fleet.config.savings import KindSettings
from fleet.economy.cache.answers import APART_S, LEASE_S, AnswerCache, Sight, Twin, names_of
from fleet.economy.cache.digest import digest_of, digest_of_pool, reads_metadata
from fleet.economy.cache.reading import drop_all, kept_in, kept_of, kinds_kept
from fleet.models import Bot, BotTask, Persona
from fleet.store import cache_keys, keys
from fleet.store.client import Store, connect
from tests.every import every

RULES = KindSettings(deterministic=True, by_persona=False, keep_s=100)


@pytest.fixture
def kind(redis_url: str) -> Iterator[str]:
    """A task class that nobody knows; what is kept of it goes, and has an end by itself."""
    name = uuid.uuid4().hex
    yield name
    with connect(redis_url) as client:
        assert every(client.ttl(key) == -2 or 0 < client.ttl(key) <= 100 for key in names_of(name).values())
        drop_all(client, name)
        client.delete(cache_keys.asking(name), cache_keys.twins(name))


def with_cache(redis_url: str, work: Callable[[AnswerCache], Awaitable[None]]) -> None:
    async def go() -> None:
        store = Store(redis_url)
        try:
            await work(AnswerCache(store))
        finally:
            await store.close()

    asyncio.run(go())


def twin(kind: str, task: str = "one", pool: str = "research", **fields: Any) -> Twin:
    return Twin(kind, kind, pool, task, **{"latest": 1e10, **fields})


def test_an_answer_is_given_until_its_time_is_over_and_the_newest_counts(redis_url: str, kind: str) -> None:
    async def work(cache: AnswerCache) -> None:
        assert (await cache.look(twin(kind))).answer is None
        for answer in (b"first\nlines", b"second"):
            await cache.keep(twin(kind), bot="research-001", answer=answer, rules=RULES)
            assert (await cache.look(twin(kind))).answer == answer
        with connect(redis_url) as client:
            (kept,) = kept_of(client, [kind])
            assert (kept.answers, kept.bytes) == (1, len("research-001\nsecond"))
            assert kind in kinds_kept(client)
            client.zadd(names_of(kind)["ends"], {kind: 1})
        assert (await cache.look(twin(kind))).answer is None
        with connect(redis_url) as client:
            (kept,) = kept_of(client, [kind])
            assert kept.answers == 0 == kept.bytes

    with_cache(redis_url, work)


def test_the_oldest_answers_make_room_and_one_that_is_larger_than_all_may_be_is_not_kept(
    redis_url: str, kind: str
) -> None:
    async def work(cache: AnswerCache) -> None:
        small = RULES.model_copy(update={"keep_mb": 1})
        for number in range(12):
            one = Twin(kind, f"d{number}", "research", "one")
            await cache.keep(one, bot="b-1", answer=b"x" * 100_000, rules=small)
        await cache.keep(Twin(kind, "huge", "research", "one"), bot="b-1", answer=b"x" * 1_000_001, rules=small)
        with connect(redis_url) as client:
            (kept,) = kept_of(client, [kind])
            digests = {digest for some in kept_in(client, kind) for digest, _ in some}
        assert len(digests) == kept.answers == 9 and b"huge" not in digests
        assert kept.bytes <= 1_000_000, kept

    with_cache(redis_url, work)


def test_the_answer_of_a_bot_that_is_quarantined_is_given_no_more(redis_url: str, kind: str) -> None:
    async def work(cache: AnswerCache) -> None:
        one = twin(kind, pool=kind)
        await cache.keep(one, bot=f"{kind}-001", answer=b"bad", rules=RULES)
        assert (await cache.look(one)).answer == b"bad"
        with connect(redis_url) as client:
            client.zadd(keys.quarantined(kind), {f"{kind}-001": float("inf")})
            try:
                assert (await cache.look(one)).answer is None
            finally:
                client.delete(keys.quarantined(kind))
        assert (await cache.look(one)).answer is None, "it is gone for good"

    with_cache(redis_url, work)


def test_one_of_equal_tasks_is_asked_the_others_wait_one_after_the_other_and_go_when_its_answer_is_kept(
    redis_url: str, kind: str
) -> None:
    async def work(cache: AnswerCache) -> None:
        now_s = time.time()
        sights = await asyncio.gather(*(cache.look(twin(kind, f"t{number}")) for number in range(10)))
        ((first, _),) = [(f"t{n}", sight) for n, sight in enumerate(sights) if sight.is_for_all]
        waits = sorted(sight.looks_at for sight in sights if sight.waits_for == first)
        assert len(waits) == 9 and now_s + LEASE_S - 1 < waits[0] < now_s + LEASE_S + 5
        assert every(later - sooner >= APART_S - 0.01 for sooner, later in pairwise(waits)), "no herd"
        assert (await cache.look(twin(kind, first))).is_for_all, "its message has come back after a death"
        woken = await cache.keep(twin(kind, first), bot="b-1", answer=b"4", rules=RULES)
        assert len(woken) == 9 and first not in woken
        assert (await cache.look(twin(kind, woken[0]))).answer == b"4"
        with connect(redis_url) as client:
            assert not client.exists(cache_keys.asking(kind), cache_keys.twins(kind))

    with_cache(redis_url, work)


def test_the_next_one_is_asked_when_the_first_is_over_or_is_heard_of_no_more(redis_url: str, kind: str) -> None:
    async def work(cache: AnswerCache) -> None:
        first, second, third = (twin(kind, f"t{number}") for number in range(3))
        assert (await cache.look(first)).is_for_all
        for one in (second, third):
            assert (await cache.look(one)).waits_for == "t0"
        assert await cache.hold(first, "now") == []
        assert await cache.hold(first, "over") == ["t1"]
        assert (await cache.look(second)).is_for_all
        assert (await cache.look(first)).waits_for == "t1"
        assert await cache.hold(first, "now") == await cache.hold(first, "over") == [], "another one has taken over"
        with connect(redis_url) as client:
            assert 0 < client.ttl(cache_keys.asking(kind)) <= LEASE_S
            assert client.ttl(cache_keys.twins(kind)) > 0
            client.delete(cache_keys.asking(kind))  # its process died, and the lease is over
        assert (await cache.look(third)).is_for_all
        assert await cache.hold(third, "over") == ["t0"]

    with_cache(redis_url, work)


def test_who_has_less_time_or_is_more_urgent_does_not_wait(redis_url: str, kind: str) -> None:
    async def work(cache: AnswerCache) -> None:
        now_s, first = time.time(), twin(kind, "t0")
        await cache.look(first)
        assert await cache.look(twin(kind, "short", latest=now_s + 2)) == Sight(), "asked for itself alone"
        assert (await cache.look(twin(kind, "bulk", priority=4))).waits_for == "t0"
        assert await cache.hold(first, "later", 3600) == ["bulk"], "they see by themselves whether they have the time"
        patient = await cache.look(twin(kind, "patient", latest_later=now_s + 7200))
        assert patient.waits_for == "t0" and patient.looks_at > now_s + 3500
        assert (await cache.look(twin(kind, "bulk", priority=4))).is_for_all
        assert (await cache.look(twin(kind, "urgent", priority=1))).is_for_all
        assert (await cache.look(twin(kind, "bulk", priority=4))).waits_for == "urgent"
        assert set(await cache.hold(twin(kind, "urgent"), "each", 60)) == {"patient", "bulk"}
        assert await cache.look(twin(kind, "bulk")) == Sight(), "no answer to this can be kept: each is asked"

    with_cache(redis_url, work)


def settings(**pool: Any) -> Settings:
    api = ProviderSettings(kind="openai", base_url="http://127.0.0.1:1/v1", api_key_env="A_KEY")
    return Settings(pools={"research": PoolSettings(provider="api", model="m", **pool)}, providers={"api": api})


OF_POOL = digest_of_pool(settings(), "research")
TASK: dict[str, Any] = {"prompt": "What is 1+1?", "kind": "sums"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def digest(of_pool: str = OF_POOL, **fields: Any) -> str:
    return digest_of(BotTask.parse({**TASK, **fields}), of_pool=of_pool)


def test_tasks_are_equal_whatever_they_say_of_their_time_and_price_and_however_they_spell_the_prompt() -> None:
    same = [
        {"priority": "high"}, {"deadline_s": 3}, {"expires_at": 4e9}, {"by_s": 9}, {"max_cost_usd": 1.0},
        {"idempotency_key": "k"}, {"run": "r"}, {"metadata": {"line": 7}}, {"pool": "research"}, {"reuse": True},
        {"reuse": False}, {"right": "2"}, {"right": "2", "right_by": "a: (.*)"},
        {"prompt": None, "messages": [{"role": "user", "content": "What is 1+1?"}]},
    ]  # fmt: skip
    assert every(digest(**fields) == digest() for fields in same)


def test_whatever_may_change_an_answer_makes_another_task() -> None:
    other: list[dict[str, Any]] = [
        {}, {"prompt": "What is 1+2?"}, {"tenant": "acme"}, {"kind": "other"}, {"max_output_tokens": 9},
        {"answer_schema": {"type": "object"}}, {"context": ["ctx-" + "0" * 24]}, {"tools": [TOOL]}, {"effort": "low"},
        {"thinking_tokens": 5}, {"verbosity": "low"}, {"seed": 1}, {"top_p": 0.5}, {"stop": ["."]}, {"tier": "flex"},
        {"n": 2}, {"seat": "0123456789ab:1/3"},
        {"drop_params": True}, {"extra_body": {"a": 1}}, {"extra_headers": {"a": "1"}},
        {"prompt": None, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "What is 1+1?"}]},
    ]  # fmt: skip
    assert len({digest(**fields) for fields in other}) == len(other)
    asked = set(BotTask.model_fields) - {key for fields in other for key in fields} - {"messages", "tool_choice"}
    assert asked == {
        "pool", "priority", "deadline_s", "expires_at", "by_s", "max_cost_usd", "idempotency_key", "run", "metadata",
        "reuse", "parallel_tool_calls", "right", "right_by",
    }, "a new field: say above whether it changes an answer"  # fmt: skip


def test_a_pool_that_says_something_else_of_its_calls_gives_other_answers() -> None:
    said: list[dict[str, Any]] = [
        {}, {"max_output_tokens": 9}, {"effort": "low"}, {"seed": 1}, {"extra_body": {"a": 1}},
        {"persona": {"models": ["m", "n"]}},
    ]  # fmt: skip
    assert len({digest_of_pool(settings(**pool), "research") for pool in said}) == len(said)
    same: list[dict[str, Any]] = [{"bots": 3}, {"deadline_s": 4}, {"persona": {"temperatures": [0]}}]
    assert every(digest_of_pool(settings(**pool), "research") == OF_POOL for pool in same)


def test_a_persona_counts_where_it_is_to_and_metadata_where_a_users_code_sees_it() -> None:
    personas = [Persona(archetype="a", system_prompt=words, context_window_tokens=64) for words in ("Be kind.", "Be.")]
    bots = [Bot(name=f"research-00{n}", pool="research", persona=persona) for n, persona in enumerate(personas)]
    task = BotTask.parse(TASK | {"metadata": {"line": 1}})
    found = {digest_of(task, of_pool=OF_POOL, bot=bot) for bot in (None, *bots)}
    assert len(found) == 3
    assert not reads_metadata(settings(), "research")
    assert reads_metadata(settings(function="a.b:c"), "research") and reads_metadata(
        settings(validator="a:b"), "research"
    )
    assert digest_of(task, of_pool=OF_POOL, with_metadata=True) not in found
