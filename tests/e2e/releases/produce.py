"""Submits tasks with the release that runs it: `produce.py NAME KIND...`. Prints a JSON line for each: n, id, kind."""

import json
import sys
from typing import Any

from celery import chain, chord

from fleet import app, submit_many, submit_task

NAME, KINDS = sys.argv[1], sys.argv[2:]
PRIORITIES = ("critical", "high", "normal", "low", "bulk")


def say(kind: str, n: str, task_id: str) -> None:
    print(json.dumps({"n": n, "id": task_id, "kind": kind}), flush=True)


def fields(kind: str, number: int, pool: str = "shared", **more: Any) -> dict[str, Any]:
    return {
        "prompt": f"What is {number} + {number}?",
        "pool": pool,
        "metadata": {"n": f"{NAME}-{kind}-{number}", **more.pop("metadata", {})},
        **more,
    }


def many(kind: str, count: int, *each: dict[str, Any], **more: Any) -> list[str]:
    tasks = [fields(kind, number, **(each[number % len(each)] if each else {}), **more) for number in range(count)]
    ids = list(submit_many(tasks))
    for task, task_id in zip(tasks, ids, strict=True):
        say(kind, task["metadata"]["n"], task_id)
    return ids


def one(kind: str, number: int, countdown: float | None = None, **more: Any) -> None:
    task = fields(kind, number, **more)
    options: dict[str, Any] = {} if countdown is None else {"countdown": countdown}
    say(kind, task["metadata"]["n"], submit_task.apply_async((), task, **options).id)


def signature(kind: str, number: int) -> Any:
    task = fields(kind, number)
    return submit_task.si(task.pop("prompt"), **task), task["metadata"]["n"]


def canvas() -> None:
    steps = [signature("chain", number) for number in range(3)]
    result = chain(*[step for step, _ in steps]).apply_async()
    for _, n in reversed(steps):
        say("chain", n, result.id)
        result = result.parent
    end, n = signature("chord", 9)
    say("chord", n, chord([signature("chord", number)[0] for number in range(3)], end).apply_async().id)


if "many" in KINDS:
    many("many", 60, *[{"priority": priority} for priority in PRIORITIES])
if "tenants" in KINDS:
    many("tenants", 12, {"tenant": "acme"}, {"tenant": "globex"})
if "held" in KINDS:
    many("held", 6, pool="shut")
if "long" in KINDS:
    many("long", 6, pool="slow", metadata={"long_s": 4})
if "fails" in KINDS:
    many("fails", 4, metadata={"fails": True})
if "revoked" in KINDS:
    app.control.revoke(many("revoked", 3, pool="shut"))
if "eta" in KINDS:
    for number in range(4):
        one("eta", number, countdown=5.0)
if "keys" in KINDS:
    for number in range(10):
        one("keys", number, idempotency_key=f"key {number}")
if "canvas" in KINDS:
    canvas()
