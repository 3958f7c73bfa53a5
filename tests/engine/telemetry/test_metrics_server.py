"""A worker's Prometheus endpoint: its ports, its counts."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleet.config import SignalsSettings
from fleet.engine.telemetry.metrics_server import PORTS, MetricsServer
from fleet.engine.telemetry.occupancy import DirectCall
from fleet.errors import ConfigurationError
from fleet.models import BotResult
from fleet.signals.metrics import WORKER_METRICS


@pytest.fixture
def port() -> Iterator[int]:
    """A port that is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield int(taken.getsockname()[1])


def test_it_takes_the_next_port_when_one_is_taken_and_counts_what_it_is_told(port: int) -> None:
    server = MetricsServer(SignalsSettings(metrics_port=port), DirectCall("w", slots=60, busy=7))
    try:
        assert port < server.port < port + PORTS
        for status in ("ok", "ok", "failed"):
            result = {"task_id": "t", "status": status, "pool": "a", "ran_ms": 400, "finished_at": 1.0}
            server.count(BotResult.model_validate(result))
        for is_good in (True, False, False):
            server.count_exchange("acme", is_good=is_good)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as reply:
            families = {family.name: family for family in text_string_to_metric_families(reply.read().decode())}
    finally:
        server.close()
    assert {metric.name for metric in WORKER_METRICS} <= set(families)
    assert "process_resident_memory_bytes" in families
    counts = {
        tuple(s.labels.values()): s.value for s in families["fleet_worker_tasks"].samples if s.name.endswith("_total")
    }
    assert counts == {("a", "ok"): 2, ("a", "failed"): 1}
    told = families["fleet_worker_exchanges"].samples
    exchanges = {(s.labels["provider"], s.labels["outcome"]): s.value for s in told if s.name.endswith("_total")}
    assert exchanges == {("acme", "ok"): 1, ("acme", "failed"): 2}
    phases = {
        s.labels["phase"]: s.value for s in families["fleet_worker_task_seconds"].samples if s.name.endswith("_sum")
    }
    assert phases == {"limited": 0.0, "ran": pytest.approx(1.2)}
    assert families["fleet_worker_busy_slots"].samples[0].value == 7


def test_an_address_that_is_not_ours_is_refused_with_what_to_change() -> None:
    settings = SignalsSettings(metrics_port=9400, metrics_address="192.0.2.1")
    with pytest.raises(ConfigurationError, match="metrics_address"):
        MetricsServer(settings, DirectCall("w", slots=1, busy=0))
