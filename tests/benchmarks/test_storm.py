"""The storm benchmark in the small: the figures that a log gives, and its provider's ways to fail."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.storm import Cell, Provider, Storm
from benchmarks.storm import provider as storm_provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    with storm_provider(rpm=100_000) as found:
        yield found


def ask(provider: Provider, prompt: str = "hello") -> tuple[int, Any]:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}]}).encode()
    url = f"{provider.url}/v1/chat/completions"
    request = urllib.request.Request(url, body, {"Authorization": "Bearer k", "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.headers
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, error.headers


@pytest.mark.parametrize(("kind", "status"), [("5xx", 503), ("529", 529), ("key", 401)])
def test_a_storm_fails_every_call_and_is_logged(provider: Provider, kind: str, status: int) -> None:
    assert ask(provider, "critical 1")[0] == 200
    provider.storm(kind, 60)
    assert ask(provider)[0] == status
    provider.storm(kind, 0)
    assert ask(provider)[0] == 200
    assert [(code, is_critical) for _, code, is_critical in provider.calls()] == [
        (200, True), (status, False), (200, False),
    ]  # fmt: skip


def test_one_call_is_told_to_wait_for_an_hour(provider: Provider) -> None:
    provider.storm("hour", 60)
    status, headers = ask(provider)
    assert (status, headers["retry-after"]) == (429, "3600")
    assert ask(provider)[0] == 200


def test_no_connection_is_taken_until_the_provider_is_back(provider: Provider) -> None:
    provider.storm("refuse", 0.5)
    refused, end = 0, time.monotonic() + 60
    while time.monotonic() < end:
        try:
            status = ask(provider)[0]
        except OSError:
            refused += 1
            continue
        if refused and status == 200:
            break
        time.sleep(0.01)
    assert refused
    assert ask(provider)[0] == 200


def test_a_log_gives_sends_for_each_success_the_first_after_and_the_peak() -> None:
    storm = Storm(Cell("5xx", 10.0), began_at=100.0, submitted=7, good=4, failed=1, own=1, expired=1)
    storm.calls = [
        (99.0, 200, False), (99.5, 200, True), (105.0, 503, False), (111.5, 200, True), (112.0, 200, False),
        (112.4, 200, False),
    ]  # fmt: skip
    failed, own, delivered, sends, during, first, peak, critical = storm.row()
    assert (failed, own, delivered) == ("1", "1", "4 of 6")
    assert (sends, during, first) == ("1.500 (1.250)", "0.11", "1.5 s")  # one of four was answered twice
    storm.cell = Cell("5xx", 1.0)
    assert storm.row()[3] == "1.500 (1.125)", "one try in two seconds is enough"
    assert (peak, critical) == ("0.06", "2 / 2 s")
