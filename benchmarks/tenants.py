"""python -m benchmarks.tenants: what tenants wait for each other in a queue, and what their turns cost.

`tenant_b`: one tenant has a long queue, another submits ten tasks: how much later are they done than with nobody before
them? Real workers, bots of an own function that take a fixed time. `cost`: CPU of Redis for queueing and taking the
same messages of no tenant, of one, and of a hundred, in turns on one Redis.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import redis

from benchmarks.bench import print_table, private_home, until, worker

#: What a task does, and the settings of its pool.
WORK = "import asyncio\n\n\nasync def work(task, bot):\n    await asyncio.sleep({work_s})\n    return task.prompt\n"
POOL = (
    '[worker]\nslots = {slots}\n[pools.bench]\nbots = {slots}\nprovider = "simulator"\nfunction = "bench_work:work"\n'
)
#: B's tasks, and the most that being behind A may cost (ratio).
FEW, MOST_TIMES = 10, 2.0
#: What turns may cost at most: a share of Redis' whole time for a task, 0.18 ms (docs/performance.md), in microseconds.
MOST_COST_US = 0.03 * 180
#: Messages queued and taken in one round, and in one call.
ROUND, AT_ONCE = 12_000, 16


@dataclass(frozen=True)
class Cell:
    """How long B's tasks took, in seconds: with nobody before them, and behind A's queue."""

    alone_s: float
    behind_s: float

    @property
    def times(self) -> float:
        return self.behind_s / self.alone_s


def tenant_cell(*, waiting: int = 100_000, slots: int = 100, work_s: float = 0.25, rounds: int = 3) -> Cell:
    """Return medians of how long ten tasks of one tenant take, alone and behind `waiting` of another.

    Args:
        waiting: A's tasks (count).
        slots: Of one worker; each has a bot.
        work_s: Of each task.
        rounds: Of either.
    """
    with private_home() as home:
        (home / "bench_work.py").write_text(WORK.format(work_s=work_s))
        (home / "fleet.toml").write_text(POOL.format(slots=slots))
        client = _broker()
        with worker("fleet", log=home / "worker.log"):
            _timed("warm")
            alone = [_timed("b") for _ in range(rounds)]
            _fill(waiting)
            until(lambda: client.hlen("fleet:unacked") >= slots, "a busy worker")
            behind = [_timed("b") for _ in range(rounds)]
    return Cell(statistics.median(alone), statistics.median(behind))


def turn_costs(rounds: int = 5) -> dict[str, tuple[float, float]]:
    """Return microseconds of Redis to queue a message, and to take and acknowledge it, by who queued it (medians)."""
    cases = {"no tenant": [""], "one tenant": ["a"], "100 tenants": [f"t{number}" for number in range(100)]}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    with private_home():
        client = _broker()
        for _ in range(rounds):
            for name, tenants in cases.items():
                found[name].append(_turns(client, tenants))
    return {
        name: (statistics.median(put for put, _ in rows), statistics.median(take for _, take in rows))
        for name, rows in found.items()
    }


def _broker() -> redis.Redis:
    from fleet import config
    from fleet.store.client import connect
    from fleet.store.private.embedded import broker_url

    config.current.cache_clear()
    return connect(broker_url(config.current()), timeout_s=30)


def _fill(count: int) -> None:
    from fleet.engine.messages.producer import submit_many

    for _ in submit_many({"prompt": "x", "pool": "bench", "tenant": "a"} for _ in range(count)):
        pass


def _timed(tenant: str) -> float:
    """Submit a few tasks of a tenant and return how long it took until all of them were done."""
    from fleet.engine.tasks import submit_task

    started = time.perf_counter()
    results = [submit_task.delay("x", pool="bench", tenant=tenant) for _ in range(FEW)]
    for result in results:
        result.get(timeout=300)
    return time.perf_counter() - started


def _turns(client: redis.Redis, tenants: list[str]) -> tuple[float, float]:
    from fleet import config
    from fleet.engine.messages.broker import ENQUEUE, enqueue_call
    from fleet.engine.messages.producer import message_of
    from fleet.engine.messages.queues import PRIORITY_STEPS
    from fleet.engine.transport import leases
    from fleet.engine.transport.rota import Rota
    from fleet.models import BotTask
    from fleet.store import keys
    from fleet.store.client import run_script

    client.flushall()
    names = itertools.cycle(tenants)
    tasks = (BotTask(prompt="What is 12 + 30?", tenant=next(names), pool="research") for _ in range(ROUND))
    parts = [message_of(task, "research", None, 1.0)[1] for task in tasks]

    def put() -> Iterator[None]:
        for start in range(0, ROUND, 256):
            some = [part for one in parts[start : start + 256] for part in one]
            run_script(client, ENQUEUE, *enqueue_call(some, config.current()))
            yield

    def take() -> Iterator[None]:
        rota, held = Rota([keys.queue("research")], PRIORITY_STEPS), list[Any]()
        for call in range(ROUND // AT_ONCE):
            count, *rest = rota.take(wanted=AT_ONCE, guarded=0, prefix=f"t{call}:", acks=held)
            reply: Any = run_script(client, leases.TAKE, rest[:count], rest[count:])
            held = reply[::3]
            yield

    return _server_us(client, put()), _server_us(client, take())


def _server_us(client: redis.Redis, work: Iterator[None]) -> float:
    """Return microseconds of Redis' CPU for each message of what is done step by step."""
    next(work)  # loads the script
    before = _used_us(client)
    steps = sum(1 for _ in work)
    return (_used_us(client) - before) / ROUND * ((steps + 1) / steps)


def _used_us(client: redis.Redis) -> float:
    cpu: Any = client.info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"]) * 1e6


def check(cell: Cell, costs: dict[str, tuple[float, float]]) -> list[str]:
    """Return what is not as wanted."""
    wrong = [] if cell.times <= MOST_TIMES else [f"tenant_b: expected at most {MOST_TIMES}, got {cell.times:.2f}"]
    none = sum(costs["no tenant"])
    for name, cost in costs.items():
        if sum(cost) - none > MOST_COST_US:
            wrong.append(f"cost, {name}: expected at most {MOST_COST_US:.1f} us more, got {sum(cost) - none:.1f}")
    return wrong


@click.command()
@click.option("--waiting", default=100_000, show_default=True, help="A's tasks.")
@click.option("--slots", default=100, show_default=True, help="Of the worker.")
@click.option("--check", "is_check", is_flag=True, help="End with code 1 if a figure is not as wanted.")
def main(waiting: int, slots: int, is_check: bool) -> None:
    """Measure both on an embedded Redis."""
    cell, costs = tenant_cell(waiting=waiting, slots=slots), turn_costs()
    none = sum(costs["no tenant"])
    rows = [[f"{name}: to queue, to take", f"{put:.1f}, {take:.1f} us", f"{put + take - none:+.1f} us"]
            for name, (put, take) in costs.items()]  # fmt: skip
    behind = f"{FEW} tasks of B behind {waiting:,} of A, {slots} slots"
    print_table(
        "Tenants take turns", ["", "measured", "beside none"],
        [[behind, f"{cell.alone_s:.2f} s, {cell.behind_s:.2f} s", f"{cell.times:.2f} times"], *rows],
    )  # fmt: skip
    wrong = check(cell, costs)
    for line in wrong if is_check else ():
        click.echo(line, err=True)
    sys.exit(1 if wrong and is_check else 0)


if __name__ == "__main__":
    main()
