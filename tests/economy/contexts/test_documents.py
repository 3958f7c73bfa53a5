"""Shared documents in a real Redis: one copy of each, who may name them, what becomes of those that are removed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import redis

from fleet.economy.contexts import documents
from fleet.economy.contexts import shelf as shelf_module
from fleet.economy.contexts.shelf import LOOK_AGAIN_S, Shelf
from fleet.errors import ConfigurationError, InvalidTask, NotStored
from fleet.store import context_keys
from fleet.store.client import Store, connect


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client
        for one in documents.listed(client):
            documents.remove(client, one.id)


def words(text: str) -> int:
    return len(text.split())


def add(client: redis.Redis, text: str, tenant: str = "") -> str:
    return documents.add(client, text, name="a", tokens=words(text), tenant=tenant)[0].id


def with_shelf(redis_url: str, work: Callable[[Shelf, list[float]], Awaitable[None]]) -> None:
    async def go() -> None:
        now = [0.0]
        store = Store(redis_url)
        try:
            await work(Shelf(store, words, clock=lambda: now[0]), now)
        finally:
            await store.close()

    asyncio.run(go())


def test_the_same_text_is_stored_once_and_a_tenants_copy_is_another_one(client: redis.Redis) -> None:
    first, is_new = documents.add(client, "the terms", name="terms.md", tokens=2)
    again, is_new_again = documents.add(client, "the terms", name="other.md", tokens=2)
    assert (is_new, is_new_again, again) == (True, False, first)
    theirs = add(client, "the terms", "acme")
    assert theirs != first.id
    assert {one.id: one.tenant for one in documents.listed(client)} == {first.id: "", theirs: "acme"}
    assert documents.text_of(client, theirs) == "the terms"
    assert documents.remove(client, theirs) and not documents.remove(client, theirs)
    assert [one.id for one in documents.listed(client)] == [first.id]
    assert not client.exists(context_keys.text(theirs))


@pytest.mark.parametrize("text", ["", " \n", "x" * 4_000_001])
def test_what_is_no_document_is_refused_and_not_stored(client: redis.Redis, text: str) -> None:
    with pytest.raises(InvalidTask, match="expected a document"):
        add(client, text)
    assert not list(documents.listed(client))


def test_no_more_is_stored_than_the_memory_of_redis_is_meant_for(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 20)
    add(client, "0123456789")
    with pytest.raises(ConfigurationError, match="at most 20 bytes"):
        add(client, "01234567890")
    monkeypatch.setattr(documents, "MOST_DOCUMENTS", 1)
    with pytest.raises(ConfigurationError, match="at most 1 documents"):
        add(client, "x")
    assert add(client, "0123456789"), "what is stored already needs no room"


def test_a_worker_gets_documents_in_the_tasks_order_and_lets_go_of_a_removed_one(
    client: redis.Redis, redis_url: str
) -> None:
    first, second = add(client, "first one"), add(client, "second one")

    async def work(shelf: Shelf, now: list[float]) -> None:
        one = await shelf.opened([second, first], "anybody")
        assert one.text == "<document>\nsecond one\n</document>\n\n<document>\nfirst one\n</document>"
        assert one.tokens == words(one.text)
        assert (await shelf.opened([first, second], "")).text.startswith("<document>\nfirst one")
        documents.remove(client, first)
        assert await shelf.opened([second, first], "") is one, "no round trip for what it has"
        now[0] += LOOK_AGAIN_S + 1
        with pytest.raises(NotStored) as failed:
            await shelf.opened([second, first], "")
        assert (failed.value.wait().cause, failed.value.wait().about) == ("document", first)
        add(client, "first one")
        assert (await shelf.opened([second, first], "")).text == one.text

    with_shelf(redis_url, work)


def test_a_worker_lets_go_of_an_erased_document_that_nobody_names_any_more(
    client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_module, "LOOK_AGAIN_S", 0.05)
    erased, kept = add(client, "theirs", "acme"), add(client, "ours")

    async def work(shelf: Shelf, now: list[float]) -> None:
        await shelf.opened([erased, kept], "acme")
        await shelf.opened([kept], "")
        documents.remove(client, erased)
        ends = time.monotonic() + 10
        while erased in shelf._held and time.monotonic() < ends:
            await asyncio.sleep(0.01)
        assert list(shelf._held) == [kept] and list(shelf._joined) == [(kept,)]
        documents.remove(client, kept)
        while shelf._next_look is not None and time.monotonic() < ends:
            await asyncio.sleep(0.01)
        assert not shelf._held and shelf._next_look is None, "nothing is held, and nobody looks"

    with_shelf(redis_url, work)


def test_a_tenants_document_is_for_its_own_tasks(client: redis.Redis, redis_url: str) -> None:
    theirs = add(client, "their terms", "acme")

    async def work(shelf: Shelf, now: list[float]) -> None:
        assert (await shelf.opened([theirs], "acme")).tokens
        for other in ("", "bolt"):
            with pytest.raises(InvalidTask, match="own tenant"):
                await shelf.opened([theirs], other)

    with_shelf(redis_url, work)


def test_a_shelf_keeps_no_more_than_it_may(
    client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.economy.contexts.shelf.KEPT_BYTES", 100)
    ids = [add(client, f"{number} " * 30) for number in range(3)]

    async def work(shelf: Shelf, now: list[float]) -> None:
        for one in (*ids, *ids):
            assert (await shelf.opened([one], "")).tokens == 32
        assert len(shelf._held) == len(shelf._joined) == 1

    with_shelf(redis_url, work)


def test_documents_larger_together_than_a_process_keeps_are_handed_out_whole(
    client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_module, "KEPT_BYTES", 10)
    ids = [add(client, text) for text in ("a first one", "a second one", "a third one")]

    async def work(shelf: Shelf, _: list[float]) -> None:
        for _again in range(2):
            got = await shelf.opened(ids, "")
            assert [text in got.text for text in ("a first one", "a second one", "a third one")] == [True] * 3

    with_shelf(redis_url, work)


def test_a_task_that_makes_room_takes_no_document_from_one_that_is_reading_its_own(
    client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_module, "KEPT_BYTES", 10)
    ids = [add(client, f"number {n} of them") for n in range(6)]

    async def work(shelf: Shelf, _: list[float]) -> None:
        for _again in range(5):
            wanted = [ids[:1], ids[1:4], ids[4:], ids[:3], ids[3:], ids]
            got = await asyncio.gather(*(shelf.opened(one, "") for one in wanted))
            assert [one.text.count("<document>") for one in got] == [len(one) for one in wanted]

    with_shelf(redis_url, work)
