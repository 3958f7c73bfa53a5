"""Each member of a job is counted once, in the step that stores its result, and what follows the job is queued once."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Literal

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from fleet import config
from fleet.config import Settings
from fleet.engine.jobs.reading import JobResults
from fleet.engine.messages.fair.flows import PLACE
from fleet.engine.messages.follower import Follower, follower_id
from fleet.engine.operations.erasure.state_walk import StateWalk
from fleet.engine.outcomes.cancelling import Selection
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.engine.outcomes.revocation import store_revoked
from fleet.engine.outcomes.stored import result_meta, revoked_meta
from fleet.engine.process.duties import uncounted
from fleet.engine.process.duties.followers import Followers
from fleet.engine.transport.withdrawal.message_search import waiting_lists
from fleet.errors import StoreUnavailable
from fleet.jobs import END_MEMBER, ENDED_AS, JobLedger, JobState, end_call, job_id_of, member_id, membership_of
from fleet.models import BotResult, BotTask
from fleet.store import job_keys, keys
from fleet.store.client import Store, connect, run_script
from fleet.store.private.embedded import state_url
from fleet.store.wire import Together

Status = Literal["ok", "degraded", "failed"]
JOB = job_id_of("nightly")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url, timeout_s=5) as one:
        yield one


@pytest.fixture
def settings(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    return config.current()


def begin(client: redis.Redis, total: int | None = None, *, has_follower: bool = True) -> JobLedger:
    """Make the job; seal it when it has a total."""
    pool = next(iter(config.current().pools))
    book = JobLedger(client)
    follower = Follower.of(JOB, BotTask(prompt="secret words", tenant="acme"), pool).to_json() if has_follower else None
    book.begin(JOB, "nightly", follower, time.time())
    if total is not None:
        book.seal(JOB, total)
    return book


def state_of(book: JobLedger) -> JobState:
    state = book.read(JOB)
    assert state is not None
    return state


def finish(settings: Settings, position: int, status: Status = "ok", *, answer: str = "a", **end: object) -> bool:
    result = BotResult(task_id=member_id(JOB, position), status=status, answer=answer, finished_at=1.0)
    return finish_result(settings, Finish(result, **end))  # type: ignore[arg-type]


def finish_result(settings: Settings, end: Finish) -> bool:
    """Finish a task as a worker does."""
    return with_store(settings, lambda store: Finisher(store, settings).finish(end))


def with_store(settings: Settings, work: Callable[[Store], Awaitable[bool]]) -> bool:
    async def run() -> bool:
        store = Store(state_url(settings))
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def order(client: redis.Redis) -> list[int]:
    return [int(fields[b"m"]) for _, fields in client.xrange(job_keys.order(JOB))]


def queued_followers(client: redis.Redis) -> int:
    lists = [place for _, (place, _) in waiting_lists(client, config.current())]
    messages = [json.loads(one) for name in lists for one in client.lrange(name, 0, -1) if one != PLACE]
    return sum(message["headers"]["id"] == follower_id(JOB) for message in messages)


def follow(settings: Settings) -> None:
    """Do what a worker does for jobs that are due, once."""

    async def work(store: Store) -> bool:
        followers = Followers(settings, store, store)
        for job_id in await store.command("ZRANGE", job_keys.due(), 0, -1):
            await followers.queue(job_id.decode())
        return True

    with_store(settings, work)


def test_a_member_is_counted_with_its_result_and_once_however_often_that_is_stored(
    client: redis.Redis, settings: Settings
) -> None:
    book = begin(client)
    assert finish(settings, 1) and finish(settings, 1)
    assert not finish(settings, 1, "failed", answer="another")
    assert finish(settings, 0, "failed")
    state = state_of(book)
    assert (state.ended, state.ok, state.failed, state.word) == (2, 1, 1, "open")
    assert order(client) == [1, 0]
    assert book.ended_as(JOB, 0, 5) == b"fo"


def test_a_result_that_is_fenced_off_counts_for_no_job(client: redis.Redis, settings: Settings) -> None:
    book = begin(client)
    assert not finish(settings, 0, fence="lost-lease")
    assert state_of(book).ended == 0


def test_a_member_that_is_revoked_is_counted_also_by_whoever_repeats_what_a_death_cut_short(
    client: redis.Redis, settings: Settings
) -> None:
    book = begin(client, 3)
    names = [member_id(JOB, position) for position in range(3)]
    # As if the process had died between the result and the count: a plain client has stored it.
    client.set(keys.result(names[0]), revoked_meta(names[0], reason="revoked", at=1.0))
    assert finish(settings, 1)
    assert store_revoked(client, [*names, "of no job"], settings) == [names[2], "of no job"]
    assert store_revoked(client, names, settings) == []
    state = state_of(book)
    assert (state.ended, state.ok, state.cancelled, state.word) == (3, 1, 2, "done")


@pytest.mark.parametrize("sealed_first", [True, False])
def test_what_follows_is_due_once_when_all_have_ended_and_the_job_is_sealed(
    sealed_first: bool, client: redis.Redis, settings: Settings
) -> None:
    book = begin(client, 2 if sealed_first else None)
    finish(settings, 0)
    follow(settings)
    assert queued_followers(client) == 0
    finish(settings, 1)
    if not sealed_first:
        assert client.zcard(job_keys.due()) == 0
        book.seal(JOB, 2)
    assert client.zcard(job_keys.due()) == 1
    follow(settings)
    book.seal(JOB, 2)
    finish(settings, 1)
    follow(settings)
    state = state_of(book)
    assert (queued_followers(client), state.word, client.zcard(job_keys.due())) == (1, "done", 0)
    assert state.called_at is not None
    assert not client.exists(job_keys.then(JOB)), "its prompt is kept no longer than it must"


def test_an_empty_job_is_followed_when_it_is_sealed_and_a_cancelled_one_never(
    client: redis.Redis, settings: Settings
) -> None:
    book = begin(client, 0)
    follow(settings)
    assert queued_followers(client) == 1
    client.flushall()
    begin(client)
    finish(settings, 0)
    book.seal(JOB, 1, is_cancelled=True)
    follow(settings)
    assert (queued_followers(client), state_of(book).word) == (0, "cancelled")


def test_a_worker_that_dies_between_queueing_what_follows_and_the_note_of_it_doubles_nothing(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(client, 1)
    finish(settings, 0)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "run", _dies_at(Store.run, "settle.lua"))
        with pytest.raises(StoreUnavailable):
            follow(settings)
    assert (queued_followers(client), client.zcard(job_keys.due())) == (1, 1)
    follow(settings)
    assert (queued_followers(client), client.zcard(job_keys.due())) == (1, 0)


def test_a_worker_that_dies_before_it_queues_what_follows_leaves_it_to_the_next(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(client, 1)
    finish(settings, 0)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "run", _dies_at(Store.run, "enqueue.lua"))
        with pytest.raises(StoreUnavailable):
            follow(settings)
    assert (queued_followers(client), client.zcard(job_keys.due())) == (0, 1)
    follow(settings)
    assert queued_followers(client) == 1


@pytest.mark.parametrize(("tenant", "is_left"), [("acme", False), ("other", True)])
def test_what_follows_is_erased_with_its_tenant_and_the_job_then_ends_without_it(
    tenant: str, is_left: bool, client: redis.Redis, settings: Settings
) -> None:
    book = begin(client, 1)
    StateWalk(client, client, Selection(tenant=tenant), "forgotten", is_meant=True).go()
    assert bool(client.exists(job_keys.then(JOB))) is is_left
    finish(settings, 0)
    follow(settings)
    assert (queued_followers(client), state_of(book).word) == (int(is_left), "done")


def _dies_at(really: Callable[..., Awaitable[object]], name: str) -> Callable[..., Awaitable[object]]:
    async def run(self: Store, script: object, *call: object) -> object:
        if script.name == name:  # type: ignore[attr-defined]
            raise StoreUnavailable("it died right here")
        return await really(self, script, *call)

    return run


def test_a_member_whose_result_was_stored_without_the_count_is_counted_later(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uncounted, "LOOKED_AT", 3)
    book = begin(client, 10)
    finish(settings, 4)
    for position, status in ((0, "ok"), (8, "failed")):
        result = BotResult(task_id=member_id(JOB, position), status=status, finished_at=1.0)  # type: ignore[arg-type]
        client.set(keys.result(result.task_id), result_meta(result))
    client.set(keys.result(member_id(JOB, 9)), revoked_meta(member_id(JOB, 9), reason="revoked", at=1.0))

    async def work(store: Store) -> bool:
        duty = uncounted.Uncounted(settings, store, store)
        for _ in range(4):
            await duty.look()
        return True

    with_store(settings, work)
    state = state_of(book)
    assert (state.ended, state.ok, state.failed, state.cancelled) == (4, 2, 1, 1)
    assert book.ended_as(JOB, 0, 10) == b"o\0\0\0o\0\0\0fc"


def test_an_id_of_version_8_of_somebody_else_makes_no_job(client: redis.Redis, settings: Settings) -> None:
    assert finish(settings, 5)
    assert not list(client.scan_iter("*job*"))


def test_a_task_of_no_job_is_finished_by_the_script_that_knows_no_jobs(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[str]()
    really = Store.run

    async def run(self: Store, script: object, *call: object) -> object:
        seen.append(script.name)  # type: ignore[attr-defined]
        return await really(self, script, *call)  # type: ignore[arg-type]

    together = Store.run_together

    def run_together(self: Store, common: Together, *call: object) -> object:
        seen.append(common.script.name)
        return together(self, common, *call)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "run", run)
    monkeypatch.setattr(Store, "run_together", run_together)
    result = BotResult(task_id="6f1e7a36-0b0c-4b8e-9d59-5d0f3a7e9c21", status="ok", finished_at=1.0)
    assert with_store(settings, lambda store: Finisher(store, settings).finish(Finish(result)))
    assert seen == ["finish_together.lua"]


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(sorted(ENDED_AS))), max_size=60), st.integers(0, 60))
def test_counts_agree_with_the_last_end_of_each_member_whatever_comes_in_which_order(
    redis_process: object, ends: list[tuple[int, str]], sealed_at: int
) -> None:
    with connect(redis_process.url, timeout_s=5) as client:  # type: ignore[attr-defined]
        client.flushall()
        book = JobLedger(client)
        book.begin(JOB, "nightly", b"{}", time.time())
        due = 0
        for number, (position, how) in enumerate(ends):
            if number == sealed_at:
                book.seal(JOB, 10)
            member = membership_of(member_id(JOB, position))
            assert member is not None
            run_script(client, END_MEMBER, *end_call(member, how))
            due += client.zrem(job_keys.due(), JOB)
        last = dict(ends)
        state = state_of(book)
        found = {"ok": state.ok, "degraded": state.degraded, "failed": state.failed, "cancelled": state.cancelled}
        assert +Counter(found) == Counter(last.values())
        assert state.ended == len(last)
        assert set(order(client)) == set(last)
        assert due == (len(last) == 10 and sealed_at < len(ends))


def test_a_member_that_ends_anew_while_it_is_looked_for_is_read_as_it_ended(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(client, 1)
    finish(settings, 0, "failed")
    client.delete(keys.result(member_id(JOB, 0)))  # it is queued again
    really = JobLedger.ended_as

    def late(self: JobLedger, *place: Any) -> bytes:
        finish(settings, 0, "ok")
        return really(self, *place)

    monkeypatch.setattr(JobLedger, "ended_as", late)
    assert [one.status for one in JobResults(JOB)] == ["ok"]
