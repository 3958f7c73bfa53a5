"""Finishing with a dead letter: kept in the same step as the result, and only with the result that stands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis

from fleet.config import PoolSettings, Settings
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice
from fleet.engine.outcomes.dead_letters import bury
from fleet.models import BotResult, TaskError
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import Store, connect
from tests.counted import counted

SETTINGS = Settings(pools={"p": PoolSettings(bots=3)})


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as opened:
        yield opened


def failed(message: str = "expected this, got that") -> BotResult:
    error = TaskError(type="BadRequest", message=message)
    return BotResult(task_id="t", status="failed", error=error, pool="p", attempts=1, finished_at=1.0)


def finish(url: str, *results: BotResult, fence: str | None = None) -> list[bool]:
    async def run() -> list[bool]:
        store = Store(url)
        completion = Finisher(store, SETTINGS)
        stood = []
        for result in results:
            burial = bury(result, headers={}, body=b'[[], {"pool": "p"}, {}]', provider_errors={"BadRequest": 1})
            stood.append(
                await completion.finish(
                    Finish(result, checkout=None, provider_errors={"BadRequest": 1}, fence=fence, burial=burial)
                )
            )
        await store.close()
        return stood

    return asyncio.run(run())


def office(client: redis.Redis) -> DeadLetterOffice:
    return DeadLetterOffice(client, client, SETTINGS)


def total(client: redis.Redis, counter: catalogue.Counter) -> int:
    return counted(client, counter.name)


def test_a_failed_result_and_its_letter_come_in_one_step_and_are_counted_once(
    client: redis.Redis, redis_url: str
) -> None:
    assert finish(redis_url, failed(), failed()) == [True, True]  # the second: its first reply was lost
    assert office(client).count(pool="p", reason="BadRequest") == 1
    assert total(client, catalogue.DEAD_LETTERS) == total(client, catalogue.FAILED) == 1
    assert client.hgetall(keys.errors("p")) == {b"-|-|BadRequest": b"1", b"-|-|call:BadRequest": b"1"}
    assert office(client).replay("t") == "queued"


def test_a_failure_that_comes_after_a_result_makes_no_letter(client: redis.Redis, redis_url: str) -> None:
    answered = BotResult(task_id="t", status="ok", answer="42", pool="p", finished_at=1.0)
    assert finish(redis_url, answered, failed()) == [True, False]
    assert office(client).count() == 0
    assert total(client, catalogue.DUPLICATES) == 1


def test_a_fenced_failure_makes_no_letter(client: redis.Redis, redis_url: str) -> None:
    assert finish(redis_url, failed(), fence="a tag that was lost") == [False]
    assert office(client).count() == 0
    assert client.exists(keys.result("t")) == 0


def test_a_fence_that_holds_lets_the_letter_through(client: redis.Redis, redis_url: str) -> None:
    client.zadd("fleet:unacked_index", {"held": 1.0})
    assert finish(redis_url, failed(), fence="held") == [True]
    assert office(client).count() == 1
