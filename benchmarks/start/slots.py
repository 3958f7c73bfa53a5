"""python -m benchmarks.start.slots: what a slot that waits for its answer takes of a worker: memory, open files."""

from __future__ import annotations

import json
import os
import time

import psutil

from benchmarks.bench import until
from benchmarks.start.fleets import Size, fill, home_of
from benchmarks.start.spent import QUICK, environment
from benchmarks.start.workers import CELERY
from benchmarks.transport import kill_tree

#: Slots of the workers that are compared, and the milliseconds that an answer takes: longer than the look at them.
SLOTS, LATENCY_MS = ((5, 10) if QUICK else (100, 1_000)), 120_000
#: Seconds from the last task that was taken until its call has surely begun.
BEGIN_S = 0.5 if QUICK else 8.0


def main() -> None:
    """Measure workers of few and of many busy slots."""
    few, many = (busy(slots) for slots in SLOTS)
    more = SLOTS[1] - SLOTS[0]
    print(json.dumps({"slot, KB": (many[0] - few[0]) / 1024 / more, "slot, files": (many[1] - few[1]) / more}))


def busy(slots: int) -> tuple[int, int]:
    """Return memory (bytes) and open files of a worker whose every slot has a call under way."""
    from fleet.store import keys

    with home_of(Size(100, 3)) as (home, client):
        os.environ["FLEET_SIMULATOR__LATENCY_MS"] = str(LATENCY_MS)
        fill(Size(100, 3, slots))
        with (home / "busy.log").open("wb") as out:
            command = (*CELERY, "fleet", "worker", "--loglevel", "WARNING", "-c", str(slots))
            process = psutil.Popen(command, stdout=out, stderr=out, env=environment())
        try:
            until(lambda: client.hlen(keys.unacked()) == slots, f"{slots} tasks to be taken")
            time.sleep(BEGIN_S)
            return process.memory_info().rss, process.num_fds()
        finally:
            kill_tree(process)


if __name__ == "__main__":
    main()
