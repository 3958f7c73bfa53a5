"""OpenAI's background responses, driven by its own SDK, on a clock that is as fast as a test needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.workers.simulator.running import running, send, total

#: Eight hours of the clock are 0.3 s.
FAST = {"clock_speed": 100_000.0}
PRICES = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0}
ASKED = "What is 2+2?"


@contextmanager
def client_of(url: str, key: str = "test-key") -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=10) as client:
        yield client


def create(client: openai.OpenAI, window: str | None = None, **more: Any) -> Response:
    options = {"background_options": {"completion_window": window}} if window else {}
    return client.responses.create(model="m", input=ASKED, background=True, **options, **more)


def until(client: openai.OpenAI, response_id: str, holds: Callable[[Response], bool]) -> Response:
    ends_s = time.monotonic() + 15
    while not holds(found := client.responses.retrieve(response_id)):
        assert time.monotonic() < ends_s, found
        time.sleep(0.01)
    return found


def is_over(found: Response) -> bool:
    return found.status not in ("queued", "in_progress")


@pytest.mark.parametrize(
    ("window", "tier", "ledger_tier", "tenths"),
    [
        (None, None, "default", 10), ("soonest", "flex", "flex", 5), (None, "priority", "priority", 20),
        ("2h", None, "background-2h", 7), ("8h", "default", "background-8h", 6),
    ],
)  # fmt: skip
def test_a_response_is_made_polled_read_deleted_and_billed_by_its_window(
    window: str | None, tier: str | None, ledger_tier: str, tenths: int
) -> None:
    more = {} if tier is None else {"service_tier": tier}
    with running(**FAST, **PRICES) as url, client_of(url) as client:
        made = create(client, window, store=True, **more)
        assert made.status in ("queued", "in_progress") and made.background and not made.output and made.usage is None
        assert send(url, "/ledger").json["total"]["calls"] in (0, 1)
        found = until(client, made.id, is_over)
        assert (found.status, found.id, found.output_text) == ("completed", made.id, "4")
        assert found.usage is not None and found.completed_at is not None
        counted = total(url)
        plain = 10**6 * found.usage.input_tokens + 4 * 10**6 * found.usage.output_tokens
        assert (counted["calls"], counted["served"]) == (1, 1)
        assert counted["billed_usd_picos"] == plain * tenths // 10
        (line,) = send(url, "/ledger").json["usage"]
        assert line["tier"] == ledger_tier
        assert found.service_tier == ("default" if ledger_tier.startswith("background") else ledger_tier)
        assert client.responses.retrieve(made.id).output_text == "4" and total(url)["calls"] == 1
        with client_of(url, "other-key") as other, pytest.raises(openai.NotFoundError):
            other.responses.retrieve(made.id)
        client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(made.id)


def test_one_that_is_cancelled_in_time_costs_nothing_and_to_cancel_twice_changes_nothing() -> None:
    with running() as url, client_of(url) as client:
        made = create(client, "8h")
        assert client.responses.cancel(made.id).status == "cancelled"
        assert client.responses.cancel(made.id).status == "cancelled"
        assert client.responses.retrieve(made.id).status == "cancelled"
        assert total(url)["served"] == 0


def test_faults_lose_a_reply_that_is_billed_and_let_a_response_never_come() -> None:
    with running(**FAST) as url, client_of(url) as client:
        send(url, "/batch-faults?lost_response=1&late_response=1", {})
        with pytest.raises(openai.APIConnectionError):
            create(client)  # the one that is late as well
        send(url, "/batch-faults?lost_response=1", {})
        with pytest.raises(openai.APIConnectionError):
            create(client)
        deadline = time.monotonic() + 15
        while total(url)["served"] < 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert total(url)["served"] == 1, "the other one never comes"


def test_an_answer_that_was_not_stored_explicitly_is_gone_after_ten_minutes() -> None:
    with running(clock_speed=100_000.0) as url, client_of(url) as client:
        made = [create(client).id, create(client, store=True).id]
        deadline = time.monotonic() + 15
        while True:
            try:
                client.responses.retrieve(made[0])
            except openai.NotFoundError:
                break
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert client.responses.retrieve(made[1]).status == "completed"


@pytest.mark.parametrize(
    "more", [{"window": "1h"}, {"window": "2h", "service_tier": "flex"}, {"window": "2h", "stream": True}]
)
def test_what_cannot_run_in_the_background_is_refused(more: dict[str, Any]) -> None:
    with running() as url, client_of(url) as client, pytest.raises(openai.BadRequestError):
        create(client, more.pop("window"), **more)


def test_limits_hold_for_the_input_of_background_responses() -> None:
    with running(rpm=60, burst=0.02) as url, client_of(url) as client, pytest.raises(openai.RateLimitError):
        for _ in range(10):
            create(client)
