"""What the engine's tests share: workers against the test's Redis and a quick simulator, stopped by pid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery

from fleet import config
from tests.worker_process import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def fleet_env(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of this process and of the workers it starts: the test's Redis, three small pools, a quick simulator."""
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "20")
    monkeypatch.setenv("FLEET_WORKER__SLOTS", "20")
    config.current.cache_clear()


@pytest.fixture
def start_worker(fleet_env: None, tmp_path: Path) -> Iterator[StartWorker]:
    """Start worker processes; whatever still runs at the end is killed."""
    started: list[WorkerProcess] = []

    def start(*options: str, **kwargs: object) -> WorkerProcess:
        started.append(WorkerProcess(tmp_path, *options, **kwargs))  # type: ignore[arg-type]
        return started[-1].wait_ready()

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture
def plain(redis_url: str) -> Iterator[Celery]:
    """A client that knows nothing of Fleet."""
    app = Celery(broker=redis_url, backend=redis_url)
    app.conf.update(accept_content=["json"])
    yield app
    app.close()
