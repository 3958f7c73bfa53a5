"""Whatever is too large is refused at submission, in the words a worker has for it, and nothing is queued."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.cli.run.entries import LineFormat, read_entries
from fleet.engine.messages.producer import submit_many
from fleet.errors import InvalidTask
from fleet.quoting import MAX_ERROR_BYTES
from fleet.store.client import connect

M = 1_000_000
TOO_MUCH: dict[str, tuple[dict[str, Any], str]] = {
    "unknown fields": ({f"x{n}": 1 for n in range(100_000)}, "x0, x1, x2, x3, x4 and 99,996 more: unknown fields"),
    "messages": ({"messages": [{"role": "user", "content": "x"}] * 50_000}, "at most 10,000 messages, got 50,000"),
    "fields of a message": ({"messages": [{f"x{n}": 1 for n in range(10_000)}]}, "expected `role` and `content`"),
    "metadata": ({"prompt": "x", "metadata": {"a": "x" * 10 * M}}, "metadata: expected at most 65,536 bytes"),
    "names in metadata": ({"prompt": "x", "metadata": {str(n): 1 for n in range(M)}}, "at most 2,000 names"),
    "NaN": ({"prompt": "x", "metadata": {"a": [float("nan")]}}, "has no NaN"),
    "a schema": ({"prompt": "x", "answer_schema": {"title": "x" * M}}, "answer_schema: expected at most 32,000"),
    "a prompt": ({"prompt": "x" * 5 * M}, "at most 4,000,000 characters of prompt, got 5,000,000"),
    "a Chinese prompt": ({"prompt": "\u4e2d" * 1_100_000}, "at most 6,000,000 bytes of prompt as ASCII JSON"),
    "a kind": ({"prompt": "x", "kind": "k" * M}, "kind: "),
    "a pool": ({"prompt": "x", "pool": "p" * M}, "pool: "),
    "a key": ({"prompt": "x", "idempotency_key": "k" * M}, "idempotency_key: "),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_what_is_too_large_is_refused_at_every_way_in(kind: str, fleet_env: None, redis_url: str) -> None:
    from fleet.engine.tasks import submit_task

    task, said = TOO_MUCH[kind]
    for submit in (
        lambda: submit_task.delay(task),
        lambda: submit_task.delay(**task),
        lambda: list(submit_many([task])),
    ):
        with pytest.raises(InvalidTask) as refused:
            submit()
        told = str(refused.value).removeprefix("task 0: ")
        assert said in told or (kind == "unknown fields" and "unknown fields" in told)
        assert len(str(refused.value).encode()) <= MAX_ERROR_BYTES
    assert connect(redis_url).keys("fleet.*") == []


def test_ids_keys_and_headers_are_bounded_too(fleet_env: None, redis_url: str) -> None:
    from fleet.engine.tasks import submit_task

    with pytest.raises(InvalidTask, match="task_id: expected printable text of at most 512 characters"):
        submit_task.apply_async(("x",), task_id="i" * M)
    with pytest.raises(InvalidTask, match="at most 65,536 bytes of headers, got 1,000,"):
        submit_task.apply_async(("x",), headers={"big": "x" * M})
    with pytest.raises(InvalidTask, match="idempotency key: expected text of 1 to 256 characters"):
        list(submit_many(["x"], idempotency_keys=["k" * M]))
    assert connect(redis_url).keys("fleet.*") == []


def test_a_line_of_a_run_that_is_too_large_is_an_entry_with_a_short_error() -> None:
    (entry,) = read_entries([b'{"prompt": "' + b"x" * (60 * M) + b'"}'], LineFormat())
    assert entry.task is None and entry.error is not None
    assert "4,000,000 characters of prompt, got 60,000,000" in str(entry.error)
