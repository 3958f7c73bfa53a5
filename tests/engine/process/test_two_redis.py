"""The data plane with two Redis servers: queues on one, results and bots on the other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fleet import config
from fleet.engine.outcomes.results import Done
from fleet.engine.process.assembly import assemble
from fleet.engine.telemetry.occupancy import DirectCall
from fleet.engine.telemetry.taps import Telemetry
from fleet.roster import LOAD_UNIT
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import connect
from tests.counted import all_counted

TAG = "the tag of a delivery"


@pytest.fixture
def urls(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Broker and state, which know nothing of each other; two databases are as far apart as two servers."""
    broker, state = redis_url, redis_url.replace("/0", "/1")
    with connect(state) as client:
        client.flushdb()
    monkeypatch.setenv("FLEET_REDIS__URL", broker)
    monkeypatch.setenv("FLEET_REDIS__STATE_URL", state)
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "1")
    config.current.cache_clear()
    return broker, state


def work() -> Done:
    """Let a data plane work on one delivered task."""
    request: dict[str, Any] = {
        "args": ["What is 1+1?"], "kwargs": {"pool": "research"}, "properties": {"delivery_tag": TAG},
    }  # fmt: skip

    async def main() -> Done:
        settings = config.current()
        assembly = await assemble(settings, Telemetry(settings, config.home_path(), DirectCall("test")))
        try:
            await assembly.roster.seed()
            return await assembly.plane.work("task-1", request)
        finally:
            await assembly.close()

    return asyncio.run(main())


def test_a_result_stands_while_the_lease_on_the_other_redis_lives(urls: tuple[str, str]) -> None:
    broker, state = urls
    with connect(broker) as client:
        client.zadd(keys.unacked_index(), {TAG: 1})
    done = work()
    assert done.result is not None
    assert done.result.answer == "2"
    with connect(state) as client:
        assert client.exists(keys.result("task-1"))


def test_a_result_whose_lease_was_lost_is_discarded_but_counted_and_its_bot_is_free_again(
    urls: tuple[str, str],
) -> None:
    assert work().result is None
    with connect(urls[1]) as client:
        totals = all_counted(client)
        loads: list[Any] = client.zrange(keys.bots("research"), 0, -1, withscores=True)  # type: ignore[assignment]
        assert not client.exists(keys.result("task-1"))
    assert totals[catalogue.FENCED.name] == 1
    assert totals[catalogue.CALLS.name] == 1
    assert totals[catalogue.COST_USD_MICROS.name] > 0
    assert catalogue.COMPLETIONS.name not in totals
    assert sum(int(score) // LOAD_UNIT for _, score in loads) == 0
