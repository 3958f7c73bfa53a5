"""A vendor that refuses, or cannot be read: tasks go on in time, nothing is paid twice, and no prompt is told."""

from __future__ import annotations

import asyncio
import json

import pytest

from fleet.economy.bill.reader import read_bill
from fleet.economy.lanes.board import read_board
from fleet.store.client import connect
from fleet.workers.providers.batches import http
from tests.engine.process.batching.deaths import MOST_PICOS, Ledger, send
from tests.engine.process.batching.test_deaths import CLOCK
from tests.engine.telemetry.test_events import events
from tests.workers.simulator.running import running, total
from tests.workers.simulator.running import send as ask

TASKS = [f"task-{number}" for number in range(4)]
#: So many times that what fails lasts.
ALWAYS = 10_000
KINDS = ("openai", "anthropic")


def sent(redis_url: str, url: str, kind: str, *, rescue_s: float = 3600, **faults: int) -> Ledger:
    with connect(redis_url) as client:
        client.flushall()
    ask(url, "/batch-faults?" + "&".join(f"{name}={count}" for name, count in faults.items()), method="POST")
    found = asyncio.run(send(redis_url, url, kind, tasks=TASKS, die_at=0, rescue_s=rescue_s))
    ask(url, "/batch-faults?" + "&".join(f"{name}=0" for name in faults), method="POST")
    return found


@pytest.mark.parametrize(
    ("kind", "fault"), [("openai", "refused_upload"), ("openai", "bad_create"), ("anthropic", "bad_create")]
)
def test_a_refusal_ends_a_job_at_once_and_is_told_by_its_status_and_type_alone(
    redis_url: str, kind: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with running(**CLOCK) as url:
        found = sent(redis_url, url, kind, **{fault: ALWAYS})
        assert (found.answers, found.freed, total(url)["served"]) == (0, 4, 0)
    with connect(redis_url) as client:
        ((_, _, told),) = read_board(client).shut
        names = client.scan_iter("*lanes:job:*", _type="hash")
        stored = json.dumps([client.hgetall(name) for name in names], default=str)
    assert "answered 400 (invalid_request_error)" in told
    for place in (told, stored, caplog.text):
        assert "What is" not in place


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_is_refused_before_a_batch_is_made_holds_its_tasks_until_they_must_go_on(
    redis_url: str, kind: str
) -> None:
    with running(**CLOCK) as url:
        found = sent(redis_url, url, kind, rescue_s=1, refused_key=ALWAYS)
        assert (found.answers, found.freed, total(url)["served"]) == (0, 4, 0)
    with connect(redis_url) as client:
        assert read_bill(client, since_s=0, until_s=2**33).total.calls == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_batch_is_never_made_again_while_its_vendor_cannot_tell_of_it(redis_url: str, kind: str) -> None:
    with running(**CLOCK) as url:
        for faults in ({"busy_output": 8}, {"odd_list": 8}, {"odd_output": 3}):
            before = total(url)["served"]
            found = sent(redis_url, url, kind, lost_create=1, **faults)
            assert (found.answers, found.freed, total(url)["served"] - before) == (4, 0, 4), faults


def test_a_lost_batch_is_found_by_its_input_file_where_no_metadata_is_kept(redis_url: str) -> None:
    with running(**CLOCK) as url:
        found = sent(redis_url, url, "openai", lost_create=1, no_metadata=1)
        assert (found.answers, found.freed, total(url)["served"]) == (4, 0, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_that_cannot_be_read_costs_its_own_answer_and_an_error_replaces_none(redis_url: str, kind: str) -> None:
    with running(**CLOCK) as url:
        found = sent(redis_url, url, kind, garbled_output=ALWAYS)
        assert (found.answers, found.freed, total(url)["served"]) == (3, 1, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_that_nobody_can_read_are_not_read_for_ever(
    redis_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(**CLOCK) as url:
        found = sent(redis_url, url, kind, odd_output=ALWAYS)
        assert (found.answers, found.freed, total(url)["served"]) == (0, 4, 4)
        assert "count=4: 3 lines that nobody can read" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_more_output_than_its_bound_is_not_read_and_what_came_before_it_is_kept(
    redis_url: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(**CLOCK) as url:
        monkeypatch.setattr(http, "MAX_LINE_BYTES", 100)
        found = sent(redis_url, url, kind)
        assert (found.answers, found.freed) == (0, 4)
        monkeypatch.undo()
        monkeypatch.setattr(http, "MAX_OUTPUT_BYTES", 1000)
        found = sent(redis_url, url, kind)
        assert found.answers >= 1 and found.freed >= 1 and found.answers + found.freed == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_vendor_that_deletes_nothing_is_asked_some_times_and_then_told_of(
    redis_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    one_of = {"openai": "3", "anthropic": "1"}  # the batch, its input and its output
    with running(**CLOCK) as url:
        found = sent(redis_url, url, kind, refused_delete=ALWAYS)
        assert (found.answers, found.freed) == (4, 0)
        assert caplog.text.count("batch_not_deleted") == 1 and "delete at the vendor's what" in caplog.text
    with connect(redis_url) as client:
        told = [one for one in events(client) if one.name == "batch_trouble"]
        assert [(one.fields["what"], one.fields["count"]) for one in told] == [("not_deleted", one_of[kind])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_which_nobody_can_tell_any_more_is_billed_as_unknown_and_its_tasks_go_on_in_time(
    redis_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(**CLOCK) as url:
        found = sent(redis_url, url, kind, rescue_s=1, lost_create=1, odd_list=ALWAYS)
        assert (found.answers, found.freed) == (0, 4)
        assert caplog.text.count("batch_given_up") == 1
    with connect(redis_url) as client:
        bill = read_bill(client, since_s=0, until_s=2**33).total
    assert (bill.unknown_calls, bill.unknown_usd_picos) == (4, 4 * MOST_PICOS)
