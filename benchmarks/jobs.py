"""python -m benchmarks.jobs: what a job costs for each of its members, beside tasks of no job and Celery's chord.

No worker runs: members end in this process by the very code that ends them there, so that a bot's work hides nothing.
Fleet's end of a task also counts, judges and records it, which a chord's does not.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click
import psutil
import redis
from celery import Celery, chord
from celery.app.task import Context

from benchmarks.bench import print_table, private_home

#: Members that end at the same time in one process (count): as many as a worker with as many slots has.
AT_ONCE = 100


@dataclass(frozen=True)
class Phase:
    """One phase of a way: tasks per second, and for each task the commands and the microseconds of Redis."""

    rate: float
    commands: float
    redis_us: float

    @property
    def cells(self) -> list[str]:
        return [f"{self.rate:,.0f}", f"{self.commands:.1f}", f"{self.redis_us:.0f}"]


def _prompts(count: int) -> Iterator[dict[str, str]]:
    return ({"prompt": f"What is {number} + 7?", "pool": "research"} for number in range(count))


def _keys(count: int) -> Iterator[str]:
    return (f"key {number}" for number in range(count))


def _measured(client: redis.Redis, count: int, work: Callable[[], object]) -> Phase:
    before, started = _spent(client), time.perf_counter()
    work()
    took_s, after = time.perf_counter() - started, _spent(client)
    return Phase(count / took_s, (after[0] - before[0]) / count, (after[1] - before[1]) * 1e6 / count)


def _spent(client: redis.Redis) -> tuple[int, float]:
    """Return the commands that Redis has carried out, also inside scripts, and the CPU seconds that it has used."""
    calls = sum(row["calls"] for row in client.info("commandstats").values())
    cpu: Any = client.info("cpu")
    return calls, cpu["used_cpu_user"] + cpu["used_cpu_sys"]


def _end(task_ids: list[str]) -> None:
    """Finish tasks as a worker does."""
    from fleet import config
    from fleet.engine.outcomes.completion import Finish, Finisher
    from fleet.models import BotResult
    from fleet.store.client import Store
    from fleet.store.private.embedded import state_url

    async def end() -> None:
        settings = config.current()
        store = Store(state_url(settings))
        finisher = Finisher(store, settings)
        for start in range(0, len(task_ids), AT_ONCE):
            some = task_ids[start : start + AT_ONCE]
            results = [
                BotResult(task_id=one, status="ok", answer="7", pool="research", finished_at=1.0) for one in some
            ]
            await asyncio.gather(*(finisher.finish(Finish(one)) for one in results))
        await store.close()

    asyncio.run(end())


def _chord_ways(client: redis.Redis, url: str, count: int) -> tuple[Phase, Phase]:
    stock = Celery("stock", broker=url, backend=url)

    @stock.task(name="noop")
    def noop(*args: object) -> None:
        """Do nothing: only what a chord costs is measured."""

    queued = _measured(client, count, lambda: chord([noop.s(n) for n in range(count)], noop.s()).apply_async())
    requests: list[Context] = []
    for raw in client.lrange("celery", 0, -1):
        message = json.loads(raw)
        embed = json.loads(base64.b64decode(message["body"]))[2]
        requests.append(Context({**message["headers"], **embed}))
    backend = stock.backend

    def end() -> None:
        for request in requests:
            backend.mark_as_done(request.id, 7, request=request)

    return queued, _measured(client, count, end)


def _growth_mb(client: redis.Redis, count: int) -> float:
    """Return by how much the resident memory of a producer grows over a job, in MB; what it queues is thrown away."""
    from fleet.engine.jobs.job import submit_job
    from fleet.engine.messages import queues
    from fleet.store import keys

    place, over, process = queues.list_key(keys.queue("research"), 2), threading.Event(), psutil.Process()
    before, most = process.memory_info().rss, [0]

    def watch() -> None:
        while not over.wait(0.05):
            most.append(process.memory_info().rss)
            client.ltrim(place, 0, 999)
            client.unlink(*[keys.submitted(one) for one in _old_marks(client)] or ["-"])

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        submit_job(_prompts(count))
    finally:
        over.set()
        watching.join()
    return (max(most) - before) / 2**20


def _old_marks(client: redis.Redis) -> list[str]:
    """Return task ids of marks: a million of them would fill Redis, though no producer."""
    from fleet.store import keys

    prefix = keys.submitted("")
    found = client.scan(0, match=f"{prefix}*", count=5000)[1]
    return [name.decode().removeprefix(prefix) for name in found]


def _bytes_a_member(client: redis.Redis, job: Any, count: int) -> float:
    """Return what Redis keeps for each member that has ended, in bytes, beside its result."""
    from fleet.store import job_keys

    names = [job_keys.job(job.id), job_keys.members(job.id), job_keys.order(job.id)]
    return sum(client.memory_usage(name, samples=0) or 0 for name in names) / count


@click.command()
@click.option("--tasks", default=20_000, show_default=True, help="Members; a tenth for the chord.")
@click.option("--most", default=1_000_000, show_default=True, help="Members of the job over which memory is watched.")
def main(tasks: int, most: int) -> None:
    """Measure jobs against an embedded Redis."""
    with private_home():
        from fleet import config
        from fleet.engine.jobs.job import submit_job
        from fleet.engine.messages.producer import submit_many
        from fleet.store.client import connect
        from fleet.store.private.embedded import broker_url

        url = broker_url(config.current())
        client = connect(url, timeout_s=30)
        ids: list[str] = []
        submit_job(_prompts(1))  # what the first one loads
        alone = _measured(client, tasks, lambda: ids.extend(submit_many(_prompts(tasks))))
        marked = _measured(client, tasks, lambda: list(submit_many(_prompts(tasks), idempotency_keys=_keys(tasks))))
        alone_end = _measured(client, tasks, lambda: _end(ids))
        client.flushall()
        jobs: list[Any] = []
        queued = _measured(client, tasks, lambda: jobs.append(submit_job(_prompts(tasks), key="measured")))
        job = jobs[0]
        members = [job.task_id(position) for position in range(tasks)]
        ended = _measured(client, tasks, lambda: _end(members))
        assert job.state.word == "done"
        read = _measured(client, tasks, lambda: list(job))
        kept = _bytes_a_member(client, job, tasks)
        client.flushall()
        of_chord, chord_end = _chord_ways(client, url, tasks // 10)
        client.flushall()
        sizes = (most // 100, most // 10, most)
        grown = [_growth_mb(client, count) for count in sizes]
    head = ["way", "tasks/s", "commands", "Redis us"]
    rows = [
        ["queue: submit_many, no job", *alone.cells],
        ["queue: submit_many, idempotency keys", *marked.cells],
        ["queue: submit_job", *queued.cells],
        ["queue: Celery's chord", *of_chord.cells],
        ["end: a task of no job", *alone_end.cells],
        ["end: a member", *ended.cells],
        ["end: a chord's member", *chord_end.cells],
        ["read the results of a job", *read.cells],
    ]
    print_table(f"A job of {tasks:,}, for each task (commands: those inside scripts too)", head, rows)
    told = ", ".join(f"{mb:.1f} MB over {size:,}" for mb, size in zip(grown, sizes, strict=True))
    click.echo(f"a producer's resident memory grew by {told} members")
    click.echo(f"Redis keeps {kept:.1f} bytes for each member that has ended, beside its result")


if __name__ == "__main__":
    main()
