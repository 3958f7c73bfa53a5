"""What holds Redis up longest while operators look into, and workers tidy, queues of a million tasks.

Each step is judged by Redis' own clock (SLOWLOG): while a command runs, nobody else is served.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import redis

import fleet
from benchmarks.bench import worker
from benchmarks.overhead import SLOTS
from benchmarks.start.spent import FLEET, QUICK, spent
from fleet.store.scripts import Script

#: Microseconds from which Redis notes a command, and how many it keeps.
NOTED_US, KEPT = 200, 10_000
#: Seconds that a worker works and tidies: each of its duties has had its turn by then.
TIDY_S = 1.0 if QUICK else 25.0


def longest(client: redis.Redis, home: Path, task_id: str, pools: list[str]) -> Iterator[tuple[str, float, str, float]]:
    """Yield what is done, the milliseconds of its longest command, what that is, and the seconds that all took."""
    client.config_set("slowlog-log-slower-than", NOTED_US)
    client.config_set("slowlog-max-len", KEPT)
    names = _script_names()
    doings = (
        ("why TASK", ("why", task_id)), ("tasks --pool POOL", ("tasks", "--pool", pools[0])), ("pools", ("pools",)),
        ("top --once", ("top", "--once")), ("doctor", ("doctor",)), ("pools pause", ("pools", "pause", pools[-1])),
        ("pools resume", ("pools", "resume", pools[-1])), ("cancel TASK", ("cancel", task_id)),
        ("cancel --pool POOL", ("cancel", "--pool", pools[0], "--yes")),
        ("forget --task TASK", ("forget", "--task", task_id, "--yes")),
    )  # fmt: skip
    for said, arguments in doings[-2:] if QUICK else doings:
        client.slowlog_reset()
        took = spent(*FLEET, *arguments, fine=(0, 1))
        yield f"fleet {said}", *_slowest(client, names), took.wall_ms / 1000
    client.slowlog_reset()
    with worker("fleet", "-c", str(SLOTS), "-n", "w@bench", log=home / "tidy.log"):
        time.sleep(TIDY_S)
    yield f"a worker, {TIDY_S:.0f} s", *_slowest(client, names), TIDY_S
    client.slowlog_reset()
    began = time.perf_counter()
    spent("-m", "celery", "-A", "fleet", "purge", "-f")
    yield "celery purge", *_slowest(client, names), time.perf_counter() - began


def _slowest(client: redis.Redis, names: dict[str, str]) -> tuple[float, str]:
    """Return the milliseconds of the slowest command that was noted, and its name."""
    found = [one for one in client.slowlog_get(KEPT) if not one["command"].startswith((b"SLOWLOG", b"INFO"))]
    if not found:
        return NOTED_US / 1000, "none"
    slowest = max(found, key=lambda one: one["duration"])
    command, *words = slowest["command"].decode("utf-8", "replace").split(" ")
    return slowest["duration"] / 1000, names.get(words[0], words[0]) if command.startswith("EVAL") else command


def _script_names() -> dict[str, str]:
    """Return the file of each script by its SHA-1."""
    for module in pkgutil.walk_packages(fleet.__path__, "fleet."):
        if not module.name.startswith(("fleet.door", "fleet.dashboard")):
            importlib.import_module(module.name)
    values = [value for module in [*sys.modules.values()] for value in vars(module).values()]
    return {value.sha: value.name for value in values if isinstance(value, Script)}
