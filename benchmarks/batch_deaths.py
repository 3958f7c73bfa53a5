"""python -m benchmarks.batch_deaths: a batch whose sender dies at every step, one after the other; what is paid twice.

Each death is of one step: before a request to the vendor or behind it with its reply lost, before a change of Redis or
behind it. Another sender goes on from Redis. The simulator's ledger tells what it has billed; `twice` are the calls
beyond one for each answer. Batches that are answered whole die at each of their steps; those that are stuck in their
middle at each step from their rescue on. `--check` fails unless each task is answered or goes on by another lane, none
is paid twice, and there were 100 deaths.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import product

import click

from benchmarks.bench import print_table, private_home
from fleet.store.client import connect
from tests.engine.process.batching.deaths import Fuse, send
from tests.workers.simulator.running import running, total
from tests.workers.simulator.running import send as ask

#: Tasks of each batch.
TASKS = 4
#: A batch of the simulator's clock takes 30 ms as a rule, and one that is stuck has not expired (4 s) at its rescue.
CLOCK = {"clock_speed": 20_000.0, "batch_median_s": 600.0, "batch_p95_s": 1200.0}
#: Seconds until what is stuck is rescued.
RESCUE_S = 0.8
#: The first step of a rescue.
RESCUE = "before cancel"
#: Deaths that `--check` wants at least (count).
DEATHS = 100


@click.command()
@click.option("--check", is_flag=True, help="Fail unless nothing is paid twice.")
def main(check: bool) -> None:
    """Kill the sender of a batch at every step."""
    found = rows()
    deaths, twice, lost = (sum(int(row[at]) for row in found) for at in (2, 4, 5))
    columns = ["wire", "batch", "deaths", "tasks", "twice", "lost"]
    print_table("a batch that is killed at every step", columns, [[str(one) for one in row] for row in found])
    click.echo(f"deaths={deaths} twice={twice} lost={lost}")
    if check and (deaths < DEATHS or twice or lost):
        raise SystemExit(1)


def killed_all() -> Iterator[tuple[str, str, int, int, int, int]]:
    """Yield wire, batch, and what `killed` returns, of each kind of batch."""
    with private_home(), running(**CLOCK) as url:
        from fleet import config
        from fleet.store.private.embedded import state_url

        config.current.cache_clear()
        redis_url = state_url(config.current())
        for kind, is_stuck in product(("openai", "anthropic"), (False, True)):
            found = killed(redis_url, url, kind, is_stuck=is_stuck)
            yield kind, "half of it stuck, rescued" if is_stuck else "answered whole", *found


def rows() -> list[tuple[str, str, int, int, int, int]]:
    """Return them all: for a process beside another."""
    return list(killed_all())


def killed(redis_url: str, url: str, kind: str, *, is_stuck: bool) -> tuple[int, int, int, int]:
    """Return how often a sender died, the tasks of all batches, answers paid twice, and tasks that are lost."""
    deaths = tasks = twice = lost = 0
    die_at, steps = 1, 1
    while die_at <= steps:
        with connect(redis_url) as client:
            client.flushall()
        if is_stuck:
            ask(url, "/batch-faults?stuck=1", method="POST")
        before = total(url)["served"]
        names = [f"task-{number}" for number in range(TASKS)]
        fuse = Fuse(die_at, RESCUE if is_stuck else "")
        found = asyncio.run(
            send(redis_url, url, kind, tasks=names, die_at=fuse, rescue_s=RESCUE_S if is_stuck else 3600)
        )
        deaths += bool(found.fuse.died_at)
        tasks += TASKS
        twice += total(url)["served"] - before - found.answers
        lost += TASKS - found.answers - found.freed
        die_at, steps = die_at + 1, max(steps, found.fuse.steps)
        if not found.fuse.died_at:
            break
    return deaths, tasks, twice, lost


if __name__ == "__main__":
    main()
