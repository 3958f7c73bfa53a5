"""What workers tell the outside: one trace over processes, a Prometheus endpoint each, log lines as JSON."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleet.signals import metrics
from tests.engine.conftest import StartWorker
from tests.engine.process.test_worker import python
from tests.every import every
from tests.ports import lasting_port
from tests.waiting import wait_until

STEPS = {"submit", "task", "queue_wait", "checkout", "limiter_wait", "provider_call", "finish"}


def spans(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may be being written


def scrape(port: int) -> dict[str, float]:
    """Return samples by name, summed over their labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        families = text_string_to_metric_families(reply.read().decode())
    sums: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


def test_a_task_is_one_trace_two_workers_have_two_endpoints_and_logs_are_json_without_the_prompt(
    start_worker: StartWorker, fleet_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.sdk", reason='pip install "celery-fleet[otel]"')
    monkeypatch.setenv("FLEET_SIGNALS__TRACES", "file")
    monkeypatch.setenv("FLEET_SIGNALS__METRICS_PORT", str(lasting_port()))
    monkeypatch.setenv("FLEET_WORKER__LOG_FORMAT", "json")
    workers = [start_worker(), start_worker()]
    told = python(
        "from fleet import submit_task\n"
        "from fleet.engine.messages.producer import submit_many\n"
        "one = submit_task.delay('What is 2+2? It is secret.', pool='research')\n"
        "bulk = list(submit_many([{'prompt': 'What is 2+3? It is secret.'}]))\n"
        "one.get(timeout=30), submit_task.AsyncResult(bulk[0]).get(timeout=30)\n"
        "print(one.id, bulk[0])\n",
        tmp_path,
    )
    path = fleet_home / "traces.jsonl"
    for task_id in told.split():
        trace_id = "0x" + task_id.replace("-", "")

        def names(wanted: str = trace_id) -> set[str]:
            return {span["name"] for span in spans(path) if span["context"]["trace_id"] == wanted}

        wait_until(lambda: names() == STEPS, 30, f"a trace with {STEPS}")
        mine = {span["name"]: span for span in spans(path) if span["context"]["trace_id"] == trace_id}
        assert {mine[name]["parent_id"] for name in STEPS - {"submit", "task"}} == {mine["task"]["context"]["span_id"]}
        assert mine["task"]["attributes"]["fleet.status"] == "ok"
    ports = [int(json.loads(line)["port"]) for line in logged(workers, "metrics")]
    assert len(set(ports)) == 2
    samples = [scrape(port) for port in ports]
    assert sum(one.get("fleet_worker_tasks_total", 0) for one in samples) == 2
    assert {name for name in samples[0] if name.startswith("fleet_")} <= {
        sample for metric in metrics.WORKER_METRICS for sample in (*metric.samples, f"{metric.name}_created")
    }
    finished = [json.loads(line) for line in logged(workers, "finished")]
    assert {line["task"] for line in finished} == set(told.split())
    assert every(line["bot"] and line["pool"] and line["status"] == "ok" for line in finished)
    assert not re.search("secret", path.read_text() + "".join(worker.log for worker in workers))


def logged(workers: list[Any], event: str) -> list[str]:
    """Return the JSON lines of an event in the workers' logs."""
    lines = [line for worker in workers for line in worker.log.splitlines() if line.startswith("{")]
    return [line for line in lines if json.loads(line).get("event") == event]
