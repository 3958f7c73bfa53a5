"""The examples of kinds that came with the public reports, where they are on this machine: each row read rightly."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from fleet.conversation import Message
from fleet.errors import FleetError, ProviderUnavailable, RateLimited
from fleet.workers.calls import Call, Completion
from fleet.workers.judge import is_known
from tests.conftest import DATA_DIR
from tests.workers.providers.raw_server import KEY, provider, raw_server, response

EXAMPLES = DATA_DIR.parent / "field" / "wire.jsonl"
ROWS = [json.loads(line) for line in EXAMPLES.read_text().splitlines()] if EXAMPLES.is_file() else []
#: What an example's `expect` says of errors; the rest is looked at where it is made.
OF_ERRORS = {"as_status", "holds_the_fleet", "retry", "error", "shown", "blame", "passes", "parks", "retry_after_s"}
REFUSALS = [row for row in ROWS if OF_ERRORS & set(row["expect"])]
CALL = Call("m", (Message(role="user", content="What is 2+2?"),), temperature=None, max_output_tokens=100, timeout_s=5)


def outcome(row: dict[str, Any]) -> Completion | FleetError:
    """Send one call to a server that answers as the example does."""

    async def main() -> Completion | FleetError:
        answer = response(row["body"], status=row["status"], headers=row["headers"])
        async with raw_server(answer) as server, provider(server.url, row["wire"]) as adapter:
            try:
                return await adapter.complete(CALL, api_key=KEY)
            except FleetError as error:
                return error

    return asyncio.run(main())


@pytest.mark.skipif(not ROWS, reason=f"needs the examples: expected them in {EXAMPLES}")
@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row["id"])
def test_an_example_of_a_refusal_is_read_rightly(row: dict[str, Any]) -> None:
    error, expect = outcome(row), row["expect"]
    assert isinstance(error, FleetError)
    if "as_status" in expect:
        assert type(error) is (RateLimited if expect["as_status"] == 429 else ProviderUnavailable)
    assert error.holds is expect.get("holds_the_fleet", error.holds)
    assert type(error).__name__ == expect.get("error", type(error).__name__) and expect.get("shown", "") in str(error)
    assert error.blame == expect.get("blame", error.blame)
    assert error.parks == {True: "at once", "when it lasts": "lasting"}.get(expect.get("parks"), error.parks)
    if expect.get("passes") == "at the date":
        assert error.passes and error.passes_at == datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert expect.get("passes") is not False or not error.passes
    assert not expect.get("retry") or (isinstance(error, ProviderUnavailable) and error.passes)
    if "retry_after_s" in expect:
        assert isinstance(error, RateLimited) and error.retry_after_s == expect["retry_after_s"]


@pytest.mark.skipif(not ROWS, reason=f"needs the examples: expected them in {EXAMPLES}")
@pytest.mark.parametrize("row", [row for row in ROWS if "status_not" in row["expect"]], ids=lambda row: row["id"])
def test_an_example_of_half_an_answer_is_never_ok(row: dict[str, Any]) -> None:
    answer = outcome(row)
    assert isinstance(answer, Completion) and not is_known(answer.finish_reason), "the gateway refuses it"


@pytest.mark.skipif(not ROWS, reason=f"needs the examples: expected them in {EXAMPLES}")
def test_the_example_of_a_parallel_limit_holds_nobody_for_a_minute() -> None:
    error = outcome(next(row for row in ROWS if row["id"] == "parallel-limit"))
    assert isinstance(error, RateLimited) and error.parallel and error.retry_after_s is None
