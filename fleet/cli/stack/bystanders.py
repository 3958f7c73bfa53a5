"""What goes on beside a stack: workers that it did not start, and tasks that wait. Asked before Redis is stopped.

Without this, `fleet down` would take Redis and the simulator from under a worker that somebody started by hand.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from fleet.cli.stack.local_services import REDIS, service_state
from fleet.config import Settings
from fleet.engine.admission.gates import read_waiting
from fleet.engine.transport.parking.parked import read_parked
from fleet.errors import FleetError
from fleet.quoting import counted
from fleet.signals.recorder import WorkerReport, split_reports
from fleet.store import keys
from fleet.store.private.two_redis import two_redis
from fleet.store.running.brokers import each

#: Workers named in one line (count).
NAMED = 5
#: Seconds for one answer of Redis.
TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Bystanders:
    """Who and what is left when a stack is gone.

    Args:
        workers: Living workers of the same Redis that the stack did not start.
        waiting: Tasks in the queues.
        lose_redis: True when their Redis ends with the stack.
    """

    workers: tuple[WorkerReport, ...]
    waiting: int
    lose_redis: bool

    def lines(self) -> Iterator[str]:
        """Yield what a person should hear of them."""
        if self.workers:
            yield self._of_workers()
        if self.waiting and self.lose_redis:
            waits, goes = ("waits", "goes") if self.waiting == 1 else ("wait", "go")
            yield f"{counted(self.waiting, 'task')} {waits} in Redis and {goes} on after the next `fleet up`"

    def _of_workers(self) -> str:
        more = len(self.workers) - NAMED
        named = ", ".join(f"{worker.name} (pid {worker.pid})" for worker in self.workers[:NAMED])
        named += f" and {more:,} more" if more > 0 else ""
        one = len(self.workers) == 1
        runs, waits, takes, it = ("runs", "waits", "takes", "it") if one else ("run", "wait", "take", "them")
        head = f"{counted(len(self.workers), 'worker')} not started by `fleet up` {runs} on: {named}"
        if not self.lose_redis:
            return f"{head}; Redis is not ours to stop, so {'it' if one else 'they'} still {takes} tasks"
        return f"{head}; without Redis {'it' if one else 'they'} {waits} until that is back; Ctrl-C there ends {it}"


def look(settings: Settings, home: Path, own: Collection[int] = ()) -> Bystanders:
    """Ask Redis who else lives and what waits; starts nothing.

    Args:
        settings: Which Redis, and which queues.
        home: State folder.
        own: Pids of the stack's own workers.

    Raises:
        FleetError: When Redis does not answer.
    """
    is_local = settings.redis.url is None
    if is_local and service_state(home, REDIS) is None:
        return Bystanders((), 0, lose_redis=True)
    with two_redis(settings, timeout_s=TIMEOUT_S) as both:
        rows: Any = both.state.hgetall(keys.workers())
        reports, _ = split_reports(rows, now_s=both.state.time()[0])
        names = [*map(keys.queue, settings.pools), settings.worker.inbox]
        waiting = sum(row.total for row in read_waiting(both.broker, names))
        waiting += sum(row.count for one in each(both.broker) for row in read_parked(one, names))
    others = (report for report in reports if not (report.pid in own and _is_here(report)))
    living = tuple(report for report in others if not is_local or psutil.pid_exists(report.pid))
    return Bystanders(living, waiting, lose_redis=is_local)


def _is_here(report: WorkerReport) -> bool:
    """True for a worker of this host: its name ends with that of its host."""
    return report.name.endswith(f"@{socket.gethostname()}")


def tell(settings: Settings, home: Path, own: Collection[int] = ()) -> Iterator[str]:
    """Yield the lines of `look`; a Redis that does not answer is one line too, and stops nobody from stopping."""
    try:
        yield from look(settings, home, own).lines()
    except (FleetError, redis.RedisError) as error:
        yield f"not known whether other workers run on: {error}"
