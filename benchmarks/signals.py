"""python -m benchmarks.signals: what recording costs a task, what a million leave in Redis, how fast it is read.

The cost is that of the windows of `record.lua` and of packing their arguments, against the finishing script without
them, as a share of all CPU that one task takes of the worker and Redis (provider: free and instant, see overhead.py).
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import hiredis
import redis

from benchmarks.bench import flower, print_table, private_home
from benchmarks.overhead import FREE_PROVIDER, Bench

#: Pools of the fleet that is measured, each with the same number of bots.
POOLS = 4
#: Different tasks that are recorded again and again; each of them has its own bot, durations and outcome.
PATTERN = 20_000
#: Commands in one pack.
PACK = 500
#: Samples of which the best counts where the machine is shared, and calls in one.
SAMPLES, CALLS = 15, 2000


@click.command()
@click.option("--tasks", default=1_000_000, show_default=True, help="Tasks recorded before memory and latency.")
@click.option("--bots", default=10_000, show_default=True)
@click.option("--reads", default=150, show_default=True, help="Readings per kind.")
@click.option("--drained", default=3000, show_default=True, help="Tasks that a real worker does, for comparison.")
def main(tasks: int, bots: int, reads: int, drained: int) -> None:
    """Measure recording, memory and reading at full size."""
    os.environ |= {f"FLEET_POOLS__P{n}__BOTS": str(bots // POOLS) for n in range(1, POOLS + 1)}
    os.environ |= {f"FLEET_POOLS__P{n}__MODEL": f"m{n}" for n in range(1, POOLS + 1)}
    os.environ |= FREE_PROVIDER
    with private_home() as home:
        from fleet import config
        from fleet.store.client import connect
        from fleet.store.private.embedded import state_url

        url = state_url(config.current())
        client = connect(url, timeout_s=60)
        cost = _cost(client, url, home, drained)
        memory = _memory(client, url, tasks, bots)
        latency = [*_readings(client, reads), *_pages(home, reads)]
    print_table("What recording costs a task", ["part", "us"], cost)
    print_table(f"What Redis holds after {tasks:,} tasks of {bots:,} bots", ["keys", "MB"], memory)
    print_table(f"Reading {bots:,} bots, {reads} times", ["what", "p50 ms", "p99 ms", "CPU ms here", "kB"], latency)


# -- cost


def _cost(client: redis.Redis, url: str, home: Path, drained: int) -> list[list[str]]:
    from fleet.engine.outcomes import completion
    from fleet.signals import windows

    unrecorded = completion.finishing(replace(windows.RECORD, text="return 0"))
    pairs = _captured(url, CALLS)
    scripts = {script: client.script_load(script.text) for script in (completion.FINISH, unrecorded)}
    server = {script: min(_server_us(client, sha, pairs) for _ in range(SAMPLES)) for script, sha in scripts.items()}
    redis_us = server[completion.FINISH] - server[unrecorded]
    python_us = min(_packing_us() for _ in range(SAMPLES))
    client.flushall()
    whole_us = _whole_task_us(client, home, drained)
    return [
        ["finishing script without the windows, CPU of Redis", f"{server[unrecorded]:.1f}"],
        ["finishing script, CPU of Redis", f"{server[completion.FINISH]:.1f}"],
        ["arguments of the windows, CPU of the worker", f"{python_us:.1f}"],
        [f"a whole task, CPU of worker and Redis ({drained:,} drained)", f"{whole_us:.0f}"],
        ["recording, of a whole task", f"{(redis_us + python_us) / whole_us:.1%}"],
    ]


def _server_us(client: redis.Redis, sha: str, pairs: list[tuple[list[str], list[Any]]]) -> float:
    """Return CPU microseconds of Redis per call of a finishing script, each on a task of its own."""
    client.flushdb()
    pipe = client.pipeline(transaction=False)
    for names, arguments in pairs:
        pipe.evalsha(sha, len(names), *names, *arguments)
    before = _redis_cpu_s(client)
    pipe.execute()
    return (_redis_cpu_s(client) - before) / len(pairs) * 1e6


def _redis_cpu_s(client: redis.Redis) -> float:
    used: Any = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def _packing_us() -> float:
    from fleet.signals import windows

    result = _result(7)
    pack = partial(
        windows.record_arguments, result, bot=result.bot or "", pool="p1", api="simulator/m1", calls_failed={},
        is_buried=False,
    )  # fmt: skip
    started = time.process_time()
    for _ in range(CALLS):
        pack()
    return (time.process_time() - started) / CALLS * 1e6


def _whole_task_us(client: redis.Redis, home: Path, drained: int) -> float:
    from fleet.engine.messages.producer import submit_many
    from fleet.signals.catalogue import COMPLETIONS
    from fleet.signals.counted.sums import read_totals

    def submit(count: int) -> None:
        for _ in submit_many({"prompt": f"What is {n} + 2?", "pool": "p1"} for n in range(count)):
            pass

    def done() -> int:
        return read_totals(client, ()).get(COMPLETIONS.name.encode(), 0)

    run = Bench(client, home).drain("fleet", 1, (), submit, done, drained)
    return 1000 * (run.cpu_ms + run.redis_cpu_ms)


# -- tasks without workers


def _result(number: int) -> Any:
    """Return one of the results of the pattern: 2% failed, durations as a slow model's, every bot in turn."""
    from fleet import config
    from fleet.models import BotResult, TaskError, bot_name
    from fleet.usage import Usage

    chance = random.Random(number)
    pool = f"p{1 + number % POOLS}"
    bots = config.current().pools[pool].bots
    failed = chance.random() < 0.02
    return BotResult(
        task_id=f"00000000-0000-4000-8000-{number:012x}",
        status="failed" if failed else "ok",
        error=TaskError(type=chance.choice(["BadAnswer", "ProviderUnavailable"]), message="") if failed else None,
        bot=bot_name(pool, 1 + number // POOLS % bots),
        pool=pool,
        provider="simulator",
        model=f"m{pool[1:]}",
        simulated=True,
        served_by="call",
        usage=Usage(input_tokens=chance.randrange(2000), output_tokens=chance.randrange(500)),
        cost_usd_micros=chance.randrange(1000),
        attempts=1,
        queued_ms=int(chance.lognormvariate(8, 2)),
        limited_ms=int(chance.lognormvariate(4, 2)),
        ran_ms=int(chance.lognormvariate(7, 1)),
        finished_at=1.8e9,
    )


def _captured(url: str, count: int) -> list[tuple[list[str], list[Any]]]:
    """Return the KEYS and ARGV with which the finishing script is called for the first results of the pattern."""
    from fleet import config
    from fleet.engine.outcomes.completion import Finish, Finisher
    from fleet.roster import Checkout
    from fleet.store.client import Store

    calls: list[tuple[list[str], list[Any]]] = []

    class Capture(Finisher):
        async def _run(self, own: dict[str, Any], member: Any, end: Finish, pool: str) -> bytes:
            calls.append(self._class_finish(pool, end.kind)(**own))
            return b"1"

    async def work() -> None:
        store = Store(url)
        completion = Capture(store, config.current())
        for number in range(count):
            result = _result(number)
            errors = {result.error.type: 1} if result.error else {}
            checkout = Checkout(result.task_id, result.pool, result.bot, token=str(number))
            await completion.finish(Finish(result, checkout=checkout, provider_errors=errors))
        await store.close()

    asyncio.run(work())
    return calls


def _memory(client: redis.Redis, url: str, tasks: int, bots: int) -> list[list[str]]:
    """Finish `tasks` tasks, packed beforehand and sent to Redis again and again, and weigh what is left."""
    from fleet import config
    from fleet.engine.outcomes.completion import FINISH
    from fleet.roster import Roster
    from fleet.store.client import Store

    async def seed() -> None:
        store = Store(url, timeout_s=60)
        await Roster(store, config.current()).seed()
        await store.close()

    client.flushall()
    asyncio.run(seed())
    client.script_load(FINISH.text)
    calls = _captured(url, min(PATTERN, tasks))
    packed = [hiredis.pack_command(("EVALSHA", FINISH.sha, len(names), *names, *args)) for names, args in calls]
    results = [names[0] for names, _ in calls]
    connection = client.connection_pool.get_connection()
    started = time.perf_counter()
    for done in range(0, tasks, len(packed)):
        part = packed[: tasks - done]
        for start in range(0, len(part), PACK):
            connection.send_packed_command(part[start : start + PACK])
            for _ in part[start : start + PACK]:
                connection.read_response()
        client.unlink(*results)  # they are not signals, and the next round is of new tasks
    seconds = time.perf_counter() - started
    client.connection_pool.release(connection)
    sizes: dict[str, float] = {}
    for name in client.scan_iter("*", count=1000):
        kind = name.decode().partition(":signals:")[2].partition(":")[0]
        label = f"signals: {kind}" if kind else "bots (the roster)"
        sizes[label] = sizes.get(label, 0) + (client.memory_usage(name, samples=0) or 0) / 2**20
    rows = [[label, f"{mb:.2f}"] for label, mb in sorted(sizes.items(), key=lambda item: -item[1])]
    signals = sum(mb for label, mb in sizes.items() if label.startswith("signals"))
    return [*rows, ["all signals", f"{signals:.1f}"], [f"(recorded {tasks / seconds:,.0f} tasks/s)", ""]]


# -- reading


def _readings(client: redis.Redis, reads: int) -> Iterator[list[str]]:
    from fleet import config
    from fleet.engine.operations.overview import Overview
    from fleet.signals.metrics import exposition

    overview = Overview(config.current(), state=client, broker=client)
    yield _timed("the whole view, as JSON", lambda: overview.read().model_dump_json().encode(), reads)
    yield _timed("the whole view, for Prometheus", lambda: exposition(overview.read()), reads)
    yield _timed("one bot, as JSON", lambda: overview.bot("p1-001").model_dump_json().encode(), reads)


def _pages(home: Path, reads: int) -> Iterator[list[str]]:
    with _flower(home) as get:
        yield _timed("Flower: the page", lambda: get("/fleet"), reads)
        yield _timed("Flower: its figures", lambda: get("/fleet/state"), reads)
        yield _timed("Flower: one bot", lambda: get("/fleet/bot/p1-001"), reads)
        yield _timed("Flower: metrics", lambda: get("/fleet/metrics"), reads)


def _timed(what: str, work: Callable[[], bytes], reads: int) -> list[str]:
    """Time calls; their CPU in this process tells what they would take on a machine that does nothing else."""
    size = len(work())
    times, used = [], []
    for _ in range(reads):
        started, cpu = time.perf_counter(), time.process_time()
        work()
        times.append(1000 * (time.perf_counter() - started))
        used.append(1000 * (time.process_time() - cpu))
    times.sort()
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    return [what, f"{p50:.0f}", f"{p99:.0f}", f"{sorted(used)[len(used) // 2]:.0f}", f"{size / 1000:,.0f}"]


@contextmanager
def _flower(home: Path) -> Iterator[Callable[[str], bytes]]:
    """Run Flower with the Fleet tab; gives a function that asks it for a path."""
    with flower(home) as (address, login):
        header = f"Basic {base64.b64encode(login.encode()).decode()}"

        def get(path: str) -> bytes:
            request = urllib.request.Request(address + path, headers={"Authorization": header})
            with urllib.request.urlopen(request) as reply:
                return bytes(reply.read())

        yield get


if __name__ == "__main__":
    main()
