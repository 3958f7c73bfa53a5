"""Stock Celery with its best settings under the same attacks: the baseline. See `stock_app.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import redis
from celery import Celery

from fleet.store.client import connect
from tests.chaos.arena import Broker, Tally
from tests.redis_server import RedisServer
from tests.worker_process import WorkerProcess

TASK_NAME = "stock.work"
#: Hashes, task id -> count: runs that began, runs that came to their end.
BEGUN, ENDED = "chaos:begun", "chaos:ended"
#: Threads of a worker process: as many as Fleet's slots.
THREADS = 60
_RESULT = "celery-task-meta-"
_QUIET = ("-P", "threads", "-c", str(THREADS), "--without-gossip", "--without-mingle")


def redis_settings(url: str) -> dict[str, Any]:
    """Return Celery's settings for a Redis URL; the name of a Sentinels' master is an option, not part of it."""
    place, _, master_name = url.partition("?master_name=")
    options = {"master_name": master_name} if master_name else {}
    return {
        "broker_url": place, "broker_transport_options": options,
        "result_backend": place, "result_backend_transport_options": options,
    }  # fmt: skip


class StockSide:
    """Two stock workers. Made by `stock_side`."""

    inbox = "celery"
    task_name = TASK_NAME
    kind: str | None = None

    def __init__(self, folder: Path, broker: Broker, effects: RedisServer, *, latency_s: float, slow_s: float) -> None:
        self._folder = folder
        self._redis = connect(broker.url)
        self._effects = redis.Redis.from_url(effects.url)
        self._seconds = {False: latency_s, True: slow_s}
        self._accepted: set[str] = set()
        self._env = {"CHAOS_BROKER": broker.url, "CHAOS_EFFECTS": effects.url}
        self._app = Celery("stock")
        self._app.conf.update(redis_settings(broker.url))

    def start_worker(self) -> WorkerProcess:
        return WorkerProcess(self._folder, *_QUIET, app="tests.chaos.stock_app", env=self._env)

    def submit(
        self,
        numbers: range,
        *,
        countdown_s: float = 0.0,
        slow: bool = False,
        deadly: bool = False,
        blocking: bool = False,
    ) -> list[str]:
        assert not deadly, "stock Celery runs a task that kills its worker for ever"
        ids = [str(uuid5(NAMESPACE_URL, str(number))) for number in numbers]
        with self._app.producer_or_acquire() as producer:
            for task_id in ids:
                if task_id not in self._accepted:
                    seconds, options = (
                        self._seconds[slow or blocking],
                        {"countdown": countdown_s} if countdown_s else {},
                    )
                    self._app.send_task(TASK_NAME, (seconds,), task_id=task_id, producer=producer, **options)
                    self._accepted.add(task_id)
        return ids

    def let_provider_fail(self, share: float) -> None:
        """Do nothing: its tasks call nobody."""

    def finished(self) -> int:
        return int(self._effects.hlen(ENDED)) + len(self._failures())

    def is_quiet(self) -> bool:
        return not self._redis.hlen("unacked") and not self._redis.llen(self.inbox)

    def tally(self, ids: list[str]) -> Tally:
        begun, ended = self._counts(BEGUN), self._counts(ENDED)
        failed = self._failures()
        problems = [] if self.is_quiet() else ["messages left behind"]
        return Tally(
            lost=len(set(ids) - set(ended) - failed),
            doubled=sum(count - 1 for count in ended.values()),
            reruns=sum(begun.values()) - len(begun),
            failed=len(failed),
            problems=problems,
        )

    def _counts(self, name: str) -> dict[str, int]:
        counts: dict[bytes, bytes] = self._effects.hgetall(name)  # type: ignore[assignment]
        return {task_id.decode(): int(count) for task_id, count in counts.items()}

    def _failures(self) -> set[str]:
        """Ids of tasks with a failed result: the only results there are, as others are ignored."""
        names: list[bytes] = list(self._redis.scan_iter(f"{_RESULT}*", count=1000))
        return {name.decode().removeprefix(_RESULT) for name in names}


@contextmanager
def stock_side(folder: Path, broker: Broker, *, latency_ms: float, slow_ms: float) -> Iterator[StockSide]:
    """Run a second Redis for the counts, and point producers and workers at both."""
    place = folder / "effects"
    place.mkdir()
    effects = RedisServer(place)
    try:
        yield StockSide(folder, broker, effects, latency_s=latency_ms / 1000, slow_s=slow_ms / 1000)
    finally:
        effects.stop()
