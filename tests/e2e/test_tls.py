"""Worker, producer, commands and Flower's broker page on a Redis behind TLS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import config
from fleet.errors import ConfigurationError
from fleet.store.client import connect
from fleet.store.private.embedded import broker_url
from tests.tls import TlsRedisServer
from tests.worker_process import REPO, WorkerProcess


@pytest.fixture
def tls_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TlsRedisServer]:
    """A Redis with TLS, and settings that name it."""
    folder = tmp_path / "tls"
    folder.mkdir()
    server = TlsRedisServer(folder)
    monkeypatch.setenv("FLEET_REDIS__URL", server.tls_url)
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "20")
    config.current.cache_clear()
    yield server
    server.stop()


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_worker_producer_result_and_flowers_broker_page_work_over_tls(
    tls_redis: TlsRedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    worker = WorkerProcess(tmp_path).wait_ready()
    try:
        asked = python(
            "import asyncio\n"
            "from flower.utils.broker import Broker\n"
            "from fleet import submit_task, app\n"
            "print(submit_task.delay('What is 2+2?').get(timeout=30).answer)\n"
            "page = Broker(app.conf.broker_url, broker_options=app.conf.broker_transport_options,\n"
            "              broker_use_ssl=app.conf.broker_use_ssl)\n"
            "print(asyncio.run(page.queues(['celery'])))"
        )
        assert asked.stdout.splitlines() == ["4", "[{'name': 'celery', 'messages': 0}]"], asked.stderr
    finally:
        worker.kill()
    with connect(tls_redis.url) as client:
        assert client.keys("{fleet:*}:signals:totals")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("ca.pem", "other.pem"), "a certificate that ssl_ca_certs vouches for"),
        (("ca.pem", "nowhere.pem"), "nowhere.pem"),
        (("rediss://", "redis://"), "expected a Redis that answers"),
    ],
)
def test_a_wrong_certificate_authority_or_scheme_is_named(
    tls_redis: TlsRedisServer, change: tuple[str, str], says: str
) -> None:
    settings = config.load(redis={"url": tls_redis.tls_url.replace(*change), "socket_timeout_s": 1})
    with pytest.raises(ConfigurationError) as caught:
        broker_url(settings)
    assert says in str(caught.value)
    assert "redis.url" in str(caught.value)
