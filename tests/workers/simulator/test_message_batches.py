"""Anthropic's message batches, driven by its own SDK."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import pytest
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

from fleet.workers.simulator.batch.anthropic_batches import read_requests
from fleet.workers.simulator.rich.wanted import WireError
from tests.workers.simulator.running import running, send, total

FAST = {"clock_speed": 100_000.0}
AT_ONCE = {"batch_median_s": 0.0, "batch_p95_s": 0.0}


@contextmanager
def client_of(url: str, key: str = "test-key") -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=10) as client:
        yield client


def asked(custom_id: str, prompt: str = "What is 2+2?", **more: Any) -> Any:
    params = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": prompt}], **more}
    return {"custom_id": custom_id, "params": params}


def ended(client: anthropic.Anthropic, batch: MessageBatch) -> MessageBatch:
    ends_s = time.monotonic() + 15
    while (found := client.messages.batches.retrieve(batch.id)).processing_status != "ended":
        assert time.monotonic() < ends_s, found
        assert found.results_url is None
        assert found.request_counts.processing > 0
        time.sleep(0.01)
    return found


def results(client: anthropic.Anthropic, batch: MessageBatch) -> dict[str, MessageBatchIndividualResponse]:
    return {one.custom_id: one for one in client.messages.batches.results(batch.id)}


def test_a_batch_is_answered_billed_at_half_and_read_by_custom_id() -> None:
    prices = {"input_usd_per_mtok": 3.0, "output_usd_per_mtok": 15.0}
    with running(**FAST, **prices) as url, client_of(url) as client:
        batch = client.messages.batches.create(requests=[asked(f"r{n}", f"What is {n}+1?") for n in range(30)])
        assert (batch.processing_status, batch.request_counts.processing) == ("in_progress", 30)
        assert (batch.expires_at - batch.created_at).total_seconds() == pytest.approx(86_400, abs=0.01)
        done = ended(client, batch)
        assert (done.request_counts.succeeded, done.request_counts.processing) == (30, 0)
        said = {}
        for name, one in results(client, batch).items():
            assert one.result.type == "succeeded"
            assert one.result.message.usage.service_tier == "batch"
            block = one.result.message.content[0]
            assert block.type == "text"
            said[name] = block.text
        assert said == {f"r{n}": str(n + 1) for n in range(30)}
        assert list(said) != [f"r{n}" for n in range(30)]
        counted = total(url)
        assert counted["batch"] == 30
        cost = counted["input_tokens"] * 3 + counted["output_tokens"] * 15
        assert counted["billed_usd_picos"] * 2 == cost * 10**6


def test_wrong_requests_are_told_in_their_results_and_stuck_ones_expire() -> None:
    with running(**FAST) as url, client_of(url) as client:
        send(url, "/batch-faults?stuck=1", method="POST")
        wanted = [asked(f"r{n}") for n in range(4)]
        done = ended(client, client.messages.batches.create(requests=wanted))
        assert (done.request_counts.succeeded, done.request_counts.expired) == (2, 2)
        assert done.ended_at == done.expires_at
        mixed = [asked("good"), asked("bad", temperature=7), asked("streamed", stream=True)]
        batch = client.messages.batches.create(requests=mixed)
        assert ended(client, batch).request_counts.errored == 2
        bad = results(client, batch)["bad"].result
        assert bad.type == "errored"
        assert bad.error.error.type == "invalid_request_error"
        assert total(url)["served"] == 3


def test_a_cancelled_batch_tells_what_was_answered_and_can_be_deleted_then() -> None:
    with running(clock_speed=2000.0, batch_median_s=3000.0, batch_p95_s=3000.0) as url, client_of(url) as client:
        batch = client.messages.batches.create(requests=[asked(f"r{n}") for n in range(200)])
        with pytest.raises(anthropic.BadRequestError, match="cancel it first"):
            client.messages.batches.delete(batch.id)
        ends_s = time.monotonic() + 10
        while not total(url)["served"]:
            assert time.monotonic() < ends_s
            time.sleep(0.01)
        cancelling = client.messages.batches.cancel(batch.id)
        assert cancelling.processing_status == "canceling"
        assert cancelling.cancel_initiated_at is not None
        counts = ended(client, batch).request_counts
        assert counts.succeeded + counts.canceled == 200
        assert total(url)["served"] == counts.succeeded > 0
        kinds = Counter(one.result.type for one in results(client, batch).values())
        assert kinds == {"succeeded": counts.succeeded, "canceled": counts.canceled}
        with pytest.raises(anthropic.BadRequestError, match="already ended"):
            client.messages.batches.cancel(batch.id)
        client.messages.batches.delete(batch.id)
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.retrieve(batch.id)


def test_batches_are_listed_in_pages_both_ways_and_each_key_sees_its_own() -> None:
    with running(**AT_ONCE) as url, client_of(url) as client, client_of(url, "other") as other:
        made = [client.messages.batches.create(requests=[asked("a")]).id for _ in range(5)]
        assert [batch.id for batch in client.messages.batches.list(limit=2)] == made[::-1]
        before = client.messages.batches.list(limit=2, before_id=made[0])
        assert ([batch.id for batch in before.data], before.has_more) == ([made[2], made[1]], True)
        assert list(other.messages.batches.list()) == []
        with pytest.raises(anthropic.NotFoundError):
            other.messages.batches.retrieve(made[0])


def test_a_lost_reply_leaves_a_batch_that_the_list_shows() -> None:
    with running(**AT_ONCE) as url, client_of(url) as client:
        send(url, "/batch-faults?lost_create=1&refused_create=1&gone_output=1", method="POST")
        with pytest.raises(anthropic.RateLimitError):
            client.messages.batches.create(requests=[asked("a")])
        assert list(client.messages.batches.list()) == []
        with pytest.raises(anthropic.APIConnectionError):
            client.messages.batches.create(requests=[asked("a")])
        (found,) = client.messages.batches.list()
        with pytest.raises(anthropic.NotFoundError):
            results(client, ended(client, found))
        assert total(url)["served"] == 1


def test_duplicate_and_odd_custom_ids_and_too_many_requests_are_refused() -> None:
    with running() as url, client_of(url) as client:
        for wanted, words in (([asked("a"), asked("a")], "not unique"), ([asked("a b")], "pattern"), ([], "1 to")):
            with pytest.raises(anthropic.BadRequestError, match=words):
                client.messages.batches.create(requests=wanted)
        assert send(url, "/v1/messages/batches", key=None).status == 401
        assert total(url)["calls"] == 0
    with pytest.raises(WireError, match="1 to 2"):
        read_requests({"requests": [asked(str(number)) for number in range(3)]}, most=2)


def test_results_are_gone_29_days_of_the_clock_after_the_batch_was_made() -> None:
    with running(**AT_ONCE, clock_speed=5e6) as url, client_of(url) as client:
        batch = client.messages.batches.create(requests=[asked("a")])
        ends_s = time.monotonic() + 10
        while (found := client.messages.batches.retrieve(batch.id)).archived_at is None:
            assert time.monotonic() < ends_s
            time.sleep(0.02)
        assert found.results_url is None
