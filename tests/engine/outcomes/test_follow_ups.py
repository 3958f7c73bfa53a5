"""What follows a bot task is sent once, at whichever point its worker was killed; what cannot be sent fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
import redis

from fleet.engine.outcomes.follow_ups import give_ids, hears
from fleet.engine.outcomes.stored import Cancelled
from fleet.models import BotResult, TaskError
from fleet.store import keys
from fleet.store.client import connect
from tests.every import every
from tests.worker_process import REPO

#: Sends what follows a task in processes that kill themselves (-9) at one point each, then in one that lives.
SENDS = """
import json, os, signal, sys
from fleet.engine.outcomes.backend import BotResults, never_wait
from fleet.engine.outcomes.follow_ups import FollowUps
from fleet.engine.tasks import app
from fleet.models import BotResult

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def then_die(does):
    def run(*args, **kwargs):
        does(*args, **kwargs)
        die()
    return run
def kill_after(point):
    if point == "result": FollowUps.send_once = die
    if point == "claim": BotResults._chord_claim_extend_script = property(lambda backend: die)
    if point == "publish": FollowUps._send = then_die(FollowUps._send)
    if point == "mark": FollowUps.send_once = then_die(FollowUps.send_once)

def send(task, is_repeat):
    result = BotResult(task_id=task["id"], status="ok", answer="4", finished_at=1.0)
    FollowUps(app).send_once(task["id"], task, result, is_repeat=is_repeat)

never_wait()
tasks = json.load(sys.stdin)
for point, task in tasks:
    child = os.fork()
    if child == 0:
        kill_after(point)
        send(task, is_repeat=False)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, point
import redis
client = redis.Redis.from_url(sys.argv[1])
for _, task in tasks:
    client.delete(f"celery-taskset-meta-{task['group']}.c")  # a claim that a dead worker has left is over
    send(task, is_repeat=True)
"""


def bot_task(task_id: str) -> dict[str, Any]:
    """A signature as it lies in a message."""
    options = {"task_id": task_id}
    return {"task": "fleet.submit_task", "args": [], "kwargs": {"pool": "research"}, "options": options,
            "subtask_type": None, "immutable": False}  # fmt: skip


def queued(client: redis.Redis) -> Counter[str]:
    """Return how often each task lies in a queue."""
    names = [name for name in client.keys("*") if name.startswith((b"fleet.", b"celery"))]  # type: ignore[union-attr]
    lists = [name for name in names if client.type(name) == b"list"]
    return Counter(json.loads(raw)["headers"]["id"] for name in lists for raw in client.lrange(name, 0, -1))  # type: ignore[union-attr]


def run(code: str, *args: str, data: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, *args], input=json.dumps(data), capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(REPO)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_bot_tasks_that_follow_are_queued_once_when_the_worker_dies_after_result_claim_publish_or_mark(
    fleet_env: None, redis_url: str
) -> None:
    client = connect(redis_url)
    tasks = []
    for point in ("result", "claim", "publish", "mark"):
        client.set(f"celery-taskset-meta-{point}.s", 1)
        tasks.append((point, {
            "id": f"{point}-id", "group": point, "group_index": 0, "delivery_info": {}, "errbacks": None,
            "callbacks": [{**bot_task("x"), "options": {}}], "chain": [bot_task(f"{point}-next")],
            "chord": bot_task(f"{point}-body"),
        }))  # fmt: skip
    run(SENDS, redis_url, data=tasks)
    found = queued(client)
    links = {name for name in found if not name.endswith(("-next", "-body"))}
    assert len(links) == 4, "each callback got an id of its own, and the same one each time"
    assert found == {
        **dict.fromkeys(links, 1), **{f"{point}-{what}": 1 for point, _ in tasks for what in ("next", "body")}
    }  # fmt: skip
    assert every(client.ttl(keys.followed(f"{point}-id")) > 0 for point, _ in tasks)  # type: ignore[operator]


def test_what_follows_has_the_same_ids_each_time_and_keeps_those_of_the_canvas() -> None:
    def whole() -> dict[str, Any]:
        without = {**bot_task("x"), "options": {}}
        body = {"subtask_type": "chain", "kwargs": {"tasks": [dict(without, options={}), bot_task("kept")]}}
        header = {"subtask_type": "group", "kwargs": {"tasks": [dict(without, options={})]}}
        return {"subtask_type": "chord", "kwargs": {"header": header, "body": body}, "options": {}}

    one, two, other = whole(), whole(), whole()
    give_ids(one, "parent.0")
    give_ids(two, "parent.0")
    give_ids(other, "parent.1")
    assert one == two != other
    tasks = one["kwargs"]["body"]["kwargs"]["tasks"]
    assert tasks[1]["options"]["task_id"] == "kept"
    assert len({one["options"]["task_id"], *(part["options"]["task_id"] for part in tasks)}) == 3
    give_ids(5, "odd")


@pytest.mark.parametrize(
    ("part", "good", "bad"), [("callbacks", True, False), ("errbacks", False, True), ("chain", True, True)]
)
def test_a_failed_result_and_a_cancelled_task_count_as_failures(part: str, good: bool, bad: bool) -> None:
    ok = BotResult(task_id="t", status="degraded", answer="4", finished_at=1.0)
    error = TaskError(type="BadAnswer", message="m")
    failed = BotResult(task_id="t", status="failed", error=error, finished_at=1.0)
    request = {part: ["x"]}
    assert (hears(request, ok), hears(request, failed), hears(request, Cancelled("x"))) == (good, bad, bad)
