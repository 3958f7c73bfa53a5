"""Several fleets in one Redis, each behind a `redis.prefix` of its own: a whole fleet under MONITOR;
and two without one, which must be told."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import celery
import pytest
import redis
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.engine.local_simulator import stop_simulator
from fleet.engine.operations.overview import open_overview
from fleet.store.client import connect
from tests.dashboard import flower_process
from tests.every import every
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

PREFIX = "team-a:"
#: Commands whose arguments are channels; `command_getkeys` knows the keys of the others.
CHANNELS = {"PUBLISH": slice(1, 2), "SUBSCRIBE": slice(1, None), "PSUBSCRIBE": slice(1, None),
            "UNSUBSCRIBE": slice(1, None), "PUNSUBSCRIBE": slice(1, None)}  # fmt: skip
WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
TOML = """
[pools.research]
bots = 3
canaries = "canaries.jsonl"

[pools.writing]
bots = 2
function = "prefix_bots:shy"

[simulator]
latency_ms = 5

[worker]
slots = 8

[health]
canary_every_s = 0.1
"""
BOTS = """
async def shy(task, bot):
    if "fail" in task.prompt:
        raise ValueError("on purpose")
    return await bot.chat(task.prompt)
"""


#: In a process of its own: the Celery app of this one has other settings by now.
PRODUCER = """
import asyncio, celery
from fleet import asubmit_many, submit_many, submit_task

assert submit_task.delay("What is 2+2?", pool="research").get(timeout=30).answer == "4"
submit_task.apply_async(("What is 2+2?",), {"pool": "research"}, countdown=300).revoke()
assert len(list(submit_many(["What is 3+3?"] * 20, idempotency_keys=map(str, range(20))))) == 20
parts = [submit_task.s("What is 1+1?", pool="research") for _ in range(2)]
assert celery.chord(parts)(submit_task.si("What is 2+1?")).get(timeout=30)

async def main():
    assert (await (await submit_task.adelay("What is 4+4?", pool="research"))).answer == "8"
    assert len(await asubmit_many(["What is 5+5?"] * 3)) == 3

asyncio.run(main())
"""


class Monitor:
    """All that a Redis is told while the block lasts, as lists of words."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.sendall(b"MONITOR\r\n")
        self._mark = uuid.uuid4().hex.encode()
        self._raw = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._client = connect(server.url)
        self._reader.start()

    def _read(self) -> None:
        while self._mark not in self._raw[-4096:]:
            self._raw += self._socket.recv(1 << 20)

    def stop(self) -> list[list[str]]:
        self._client.echo(self._mark.decode())
        self._reader.join(30)
        self._socket.close()
        lines = self._raw.split(b"\r\n")
        said = [[_unescaped(word) for word in WORD.findall(line.partition(b"] ")[2])] for line in lines]
        return [words for words in said if words and self._mark.decode() not in words]

    def touched(self, commands: list[list[str]]) -> set[tuple[str, str]]:
        """Return (command, key or channel) of all of them."""
        found = set()
        for words in commands:
            name = words[0].upper()
            if name in CHANNELS:
                found |= {(name, channel) for channel in words[CHANNELS[name]]}
                continue
            with suppress(redis.ResponseError):  # a command without keys
                raw: Any = self._client.command_getkeys(*words)
                found |= {(name, key if isinstance(key, str) else key.decode()) for key in raw}
        return found


def _unescaped(word: bytes) -> str:
    return word.decode("unicode_escape")


@pytest.fixture
def folder(tmp_path: Path, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of a fleet behind a prefix."""
    (tmp_path / "fleet.toml").write_text(f'[redis]\nurl = "{own_redis.url}"\nprefix = "{PREFIX}"\n{TOML}')
    (tmp_path / "prefix_bots.py").write_text(BOTS)
    (tmp_path / "canaries.jsonl").write_text('{"prompt": "What is 1+1?", "expect": "2"}\n')
    (tmp_path / "questions.jsonl").write_text("".join(f'{{"prompt": "What is {n}+1?"}}\n' for n in range(40)))
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}:{tmp_path}")
    config.current.cache_clear()
    config.current()
    return tmp_path


def fleet(*words: str, code: int | None = 0) -> str:
    """Run a `fleet` command and return what it said: the doctor in a process of its own, for it asks the Celery app."""
    if words[0] == "doctor":
        asked = subprocess.run([sys.executable, "-m", "fleet.cli.main", *words], capture_output=True, text=True)
        assert code is None or asked.returncode == code, f"{asked.stdout}\n{asked.stderr}"
        return asked.stdout
    done = CliRunner().invoke(main, words)
    assert code is None or done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done.output


def plain_client(url: str, prefix: str) -> celery.Celery:
    """Return a Celery app that knows of Fleet no more than the URL and the prefix."""
    app = celery.Celery("plain", broker=url, backend=url)
    app.conf.broker_transport_options = {"global_keyprefix": prefix}
    app.conf.result_backend_transport_options = {"global_keyprefix": prefix}
    return app


def use_everything(folder: Path, url: str, worker: WorkerProcess) -> None:
    """Do what a day with a fleet brings."""
    done = subprocess.run([sys.executable, "-c", PRODUCER], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    fleet("pools", "pause", "writing", "--for", "1m")
    parked = fleet("submit", "What is 2+2?", "--pool", "writing", "--no-wait").split()[0]
    assert "an operator has paused the pool" in fleet("why", parked)
    fleet("pools", "resume", "writing")
    assert "4" in fleet("submit", "What is 2+2?", "--pool", "writing")
    fleet("submit", "fail", "--pool", "writing", code=1)
    (failed,) = (letter["task_id"] for letter in json.loads(fleet("dead", "list", "--json"))["letters"])
    fleet("dead", "replay", failed)
    fleet("bots", "quarantine", "research-001", "--for", "10s")
    fleet("bots", "release", "research-001")
    fleet("run", "questions.jsonl", "-o", "answers.jsonl")
    for words in (("stats", "--json"), ("bots", "--json"), ("pools", "--json"), ("limits", "--json"), ("diversity",)):
        fleet(*words)
    fleet("doctor", code=None)
    plain = plain_client(url, PREFIX)
    asked = plain.send_task("fleet.submit_task", args=["What is 6 * 7?"], kwargs={"pool": "research"}, priority=1)
    assert asked.get(timeout=30)["answer"] == "42"
    assert list(plain.control.ping(timeout=2, limit=1)[0]) == [worker.name]
    plain.control.revoke(str(uuid.uuid4()))
    plain.close()
    with flower_process.running(folder, url) as flower:
        login = f"fleet:{(folder / '.fleet' / 'flower.password').read_text().strip()}"
        for path in ("/fleet", "/fleet/state", "/fleet/metrics", "/workers", "/broker"):
            assert flower.get(path, login)[0] == 200
        assert worker.name in flower.get("/fleet/state", login)[1]
        wait_until(lambda: worker.name in flower.get("/workers?json=1", login)[1], 20, "events reach Flower")


def test_every_key_and_channel_of_a_fleet_begins_with_its_prefix(folder: Path, own_redis: RedisServer) -> None:
    monitor = Monitor(own_redis)
    worker = WorkerProcess(folder, "-E")
    try:
        worker.wait_ready()
        use_everything(folder, own_redis.url, worker)
    finally:
        worker.send(15)
        worker.wait()
    touched = monitor.touched(monitor.stop())
    assert {"EVALSHA", "LPUSH", "PUBLISH", "PSUBSCRIBE", "XREAD", "RPOP"} <= {command for command, _ in touched}
    foreign = {pair for pair in touched if not pair[1].startswith(PREFIX)}
    assert foreign <= {("EVALSHA", "")}  # the set of queues of a call that takes none
    assert every(name.startswith(PREFIX.encode()) for name in connect(own_redis.url).keys("*"))  # type: ignore[union-attr]


def test_two_fleets_without_a_prefix_are_told_by_the_log_the_doctor_the_run_and_the_page(
    tmp_path: Path, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = []
    for pool in ("sales", "support"):
        folder = tmp_path / pool
        folder.mkdir()
        text = f'[redis]\nurl = "{own_redis.url}"\n[pools.{pool}]\nbots = 2\n[worker]\nslots = 2\n'
        (folder / "fleet.toml").write_text(text)
        workers.append(WorkerProcess(folder, env={"FLEET_HOME": str(folder / ".fleet")}))
    try:
        for worker, other in zip(workers, ("support", "sales"), strict=True):
            said = f"another fleet uses this Redis (pools {other} on"
            worker.wait_ready()
            wait_until(lambda worker=worker, said=said: said in worker.log, 30, lambda worker=worker: worker.log)
            assert "redis.prefix" in worker.log
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "sales" / "fleet.toml"))
        (tmp_path / "one.jsonl").write_text('{"prompt": "What is 1+1?"}\n')
        assert "pools support on" in fleet("run", "one.jsonl", "-o", "answers.jsonl")
        checks = {check["name"]: check for check in json.loads(fleet("doctor", "--json", code=1))}
        assert checks["redis: one fleet for each prefix"]["level"] == "fail"
        assert "`redis.prefix`" in checks["redis: one fleet for each prefix"]["advice"]
        with open_overview(config.current()) as overview:
            assert "pools support on" in overview.read().neighbour
    finally:
        for worker in workers:
            worker.kill()
        for pool in ("sales", "support"):
            stop_simulator(tmp_path / pool / ".fleet")
