"""A vendor that refuses what a batch needs: its tasks go on in time, and nobody reads their prompts in what it says."""

from __future__ import annotations

import asyncio
import json

import pytest

from fleet.economy.lanes.board import read_board
from fleet.store.client import connect
from tests.engine.process.batching.deaths import Ledger, send
from tests.engine.process.batching.test_deaths import CLOCK
from tests.workers.simulator.running import running, total
from tests.workers.simulator.running import send as ask

TASKS = [f"task-{number}" for number in range(4)]


def sent(redis_url: str, url: str, kind: str, fault: str, **more: float) -> Ledger:
    with connect(redis_url) as client:
        client.flushall()
    ask(url, f"/batch-faults?{fault}", method="POST")
    return asyncio.run(send(redis_url, url, kind, tasks=TASKS, die_at=0, **more))


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_refusal_that_quotes_a_prompt_is_told_by_its_status_and_type_alone(
    redis_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with running(**CLOCK) as url:
        sent(redis_url, url, kind, "bad_create=1")
        assert total(url)["served"] == 0
    with connect(redis_url) as client:
        ((_, _, told),) = read_board(client).shut
        stored = json.dumps(
            [client.hgetall(name) for name in client.scan_iter("*lanes:job:*", _type="hash")], default=str
        )
    assert "answered 400 (invalid_request_error)" in told
    for place in (told, stored, caplog.text):
        assert "What is" not in place
