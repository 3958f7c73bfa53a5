"""python -m benchmarks.job_deaths: a job of 20,000 whose producer and workers are killed (kill -9) over and over.

The producer is killed at a random moment, four times, and started again with the same key; one of two workers is killed
every few seconds, and another one starts at once. `--check` fails unless each member ended and was counted once, its
results are read once each, and the task that follows was queued and ended once.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import click
import psutil

from benchmarks.bench import print_table, private_home, until, worker

PROVIDER = {
    "FLEET_SIMULATOR__RPM": "100000000", "FLEET_SIMULATOR__TPM": "1000000000000", "FLEET_SIMULATOR__LATENCY_MS": "5",
    "FLEET_WORKER__SLOTS": "50", "FLEET_WORKER__PROCESSES": "1",
}  # fmt: skip
PRODUCER = """\
import sys
from fleet import submit_job

tasks = ({"prompt": f"What is {number} + 2?", "pool": "research"} for number in range(int(sys.argv[1])))
submit_job(tasks, key="deaths", then={"prompt": "What is 1 + 1?", "pool": "research"})
"""
#: Deaths of the producer (count), and seconds that it lives until then, at most.
PRODUCERS, PRODUCER_S = 4, 4.0
#: Seconds between two deaths of workers, and how many there are at most.
WORKER_S, WORKERS = 6.0, 8


def produce(tasks: int) -> int:
    """Submit the job, with deaths; return how often the producer was killed before it was through."""
    command = [sys.executable, "-c", PRODUCER, str(tasks)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    deaths = 0
    for _ in range(PRODUCERS):
        process = subprocess.Popen(command, env=env)
        try:
            process.wait(1 + random.random() * PRODUCER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            deaths += 1
    subprocess.run(command, env=env, check=True)
    return deaths


def kill_workers(home: Path, over: threading.Event) -> int:
    """Keep two workers going, killing one of them every few seconds until it is over; return how many were killed."""
    numbers, deaths, alive = itertools.count(), 0, list[psutil.Process]()
    with ExitStack() as stack:
        for _ in range(2):
            alive.append(stack.enter_context(worker("fleet", "-n", f"w{next(numbers)}@bench", log=home / "worker.log")))
        while not over.wait(WORKER_S):
            if deaths < WORKERS:
                alive.pop(0).kill()
                deaths += 1
                name = f"w{next(numbers)}@bench"
                alive.append(stack.enter_context(worker("fleet", "-n", name, log=home / "worker.log")))
    return deaths


@click.command()
@click.option("--tasks", default=20_000, show_default=True)
@click.option("--check", is_flag=True, help="Fail unless each member ended once and one task followed.")
def main(tasks: int, check: bool) -> None:
    """Kill whoever works for a job."""
    os.environ |= PROVIDER
    with private_home() as home:
        from fleet import config
        from fleet.engine.jobs.job import open_job
        from fleet.store import job_keys, keys
        from fleet.store.client import connect
        from fleet.store.private.embedded import broker_url

        client = connect(broker_url(config.current()), timeout_s=60)
        over, killed, started = threading.Event(), list[int](), time.monotonic()
        killer = threading.Thread(target=lambda: killed.append(kill_workers(home, over)))
        killer.start()
        try:
            producers = produce(tasks)
            job = open_job(key="deaths")
            results = Counter((job.position(one.task_id), one.status) for one in job)
            until(lambda: bool(client.exists(keys.result(job.then_id))), "what follows")
        finally:
            over.set()
            killer.join()
        seconds = time.monotonic() - started
        counted = Counter(int(fields[b"m"]) for _, fields in client.xrange(job_keys.order(job.id)))
        state = job.state
    statuses = Counter(status for _, status in results)
    once = sum(results[one] == 1 and counted[one[0]] == 1 for one in results)
    rows = [
        [
            f"{tasks:,}",
            f"{producers}",
            f"{sum(killed)}",
            f"{len(results):,}",
            f"{once:,}",
            f"{dict(statuses)}",
            f"{seconds:.0f} s",
        ]
    ]
    head = ["members", "producers killed", "workers killed", "read", "ended once", "how", "took"]
    print_table("A job whose producer and workers are killed", head, rows)
    is_well = once == len(results) == tasks == state.ended and state.word == "done" and state.called_at is not None
    click.echo(f"well={is_well} state={state}")
    if check and not is_well:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
