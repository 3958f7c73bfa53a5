"""Tenants take turns, with real workers, through the death of one."""

from __future__ import annotations

from pathlib import Path

import redis

from fleet import config
from fleet.engine.messages.fair.flows import flow_of
from fleet.engine.messages.producer import submit_many
from fleet.store import flow_keys, keys
from tests.cli.operate.test_dead import client
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until

__all__ = ["client"]

#: Generous: the machine may be slow.
WAIT_S = 90.0
#: A's tasks, and B's.
MANY, FEW = 400, 10
WORK = """
import asyncio, pathlib
async def work(task, bot):
    await asyncio.sleep(0.05)
    with pathlib.Path("done").open("a") as done:
        done.write(task.prompt + "\\n")
    return task.prompt
"""
SETTINGS = """
[worker]
slots = 8
[pools.shared]
bots = 8
provider = "simulator"
function = "work:work"
[tenants.heavy]
weight = 2
"""


def submit(count: int, tenant: str) -> list[str]:
    return list(submit_many({"prompt": f"{tenant}{n}", "pool": "shared", "tenant": tenant} for n in range(count)))


def has_ended(client: redis.Redis, task_ids: list[str]) -> bool:
    return bool(client.exists(*map(keys.result, task_ids)) == len(task_ids))


def test_ten_tasks_behind_many_of_another_tenant_are_done_long_before_them_though_a_worker_dies(
    start_worker: StartWorker, client: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "fleet.toml").write_text(SETTINGS)
    config.current.cache_clear()
    done = tmp_path / "done"
    first = start_worker()
    assert client.hget(flow_keys.weights(), flow_of("heavy")) == b"2.0"
    many = submit(MANY, "a")
    wait_until(lambda: done.exists(), WAIT_S, "the worker works")
    first.kill()
    few = submit(FEW, "b")
    start_worker()
    wait_until(lambda: has_ended(client, few), WAIT_S, "b's are done")
    assert not has_ended(client, many)
    lines = done.read_text().split()
    last = max(place for place, line in enumerate(lines) if line.startswith("b"))
    before = [line for line in lines[:last] if line.startswith("a")]
    assert len(before) <= 8 + FEW + 2 * 8, "what the first worker did, then turn by turn, and what ran meanwhile"
    wait_until(lambda: has_ended(client, many), WAIT_S, "all are done: none is lost")
    wait_until(lambda: client.hlen(keys.unacked()) == 0, WAIT_S, "all are acknowledged")
    assert list(client.scan_iter(f"{flow_keys.stem()}flow:*")) == []
