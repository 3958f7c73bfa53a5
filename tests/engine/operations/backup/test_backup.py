"""`fleet backup` and `fleet restore` between real servers, with tasks in flight."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fleet import config
from fleet.engine.messages.envelope import task_id_in
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations.backup import taking
from fleet.engine.operations.backup.servers import BackedServer, held
from fleet.store import keys
from fleet.store.client import connect
from tests.cli.operate.test_dead import client, fleet
from tests.engine.conftest import StartWorker
from tests.engine.messages.fair.line import PLACE
from tests.every import every
from tests.redis_server import RedisServer
from tests.waiting import wait_until

__all__ = ["client"]

WAIT_S = 90.0
WORK = """
import asyncio, pathlib
async def work(task, bot):
    if task.metadata.get("long"):
        pathlib.Path("begun").touch()
        await asyncio.sleep(600 if not pathlib.Path("restored").exists() else 0)
    return "answer of " + task.prompt
"""
SETTINGS = """
[worker]
slots = 4
[pools.shared]
bots = 4
provider = "simulator"
function = "work:work"
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "other").mkdir()
    server = RedisServer(tmp_path / "other")
    yield server
    server.kill()


def submit(count: int, **fields: object) -> list[str]:
    return list(submit_many({"prompt": f"{n}", "pool": "shared", **fields} for n in range(count)))


def go_to(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and what it starts use another server."""
    monkeypatch.setenv("FLEET_REDIS__URL", server.url)
    config.current.cache_clear()


def test_a_fleet_moves_to_another_server_with_what_waits_is_parked_and_runs(
    start_worker: StartWorker, client: redis.Redis, tmp_path: Path, other: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.engine.tasks import submit_task

    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "fleet.toml").write_text(SETTINGS)
    config.current.cache_clear()
    worker = start_worker()
    ended = submit(3)
    wait_until(lambda: client.exists(*map(keys.result, ended)) == 3, WAIT_S, "the first are done")
    running = submit(2, metadata={"long": True}, priority="critical")
    wait_until(lambda: (tmp_path / "begun").exists() and client.hlen(keys.unacked()) == 2, WAIT_S, "two run")
    fleet("pools", "pause", "shared")
    waiting = submit(20, tenant="acme") + submit(5)
    parked = submit_task.apply_async(("p",), {"pool": "shared"}, countdown=1).id
    told = json.loads(fleet("backup", "b.fleet", "--json").stdout)
    assert told["held_s"] < 30 and (tmp_path / "b.fleet").stat().st_mode & 0o777 == 0o600
    worker.kill()
    (tmp_path / "restored").touch()
    go_to(other, monkeypatch)
    assert json.loads(fleet("restore", "b.fleet", "--dry-run", "--json").stdout)["restored"] is False
    with connect(other.url) as there:
        assert there.dbsize() == 0
        done = json.loads(fleet("restore", "b.fleet", "--json").stdout)
        assert (done["requeued"], done["keys"]) == (2, told["keys"])
        assert there.hlen(keys.unacked()) == 0 and not there.exists(keys.suspects())
        assert 0 < there.pttl(keys.result(ended[0])) <= client.pttl(keys.result(ended[0])) + 60_000
        fleet("pools", "resume", "shared")
        start_worker()
        everything = [*ended, *running, *waiting, parked]
        wait_until(lambda: there.exists(*map(keys.result, everything)) == len(everything), WAIT_S, "all are done")
        assert json.loads(there.get(keys.result(running[0])) or b"")["result"]["status"] == "ok"
        assert "expected Redis without keys of this fleet" in fleet("restore", "b.fleet", code=2).stderr


def test_what_was_there_goes_first_with_force_and_what_is_anothers_stays(client: redis.Redis, tmp_path: Path) -> None:
    submit_many_here = list(submit_many({"prompt": "x", "pool": "research"} for _ in range(3)))
    client.set("another:key", "mine")
    fleet("backup", "b.fleet")
    list(submit_many({"prompt": "y", "pool": "research"} for _ in range(2)))
    done = json.loads(fleet("restore", "b.fleet", "--force", "--json").stdout)
    deeds = [event for _, event in client.xrange(keys.events()) if event[b"event"] == b"restored"]
    assert [(int(one[b"requeued"]), bool(one[b"by"])) for one in deeds] == [(done["requeued"], True)]
    assert done["replaced"] > 0
    assert [task_id_in(text) for text in client.lrange(PLACE, 0, -1)] == submit_many_here[::-1]
    assert client.get("another:key") == b"mine"


def test_large_lists_hashes_and_sets_go_in_slices_and_come_back_in_order(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(taking, "SLICE", 100)
    tasks = list(submit_many({"prompt": "x", "pool": "research"} for _ in range(550)))
    client.hset(keys.totals(), mapping={f"n{n}": n for n in range(700)})
    client.zadd(keys.reaped(), {f"t{n}": n + 0.25 for n in range(700)})
    before = {name: client.dump(name) for name in (keys.totals(), keys.reaped())}
    fleet("backup", "b.fleet")
    fleet("restore", "b.fleet", "--force")
    assert [task_id_in(text) for text in client.lrange(PLACE, 0, -1)] == tasks[::-1]
    assert client.hgetall(keys.totals()) == {f"n{n}".encode(): str(n).encode() for n in range(700)}
    assert client.zscore(keys.reaped(), "t7") == 7.25 and client.zcard(keys.reaped()) == 700
    assert every(before.values())


def test_a_file_that_is_cut_short_or_is_none_changes_nothing(client: redis.Redis, tmp_path: Path) -> None:
    list(submit_many({"prompt": "x", "pool": "research"} for _ in range(30)))
    fleet("backup", "b.fleet")
    whole = (tmp_path / "b.fleet").read_bytes()
    plain = gzip.decompress(whole)
    for number, wrong in enumerate(
        [whole[: len(whole) // 2], gzip.compress(plain[:-40]), b"{}", gzip.compress(b"x" * 99)]
    ):
        (tmp_path / "wrong").write_bytes(wrong)
        said = fleet("restore", "wrong", "--force", code=2).stderr
        assert "expected a" in said and "backup of Fleet" in said, number
    assert client.llen(PLACE) == 30
    assert not list(tmp_path.glob(".b.fleet*"))


def test_writes_wait_while_they_are_held_and_one_that_comes_through_spoils_the_backup(
    client: redis.Redis, redis_url: str
) -> None:
    server = BackedServer("broker", client)
    with connect(redis_url, timeout_s=0.5) as writer, held([server]):
        with pytest.raises(redis.TimeoutError):
            writer.set("a", 1)
        assert client.get("a") is None
    client.set("b", 1)
    with pytest.raises(Exception, match="expected no writes while they were held"), held([server]):
        client.execute_command("CLIENT", "UNPAUSE")
        client.set("c", time.time())


def test_a_backup_of_a_newer_release_is_refused(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    list(submit_many([{"prompt": "x", "pool": "research"}]))
    monkeypatch.setattr(taking, "version", lambda _: "99.1.0")
    fleet("backup", "b.fleet")
    assert "expected Fleet 99.1.0 or newer" in fleet("restore", "b.fleet", "--force", code=2).stderr
