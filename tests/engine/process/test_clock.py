"""A worker whose host's clock is an hour off: named, and no harm to anybody."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import redis
from celery import Celery

from fleet.cli.setup.redis_checks import worker_clocks
from fleet.cli.setup.redis_facts import redis_facts
from fleet.signals import catalogue
from fleet.signals.recorder import WorkerReport
from fleet.store import keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until

WAIT_S = 60
HOUR_AHEAD = "import time\nreal = time.time\ntime.time = lambda: real() + 3600\n"
TASKS = "from fleet import app\n\n@app.task(name='own.one')\ndef one():\n    return 1\n"


def named(client: redis.Redis, worker: str) -> list[bytes]:
    """Return the reports of the worker of that name."""
    rows: Any = client.hgetall(keys.workers())
    return [row for name, row in rows.items() if name.split(b"|")[0] == worker.encode()]


def test_a_worker_an_hour_ahead_is_named_hides_no_other_and_expires_no_task(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    from fleet.engine.tasks import submit_task

    client, now = connect(redis_url), time.time()
    other = WorkerReport(name="w2@there", pid=1, cpu_percent=1, rss_mb=1, slots=1, busy=0, at=now + 3600)
    client.hset(keys.workers(), other.name, other.model_dump_json())
    (tmp_path / "sitecustomize.py").write_text(HOUR_AHEAD)
    (tmp_path / "with_tasks.py").write_text(TASKS)
    worker = start_worker(app="with_tasks")
    plain = Celery(broker=redis_url, backend=redis_url)
    own = plain.send_task("own.one", expires=WAIT_S)
    task = submit_task.apply_async(("What is 1+1?",), {"pool": "research"}, expires=WAIT_S)
    late = submit_task.apply_async(("What is 1+2?",), {"pool": "research"}, expires=-5)
    assert (task.get(timeout=WAIT_S).status, own.get(timeout=WAIT_S)) == ("ok", 1), worker.log
    assert late.get(timeout=WAIT_S).error.type == "Expired"
    wait_until(lambda: named(client, worker.name), WAIT_S, "it reports")
    assert client.hexists(keys.workers(), other.name)
    report = WorkerReport.read(named(client, worker.name)[0])
    assert abs(report.at - time.time()) < WAIT_S
    wait_until(lambda: "clock off: this host's is 60 min ahead of the clock of Redis" in worker.log, WAIT_S, "said")
    assert any(fields[b"event"] == catalogue.CLOCK_OFF.name.encode() for _, fields in client.xrange(keys.events()))
    check = worker_clocks(redis_facts(redis_url, role="redis", embedded=False, timeout_s=5))
    assert check.level == "warn"
    assert f"{worker.name} is 60 min ahead of the clock of Redis" in check.found
    plain.close()
