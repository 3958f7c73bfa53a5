"""A key that somebody else uses, too: told through a real worker, from what the provider says in its headers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until
from tests.workers.simulator.running import running, send

KEY = "test-key"
CONFIG = """
[providers.api]
kind = "openai"
base_url = "{url}/v1"
api_key_env = "SHARED_KEY"

[pools.research]
bots = 4
provider = "api"
model = "simulated-1"
max_output_tokens = 20

[limits."api/simulated-1"]
rpm = 300
"""


@pytest.fixture
def url(fleet_env: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("SHARED_KEY", KEY)
    with running(latency_ms=5, rpm=300, mode="sliding") as url:
        (tmp_path / "fleet.toml").write_text(CONFIG.format(url=url))
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
        config.current.cache_clear()
        yield url
    config.current.cache_clear()


@pytest.fixture
def somebody_else(url: str) -> Iterator[threading.Event]:
    """Ask with the same key while it is set, about eight times a second."""
    asks, ends = threading.Event(), threading.Event()
    body = {"model": "simulated-1", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}

    def go() -> None:
        while not ends.wait(0.12):
            if asks.is_set():
                send(url, "/v1/chat/completions", body, key=KEY)

    thread = threading.Thread(target=go)
    thread.start()
    yield asks
    ends.set()
    thread.join()


def told() -> list[dict[str, Any]]:
    done = CliRunner().invoke(main, ["stats", "--json"], catch_exceptions=False)
    return [one for one in json.loads(done.stdout)["diagnoses"] if one["kind"] == "key_shared"]


def test_requests_that_are_not_ours_are_told_with_the_key_and_what_to_do(
    url: str, start_worker: StartWorker, somebody_else: threading.Event
) -> None:
    from fleet.engine.messages.producer import submit_many

    start_worker()

    def found() -> list[dict[str, Any]]:
        assert [*submit_many([{"prompt": "What is 2+2?", "pool": "research"} for _ in range(2)])]
        return told()

    assert not found(), "nobody else asks yet"
    somebody_else.set()
    wait_until(lambda: bool(found()), 60, lambda: str(told()))
    (one,) = told()
    assert one["about"] == "api" and "the provider counts about" in one["sentence"]
    assert one["help"]["command"] == "fleet keys rotate api"
