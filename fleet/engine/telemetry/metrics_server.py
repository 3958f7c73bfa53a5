"""A worker process's Prometheus endpoint: what this process does, on a port of its own. Off unless configured."""

from __future__ import annotations

import errno
import logging
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from fleet.config import SignalsSettings
from fleet.engine.telemetry.occupancy import Occupancy
from fleet.errors import ConfigurationError
from fleet.models import BotResult
from fleet.signals import metrics
from fleet.signals.catalogue import NOBODY
from fleet.signals.money.metric import Metric

logger = logging.getLogger("fleet.worker")

#: Ports that are tried from the configured one on: more processes than that need another first port.
PORTS = 64
#: Upper bounds of the histograms' buckets in seconds.
BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class MetricsServer:
    """Counts this process's results and serves them. Make one per process.

    Args:
        settings: Address and first port.
        occupancy: How full this process is.

    Raises:
        ConfigurationError: When no port can be had.
    """

    def __init__(self, settings: SignalsSettings, occupancy: Occupancy) -> None:
        registry = CollectorRegistry()
        self._tasks = Counter(*_declared(metrics.WORKER_TASKS), registry=registry)
        self._exchanges = Counter(*_declared(metrics.WORKER_EXCHANGES), registry=registry)
        self._phases = Histogram(*_declared(metrics.WORKER_PHASE), registry=registry, buckets=BUCKETS_S)
        slots, busy = (Gauge(*_declared(it), registry=registry) for it in (metrics.WORKER_SLOTS, metrics.WORKER_BUSY))
        slots.set_function(lambda: occupancy.slots)
        busy.set_function(lambda: occupancy.busy)
        ProcessCollector(registry=registry)
        self.port, self._server, self._thread = _listen(settings, registry)
        logger.info("metrics address=%s port=%d", settings.metrics_address, self.port)

    def count(self, result: BotResult) -> None:
        """Count one result that stands."""
        pool = result.pool or NOBODY
        self._tasks.labels(pool, result.status).inc()
        for phase, ms in (("queued", result.queued_ms), ("limited", result.limited_ms), ("ran", result.ran_ms)):
            if ms is not None:
                self._phases.labels(pool, phase).observe(ms / 1000)

    def count_exchange(self, provider: str, *, is_good: bool) -> None:
        """Count an exchange for a token."""
        self._exchanges.labels(provider, "ok" if is_good else "failed").inc()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _declared(metric: Metric) -> tuple[str, str, tuple[str, ...]]:
    return metric.name, metric.description, metric.labels


def _listen(settings: SignalsSettings, registry: CollectorRegistry) -> tuple[int, WSGIServer, Thread]:
    """Serve on the first free port; several processes of a host are configured alike."""
    ports = range(settings.metrics_port, min(65_536, settings.metrics_port + PORTS))
    for port in ports:
        try:
            server, thread = start_http_server(port, settings.metrics_address, registry)
            return port, server, thread
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigurationError(
                    f"signals.metrics_address: expected an address to listen on, got {settings.metrics_address!r}: "
                    f"{error.strerror}"
                ) from error
    raise ConfigurationError(
        f"signals.metrics_port: expected a free port from {ports.start} to {ports.stop - 1} on "
        f"{settings.metrics_address}, all are taken; choose another, or 0 for no endpoint"
    )
