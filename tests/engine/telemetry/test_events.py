"""Events that workers record: a provider that refuses, a key that is refused, letters, starts and stops."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.config import LimitSettings
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations.overview import open_overview
from fleet.engine.telemetry.event_limiter import EventLimiter
from fleet.errors import NotSoon
from fleet.signals.catalogue import EVENTS
from fleet.signals.picture import events_of
from fleet.signals.view import EventView
from fleet.store import keys
from fleet.store.client import Store, connect
from tests.engine.conftest import StartWorker
from tests.http_server import Handler, serving
from tests.waiting import wait_until


def events(client: redis.Redis) -> list[EventView]:
    """Return all events, the newest first."""
    return list(events_of(client.xrevrange(keys.events())))  # type: ignore[arg-type]


class _Refusing(Handler):
    """A provider that refuses every key."""

    def do_POST(self) -> None:
        self.body()
        self.send(401, b"")


@pytest.fixture
def refusing_provider() -> Iterator[str]:
    with serving(_Refusing) as url:
        yield url


def test_a_day_that_is_used_to_80_and_to_100_percent_is_one_event_each_however_many_workers_hear_it(
    redis_url: str,
) -> None:
    async def spend() -> None:
        stores = [Store(redis_url) for _ in range(3)]
        limiters = [EventLimiter(store, {"x/y/default": LimitSettings(requests_per_day=5)}) for store in stores]
        for number in range(5):
            await limiters[number % 3].acquire("x/y/default", tokens=1, timeout_s=5, patience_s=5)
        for limiter in limiters:
            with pytest.raises(NotSoon):
                await limiter.acquire("x/y/default", tokens=1, timeout_s=5, patience_s=5)
        for store in stores:
            await store.close()

    asyncio.run(spend())
    with connect(redis_url) as client:
        told = [event for event in events(client) if event.name == "budget_warning"]
    assert [event.fields for event in reversed(told)] == [
        {"limit": "x/y/default", "percent": "80"}, {"limit": "x/y/default", "percent": "100"},
    ]  # fmt: skip


def test_a_provider_that_refuses_is_one_event_however_many_workers_hear_it(redis_url: str) -> None:
    async def refuse() -> None:
        stores = [Store(redis_url) for _ in range(3)]
        for store in stores:
            limiter = EventLimiter(store, {"x/y/default": LimitSettings(rpm=60)})
            for _ in range(5):
                limiter.penalise("x/y/default", retry_after_s=2.5)
            await store.close()

    asyncio.run(refuse())
    with connect(redis_url) as client:
        assert [(event.name, event.level, event.fields) for event in events(client)] == [
            ("provider_limited", "warning", {"limit": "x/y/default", "hold_s": "2.5"})
        ]


def test_a_provider_that_refuses_calls_at_once_is_one_event_too(redis_url: str) -> None:
    async def refuse() -> None:
        store = Store(redis_url)
        limiter = EventLimiter(store, {"x/y/default": LimitSettings(rpm=60)})
        for _ in range(5):
            limiter.narrow("x/y/default", most=4)
        await store.close()

    asyncio.run(refuse())
    with connect(redis_url) as client:
        assert [(event.name, event.fields) for event in events(client)] == [
            ("provider_narrow", {"limit": "x/y/default", "most": "4"})
        ]


def test_a_limit_that_is_set_live_and_reset_is_told_with_who_did_it(redis_url: str, fleet_env: None) -> None:
    for options in (["--rpm", "500"], ["--reset"]):
        done = CliRunner().invoke(main, ["limits", "set", "simulator/simulated-1", *options], catch_exceptions=False)
        assert done.exit_code == 0
    with connect(redis_url) as client:
        reset, changed = events(client)
    assert (changed.name, changed.fields["limit"]) == ("limit_changed", "simulator/simulated-1/default")
    assert float(changed.fields["rpm"]) == 500
    assert changed.fields["by"]
    assert reset.name == "limit_reset"


def test_a_worker_tells_when_it_starts_and_stops_and_that_a_refused_key_lets_tasks_wait(
    redis_url: str, fleet_env: None, start_worker: StartWorker, refusing_provider: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "fleet.toml").write_text(
        f'[providers.acme]\nkind = "openai"\nbase_url = "{refusing_provider}"\napi_key_env = "ACME_KEY"\n'
        '[pools.research]\nbots = 2\nprovider = "acme"\nmodel = "m"\n'
    )
    monkeypatch.setenv("ACME_KEY", "sk-refused")
    config.current.cache_clear()
    worker = start_worker()
    list(submit_many({"prompt": f"What is {n} + 2?"} for n in range(5)))
    with connect(redis_url) as client:
        wait_until(lambda: any(event.name == "hold_put" for event in events(client)), 30, "the pool is held")
        worker.send(signal.SIGTERM)
        worker.wait()
        seen = events(client)
    assert Counter(event.name for event in seen) == {
        "worker_started": 1, "breaker_opened": 1, "hold_put": 1, "key_rejected": 1, "worker_stopped": 1,
    }  # fmt: skip
    assert {event.name for event in seen} <= set(EVENTS)
    assert next(event.fields["limit"] for event in seen if event.name == "key_rejected") == "acme/m/default"
    with open_overview(config.current()) as overview:
        view = overview.read()
    assert view.resources.workers == ()
    assert sum(line.tasks for line in view.waits) == 5
    assert "key" in {line.cause for line in view.waits}
