"""python -m benchmarks.transport: Fleet's transport beside stock kombu, dramatiq, taskiq and huey, on one Redis.

Every system drains the same full queue of tasks that do nothing, or one INCR. Peers come with `pip install
'.[bench]'`; one that is not installed has an empty row. "commands" counts those inside scripts too.
"""

from __future__ import annotations

import importlib
import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
import redis

from benchmarks.bench import cpu_s, print_table, private_home, until
from benchmarks.take_cost import take_costs

ROOT = Path(__file__).parents[1]
#: What is drained, and by how many worker processes.
WORK = (("noop", 1), ("incr", 1), ("noop", 2), ("incr", 2))
#: Tasks that hold on while their worker is killed, and the longest wait for their second run, in seconds: with acks
#: (dramatiq looks for dead workers after a minute), and without, where nothing is left that could be run again.
HELD, RESUME_WAIT_S, NO_ACKS_WAIT_S = 4, 90.0, 30.0
#: Seconds that the worker which is to take over gets to start: the systems show no common sign that it has.
START_S = 6.0
#: Share of the tasks on which workers warm up.
WARM_UP = 0.25
#: Seconds between two looks at a queue: rarer than a benchmark's usual, as the look is a Redis command too.
LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class System:
    """A task queue: its name, its module in `benchmarks.peers`, what its workers need, whether they acknowledge."""

    name: str
    module: str
    env: tuple[tuple[str, str], ...] = ()
    acks: bool = True


STOCK = System("stock Celery", "celery_stock")
SYSTEMS = (
    STOCK,
    System("fleet transport", "celery_stock", (("BENCH_TRANSPORT", "fleet.engine.transport.channel:Transport"),)),
    System("fleet", "celery_fleet"),
    System("dramatiq", "dramatiq_app"),
    System("taskiq (no acks)", "taskiq_app", acks=False),
    System("huey (no acks)", "huey_app", acks=False),
)


@dataclass(frozen=True)
class Drain:
    """What one drain of a full queue showed."""

    rate: float
    cpu_ms: float
    redis_cpu_ms: float
    commands: float


Runs = dict[tuple[System, str, int], list[Drain]]


class Bench:
    """One Redis, and what it takes to drain a queue on it."""

    def __init__(self, client: redis.Redis, log: Path) -> None:
        self._client = client
        self._log = log
        self._server = psutil.Process(int(client.info("server")["process_id"]))

    @contextmanager
    def worker(self, system: System) -> Iterator[psutil.Process]:
        """Run a worker of one process; ends it, and all it started, when the block ends."""
        env = {**os.environ, "PYTHONPATH": str(ROOT), **dict(system.env)}
        with self._log.open("ab") as out:
            process = psutil.Popen(_module(system).COMMAND, stdout=out, stderr=out, env=env, cwd=ROOT)
        try:
            yield process
        finally:
            kill_tree(process)

    def drain(self, system: System, task: str, processes: int, tasks: int) -> Drain:
        """Fill the queue, let the workers warm up on its beginning, and measure the rest."""
        self._client.flushall()
        peer, total = _module(system), round(tasks * (1 + WARM_UP))
        peer.submit(task, total)
        with ExitStack() as stack:
            workers = [stack.enter_context(self.worker(system)) for _ in range(processes)]
            until(lambda: peer.waiting() <= tasks, f"{system.name}: warm-up; see {self._log}", every_s=LOOK_EVERY_S)
            left, before = peer.waiting(), self._spent(workers)
            until(lambda: peer.waiting() == 0, f"{system.name}: {left} tasks", every_s=LOOK_EVERY_S)
            spent = [now - then for now, then in zip(self._spent(workers), before, strict=True)]
        seconds, cpu, redis_cpu, commands = spent
        return Drain(left / seconds, 1000 * cpu / left, 1000 * redis_cpu / left, commands / left)

    def resume_s(self, system: System) -> float | None:
        """Kill a worker that holds tasks; return the seconds until all of them run again elsewhere; None: never."""
        from benchmarks.peers.work import BEGUN

        def begun(times: int) -> bool:
            return sum(int(count) >= times for count in self._client.hgetall(BEGUN).values()) == HELD

        self._client.flushall()
        with self.worker(system) as victim:
            _module(system).submit("hold", HELD)
            until(lambda: begun(1), f"{system.name}: tasks to begin")
            with self.worker(system):
                time.sleep(START_S)
                killed_at = kill_tree(victim)
                while not begun(2):
                    if time.monotonic() - killed_at > (RESUME_WAIT_S if system.acks else NO_ACKS_WAIT_S):
                        return None
                    time.sleep(LOOK_EVERY_S)
                return time.monotonic() - killed_at

    def _spent(self, workers: list[psutil.Process]) -> tuple[float, float, float, float]:
        family = [one for worker in workers for one in (worker, *worker.children(recursive=True))]
        commands = float(self._client.info("stats")["total_commands_processed"])
        return time.monotonic(), sum(map(_cpu_s, family)), cpu_s(self._server), commands


def _cpu_s(process: psutil.Process) -> float:
    try:
        return cpu_s(process)
    except psutil.NoSuchProcess:  # a child that was only needed at the start
        return 0.0


def kill_tree(process: psutil.Process) -> float:
    """kill -9 of a process and all it started; returns when, on the monotonic clock."""
    family = [process, *process.children(recursive=True)] if process.is_running() else []
    for one in family:
        one.send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    if isinstance(process, psutil.Popen):
        process.wait()
    psutil.wait_procs(family, timeout=5)
    return killed_at


def _module(system: System) -> Any:
    return importlib.import_module(f"benchmarks.peers.{system.module}")


def named(name: str) -> System:
    """Return the system of that name."""
    return next(system for system in SYSTEMS if system.name == name)


def is_installed(system: System) -> bool:
    """True when its package is there."""
    try:
        _module(system)
    except ModuleNotFoundError:
        return False
    return True


@click.command()
@click.option("--tasks", default=5000, show_default=True, help="Tasks per drain, after a warm-up.")
@click.option("--rounds", default=3, show_default=True, help="Rounds, interleaved; the table shows their median.")
@click.option("--only", metavar="NAME", default="", help="Stock Celery, and systems whose name contains this.")
@click.option(
    "--kill/--no-kill", default=True, show_default=True, help="Measure the time from kill -9 to resumed work."
)
@click.option(
    "--take/--no-take", default=True, show_default=True, help="Measure `take` at 1,000,000 tasks, 200 queues."
)
def main(tasks: int, rounds: int, only: str, kill: bool, take: bool) -> None:
    """Measure task queues on one Redis, in turn, so that a busy moment of the machine hits them all."""
    with private_home() as home:
        from fleet import config
        from fleet.store.client import connect
        from fleet.store.private.embedded import broker_url

        os.environ["BENCH_BROKER"] = broker_url(config.current())
        client = connect(os.environ["BENCH_BROKER"], timeout_s=60)
        bench = Bench(client, home / "worker.log")
        chosen = [system for system in SYSTEMS if system == STOCK or only in system.name]
        runs: Runs = {}
        resumed: dict[System, float | None] = {}
        present = [system for system in chosen if is_installed(system)]
        for _ in range(rounds):
            for task, processes in WORK:
                for system in present:
                    runs.setdefault((system, task, processes), []).append(bench.drain(system, task, processes, tasks))
        for system in present if kill else ():
            resumed[system] = bench.resume_s(system)
        costs = take_costs(client) if take else []
    print_table(
        f"Tasks/s, and times stock Celery's rate; {tasks} tasks, median of {rounds} rounds",
        ["system", *(f"{task}, {n} proc." for task, n in WORK)],
        [_rates(system, runs) for system in chosen],
    )
    print_table(
        "One no-op task on one process, and one INCR; kill -9: until all tasks of the dead worker run again",
        ["system", "CPU ms", "INCR", "Redis CPU ms", "INCR", "Redis commands", "INCR", "kill -9"],
        [_costs(system, runs, resumed) for system in chosen],
    )
    if take:
        print_table("What one take costs", ["queues and tasks", "taken", "server us", "client us"], costs)


def _median(runs: list[Drain], what: str) -> float:
    return float(statistics.median(getattr(run, what) for run in runs))


def _rates(system: System, runs: Runs) -> list[str]:
    cells = []
    for work in WORK if (system, *WORK[0]) in runs else ():
        rate = _median(runs[system, *work], "rate")
        cells.append(f"{rate:,.0f}  {rate / _median(runs[STOCK, *work], 'rate'):.1f}x")
    return [system.name, *(cells or ["not installed", *[""] * (len(WORK) - 1)])]


def _costs(system: System, runs: Runs, resumed: dict[System, float | None]) -> list[str]:
    if (system, *WORK[0]) not in runs:
        return [system.name, *[""] * 7]
    both = [runs[system, task, 1] for task in ("noop", "incr")]
    costs = [f"{_median(run, what):.2f}" for what in ("cpu_ms", "redis_cpu_ms") for run in both]
    seconds = resumed.get(system, 0.0)
    back = "never" if seconds is None else f"{seconds:.1f} s" if seconds else ""
    return [system.name, *costs, *(f"{_median(run, 'commands'):.1f}" for run in both), back]


if __name__ == "__main__":
    main()
