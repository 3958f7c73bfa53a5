"""The question whose time on the server is measured is one that the script answers."""

from __future__ import annotations

import pytest

from benchmarks import limiter_server_time


def test_a_question_is_timed_with_any_queue(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter_server_time, "QUESTIONS", 5)
    monkeypatch.setattr(limiter_server_time, "SAMPLES", 1)
    found = limiter_server_time.question_us(redis_url)
    assert list(found) == [10, 1000, 10_000]
    assert min(min(pair) for pair in found.values()) > 0
