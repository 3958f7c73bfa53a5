"""python -m benchmarks.scale: what a task costs as the fleet and its queue grow, and how fast full queues are drained.

Every queue is filled to its depth first, then 20,000 of its tasks are measured. All rows come from one run on one
machine, each beside its peer, so a slow machine makes none of them fail:

- spread      what a task costs, CPU of worker and Redis: the dearest fleet over the cheapest, from 100 to 10,000 bots
              and with a queue of 25,000 tasks and of 200,000: nothing on a task's road is O(bots) or O(queue).
- redis_ms    CPU of Redis for a task of the whole road, in the units of a machine on which bare Celery's no-op takes
              it 0.09 ms.
- road        tasks/s of the whole road over those of bare Celery's no-op.
- drain1, 2   tasks/s of a no-op on one and on two worker processes, over dramatiq's.
- two_redis   tasks/s of a no-op with the pools on two brokers, over those on one, each broker held to 15% of a core by
              a cgroup: it needs root. State is on a third Redis that is not held, in both cases.
- tenant_b    how long ten tasks of one tenant take behind 100,000 of another, over how long they take alone.

CPU time is what a run beside others may be judged by; tasks/s want a machine that does nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import redis

from benchmarks.bench import print_table, private_home
from benchmarks.overhead import FREE_PROVIDER, SLOTS, Bench, Run

#: Tasks measured in a cell, and those on which workers warm up before.
TASKS, WARM_UP = 20_000, 5_000
#: Fleets whose tasks are compared: bots, and how deep the queue is at first.
FLEETS = ((100, 25_000), (1_000, 25_000), (10_000, 25_000), (100, 200_000))
#: CPU of Redis for a no-op of bare Celery where the wanted figure was set (ms).
BARE_MS = 0.09
#: Rounds of the drains beside dramatiq, interleaved: the median counts.
ROUNDS = 3
#: Tasks of tenant A before B's ten.
BEFORE_B = 100_000
#: What is wanted of each row: most or least.
WANTED = {
    "spread": ("<=", 1.3),
    "redis_ms": ("<=", 0.12),
    "road": (">=", 1.5),
    "drain1": (">=", 1),
    "drain2": (">=", 1),
    "two_redis": (">=", 1.8),
    "tenant_b": ("<=", 2),
}


@dataclass(frozen=True)
class Row:
    """One figure. Args: what it is called, measured, told beside it."""

    name: str
    measured: float | None
    told: str

    @property
    def is_met(self) -> bool | None:
        """Whether it is as wanted; None: it was not measured, or nothing is wanted."""
        if self.measured is None or self.name not in WANTED:
            return None
        sign, bound = WANTED[self.name]
        return self.measured <= bound if sign == "<=" else self.measured >= bound

    @property
    def cells(self) -> list[str]:
        sign, bound = WANTED.get(self.name, ("", ""))
        measured = "not measured" if self.measured is None else f"{self.measured:.3g}"
        return [
            self.name,
            f"{sign} {bound}".strip(),
            measured,
            {True: "yes", False: "NO", None: ""}[self.is_met],
            self.told,
        ]


def pool_of(bots: int, depth: int) -> str:
    """Return the name of a cell's pool."""
    return f"b{bots}d{depth // 1000}"


def road_rows(client: redis.Redis, home: Path, tasks: int, fleets: tuple[tuple[int, int], ...]) -> Iterator[Row]:
    """Yield what a task of the whole road costs beside bare Celery's no-op, and over all fleets."""
    from benchmarks import stock_app
    from fleet.engine.messages.producer import submit_many
    from fleet.signals.catalogue import COMPLETIONS
    from fleet.signals.counted.sums import read_totals

    bench = Bench(client, home)

    def submit_to(pool: str) -> Callable[[int], None]:
        def submit(count: int) -> None:
            for _ in submit_many({"prompt": f"What is {n} + 2?", "pool": pool} for n in range(count)):
                pass

        return submit

    def done() -> int:
        return read_totals(client, ()).get(COMPLETIONS.name.encode(), 0)

    def submit_stock(count: int) -> None:
        stock_app.submit(stock_app.noop, count)

    warm_up = min(WARM_UP, tasks // 4)
    quiet = ("-P", "threads", "--without-gossip", "--without-mingle")
    client.flushall()
    bare = bench.drain_some(
        "benchmarks.stock_app", quiet, submit_stock, stock_app.done, warm_up=warm_up, tasks=tasks, depth=tasks + warm_up
    )
    runs: list[Run] = []
    for bots, depth in fleets:
        client.flushall()
        submit = submit_to(pool_of(bots, depth))
        runs.append(bench.drain_some("fleet", (), submit, done, warm_up=warm_up, tasks=tasks, depth=depth))
    costs = [run.cpu_ms + run.redis_cpu_ms for run in runs]
    each = ", ".join(
        f"{bots:,} bots {depth:,} deep {cost:.2f} ms" for (bots, depth), cost in zip(fleets, costs, strict=True)
    )
    yield Row("spread", max(costs) / min(costs), each)
    road = runs[0]
    told = f"{road.redis_cpu_ms:.3f} ms here, bare Celery {bare.redis_cpu_ms:.3f} ms"
    yield Row("redis_ms", road.redis_cpu_ms * BARE_MS / bare.redis_cpu_ms, told)
    yield Row("commands", road.commands, f"of Redis for a task, those in scripts too; bare Celery {bare.commands:.1f}")
    yield Row(
        "road", road.tasks_per_s / bare.tasks_per_s, f"{road.tasks_per_s:,.0f} and {bare.tasks_per_s:,.0f} tasks/s"
    )


def drain_rows(client: redis.Redis, home: Path, tasks: int, rounds: int) -> Iterator[Row]:
    """Yield how fast a no-op is drained, over dramatiq."""
    from benchmarks import transport

    bench, ours = transport.Bench(client, home / "drain.log"), transport.named("fleet")
    theirs = transport.named("dramatiq")
    if not transport.is_installed(theirs):
        for processes in (1, 2):
            yield Row(f"drain{processes}", None, "dramatiq is not installed: pip install '.[bench]'")
        return
    for processes in (1, 2):
        rates: dict[transport.System, list[float]] = {ours: [], theirs: []}
        for _ in range(rounds):
            for system, found in rates.items():
                found.append(bench.drain(system, "noop", processes, tasks).rate)
        ours_s, theirs_s = (statistics.median(rates[system]) for system in (ours, theirs))
        yield Row(f"drain{processes}", ours_s / theirs_s, f"{ours_s:,.0f} and dramatiq {theirs_s:,.0f} tasks/s")


def tenant_row() -> Row:
    """Return what ten tasks of one tenant wait for another's queue, in a process and on a Redis of its own."""
    from benchmarks.tenants import FEW, tenant_cell

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        cell = other.submit(tenant_cell, waiting=BEFORE_B).result()
    told = f"{FEW} tasks alone {cell.alone_s:.2f} s, behind {BEFORE_B:,} {cell.behind_s:.2f} s"
    return Row("tenant_b", cell.times, told)


def two_redis_row(tasks: int, rounds: int) -> Row:
    """Return how much faster two brokers are than one, each with the same small share of a core."""
    from benchmarks.two_redis import figures

    return Row("two_redis", *figures(tasks, rounds))


def missed(rows: Iterable[Row]) -> list[str]:
    """Return what is wanted and was not measured as such."""
    met = {row.name for row in rows if row.is_met}
    return [name for name in WANTED if name not in met]


@click.command()
@click.option("--check", is_flag=True, help="Exit code 1 unless every figure was measured and is as wanted.")
@click.option("--tasks", default=TASKS, show_default=True, help="Tasks measured in a cell.")
@click.option("--rounds", default=ROUNDS, show_default=True, help="Rounds of the drains, interleaved.")
@click.option("--only", metavar="NAME", default="", help="road, drain, two_redis or tenants: that part alone.")
def main(check: bool, tasks: int, rounds: int, only: str) -> None:
    """Fill queues to their depth, drain them, and print one table."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers, workers and cgroups go then, too
    apart = [two_redis_row(tasks, rounds)] if only in ("", "two_redis") else []
    apart += [tenant_row()] if only in ("", "tenants") else []
    os.environ |= FREE_PROVIDER
    os.environ |= {f"FLEET_POOLS__{pool_of(*one).upper()}__BOTS": str(one[0]) for one in FLEETS}
    rows: list[Row] = []
    with private_home() as home:
        from fleet import config
        from fleet.store.client import connect
        from fleet.store.private.embedded import broker_url

        os.environ["BENCH_BROKER"] = broker_url(config.current())
        client = connect(os.environ["BENCH_BROKER"], timeout_s=60)
        if only in ("", "road"):
            rows += road_rows(client, home, tasks, FLEETS)
        if only in ("", "drain"):
            rows += drain_rows(client, home, tasks, rounds)
    print_table(
        f"{tasks:,} tasks a cell, {SLOTS} slots",
        ["figure", "wanted", "measured", "met", ""],
        [row.cells for row in (*rows, *apart)],
    )
    if check and (names := missed([*rows, *apart])):
        print(f"not met: {', '.join(names)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
