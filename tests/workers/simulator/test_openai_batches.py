"""OpenAI's files and batches, driven by its own SDK, on a clock that is as fast as a test needs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import openai
import pytest
from openai.types import Batch

from fleet.workers.simulator.batch.openai_batches import read_lines
from tests.workers.simulator.running import running, send, total

#: A day of the clock is 0.86 s, a batch of the usual length a hundredth of that.
FAST = {"clock_speed": 100_000.0}
#: Batches whose answers come as soon as they are asked for.
AT_ONCE = {"batch_median_s": 0.0, "batch_p95_s": 0.0}
ENDED = ("completed", "failed", "expired", "cancelled")


@contextmanager
def client_of(url: str, key: str = "test-key") -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=10) as client:
        yield client


def line(custom_id: str, prompt: str = "What is 2+2?", **more: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body, **more}


def jsonl(*lines: object) -> bytes:
    return "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines).encode()


def upload(client: openai.OpenAI, content: bytes, name: str = "in.jsonl") -> str:
    return client.files.create(file=(name, content), purpose="batch").id


def create(client: openai.OpenAI, content: bytes, **metadata: str) -> Batch:
    return client.batches.create(
        input_file_id=upload(client, content),
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata=metadata or None,
    )


def until(client: openai.OpenAI, batch: Batch, holds: Callable[[Batch], bool]) -> Batch:
    ends_s = time.monotonic() + 15
    while not holds(found := client.batches.retrieve(batch.id)):
        assert time.monotonic() < ends_s, found
        time.sleep(0.01)
    return found


def finished(client: openai.OpenAI, batch: Batch) -> Batch:
    return until(client, batch, lambda found: found.status in ENDED)


def rows(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    assert file_id is not None
    told = [json.loads(row) for row in client.files.content(file_id).text.splitlines()]
    assert len({row["custom_id"] for row in told}) == len(told)
    return {row["custom_id"]: row for row in told}


def test_a_batch_is_answered_out_of_order_and_billed_at_half_to_the_pico_dollar() -> None:
    content = jsonl(*(line(f"r{number}", f"What is {number}+1?") for number in range(40)))
    with running(**FAST, input_usd_per_mtok=0.15, output_usd_per_mtok=0.60) as url, client_of(url) as client:
        batch = create(client, content, run="seven")
        assert (batch.status, batch.model, batch.metadata) == ("validating", "m", {"run": "seven"})
        assert batch.expires_at == batch.created_at + 86_400 or batch.expires_at == batch.created_at + 86_401
        done = finished(client, batch)
        assert done.status == "completed"
        assert done.error_file_id is None
        assert done.request_counts is not None and done.usage is not None
        assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (40, 40, 0)
        assert done.in_progress_at and done.finalizing_at and done.completed_at
        assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at
        answers = rows(client, done.output_file_id)
        said = {name: row["response"]["body"]["choices"][0]["message"]["content"] for name, row in answers.items()}
        assert said == {f"r{number}": str(number + 1) for number in range(40)}
        assert list(answers) != list(said_in_order := [f"r{number}" for number in range(40)])
        assert sorted(answers) == sorted(said_in_order)
        counted = total(url)
        assert (counted["served"], counted["batch"], counted["in_flight"]) == (40, 40, 0)
        assert (counted["input_tokens"], counted["output_tokens"]) == (
            done.usage.input_tokens,
            done.usage.output_tokens,
        )
        price = counted["input_tokens"] * Fraction("0.15") + counted["output_tokens"] * Fraction("0.60")
        assert counted["billed_usd_picos"] == price / 2 * 10**6
        assert {one["tier"] for one in send(url, "/ledger").json["usage"]} == {"batch"}


def test_the_ledger_counts_what_is_due_though_nobody_polls() -> None:
    with running(**AT_ONCE) as url, client_of(url) as client:
        create(client, jsonl(line("a"), line("b")))
        assert total(url)["served"] == 2
        assert total(url)["served"] == 2


def test_batches_and_files_are_listed_newest_first_in_pages_and_each_key_sees_its_own() -> None:
    with running(**AT_ONCE) as url, client_of(url) as client, client_of(url, "other") as other:
        made = [create(client, jsonl(line("a")), number=str(number)).id for number in range(5)]
        theirs = create(other, jsonl(line("a")))
        assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]  # the SDK turns the pages
        page = client.batches.list(limit=2, after=made[3])
        assert ([batch.id for batch in page.data], page.has_more) == ([made[2], made[1]], True)
        assert [batch.id for batch in other.batches.list()] == [theirs.id]
        with pytest.raises(openai.NotFoundError):
            other.batches.retrieve(made[0])
        with pytest.raises(openai.NotFoundError):
            other.files.content(theirs.input_file_id.replace("file-", "file-0"))
        outputs = list(client.files.list(purpose="batch_output"))
        assert {file.purpose for file in outputs} == {"batch_output"}
        assert len(list(client.files.list(purpose="batch", limit=2))) == 5
        client.files.delete(outputs[0].id)
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(outputs[0].id)


def test_a_cancelled_batch_keeps_what_was_answered_and_bills_nothing_else() -> None:
    content = jsonl(*(line(f"r{number}") for number in range(200)))
    with running(clock_speed=2000.0, batch_median_s=3000.0, batch_p95_s=3000.0) as url, client_of(url) as client:
        batch = until(
            client, create(client, content), lambda found: bool(found.request_counts and found.request_counts.completed)
        )
        cancelling = client.batches.cancel(batch.id)
        assert cancelling.status == "cancelling"
        done = finished(client, batch)
        assert (done.status, done.completed_at) == ("cancelled", None)
        assert done.cancelled_at and done.cancelling_at and done.cancelled_at >= done.cancelling_at
        answers, others = rows(client, done.output_file_id), rows(client, done.error_file_id)
        assert len(answers) + len(others) == 200
        assert 0 < len(answers) < 200
        assert {row["error"]["code"] for row in others.values()} == {"batch_cancelled"}
        assert total(url)["served"] == len(answers)
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(batch.id)


def test_a_stuck_batch_expires_with_the_half_that_was_done() -> None:
    with running(**FAST) as url, client_of(url) as client:
        send(url, "/batch-faults?stuck=1", method="POST")
        done = finished(client, create(client, jsonl(*(line(f"r{number}") for number in range(10)))))
        assert done.status == "expired"
        assert done.expired_at == done.expires_at
        assert len(rows(client, done.output_file_id)) == 5
        assert {row["error"]["code"] for row in rows(client, done.error_file_id).values()} == {"batch_expired"}
        assert total(url)["served"] == 5
        assert finished(client, create(client, jsonl(line("next")))).status == "completed"


def test_requests_that_fail_stand_in_the_error_file_with_their_status() -> None:
    bad = line("bad", body={"model": "m", "messages": [], "temperature": 9})
    streamed = line("streamed", body={"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True})
    with running(**AT_ONCE) as url, client_of(url) as client:
        done = finished(client, create(client, jsonl(line("good"), bad, streamed)))
        assert done.request_counts is not None
        assert (done.status, done.request_counts.failed) == ("completed", 2)
        failed = rows(client, done.error_file_id)
        assert {name: row["response"]["status_code"] for name, row in failed.items()} == {"bad": 400, "streamed": 400}
        assert failed["bad"]["error"] is None
        assert failed["bad"]["response"]["body"]["error"]["type"] == "invalid_request_error"
        assert (total(url)["served"], total(url)["bad_requests"]) == (1, 2)


def test_provider_failures_and_hanging_requests_end_in_the_error_file_unpaid() -> None:
    for rates, status in (({"error_rate": 1.0}, "completed"), ({"hang_rate": 1.0}, "expired")):
        with running(**FAST, **rates) as url, client_of(url) as client:
            done = finished(client, create(client, jsonl(line("a"), line("b"))))
            assert (done.status, done.output_file_id) == (status, None)
            assert len(rows(client, done.error_file_id)) == 2
            assert total(url)["billed_usd_picos"] == 0


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        pytest.param((), "empty_file", None, id="nothing in it"),
        pytest.param((line("a"), "{not json"), "invalid_json_line", 2, id="no JSON"),
        pytest.param((line(""),), "missing_required_parameter", 1, id="no custom id"),
        pytest.param((line("a"), line("b"), line("a")), "duplicate_custom_id", 3, id="a custom id twice"),
        pytest.param((line("a", url="/v1/responses"),), "url_mismatch", 1, id="another endpoint"),
        pytest.param((line("a", method="GET"),), "invalid_method", 1, id="another method"),
        pytest.param((line("a"), line("b", body={"model": "n", "messages": []})), "model_mismatch", 2, id="two models"),
    ],
)
def test_a_file_with_a_wrong_line_fails_as_a_whole_and_costs_nothing(
    lines: tuple[object, ...], code: str, number: int | None
) -> None:
    with running(**AT_ONCE) as url, client_of(url) as client:
        done = finished(client, create(client, jsonl(*lines)))
        assert (done.status, done.output_file_id) == ("failed", None)
        assert done.errors is not None and done.errors.data is not None
        assert [(error.code, error.line) for error in done.errors.data] == [(code, number)]
        assert total(url)["calls"] == 0


def test_a_file_may_hold_so_many_requests_and_no_more() -> None:
    lines, errors = read_lines(jsonl(*(line(str(number)) for number in range(3))), "/v1/chat/completions", most=3)
    assert (len(lines), errors) == (3, [])
    _, errors = read_lines(jsonl(*(line(str(number)) for number in range(4))), "/v1/chat/completions", most=3)
    assert [error["code"] for error in errors] == ["too_many_tasks"]


def test_a_full_queue_fails_a_batch_until_others_have_ended() -> None:
    with running(**FAST, batch_queue_tokens=25) as url, client_of(url) as client:
        send(url, "/batch-faults?stuck=1", method="POST")  # the first one waits for all of its day
        first, second = create(client, jsonl(line("a"))), create(client, jsonl(line("b")))
        refused = finished(client, second)
        assert refused.errors is not None and refused.errors.data is not None
        assert [error.code for error in refused.errors.data] == ["token_limit_exceeded"]
        assert finished(client, first).status == "expired"
        assert finished(client, create(client, jsonl(line("c")))).status == "completed"


def test_lost_replies_leave_the_file_and_the_batch_to_be_found_by_listing() -> None:
    with running(**AT_ONCE) as url, client_of(url) as client:
        send(url, "/batch-faults?lost_upload=1&lost_create=1&refused_create=1", method="POST")
        with pytest.raises(openai.APIConnectionError):
            upload(client, jsonl(line("a")), name="intent-7.jsonl")
        file = next(file for file in client.files.list(purpose="batch") if file.filename == "intent-7.jsonl")
        intent: dict[str, Any] = {"input_file_id": file.id, "endpoint": "/v1/chat/completions"}
        with pytest.raises(openai.RateLimitError):
            client.batches.create(**intent, completion_window="24h", metadata={"intent": "7"})
        with pytest.raises(openai.APIConnectionError):
            client.batches.create(**intent, completion_window="24h", metadata={"intent": "7"})
        found = [batch for batch in client.batches.list() if batch.metadata == {"intent": "7"}]
        assert [batch.input_file_id for batch in found] == [file.id]
        assert list(rows(client, finished(client, found[0]).output_file_id)) == ["a"]
        assert set(send(url, "/batch-faults").json["left"].values()) == {0}


def test_an_output_can_be_gone_or_partial_though_it_is_paid() -> None:
    with running(**AT_ONCE) as url, client_of(url) as client:
        send(url, "/batch-faults?gone_output=1", method="POST")
        gone = finished(client, create(client, jsonl(line("a"))))
        assert gone.output_file_id is not None
        with pytest.raises(openai.NotFoundError):
            client.files.content(gone.output_file_id)
        send(url, "/batch-faults?partial=1", method="POST")
        partial = finished(client, create(client, jsonl(*(line(f"r{number}") for number in range(4)))))
        assert len(rows(client, partial.output_file_id)) == 2
        send(url, "/batch-faults?failed_validation=1", method="POST")
        assert finished(client, create(client, jsonl(line("a")))).status == "failed"
        assert total(url)["served"] == 5


def test_unknown_faults_and_wrong_requests_are_refused_in_plain_words() -> None:
    with running(**AT_ONCE) as url, client_of(url) as client:
        assert send(url, "/batch-faults?stck=1", method="POST").status == 400
        assert send(url, "/batch-faults?stuck=-1", method="POST").status == 400
        file_id = upload(client, jsonl(line("a")))
        with pytest.raises(openai.BadRequestError, match=r"must be '24h'|Value must be"):
            client.batches.create(
                input_file_id=file_id,
                endpoint="/v1/chat/completions",
                completion_window="1h",  # type: ignore[arg-type]
            )
        with pytest.raises(openai.BadRequestError, match="Supported values are"):
            client.batches.create(input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h")
        with pytest.raises(openai.BadRequestError, match="input_file_id"):
            client.batches.create(input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h")
        with pytest.raises(openai.BadRequestError, match="jsonl"):
            upload(client, b"x", name="in.txt")
        assert send(url, "/v1/batches", key=None).status == 401
        assert send(url, "/v1/files", b"no form").status == 400
        assert send(url, "/v1/batches/a/b/c").status == 404


def test_responses_are_batched_too_and_files_expire_by_the_clock() -> None:
    body = {"model": "m", "input": "What is 2+3?"}
    with running(**AT_ONCE, clock_speed=20_000.0) as url, client_of(url) as client:
        asked = jsonl(line("a", url="/v1/responses", body=body))
        file = client.files.create(
            file=("in.jsonl", asked), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
        answer = rows(client, finished(client, batch).output_file_id)["a"]["response"]["body"]
        assert answer["output"][0]["content"][0]["text"] == "5"
        ends_s = time.monotonic() + 10
        while time.monotonic() < ends_s:
            try:
                client.files.retrieve(file.id)
            except openai.NotFoundError:
                break
            time.sleep(0.02)
        else:
            pytest.fail("expected the file to be gone an hour of the clock after its upload")
