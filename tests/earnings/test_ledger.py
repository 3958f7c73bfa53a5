"""The ledger on a real Redis: entered as a task ends, once, whoever dies when; and taken back by counter-entries."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import redis

from fleet import config, submit_many
from fleet.config import Settings
from fleet.earnings.ledger import earned_by, rows_between, rows_ever, take_back
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.errors import InvalidTask
from fleet.jobs import job_id_of, member_id
from fleet.models import BotResult
from fleet.roster import Checkout, Roster
from fleet.store import keys, payout_keys
from fleet.store.client import Store, connect
from tests.earnings.test_rows import EVM, OWNER, PAYER, result, settings
from tests.engine.conftest import StartWorker, fleet_env, start_worker
from tests.every import every
from tests.waiting import wait_until
from tests.worker_process import QUICK_LEASES

__all__ = ["fleet_env", "start_worker"]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def finish(url: str, *results: BotResult, of: Settings | None = None) -> list[bool]:
    """Finish tasks, each with a bot that was checked out for it."""
    known = of or settings()

    async def run() -> list[bool]:
        store = Store(url)
        try:
            finisher, roster = Finisher(store, known), Roster(store, known)
            taken = [
                await roster.check_out("research", task_id=one.task_id, token=f"{one.task_id}{number}")
                for number, one in enumerate(results)
            ]
            assert every(isinstance(checkout, Checkout) for checkout in taken)
            return [
                await finisher.finish(Finish(one, checkout, kind="essay"))
                for one, checkout in zip(results, taken, strict=True)
            ]
        finally:
            await store.close()

    return asyncio.run(run())


def at_now(**fields: object) -> BotResult:
    return result(finished_at=time.time(), **fields)


def total(client: redis.Redis) -> int:
    return sum(row.units * count for row, count in rows_ever(client).items())


def test_a_task_earns_once_however_often_its_end_is_repeated(redis_url: str, client: redis.Redis) -> None:
    first = at_now(task_id="a", answer="one")
    assert finish(redis_url, first, first, at_now(task_id="a", answer="two")) == [True, True, False]
    ((row, count),) = rows_ever(client).items()
    assert (row.payee, row.units, count) == ("alice", 5 * 10**17, 1)
    assert client.ttl(payout_keys.earned_ever()) == -1, "what is earned does not expire"
    earned = earned_by(client, "a", settings(), time.time())
    assert earned is not None and earned.row == row and earned.taken_back is None
    assert client.ttl(payout_keys.earned_tasks(earned.day)) > 30 * 86_400
    assert client.ttl(payout_keys.earned_day(earned.day)) > 399 * 86_400


def test_a_member_of_a_job_earns_and_counts_in_the_same_step(redis_url: str, client: redis.Redis) -> None:
    assert finish(redis_url, at_now(task_id=member_id(job_id_of("a job"), 0))) == [True]
    assert sum(rows_ever(client).values()) == 1


def test_a_result_that_redis_could_only_store_alone_earns_all_the_same(redis_url: str, client: redis.Redis) -> None:
    client.set(keys.pool_totals("research"), "somebody else wrote here")
    assert finish(redis_url, at_now(task_id="a")) == [True]
    assert sum(rows_ever(client).values()) == 1


def test_without_payouts_nothing_of_them_is_loaded_or_written(redis_url: str, client: redis.Redis) -> None:
    assert finish(redis_url, at_now(task_id="a"), of=Settings()) == [True]
    assert not list(client.scan_iter("*earned*"))
    code = (
        "import sys; from fleet.config import Settings; from fleet.engine.outcomes.completion import Finisher; "
        "from fleet.store.client import Store; Finisher(Store('redis://127.0.0.1:1'), Settings()); "
        "print([name for name in sys.modules if 'earning' in name or name.startswith(('fleet.payouts', 'eth_'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_amounts_beyond_what_redis_adds_up_are_exact(redis_url: str, client: redis.Redis) -> None:
    dear = settings(payouts={"earn": [{"price": "12345678901234567890.000000000000000001"}], "pay_simulated": True},
                    payees={"alice": {"bots": ["*"], "network": "bsc", "address": OWNER}})  # fmt: skip
    finish(redis_url, *(at_now(task_id=str(number)) for number in range(7)), of=dear)
    assert total(client) == 7 * 12345678901234567890_000000000000000001


def test_what_is_revoked_gets_a_counter_entry_once_and_its_own_entry_stays(redis_url: str, client: redis.Redis) -> None:
    finish(redis_url, at_now(task_id="a"), at_now(task_id="b"))
    before = client.hgetall(payout_keys.earned_tasks(int(time.time() // 86_400)))
    assert take_back(client, "a", settings(), by="me", why="copied")[0] == "taken back"
    assert take_back(client, "a", settings(), by="me", why="copied")[0] == "was taken back"
    rows = rows_ever(client)
    assert sorted((row.units, count) for row, count in rows.items()) == [(-5 * 10**17, 1), (5 * 10**17, 2)]
    earned = earned_by(client, "a", settings(), time.time())
    assert earned is not None and earned.taken_back is not None and earned.taken_back["why"] == "copied"
    after = client.hgetall(payout_keys.earned_tasks(earned.day))
    assert {name: after[name] for name in before} == before
    with pytest.raises(InvalidTask, match="expected a task that has earned something within 30 days"):
        take_back(client, "nobody", settings(), by="me", why="")
    of_days = [rows for _, rows in rows_between(client, time.time() - 86_400, time.time() + 86_400)]
    assert sum(row.units * n for rows in of_days for row, n in rows.items()) == total(client)


def test_no_name_of_a_task_shields_another_one_from_being_taken_back(redis_url: str, client: redis.Redis) -> None:
    """Producers choose ids: one that begins with a dash is a task as any other."""
    finish(redis_url, at_now(task_id="-a"), at_now(task_id="a"))
    for task in ("a", "-a"):
        assert take_back(client, task, settings(), by="me", why="copied")[0] == "taken back"
    assert total(client) == 0
    earned = earned_by(client, "-a", settings(), time.time())
    assert earned is not None and earned.taken_back is not None
    marks = client.ttl(payout_keys.earned_taken(earned.day))
    assert marks >= client.ttl(payout_keys.earned_tasks(earned.day)) > 30 * 86_400


CONFIG = f"""
[[payouts.earn]]
price = "0.01"
[payouts]
pay_simulated = true
[networks.bsc]
token = "{EVM}"
payer = "{PAYER}"
[payees.alice]
bots = ["*"]
network = "bsc"
address = "{OWNER}"
"""


def test_every_accepted_task_earns_once_when_workers_are_killed_in_the_middle(
    redis_url: str, client: redis.Redis, start_worker: StartWorker, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    file = tmp_path_factory.mktemp("toml") / "fleet.toml"
    file.write_text(CONFIG)
    monkeypatch.setenv("FLEET_CONFIG", str(file))
    config.current.cache_clear()
    worker = start_worker(app=QUICK_LEASES)
    ids = list(submit_many({"prompt": f"number {n}", "pool": "research"} for n in range(200)))
    wait_until(lambda: sum(rows_ever(client).values()) > 20, 60, "some tasks have earned")
    worker.kill()
    start_worker(app=QUICK_LEASES)
    wait_until(lambda: client.exists(*map(keys.result, ids)) == len(ids), 120, "all tasks have ended")
    done = [json.loads(text)["result"] for text in client.mget(list(map(keys.result, ids)))]
    accepted = sum(one["status"] == "ok" for one in done)
    assert accepted > 150 and sum(rows_ever(client).values()) == accepted
