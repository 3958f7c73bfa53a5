"""What the first release left in Redis when its worker was killed: recorded, so that every checkout tests it."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.limiter.layouts import STATE as LIMIT
from fleet.limiter.layouts import At
from fleet.store import keys
from tests.counted import all_counted
from tests.e2e.releases.first import SLOW_S
from tests.e2e.releases.record import STATE, unpack
from tests.e2e.releases.site import Site
from tests.redis_server import RedisServer
from tests.waiting import wait_until

TOLD = json.loads(STATE.read_text())
_WRITE = {"string": "SET", "list": "RPUSH", "hash": "HSET", "set": "SADD"}


@pytest.fixture
def site(tmp_path: Path, own_redis: RedisServer) -> Iterator[Site]:
    site = Site(tmp_path, own_redis)
    site.tasks = TOLD["tasks"]
    for name, (kind, packed) in TOLD["keys"].items():
        _put(site.client, name.encode("latin-1"), kind, unpack(packed))
    yield site
    site.end()


def _put(client: Any, key: bytes, kind: str, value: Any) -> None:
    if kind == "zset":
        client.execute_command(
            "ZADD", key, *(part for pair in zip(value[1::2], value[::2], strict=True) for part in pair)
        )
    elif kind == "stream":
        for name, fields in value:
            client.execute_command("XADD", key, name, *fields)
    else:
        client.execute_command(_WRITE[kind], key, *(value if isinstance(value, list) else [value]))


def test_tasks_results_keys_letters_quarantines_and_limits_of_0_2_go_on(site: Site) -> None:
    before = all_counted(site.client)
    state = LIMIT.unpack(site.client.get(keys.limit("sim/m/default")) or b"")  # type: ignore[arg-type]
    done = set(site.results())
    assert state[At.GRANTED] >= before["calls"] > 0, "its state can be read"
    assert 0 < len(done) < len(site.tasks)
    site.simulate()
    site.worker("new", "new1")
    site.ready("new1")
    site.fleet("new", "pools", "resume", "shut")
    site.submit("new", "a", "keys")  # the same keys, so the same tasks
    wait_until(lambda: len(site.results()) == len(site.tasks), SLOW_S, lambda: f"{len(site.results())} have ended")
    results = site.results()
    for task_id, task in site.tasks.items():
        assert results[task_id]["result"]["status"] == ("failed" if task["kind"] == "fails" else "ok"), task
    begun = site.ledger("begins")
    assert begun == {task["n"]: 1 for task_id, task in site.tasks.items() if task_id not in done}
    totals = all_counted(site.client)
    assert totals["completions"] == before["completions"] + len(begun)
    letters = json.loads(site.fleet("new", "dead", "list", "--json"))["letters"]
    assert len(letters) == sum(task["kind"] == "fails" for task in site.tasks.values())
    site.fleet("new", "dead", "replay", "--all", "--yes")
    wait_until(lambda: sum("-fails-" in n for n in site.ledger("begins")) == len(letters), SLOW_S, "they were replayed")
    bots = {row["name"]: row["state"] for row in json.loads(site.fleet("new", "bots", "list", "--json"))["bots"]}
    assert bots["shared-003"] == "quarantined"
    granted = struct.unpack("<39d", site.client.get(keys.limit("sim/m/default")) or b"")[At.GRANTED - 1]  # type: ignore[arg-type]
    assert granted >= state[At.GRANTED] + len(begun), f"counted on at {time.time():.0f}"
