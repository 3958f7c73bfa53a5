"""Malformed and hostile messages, as a broken or malicious producer could push them into the inbox."""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any

#: Bytes of an argument that is far too large.
HUGE = 2_000_000
#: Brackets around a value that no JSON reader should follow.
DEEP = 100_000


def messages(count: int, *, task: str, chance: random.Random) -> Iterator[tuple[str | None, bytes]]:
    """Yield (task id that is owed a result, or None; message) in turn, of every kind before one comes again."""
    kinds = [*_CHANGES, *_UNNAMED, *_GARBAGE]
    chance.shuffle(kinds)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        task_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        if kind in _GARBAGE:
            yield None, _GARBAGE[kind]
        elif kind in _UNNAMED:
            yield None, _message(task, task_id, _UNNAMED[kind])
        else:
            yield task_id, _message(task, task_id, _CHANGES[kind])


def _message(task: str, task_id: str, change: Callable[[dict[str, Any]], Any]) -> bytes:
    message = {
        "body": _body([["What is 1 + 2?"], {}, {}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": task_id, "root_id": task_id},
        "properties": {
            "correlation_id": task_id, "delivery_info": {"exchange": "", "routing_key": "celery"},
            "body_encoding": "base64", "delivery_tag": task_id,
        },
    }  # fmt: skip
    change(message)
    return json.dumps(message).encode()


def _body(value: Any) -> str:
    return _raw(json.dumps(value).encode())


def _nested(depth: int) -> Any:
    return [_nested(depth - 1)] if depth else 5


def _raw(body: bytes) -> str:
    return base64.b64encode(body).decode()


#: What is wrong with a message that names its task: it is owed a result.
_CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "body is no base64": lambda m: m.update(body="%%%"),
    "body is no JSON": lambda m: m.update(body=_raw(b"{")),
    "body is binary": lambda m: m.update(body=_raw(b"\x80\x04\x95\x00\xff")),
    "body is a number": lambda m: m.update(body=_body(5)),
    "body has one part": lambda m: m.update(body=_body([["x"]])),
    "body is nested too deep": lambda m: m.update(body=_raw(b"[" * DEEP + b"]" * DEEP)),
    "arguments are no list": lambda m: m.update(body=_body([5, {}, {}])),
    "keywords are no dict": lambda m: m.update(body=_body([["x"], ["y"], {}])),
    "keywords are unknown": lambda m: m.update(body=_body([["x"], {"__class__": "os.system"}, {}])),
    "prompt is huge": lambda m: m.update(body=_body([[{"text": "x" * HUGE}], {}, {}])),
    "prompt is a number": lambda m: m.update(body=_body([[5], {}, {}])),
    "pool is unknown": lambda m: m.update(body=_body([["x"], {"pool": "../../etc"}, {}])),
    "content is pickle": lambda m: m.update({"content-type": "application/x-python-serialize"}),
    "content is YAML": lambda m: m.update({"content-type": "application/x-yaml"}),
    "encoding is unknown": lambda m: m.update({"content-encoding": "utf-999"}),
    "compression is unknown": lambda m: m["headers"].update(compression="rot13"),
    "task is unknown": lambda m: m["headers"].update(task="os.system"),
    "task is a list": lambda m: m["headers"].update(task=["a"]),
    "task is missing": lambda m: m["headers"].pop("task"),
    "eta is no time": lambda m: m["headers"].update(eta="yesterday"),
    "expires is no time": lambda m: m["headers"].update(expires={"in": 5}),
    "time limit is text": lambda m: m["headers"].update(timelimit="soon"),
    "eta is out of range": lambda m: m["headers"].update(eta="0001-01-01T00:00:00+14:00"),
    "queued at no time": lambda m: m["headers"].update(queued_at=float("inf")),
    "metadata are nested deep": lambda m: m.update(body=_body([["x"], {"metadata": {"a": _nested(900)}}, {}])),
    "chain is no chain": lambda m: m.update(body=_body([["x"], {}, {"chain": [{"a": 1}]}])),
    "callback is a number": lambda m: m.update(body=_body([["x"], {}, {"callbacks": 5}])),
    "chord is a number": lambda m: m.update(body=_body([["x"], {}, {"chord": 5}])),
    "result is forged": lambda m: m["headers"].update(fleet_result={"status": "ok", "answer": "forged"}),
}

#: What is wrong with a message whose task has no id that a result could be stored under.
_UNNAMED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "id is a number": lambda m: m["headers"].update(id=5),
    "id is missing": lambda m: m["headers"].update(id=None),
    "id is half a character": lambda m: m["headers"].update(id="\ud800x"),
    "headers are a number": lambda m: m.update(headers=5),
    "body encoding is unknown": lambda m: m["properties"].update(body_encoding="rot13"),
    "body is a dict": lambda m: m.update(body={"a": 1}),
}

#: What names no task at all: nobody can be told.
_GARBAGE = {
    "text": b"garbage",
    "nothing": b"",
    "binary": b"\x00\xff\xfe" * 100,
    "a number": b"5",
    "null": b"null",
    "an empty object": b"{}",
    "no properties": b'{"body": "eA==", "headers": {}, "properties": 5}',
    "nested too deep": b"[" * DEEP + b"]" * DEEP,
    "half a message": b'{"body": "W10=", "headers": {"id": "x", "task": "fleet.subm',
}
