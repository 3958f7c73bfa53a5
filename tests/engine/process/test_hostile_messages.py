"""Hostile messages beside tasks that run: each gets a short typed failure, and nobody else is held up by it."""

from __future__ import annotations

import base64
import json
import time
import uuid
import zlib
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from fleet import config
from fleet.engine.messages import weight
from fleet.engine.messages.producer import submit_many
from fleet.engine.messages.queues import list_key
from fleet.models import BotResult
from fleet.store import keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.every import every
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

WAIT_S = 60
M = 1_000_000
#: Longest time in seconds that the loop may stand still while its process works: 20 ms, and what a busy machine adds.
STALL_S = 0.3

#: A Celery app that notes how long the worker's loop stood still while its process worked, and not others on the CPU.
PROBED = """
import asyncio, time
from celery.signals import worker_ready
from fleet import app

def note(name, gap_s):
    if gap_s > 0.02:
        with open("stalls", "a") as file:
            file.write(f"{name} {gap_s:.3f}\\n")

@worker_ready.connect
def watch(sender=None, **_):
    from fleet.engine.process.wiring import PROCESS

    async def loop():
        while True:
            wall, cpu = time.monotonic(), time.process_time()
            await asyncio.sleep(0.01)
            note("loop", min(time.monotonic() - wall - 0.01, time.process_time() - cpu))

    PROCESS.runtime.spawn(loop())
"""


def a_message(task_id: str, body: bytes | None = None, headers: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """Return a message as a plain client pushes it: `body`, else a task of these fields."""
    text = json.dumps([[], fields, {}]).encode() if body is None else body
    whole = {
        "body": base64.b64encode(text).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "fleet.submit_task", "id": task_id, **(headers or {})},
        "properties": {"correlation_id": task_id, "delivery_info": {}, "body_encoding": "base64"},
    }
    return json.dumps(whole).encode()


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def many(count: int) -> dict[str, int]:
    return {f"x{number}": 1 for number in range(count)}


def fanning_out(levels: int) -> dict[str, Any]:
    """Return a schema that needs 2^levels steps."""
    parts = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": parts | {f"d{levels}": {}}, "$ref": "#/$defs/d0"}


BOMB = zlib.compress(b'[["' + b"x" * (100 * M) + b'"],{},{}]')

#: Kind -> the message, and what its failure says.
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "300,000 unknown fields": (many(300_000), "begins with unknown fields: x0, x1, x2, x3, x4"),
    "50,000 unknown fields": (many(50_000), "x0, x1, x2, x3, x4 and 49,995 more: unknown fields"),
    "50,000 messages": ({"messages": [{"role": "user", "content": "x"}] * 50_000}, "names and values"),
    "12,000 messages": ({"messages": [{"role": "user"}] * 12_000}, "at most 10,000 messages, got 12,000"),
    "nesting of 100,000": ({"body": b'[[],{"metadata":{"a":' + deep(100_000) + b"}},{}]"}, "names and values"),
    "nesting of 900": ({"body": b'[[],{"prompt":"x","metadata":{"a":' + deep(900) + b"}},{}]"}, "nested too deeply"),
    "a body of 60 MB": ({"prompt": "x" * 60 * M}, "at most 16,000,000 bytes, got 80,000,"),
    "a body of 10 MB": ({"prompt": "x" * 10 * M}, "at most 7,000,000 bytes, got 10,000,"),
    "metadata of 5 MB": ({"prompt": "x", "metadata": {"a": "x" * 5 * M}}, "metadata: expected at most 65,536 bytes"),
    "a schema of 5 MB": ({"prompt": "x", "answer_schema": {"title": "x" * 5 * M}}, "at most 32,000 bytes"),
    "a pattern with a look-ahead": ({"prompt": "x", "answer_schema": {"pattern": "(?=a)b"}}, "in linear time"),
    "a backreference": ({"prompt": "x", "answer_schema": {"patternProperties": {r"(a)\1": {}}}}, "patternProperties: "),
    "a schema that fans out": ({"prompt": "x", "answer_schema": fanning_out(60)}, "references fan out"),
    "headers of 10 MB": ({"prompt": "x", "headers": {"big": "x" * 10 * M}}, "65,536 bytes of headers, got 10,000,"),
    "300,000 headers": ({"prompt": "x", "headers": many(300_000)}, "65,536 bytes of headers"),
    "a bomb": ({"body": BOMB, "headers": {"compression": "gzip"}}, "a compressed one that is longer"),
    "a kind of 1 MB": ({"prompt": "x", "kind": "k" * M}, "kind: "),
    "a pool of 1 MB": ({"prompt": "x", "pool": "p" * M}, "pool: "),
    "NaN": ({"body": b'[[],{"prompt":"x","metadata":{"a":[NaN]}},{}]'}, "has no NaN"),
    "Infinity": ({"body": b'[[],{"prompt":"x","metadata":{"a":-Infinity}},{}]'}, "has no NaN"),
}  # fmt: skip


@pytest.fixture
def probed(start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerProcess:
    """A worker that notes its stalls in the file `stalls`."""
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "300")
    monkeypatch.setenv("FLEET_REDIS__SOCKET_TIMEOUT_S", "60")  # 80 MB take Redis a while on a busy machine
    config.current.cache_clear()
    (tmp_path / "probed.py").write_text(PROBED)
    return start_worker(app="probed")


def stored(client: redis.Redis, task_id: str) -> bytes | None:
    return client.get(keys.result(task_id))  # type: ignore[return-value]


def result_in(row: bytes) -> BotResult:
    stored = json.loads(row)
    assert stored["status"] == "SUCCESS", row[:500]
    return BotResult.model_validate(stored["result"])


def test_hostile_messages_get_short_typed_failures_and_hold_up_nobody(
    probed: WorkerProcess, redis_url: str, tmp_path: Path
) -> None:
    client = connect(redis_url, timeout_s=60)
    (tmp_path / "stalls").write_text("")
    neighbours, owed = [], {}
    for kind, (fields, _) in HOSTILE.items():
        neighbours += submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(4))
        owed[kind] = str(uuid.uuid4())
        client.lpush(list_key("celery", 2), a_message(owed[kind], **fields))
    ids = [*neighbours, *owed.values()]
    wait_until(lambda: every(client.mget(map(keys.result, ids))), WAIT_S, "all results")

    for kind, (_, said) in HOSTILE.items():
        row = stored(client, owed[kind])
        assert row is not None and len(row) < 4096, kind
        error = result_in(row).error
        assert error is not None and error.type == "InvalidTask" and said in error.message, (kind, error)
        assert len(error.message.encode()) <= 1000
    for task_id in neighbours:
        row = stored(client, task_id)
        assert row is not None and result_in(row).status == "ok"
    stalls = [float(line.split()[1]) for line in (tmp_path / "stalls").read_text().splitlines()]
    assert max(stalls, default=0) < STALL_S
    wait_until(lambda: client.hlen(keys.unacked()) == 0, WAIT_S, "everything is acknowledged")
    assert client.llen(keys.poison()) == 0 and probed.alive
    kept = sum(len(body) for body in client.hvals(keys.dead_letter_bodies()))
    assert kept < 100_000  # what was refused for its size is not kept whole, nor three times
    assert "xxxxxxxxxx" not in probed.log

    for raw in (a_message("i" * M, prompt="x"), b"[" * (20 * M), b"x" * (30 * M)):  # they name no task
        client.lpush(list_key("celery", 2), raw)
    wait_until(lambda: client.llen(keys.unreadable()) == 3, WAIT_S, f"three are put aside; log:\n{probed.log}")
    wait_until(lambda: client.hlen(keys.unacked()) == 0, WAIT_S, "everything is acknowledged")
    assert max(map(len, client.lrange(keys.unreadable(), 0, -1))) < 2 * weight.CUT_BYTES + 100  # type: ignore[arg-type]

    plain = Celery(broker=redis_url, backend=redis_url)
    plain.conf.task_protocol = 1
    old = plain.send_task("fleet.submit_task", args=["What is 1+2?"], kwargs={"pool": "research"})
    error = BotResult.model_validate(old.get(timeout=WAIT_S)).error
    assert error is not None and error.type == "InvalidTask"
    assert "protocol 1" in error.message and "task_protocol = 2" in error.message
    plain.close()


def test_no_prompt_is_seen_in_debug_logs_events_and_inspect(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "60000")
    config.current.cache_clear()
    worker = start_worker("-E", "--loglevel", "DEBUG", "-c", "3")
    secret = "xyzzy-the-secret-word"
    plain = Celery(broker=redis_url, backend=redis_url)
    listener = connect(redis_url).pubsub(ignore_subscribe_messages=True)
    listener.psubscribe("*celeryev*")
    for number in range(4):
        plain.send_task("fleet.submit_task", args=[f"{secret} {number}"], kwargs={"pool": "research"})
    later = plain.send_task("fleet.submit_task", args=[secret], kwargs={secret: secret}, countdown=600)
    inspect = plain.control.inspect(timeout=2.0, limit=1)
    shown: list[Any] = []
    until = time.monotonic() + WAIT_S
    while "fleet.submit_task" not in json.dumps(shown[:1]):
        assert time.monotonic() < until, worker.log
        shown = [inspect.active(), inspect.reserved(), inspect.scheduled(), inspect.query_task([later.id])]
    plain.close()
    events = b""
    while not (b"task-received" in events and b"task-started" in events):
        assert time.monotonic() < until, worker.log
        message = listener.get_message(timeout=1.0)
        events += base64.b64decode(json.loads(message["data"])["body"]) if message else b""
    listener.close()
    assert secret.encode() not in events
    assert secret not in json.dumps(shown)
    assert secret not in worker.log
    assert "DEBUG/MainProcess] pidbox received" in worker.log
