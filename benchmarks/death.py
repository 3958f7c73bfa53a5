"""python -m benchmarks.death: how long a queue takes when a worker with all slots busy is killed, and when none is.

One worker process of 100 slots; tasks take a second each at the simulator. It is killed (kill -9) in the middle, with
all its slots busy, and another one starts at once, as `fleet up` does it. What the dead one held comes back when its
leases have run out, and runs apart as suspects.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from benchmarks.bench import print_table, private_home, until, worker

SLOTS = 100
#: Seconds of work before the kill.
BEFORE_S = 5.0
PROVIDER = {
    "FLEET_SIMULATOR__RPM": "100000000", "FLEET_SIMULATOR__TPM": "1000000000000", "FLEET_SIMULATOR__LATENCY_MS": "1000",
    "FLEET_WORKER__SLOTS": str(SLOTS), "FLEET_WORKER__PROCESSES": "1",
}  # fmt: skip


@click.command()
@click.option("--tasks", default=2000, show_default=True)
@click.option("--rounds", default=2, show_default=True, help="Drains of each kind, in turn; the table shows each.")
def main(tasks: int, rounds: int) -> None:
    """Drain a full queue with and without the death of its worker."""
    os.environ |= PROVIDER
    with private_home() as home:
        rows = []
        for number in range(rounds):
            calm, killed = drain(home, tasks, kills=False), drain(home, tasks, kills=True)
            rows.append([f"{number + 1}", f"{calm:.1f} s", f"{killed:.1f} s", f"{killed / calm:.2f}"])
        title = f"{tasks} tasks of a second, {SLOTS} slots, 1 kill -9 of {SLOTS} running tasks"
        print_table(title, ["round", "no death", "one death", "ratio"], rows)


def drain(home: Path, tasks: int, *, kills: bool) -> float:
    """Return the seconds from a worker's first task to the last result; raises when a task is lost or fails."""
    from fleet import config
    from fleet.engine.messages.producer import submit_many
    from fleet.store import keys
    from fleet.store.client import connect
    from fleet.store.private.embedded import broker_url

    with connect(broker_url(config.current()), timeout_s=60) as client:
        client.flushall()
        ids = list(submit_many({"prompt": f"What is {n} + 2?", "pool": "research"} for n in range(tasks)))

        def held() -> int:
            return int(client.hlen("fleet:unacked"))  # type: ignore[arg-type]

        def done() -> int:
            return int(client.exists(*(keys.result(task_id) for task_id in ids)))  # type: ignore[arg-type]

        with worker("fleet", "-n", "a@bench", log=home / "worker.log") as first:
            until(lambda: held() > 0, "its first task")
            started = time.monotonic()
            if kills:
                until(lambda: time.monotonic() - started > BEFORE_S and held() >= SLOTS, "all slots at work")
                first.kill()
                with worker("fleet", "-n", "b@bench", log=home / "worker.log"):
                    until(lambda: done() == tasks, "all results", every_s=0.1)
            else:
                until(lambda: done() == tasks, "all results", every_s=0.1)
            seconds = time.monotonic() - started
        failed = [task_id for task_id in ids if b'"status":"failed"' in (client.get(keys.result(task_id)) or b"")]  # type: ignore[operator]
        if failed:
            raise RuntimeError(f"expected answers only, got {len(failed)} failed tasks")
        return seconds


if __name__ == "__main__":
    main()
