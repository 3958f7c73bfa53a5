"""Where an attack happens: one system, one Redis, supervised workers and a producer, all of them real processes."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import redis
from kombu.exceptions import OperationalError

from fleet.errors import StoreUnavailable
from fleet.store.client import connect
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

#: Worker processes that the supervisor keeps alive.
WORKERS = 2
#: Tasks that a producer hands in at once.
CHUNK = 50
#: Seconds between two looks at workers and progress.
LOOK_EVERY_S = 0.1
#: Seconds without a single new result after which the rest counts as lost: four of our leases and two of stock
#: Celery's visibility timeouts have passed by then.
PATIENCE_S = 45.0
#: Seconds in which everything that dead workers held must have come back and been acknowledged.
QUIET_S = 30.0
#: Seconds that a worker gets to end after SIGTERM: its grace time, and some to close.
END_S = 45.0
#: Seconds that a worker gets to start, on a machine that is busy with everything else.
START_S = 180.0
#: Characters of a worker's log among which it says that it is ready.
LOG_HEAD = 20_000

T = TypeVar("T")
_OUTAGES = (StoreUnavailable, redis.ConnectionError, redis.TimeoutError, OperationalError)


@dataclass(slots=True)
class Tally:
    """What became of the tasks, counted from the outside."""

    lost: int
    doubled: int
    reruns: int
    failed: int
    #: Of these, those that failed because they kill the process they run in.
    buried: int = 0
    #: Calls to providers of which nobody knew the cost, before `fleet bill check` settled them.
    unknown: int = 0
    #: What else must hold and does not, a phrase each.
    problems: list[str] = field(default_factory=list)


class Broker(Protocol):
    """The Redis under attack: one server, or a master with its replica and Sentinels."""

    url: str

    def kill(self) -> None:
        """kill -9."""

    def start(self) -> None:
        """Start it again."""

    def freeze(self) -> None:
        """SIGSTOP."""

    def thaw(self) -> None:
        """SIGCONT."""


class Side(Protocol):
    """A system under attack: Fleet, or stock Celery."""

    #: Redis list into which foreign producers push.
    inbox: str
    #: Name of its one task.
    task_name: str
    #: Kind of the tasks to come, where there are kinds; None: the usual one.
    kind: str | None

    def start_worker(self) -> WorkerProcess:
        """Start one worker process."""

    def submit(
        self,
        numbers: range,
        *,
        countdown_s: float = 0.0,
        slow: bool = False,
        deadly: bool = False,
        blocking: bool = False,
    ) -> list[str]:
        """Queue a task per number, once however often it is repeated; raises when the broker did not accept them."""

    def let_provider_fail(self, share: float) -> None:
        """Let the provider of the quick tasks answer this share of its calls with a 5xx; nothing without a provider."""

    def finished(self) -> int:
        """Return how many tasks are done; raises while Redis is away."""

    def is_quiet(self) -> bool:
        """True when nothing waits and nothing is held."""

    def tally(self, ids: list[str]) -> Tally:
        """Count what became of the tasks, when all workers have ended."""


class Arena:
    """What attacks work with.

    Args:
        broker: The Redis under attack.
        side: The system under attack.
        chance: Decides whom an attack hits, and when.
    """

    def __init__(self, broker: Broker, side: Side, chance: random.Random) -> None:
        self.redis = broker
        self.side = side
        self.chance = chance
        self.ids: list[str] = []
        #: What must not happen and did, a phrase each.
        self.problems: list[str] = []
        #: True when the attack sends tasks that kill their worker.
        self.is_deadly = False
        self._numbers = 0
        self._workers: list[WorkerProcess] = []
        self._timers: list[threading.Timer] = []
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def open(self) -> None:
        """Start the workers, and wait until they take tasks."""
        self._workers = [self.side.start_worker() for _ in range(WORKERS)]
        for worker in self._workers:
            worker.wait_ready()
        self._supervisor.start()

    def close(self) -> None:
        """End all workers: warm, and by force if they do not."""
        self._closing.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        for worker in self._workers:
            if _is_ready(worker):
                worker.send(signal.SIGCONT)
                worker.send(signal.SIGTERM)
            else:
                worker.kill()  # a replacement that has not begun yet
        for worker in self._workers:
            if _is_ready(worker):
                self._see_out(worker)

    # -- the producer

    def submit(
        self,
        count: int,
        *,
        countdown_s: float = 0.0,
        slow: bool = False,
        deadly: bool = False,
        blocking: bool = False,
    ) -> None:
        """Queue tasks; a chunk that the broker does not accept is repeated until it does."""
        with self._lock:
            first, self._numbers = self._numbers, self._numbers + count
        for start in range(first, first + count, CHUNK):
            numbers = range(start, min(start + CHUNK, first + count))
            self.ids += _persistently(
                partial(self.side.submit, numbers, countdown_s=countdown_s, slow=slow, deadly=deadly, blocking=blocking)
            )

    @contextmanager
    def submitting(self, count: int, *, over_s: float) -> Iterator[None]:
        """Queue tasks evenly over a time, whatever happens meanwhile; the end of the block waits for the last one."""

        def produce() -> None:
            for start in range(0, count, CHUNK):
                self.submit(min(CHUNK, count - start))
                self._closing.wait(over_s * CHUNK / count)

        producer = threading.Thread(target=produce, name="producer", daemon=True)
        producer.start()
        yield
        producer.join()

    def push(self, message: bytes, task_id: str | None) -> None:
        """Push a raw message into the inbox; `task_id` is whom a result is owed."""
        client = _persistently(lambda: connect(self.redis.url))
        _persistently(lambda: client.lpush(self.side.inbox, message))
        client.close()
        if task_id is not None:
            self.ids.append(task_id)

    # -- the workers

    def kill(self) -> None:
        """kill -9 of a random worker; the supervisor starts another one."""
        victim = self.a_worker()
        with self._lock:
            victim.kill()
            if victim in self._workers:
                self._workers.remove(victim)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something after a while, and in any case before the attack is over."""
        timer = threading.Timer(seconds, act)
        self._timers.append(timer)
        timer.start()

    def a_worker(self) -> WorkerProcess:
        """Return a random worker that takes tasks; waits until there is one."""
        while True:
            with self._lock:
                ready = [worker for worker in self._workers if _is_ready(worker)]
            if ready:
                return self.chance.choice(ready)
            time.sleep(LOOK_EVERY_S)

    def replace(self, old: WorkerProcess) -> None:
        """Start a worker, then end an old one with SIGTERM and wait until it is gone."""
        self._start_anew()
        with self._lock:
            if old not in self._workers:
                return
            self._workers.remove(old)
        old.send(signal.SIGTERM)
        self._see_out(old)

    def _start_anew(self) -> None:
        """Start workers until one takes tasks: one that starts while Redis is away ends at once."""
        begun = False
        while not begun:
            new = self.side.start_worker()
            with self._lock:
                self._workers.append(new)
            wait_until(lambda worker=new: _has_begun(worker) or not worker.alive, START_S, "a replacement is ready")  # type: ignore[misc]
            begun = _has_begun(new)

    def replace_all(self) -> None:
        """Replace one worker after another, as a rolling update does."""
        for worker in tuple(self._workers):
            self.replace(worker)

    def _see_out(self, worker: WorkerProcess) -> None:
        try:
            code = worker.wait(END_S)
        except subprocess.TimeoutExpired:
            self.problems.append(f"a worker did not end within {END_S:.0f} s")
            worker.kill()
            return
        if code != 0:
            self.problems.append(f"a worker ended with code {code}")

    def _supervise(self) -> None:
        """Keep the number of workers, as systemd or `restart: always` would."""
        while not self._closing.wait(LOOK_EVERY_S):
            with self._lock:
                for dead in [worker for worker in self._workers if not worker.alive]:
                    if (
                        _has_begun(dead) and not self.is_deadly
                    ):  # one that starts while Redis is away ends with a clear error, and is replaced
                        self.problems.append(f"a worker died by itself: {dead.log.splitlines()[-1][:200]}")
                    self._workers.remove(dead)
                while len(self._workers) < WORKERS:
                    self._workers.append(self.side.start_worker())

    # -- progress

    def wait_for(self, count: float) -> None:
        """Wait until so many tasks are done, or nothing gets on any more."""
        most, moved_at = -1, time.monotonic()
        while (done := _persistently(self.side.finished)) < count:
            if done > most:
                most, moved_at = done, time.monotonic()
            if time.monotonic() - moved_at > PATIENCE_S:
                return
            time.sleep(LOOK_EVERY_S)

    def settle(self) -> None:
        """Wait until every task is done and nothing is held any more, or nothing gets on."""
        for timer in self._timers:
            timer.join()
        self.wait_for(len(self.ids))
        end = time.monotonic() + QUIET_S
        while not _persistently(self.side.is_quiet) and time.monotonic() < end:
            time.sleep(LOOK_EVERY_S)


def _is_ready(worker: WorkerProcess) -> bool:
    """True when a worker lives and has begun to take tasks."""
    return worker.alive and _has_begun(worker)


def _has_begun(worker: WorkerProcess) -> bool:
    """True when a worker has been ready. Its log begins with that, however long it gets."""
    with worker.log_path.open(errors="replace") as log:
        return " ready." in log.read(LOG_HEAD)


def _persistently(attempt: Callable[[], T]) -> T:
    """Repeat `attempt` until Redis answers."""
    while True:
        try:
            return attempt()
        except _OUTAGES:
            time.sleep(LOOK_EVERY_S)
