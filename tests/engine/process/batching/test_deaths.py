"""A sender that dies at any step of a batch: nothing is paid twice, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from fleet.economy.bill.reader import read_bill
from fleet.store.client import connect
from tests.engine.process.batching.deaths import Ledger, send
from tests.workers.simulator.running import running, total
from tests.workers.simulator.running import send as ask

#: Quick: one batch of the simulator's clock takes 40 ms.
CLOCK = {"clock_speed": 100_000.0, "batch_median_s": 600.0, "batch_p95_s": 1200.0}


def sent(redis_url: str, url: str, kind: str, die_at: int, count: int = 4, **more: float) -> Ledger:
    with connect(redis_url) as client:
        client.flushall()
    tasks = [f"task-{number}" for number in range(count)]
    return asyncio.run(send(redis_url, url, kind, tasks=tasks, die_at=die_at, **more))


def billed(redis_url: str) -> tuple[int, int]:
    """Return the calls of the bill, and what they have cost (10^-12 dollars)."""
    with connect(redis_url) as client:
        bill = read_bill(client, since_s=0, until_s=2**33, by=["tier"])
    assert {line.values for line in bill.lines} <= {("batch",)}
    return bill.total.calls, bill.total.usd_picos


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_batch_whose_sender_dies_at_any_step_is_paid_once_and_answers_all(redis_url: str, kind: str) -> None:
    with running(**CLOCK) as url:
        whole = sent(redis_url, url, kind, die_at=0)
        assert (whole.answers, whole.freed) == (4, 0)
        served, cost = total(url)["served"], billed(redis_url)
        assert served == 4 and cost[0] == 4 and cost[1] > 0
        for die_at in range(1, whole.fuse.steps + 1, 3):  # every step: benchmarks/batch_deaths.py
            found = sent(redis_url, url, kind, die_at=die_at)
            now = total(url)["served"]
            where = f"died at step {die_at}: {found.fuse.died_at}"
            assert now - served == 4, where
            assert (found.answers, found.freed) == (4, 0), where
            assert billed(redis_url) == cost, where
            served = now


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("fault", ["lost_create", "lost_upload", "refused_create"])
def test_a_lost_reply_is_looked_up_before_anything_is_sent_again(redis_url: str, kind: str, fault: str) -> None:
    with running(**CLOCK) as url:
        ask(url, f"/batch-faults?{fault}=1", method="POST")
        found = sent(redis_url, url, kind, die_at=0)
        assert (found.answers, found.freed, total(url)["served"]) == (4, 0, 4)


def test_what_is_stuck_is_rescued_before_its_time_and_only_the_unfinished_go_on_elsewhere(redis_url: str) -> None:
    with running(**CLOCK) as url:
        for kind in ("openai", "anthropic"):
            before = total(url)["served"]
            ask(url, "/batch-faults?stuck=1", method="POST")
            found = sent(redis_url, url, kind, die_at=0, rescue_s=2)
            assert (found.answers, found.freed) == (2, 2)
            assert total(url)["served"] - before == 2 == billed(redis_url)[0]


def test_a_batch_that_its_vendor_refuses_or_loses_costs_nothing_and_its_tasks_go_on(redis_url: str) -> None:
    with running(**CLOCK) as url:
        ask(url, "/batch-faults?failed_validation=1", method="POST")
        found = sent(redis_url, url, "openai", die_at=0)
        assert (found.answers, found.freed, total(url)["served"]) == (0, 4, 0)
        assert billed(redis_url) == (0, 0)
        ask(url, "/batch-faults?partial=1", method="POST")
        found = sent(redis_url, url, "anthropic", die_at=0)
        assert (found.answers, found.freed) == (2, 2), "what its vendor billed and lost is not there to be read"
