"""python -m benchmarks.start.cell BOTS POOLS QUEUED ROUNDS: all figures of one fleet, as one line of JSON.

A process of its own: settings, clients and the peers' apps are bound to one Redis.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from benchmarks import transport
from benchmarks.bench import until, worker
from benchmarks.overhead import SLOTS
from benchmarks.start.fleets import Size, fill, home_of
from benchmarks.start.longest import longest
from benchmarks.start.spent import FLEET, QUICK, spent
from benchmarks.start.workers import CELERY, DRAMATIQ_READY, OPTIONS, READY, started

#: Commands that are timed, and the exit codes they may have: this fleet has no worker, and `doctor` says so.
COMMANDS = {"doctor": (0, 1), "stats": (0,), "pools": (0,), "top --once": (0,)}
#: Bare Celery's worker, as quick as it gets.
BARE = (*CELERY, "benchmarks.stock_app", *OPTIONS, "-P", "threads", "--without-gossip", "--without-mingle")
#: Tasks that are finished to see what they leave behind.
WORKED = 100 if QUICK else 2_000
#: Name of a figure, and what it is.
Figures = Iterator[tuple[str, float]]


def main() -> None:
    """Measure a fleet: what takes a round counts by its median."""
    bots, pools, queued, rounds = map(int, sys.argv[1:])
    size, found = Size(bots, pools, queued), defaultdict[str, list[float]](list)
    with home_of(size) as (home, client):
        whole = dict(_redis(size, home, client))
        for _ in range(rounds):
            for name, value in (*_processes(size), *_peers(home), *_worker(size, home, client)):
                found[name].append(value)
        slow = [*longest(client, home, last_task(size), size.names)] if queued else []
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(json.dumps({"figures": whole | medians, "longest": slow}))


def _redis(size: Size, home: Path, client: redis.Redis) -> Figures:
    """Yield what Redis keeps of a fleet whose worker has started and left, and of its queued tasks."""
    empty = _mb(client)
    idle = Size(size.bots, size.pools)
    yield from ((f"first {name}", value) for name, value in _worker(idle, home, client) if name == "worker ready, ms")
    seeded = _mb(client)
    yield "redis seeded, MB", seeded - empty
    began = time.perf_counter()
    fill(size)
    if size.queued:
        yield "queued tasks/s", size.queued / (time.perf_counter() - began)
    yield "redis queued, MB", _mb(client) - seeded
    if not size.queued:
        yield from _worked(size, home, client)


def last_task(size: Size) -> str:
    """Queue one more task behind all others of the last pool, and return its id."""
    from fleet import submit_task

    return str(submit_task.delay("What is 1 + 2?", pool=size.names[-1], priority="bulk").id)


def _worked(size: Size, home: Path, client: redis.Redis) -> Figures:
    """Yield what a finished task leaves behind: in Redis with its result, in its log on disk, in a worker's log."""
    from fleet.signals.catalogue import COMPLETIONS
    from fleet.signals.counted.sums import read_totals

    def done() -> int:
        return read_totals(client, size.names).get(COMPLETIONS.name.encode(), 0)

    def written() -> int:
        return int(client.info("persistence")["aof_current_size"])

    log = home / "worked.log"
    client.config_set("auto-aof-rewrite-percentage", 0)
    before, kept, aof = done(), _mb(client), written()
    fill(Size(size.bots, size.pools, WORKED))
    with worker("fleet", "-c", str(SLOTS), "-n", "w@bench", "--loglevel", "INFO", log=log):
        until(lambda: done() >= before + WORKED, f"{WORKED} tasks; see {log}", every_s=0.5)
    yield "finished, bytes", (_mb(client) - kept) * 2**20 / WORKED
    yield "written, bytes", (written() - aof) / WORKED
    yield "logged, bytes", log.stat().st_size / WORKED


def _mb(client: redis.Redis) -> float:
    return float(client.info("memory")["used_memory"]) / 2**20


def _processes(size: Size) -> Figures:
    """Yield what short processes take: an import, commands, a producer, a reading for the page."""
    yield "import, CPU ms", max(0.0, spent("-c", "import fleet").cpu_ms - spent("-c", "pass").cpu_ms)
    for command, fine in COMMANDS.items():
        found = spent(*FLEET, *command.split(), fine=fine)
        yield f"{command}, ms", found.wall_ms
        yield f"{command}, CPU ms", found.cpu_ms
    for what, argument in (("page", ()), ("delay", size.names[:1]), ("bare", ())):
        told = json.loads(spent("-m", "benchmarks.start.inside", what, *argument).out)
        yield from ((f"{what} {name}", value) for name, value in told.items())


def _worker(size: Size, home: Path, client: redis.Redis) -> Figures:
    """Yield how a worker of Fleet starts, with a task that waits for it."""
    from fleet import submit_task
    from fleet.signals.catalogue import COMPLETIONS
    from fleet.store import keys

    def done() -> int:  # of its pool alone: to add up a thousand would cost more than what is measured
        return int(client.hget(keys.pool_totals(size.names[0]), COMPLETIONS.name) or 0)

    before = done()
    submit_task.delay("What is 1 + 2?", pool=size.names[0], priority="critical")
    command = (*CELERY, "fleet", *OPTIONS)
    yield from _started("worker", command, READY, home, lambda: done() > before, idles=not size.queued)


def _peers(home: Path) -> Figures:
    """Yield how workers of bare Celery, and of dramatiq where it is installed, start."""
    from benchmarks import stock_app

    stock_app.submit(stock_app.noop, 1)
    yield from _started("bare", BARE, READY, home, lambda: stock_app.done() > 0)
    stock_app.forget()
    if transport.is_installed(transport.named("dramatiq")):
        peer: Any = importlib.import_module("benchmarks.peers.dramatiq_app")
        peer.submit("noop", 1)
        command = [word for word in peer.COMMAND if word != "--skip-logging"]
        yield from _started("dramatiq", command, DRAMATIQ_READY, home, lambda: peer.waiting() == 0)


def _started(
    what: str, command: Any, ready: bytes, home: Path, is_done: Callable[[], bool], *, idles: bool = True
) -> Figures:
    found = started(command, ready, home / f"{what}.log", is_done, idles=idles)
    yield f"{what} ready, ms", found.ready_ms
    yield f"{what} first task, ms", found.first_ms
    yield f"{what} CPU, ms", found.cpu_ms
    yield f"{what} RSS, MB", found.rss_mb
    yield f"{what} peak, MB", found.peak_mb
    yield f"{what} files", found.files
    yield f"{what} connections", found.connections
    if found.idle_share is not None:
        yield f"{what} idle, %", 100 * found.idle_share


if __name__ == "__main__":
    main()
