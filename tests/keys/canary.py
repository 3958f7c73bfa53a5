"""Canaries go through a whole fleet, in all the ways in which calls end; then they are searched for everywhere.

A key may be found nowhere at all; words of a tenant only where they must be: queues, results, dead letters, journals.
"""

from __future__ import annotations

import base64
import json
import re
import signal
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import redis

from fleet.engine.operations.erasure.declared import STORE
from fleet.engine.operations.roles import patterns
from fleet.engine.process.duties.stall_watch import EXIT_STALLED
from fleet.store import keys
from fleet.vault import Envelope
from tests.dashboard.flower_process import Flower, running
from tests.engine.operations.erasure.test_forgetting import dump
from tests.keys.canaries import Find, search
from tests.keys.figures import Figure, Size, zero
from tests.keys.stage import (
    ANSWER,
    ERROR,
    KEYS,
    METADATA,
    PASSWORD,
    PROMPT,
    SEALED,
    SEALED_POOLS,
    TENANT,
    TOOL,
    VARIABLE,
    WORDS,
    Stage,
    staged,
)
from tests.stack_processes import processes_of
from tests.waiting import wait_until

#: Generous: the machine may be slow.
WAIT_S = 40.0
_OWN = [word.name for word in WORDS]
#: What each pool is asked, beside the prompt: how its API answers.
_ASKED = {
    "good": "", "variable": "", "raises": "", "shops": "", "odd401": "ask-401", "odd403": "ask-403",
    "odd429": "ask-429", "odd400": "ask-400", "odd500": "ask-500", "oddnothing": "ask-nothing", "renders": "",
}  # fmt: skip
#: Pools whose tasks end; those of the others wait for their API.
_ENDING = ("good", "variable", "raises", "shops", "odd400", "renders")
#: Commands that look: they tell of many tasks, and what none of them says.
_COMMANDS = (
    "stats", "pools", "bots", "events", "limits", "breakers", "keys list", "bill", "budgets", "doctor", "diversity",
    "lessons", "dead list", "tasks", "alerts", "keys check", "tasks --state failed", "tasks --state waiting",
    "bill unknown",
)  # fmt: skip
_SMALL = ("stats", "events", "doctor", "keys list", "dead list", "tasks", "bill")
_PAGES = (
    "/", "/workers", "/tasks", "/broker", "/fleet", "/fleet/state", "/fleet/dead", "/fleet/metrics",
    "/fleet/tasks?q=state=waiting", "/fleet/tasks?q=state=failed",
    "/metrics", "/api/workers?refresh=1", "/api/workers", "/api/tasks", "/api/task/types", "/api/queues/length",
    "/healthcheck", "/worker/{worker}", "/api/workers?workername={worker}",
)  # fmt: skip


def measure(size: Size) -> list[Figure]:
    """Play the scenario and search."""
    with staged() as stage:
        finds = list(_played(stage, size))
    return [zero("canary", list(dict.fromkeys(map(str, finds))))]


def _played(stage: Stage, size: Size) -> Iterator[Find]:
    _add_keys(stage)
    with _overheard(stage) as overheard:
        worker = stage.start_worker("--loglevel", "DEBUG", "-E", env={"PYTHONFAULTHANDLER": "1"})
        ids = _submit(stage)
        with stage.client() as client, running(stage.folder, stage.url) as flower:
            ended = [keys.result(ids[pool]) for pool in _ENDING]
            wait_until(
                lambda: client.exists(*ended) == len(ended), WAIT_S, lambda: f"results; log:\n{worker.log[-3000:]}"
            )
            wait_until(
                lambda: b"key_rejected" in _events(client), WAIT_S, lambda: f"a refused key; log:\n{worker.log[-3000:]}"
            )
            yield from search(KEYS, "Redis' MONITOR, all commands of the fleet", bytes(overheard["monitor"]))
            yield from search(KEYS, "what is published", bytes(overheard["published"]))
            yield from search(WORDS, "Celery's events and broadcasts", bytes(overheard["broadcasts"]))
            yield from _pages(stage, flower, worker.name, ids)
            yield from _commands(stage, ids, size)
            yield from _runs(stage)
            yield from _processes(stage)
            yield from _redis(client)
            yield from _metrics(stage)
            worker.send(signal.SIGUSR1)  # Celery logs where all threads stand
            wait_until(lambda: "MainThread" in worker.log, WAIT_S, "the stacks are logged")
            client.save()
    worker.send(signal.SIGSEGV)  # the worst way to end: faulthandler tells, and a core dump would be written
    worker.wait()
    if size == "large":
        _stand_still(stage)
    yield from _files(stage)


def _stand_still(stage: Stage) -> None:
    """Let a worker's loop stand until its watch prints where all threads stand, and ends it."""
    from fleet.engine.messages.producer import submit_many

    worker = stage.start_worker("--loglevel", "DEBUG", env={"FLEET_WORKER__HANG_S": "5"})
    list(submit_many([{"prompt": PROMPT.value, "pool": "stands", "priority": "critical"}]))
    assert worker.wait(60) == EXIT_STALLED, worker.log[-2000:]


def _add_keys(stage: Stage) -> None:
    told = stage.fleet("keys", "add", "good", stdin=SEALED.value)
    assert "version 1" in told, told
    for name in (*SEALED_POOLS[1:], "raises", "shops", "renders", "stands"):
        Envelope(stage.folder / "home").add(name, SEALED.value)


def _submit(stage: Stage) -> dict[str, str]:
    from fleet.engine.messages.producer import submit_many
    from fleet.engine.tasks import submit_task

    metadata = {"about": METADATA.value}
    tasks = (
        {"prompt": f"{PROMPT.value} {word}", "pool": pool, "tenant": TENANT, "metadata": metadata}
        for pool, word in _ASKED.items()
    )
    ids = dict(zip(_ASKED, submit_many(tasks), strict=True))
    submit_task.apply_async((PROMPT.value,), {"pool": "good", "tenant": TENANT, "metadata": metadata}, countdown=600)
    submit_task.delay(f"{PROMPT.value} ask-400", pool="shops", tenant=TENANT, metadata=metadata)
    return ids


@contextmanager
def _overheard(stage: Stage) -> Iterator[dict[str, bytearray]]:
    """Listen to all commands, and to all that is published, while the block runs."""
    heard = {"monitor": bytearray(), "published": bytearray(), "broadcasts": bytearray()}
    clients = [redis.Redis.from_url(stage.url) for _ in range(2)]
    pubsub = clients[1].pubsub()  # type: ignore[no-untyped-call]
    pubsub.psubscribe("*")

    def monitor() -> None:
        with suppress(redis.RedisError, OSError, ValueError), clients[0].monitor() as told:  # type: ignore[no-untyped-call]
            connection = told.connection
            while True:
                heard["monitor"] += bytes(connection.read_response()) + b"\n"

    def published() -> None:
        with suppress(redis.RedisError, OSError, ValueError, AttributeError):
            for message in pubsub.listen():
                if message["type"] != "pmessage":
                    continue
                told = b"%s %s\n" % (message["channel"], _plain(message["data"]))
                heard["published"] += told
                if not message["channel"].startswith(keys.result("").encode()):
                    heard["broadcasts"] += told

    threads = [threading.Thread(target=work, daemon=True) for work in (monitor, published)]
    for thread in threads:
        thread.start()
    try:
        yield heard
    finally:
        for client in clients:
            client.connection_pool.disconnect()


def _plain(message: bytes) -> bytes:
    """Return a message with what lies in it in base64 in the clear beside it."""
    try:
        body = json.loads(message)["body"]
        return message + base64.b64decode(body)
    except (ValueError, KeyError, TypeError):
        return message


def _events(client: redis.Redis) -> bytes:
    return repr(client.xrange(keys.events())).encode()


def _pages(stage: Stage, flower: Flower, worker: str, ids: dict[str, str]) -> Iterator[Find]:
    login = f"fleet:{(stage.folder / 'home' / 'flower.password').read_text().strip()}"
    for page in (path.format(worker=worker) for path in _PAGES):
        status, text = flower.get(page, login)
        assert status not in (400, 401), f"{page}: {status}"
        yield from search((*KEYS, *WORDS), f"Flower's {page}", text.encode(), allowed=_shown_by(page, "/fleet/tasks"))
    for task_id in ids.values():
        for page in ("/task/{}", "/api/task/info/{}", "/api/task/result/{}", "/fleet/task/{}"):
            _, text = flower.get(page.format(task_id), login)
            yield from search(KEYS, f"Flower's {page}", text.encode())


def _shown_by(name: str, list_of_tasks: str) -> list[str]:
    """Return what a page or command may show: lists of tasks are searched by metadata, and tell it."""
    return [METADATA.name] if name.startswith(list_of_tasks) else []


def _commands(stage: Stage, ids: dict[str, str], size: Size) -> Iterator[Find]:
    """Search what commands say; in the small size only what scripts read."""
    if size == "small":
        ids = {pool: ids[pool] for pool in ("odd401", "raises")}
    for words in _COMMANDS if size == "large" else _SMALL:
        for form in [["--json"]] if size == "small" else ([], ["--json"]):
            text = stage.fleet(*words.split(), *form)
            may = _shown_by(words, "tasks")
            yield from search((*KEYS, *WORDS), f"fleet {words} {' '.join(form)}", text.encode(), allowed=may)
    for pool, task_id in ids.items():
        for words in ("why", "tasks show", "dead show"):
            text = stage.fleet(*words.split(), task_id, "--json")
            yield from search(KEYS, f"fleet {words} (of {pool})", text.encode())


def _runs(stage: Stage) -> Iterator[Find]:
    """Run a file, one line of which fails: its journal holds no key, and nothing but itself holds its words."""
    lines = [json.dumps({"prompt": f"{PROMPT.value} {word}"}) for word in ("", "ask-400")]
    (stage.folder / "prompts.jsonl").write_text("\n".join(lines))
    told = stage.fleet("run", "prompts.jsonl", "-o", "answers.jsonl", "--pool", "good")
    yield from search((*KEYS, *WORDS), "what `fleet run` says", told.encode())


def _processes(stage: Stage) -> Iterator[Find]:
    """Search the command lines and environments of all processes; a worker has the variables that it was given."""
    for process in processes_of(stage.folder):
        with suppress(psutil.Error):
            name = f"process {process.name()}"
            yield from search((*KEYS, *WORDS), f"{name}: command line", " ".join(process.cmdline()).encode())
            given = json.dumps(process.environ()).encode()
            may = [VARIABLE.name, TOOL.name, PASSWORD.name]
            yield from search((*KEYS, *WORDS), f"{name}: environment", given, allowed=may)
            limits = Path(f"/proc/{process.pid}/limits")
            if limits.exists() and not re.search(r"Max core file size +0 ", limits.read_text()):
                yield Find("memory", name, "a core dump that may be written")


def _redis(client: redis.Redis) -> Iterator[Find]:
    """Search what lies in Redis: words may lie where `declared.py` says so."""
    may = [
        re.compile("".join(".*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", pattern)))
        for name, made in patterns().items()
        if name in STORE and STORE[name].holds in ("words", "both")
        for pattern in made
        if pattern != "*"
    ]
    for name, value in dump(client):
        is_list = client.type(name) == b"list"
        is_declared = is_list or any(pattern.fullmatch(name) for pattern in may)
        yield from search((*KEYS, *WORDS), f"Redis' key {name}", value, allowed=_OWN if is_declared else ())


def _metrics(stage: Stage) -> Iterator[Find]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for port in range(stage.metrics_port, stage.metrics_port + 2):
        with suppress(OSError), opener.open(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            yield from search((*KEYS, *WORDS), "a worker's metrics", reply.read())


def _files(stage: Stage) -> Iterator[Find]:
    """Search all files: those of Redis, logs, journals, exports, traces, the encrypted file, and what nobody meant."""
    ours = {"prompts.jsonl", "answers.jsonl", "canary_bots.py"}
    for name in ("answers.jsonl", "calls.jsonl", "tracebacks.txt", "home/traces.jsonl", "home/keys.sealed"):
        assert (stage.folder / name).exists(), f"expected {name}, or nothing was searched there"
    assert "Fatal Python error: Segmentation fault" in stage.workers[0].log
    for path in sorted(stage.folder.rglob("*")):
        if not path.is_file() or path.suffix == ".pyc":
            continue
        place = str(path.relative_to(stage.folder))
        is_own = path.name in ours or path.name == "tracebacks.txt" or place.startswith("redis/") or "answers" in place
        yield from search((*KEYS, *WORDS), f"file {place}", path.read_bytes(), allowed=_OWN if is_own else ())
        if re.fullmatch(r"core(\.\d+)?", path.name):
            yield Find("memory", f"file {place}", "a core dump")


__all__ = ["ANSWER", "ERROR", "measure"]
