"""python -m benchmarks.overhead: the whole road (queue, bot, limiter, HTTP, judge, result) beside a bare Celery no-op.

The provider is free and instant: the simulator with no latency and limits that never bind, over real HTTP. So what
is left is what Fleet itself costs. "CPU" is the worker process alone; Redis and the simulator stand beside it.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import psutil
import redis

from benchmarks.bench import cpu_s, print_table, private_home, until, worker

#: Slots per worker process, for both systems.
SLOTS = 100
#: Limits that never bind, and an answer without delay.
FREE_PROVIDER = {
    "FLEET_SIMULATOR__RPM": "100000000", "FLEET_SIMULATOR__TPM": "1000000000000", "FLEET_SIMULATOR__LATENCY_MS": "0",
    "FLEET_WORKER__SLOTS": str(SLOTS), "FLEET_WORKER__PROCESSES": "1",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What one drain of a full queue showed."""

    tasks_per_s: float
    cpu_ms: float
    redis_cpu_ms: float
    commands: float
    rss_mb: float


class Bench:
    """One Redis, and what it takes to drain a queue on it."""

    def __init__(self, client: redis.Redis, home: Path) -> None:
        self._client = client
        self._home = home
        self._server = psutil.Process(int(client.info("server")["process_id"]))

    @contextmanager
    def workers(self, app: str, count: int, *options: str) -> Iterator[list[psutil.Process]]:
        log = self._home / "worker.log"
        with ExitStack() as stack:
            yield [
                stack.enter_context(worker(app, "-c", str(SLOTS), "-n", f"w{i}@bench", *options, log=log))
                for i in range(count)
            ]

    def drain(
        self,
        app: str,
        count: int,
        options: tuple[str, ...],
        submit: Callable[[int], None],
        done: Callable[[], int],
        tasks: int,
    ) -> Run:
        """Fill the queue, let the workers warm up on a fifth of it, then measure the rest down to the last task."""
        warm_up = tasks // 4
        submit(tasks + warm_up)
        with self.workers(app, count, *options) as processes:
            return self._measure(app, processes, done, warm_up, tasks)

    def drain_some(
        self,
        app: str,
        options: tuple[str, ...],
        submit: Callable[[int], None],
        done: Callable[[], int],
        *,
        warm_up: int,
        tasks: int,
        depth: int,
    ) -> Run:
        """Fill the queue to `depth`, and measure the `tasks` behind the first `warm_up` on one worker process."""
        submit(depth)
        with self.workers(app, 1, *options) as processes:
            return self._measure(app, processes, done, warm_up, tasks)

    def _measure(
        self, app: str, processes: list[psutil.Process], done: Callable[[], int], warm_up: int, tasks: int
    ) -> Run:
        until(lambda: done() >= warm_up, "warm-up")
        commands, before = self._commands(), done()
        cpu, server_cpu, started = cpu_s(*processes), cpu_s(self._server), perf_counter()
        until(lambda: done() >= tasks + warm_up, f"{tasks} tasks of {app}")
        seconds, tasks = perf_counter() - started, done() - before
        rss_mb = max(process.memory_info().rss for process in processes) / 2**20
        return Run(
            tasks / seconds,
            1000 * (cpu_s(*processes) - cpu) / tasks,
            1000 * (cpu_s(self._server) - server_cpu) / tasks,
            (self._commands() - commands) / tasks,
            rss_mb,
        )

    def _commands(self) -> int:
        return int(self._client.info("stats")["total_commands_processed"])


@click.command()
@click.option("--tasks", default=4000, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Rounds, interleaved; the table shows their median.")
@click.option("--processes", default=1, show_default=True, help="Worker processes.")
def main(tasks: int, rounds: int, processes: int) -> None:
    """Drain a full queue with Fleet and with bare Celery on the same Redis."""
    os.environ |= FREE_PROVIDER
    with private_home() as home:
        from fleet import config
        from fleet.engine.messages.producer import submit_many
        from fleet.signals.catalogue import COMPLETIONS
        from fleet.signals.counted.sums import read_totals
        from fleet.store.client import connect
        from fleet.store.private.embedded import broker_url

        url = broker_url(config.current())
        client = connect(url, timeout_s=60)
        bench = Bench(client, home)
        os.environ["BENCH_BROKER"] = url
        from benchmarks import stock_app

        def submit_fleet(count: int) -> None:
            for _ in submit_many({"prompt": f"What is {n} + 2?", "pool": "research"} for n in range(count)):
                pass

        def done_fleet() -> int:
            return read_totals(client, ()).get(COMPLETIONS.name.encode(), 0)

        quiet = ("-P", "threads", "--without-gossip", "--without-mingle")

        def stock(task: Any) -> Run:
            stock_app.forget()
            submit = partial(stock_app.submit, task)
            return bench.drain("benchmarks.stock_app", processes, quiet, submit, stock_app.done, tasks)

        rivals: dict[str, Callable[[], Run]] = {
            "bare Celery, no-op": lambda: stock(stock_app.noop),
            "bare Celery, no-op, result kept": lambda: stock(stock_app.kept),
            "fleet, the whole road": lambda: bench.drain("fleet", processes, (), submit_fleet, done_fleet, tasks),
        }
        runs: dict[str, list[Run]] = {name: [] for name in rivals}
        for _ in range(rounds):
            for name, run in rivals.items():
                client.flushall()
                runs[name].append(run())
    print_table(
        f"{tasks} tasks, {processes} worker process(es) of {SLOTS} slots, median of {rounds} rounds",
        ["system", "tasks/s", "of bare", "CPU ms/task", "Redis CPU ms/task", "commands/task", "RSS MB"],
        list(_rows(runs)),
    )


def _rows(runs: dict[str, list[Run]]) -> Iterator[list[Any]]:
    def median(name: str, field: str) -> float:
        return statistics.median(getattr(run, field) for run in runs[name])

    base = median(next(iter(runs)), "tasks_per_s")
    for name in runs:
        rate = median(name, "tasks_per_s")
        yield [
            name, f"{rate:,.0f}", f"{rate / base:.2f}", f"{median(name, 'cpu_ms'):.2f}",
            f"{median(name, 'redis_cpu_ms'):.2f}", f"{median(name, 'commands'):.1f}", f"{median(name, 'rss_mb'):.0f}",
        ]  # fmt: skip


if __name__ == "__main__":
    main()
