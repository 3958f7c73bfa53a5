"""The snapshot that is read from a real Redis after tasks were finished through the real script."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from fleet.config import PoolSettings, ProviderSettings, Settings
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.models import BotResult, TaskError
from fleet.roster import Checkout
from fleet.signals import BudgetRow, Signals, Snapshot, WorkerReport
from fleet.signals.reader import ERROR_ROWS
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.usage import Usage

SETTINGS = Settings(
    providers={"acme": ProviderSettings(kind="openai")},
    pools={
        "research": PoolSettings(bots=4, provider="acme", model="m1"),
        "review": PoolSettings(bots=2),
    },
)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def with_completion(url: str, work: Callable[[Finisher], Awaitable[None]]) -> None:
    async def run() -> None:
        store = Store(url)
        try:
            await work(Finisher(store, SETTINGS))
        finally:
            await store.close()

    asyncio.run(run())


async def finish(
    completion: Finisher, task_id: str, bot: str, calls: dict[str, int] | None = None, **fields: Any
) -> None:
    pool = bot.rsplit("-", 1)[0]
    data = {"task_id": task_id, "status": "ok", "bot": bot, "pool": pool, "finished_at": 1.0, "attempts": 1, **fields}
    checkout = Checkout(task_id, pool, bot, token=task_id)
    await completion.finish(Finish(BotResult.model_validate(data), checkout=checkout, provider_errors=calls or {}))


def failed(kind: str, api: str = "acme/m1") -> dict[str, Any]:
    provider, model = api.split("/")
    error = TaskError(type=kind, message="m")
    return {"status": "failed", "error": error, "provider": provider, "model": model}


def test_nothing_finished_is_a_snapshot_of_zeros(client: redis.Redis) -> None:
    snapshot = Signals(client, SETTINGS).read()
    assert (snapshot.completions.total, snapshot.errors.failures, snapshot.resources.slots) == (0, 0, 0)
    assert snapshot.completions.spread.idle == snapshot.completions.spread.bots == 6
    assert snapshot.completions.spread.jain is None
    assert snapshot.errors.verdict.verdict == "none"
    assert snapshot.simulated


def test_completions_are_shown_by_pool_and_their_spread_over_bots(redis_url: str, client: redis.Redis) -> None:
    async def work(completion: Finisher) -> None:
        for index in range(6):
            await finish(completion, f"a{index}", f"research-00{index % 3 + 1}", usage=Usage(input_tokens=10))
        await finish(completion, "b", "review-001", status="degraded", simulated=True, served_by="call")

    with_completion(redis_url, work)
    done = Signals(client, SETTINGS).read().completions
    assert (done.total, done.ok, done.degraded, done.failed, done.duplicates, done.simulated) == (7, 6, 1, 0, 0, 1)
    research, review = done.pools
    assert (research.pool, research.total, research.spread.idle, research.spread.jain) == ("research", 6, 1, 0.75)
    assert (research.spread.min, research.spread.median, research.spread.max) == (0, 2, 2)
    assert (review.pool, review.total, review.spread.top[0].bot) == ("review", 1, "review-001")
    assert (done.spread.bots, done.spread.idle) == (6, 2)


def test_a_bot_that_is_no_longer_configured_counts_for_its_pool_but_not_in_the_spread(
    redis_url: str, client: redis.Redis
) -> None:
    with_completion(redis_url, lambda completion: finish(completion, "t", "review-009"))
    review = Signals(client, SETTINGS).read().completions.pools[1]
    assert (review.total, review.spread.max, review.spread.bots) == (1, 0, 2)


def test_results_without_a_bot_are_counted_apart(redis_url: str, client: redis.Redis) -> None:
    async def work(completion: Finisher) -> None:
        error = TaskError(type="InvalidTask", message="m")
        result = BotResult(task_id="t", status="failed", error=error, finished_at=1.0)
        await completion.finish(Finish(result, checkout=None))

    with_completion(redis_url, work)
    snapshot = Signals(client, SETTINGS).read()
    assert (snapshot.completions.total, snapshot.completions.without_bot) == (1, 1)
    assert [(row.pool, row.bot, row.type, row.failures) for row in snapshot.errors.rows] == [
        ("-", "-", "InvalidTask", 1)
    ]


def test_errors_are_a_matrix_of_bot_and_api_with_the_worst_first(redis_url: str, client: redis.Redis) -> None:
    async def work(completion: Finisher) -> None:
        for index in range(3):
            await finish(completion, f"a{index}", "research-001", **failed("BadAnswer"))
        unanswered = failed("ProviderUnavailable") | {"attempts": 4}
        await finish(completion, "b", "research-002", {"ProviderUnavailable": 4}, **unanswered)
        late = {"provider": "simulator", "model": "simulated-1", "attempts": 3}
        await finish(completion, "c", "review-001", {"RateLimited": 2}, **late)

    with_completion(redis_url, work)
    errors = Signals(client, SETTINGS).read().errors
    assert [(row.bot, row.api, row.type, row.failures, row.calls) for row in errors.rows] == [
        ("research-001", "acme/m1", "BadAnswer", 3, 0),
        ("research-002", "acme/m1", "ProviderUnavailable", 1, 4),
        ("review-001", "simulator/simulated-1", "RateLimited", 0, 2),
    ]
    assert [(kind.type, kind.failures, kind.calls) for kind in errors.types] == [
        ("BadAnswer", 3, 0), ("ProviderUnavailable", 1, 4), ("RateLimited", 0, 2),
    ]  # fmt: skip
    assert (errors.failures, errors.calls, errors.rows_left_out) == (4, 6, 0)
    assert (errors.verdict.verdict, errors.verdict.culprit) == ("one bot", "research-001")


def test_a_long_matrix_is_cut_but_its_sums_are_not(client: redis.Redis) -> None:
    rows = {f"research-{n:03d}|acme/m1|BadAnswer": 1 for n in range(ERROR_ROWS + 20)}
    client.hset(keys.errors("research"), mapping=rows)
    errors = Signals(client, SETTINGS).read().errors
    assert (len(errors.rows), errors.rows_left_out, errors.failures) == (ERROR_ROWS, 20, ERROR_ROWS + 20)


def test_resources_sum_over_living_workers_and_leave_dead_ones_out(client: redis.Redis) -> None:
    for name, at in (("w1", 995.0), ("w2", 999.0), ("dead", 900.0)):
        report = WorkerReport(name=name, pid=7, cpu_percent=30.5, rss_mb=61.5, slots=60, busy=10, at=at)
        client.hset(keys.workers(), name, report.model_dump_json())
    used = Signals(client, SETTINGS).read(now_s=1000.0).resources
    assert [worker.name for worker in used.workers] == ["w1", "w2"]
    assert (used.slots, used.busy, used.cpu_percent, used.rss_mb) == (120, 20, 61.0, 123.0)


def test_tokens_cost_and_calls_are_resources(redis_url: str, client: redis.Redis) -> None:
    usage = Usage(input_tokens=100, output_tokens=20)

    async def work(completion: Finisher) -> None:
        await finish(completion, "a", "research-001", {"RateLimited": 3}, usage=usage, cost_usd_micros=70, attempts=4)
        await finish(completion, "b", "research-001", usage=usage, cost_usd_micros=None)

    with_completion(redis_url, work)
    used = Signals(client, SETTINGS).read().resources
    assert (used.input_tokens, used.output_tokens, used.cost_usd_micros) == (200, 40, 70)
    assert (used.attempts, used.calls, used.rate_limited) == (5, 2, 3)


def test_a_snapshot_survives_json(client: redis.Redis) -> None:
    row = BudgetRow("acme/m1/default", rpm=60, tpm=None, used_rpm=12.5, used_tpm=None, held_until=time.time())
    snapshot = Signals(client, SETTINGS).read(budgets=[row])
    text = snapshot.model_dump_json()
    assert json.loads(text)["resources"]["budgets"][0]["used_rpm"] == 12.5
    assert Snapshot.model_validate_json(text) == snapshot
