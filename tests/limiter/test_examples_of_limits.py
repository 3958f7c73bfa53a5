"""The examples of headers that came with the public reports, where they are on this machine: what each one teaches."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.config import LimitSettings
from fleet.limiter.limits import Terms
from fleet.rates import RateReadings
from fleet.store.client import connect
from fleet.workers.providers.rates.headers import read_rates
from tests.conftest import DATA_DIR
from tests.limiter.scripted import ScriptedLimit

EXAMPLES = DATA_DIR.parent / "field" / "wire.jsonl"
ROWS = {row["id"]: row for row in map(json.loads, EXAMPLES.read_text().splitlines())} if EXAMPLES.is_file() else {}

pytestmark = pytest.mark.skipif(not ROWS, reason=f"needs the examples: expected them in {EXAMPLES}")


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with connect(redis_url) as client:
        yield client


def rates_of(row: str, **changed: str) -> RateReadings:
    """Return what the example's headers say, with some of them changed."""
    now_s = time.time()
    headers = {**ROWS[row]["headers"], **{name.replace("_", "-"): value for name, value in changed.items()}}
    told = read_rates(
        {name: value.replace("NOW+60", str(int(now_s) + 60)) for name, value in headers.items()}, now_s=now_s
    )
    assert told is not None
    return told


def a_limit(client: Any, name: str, **rates: int) -> tuple[ScriptedLimit, LimitSettings]:
    settings = LimitSettings(**rates)
    return ScriptedLimit(client, f"p/examples/{name}", Terms.of(settings)), settings


def test_the_example_of_a_day_teaches_it_after_three_answers_and_never_lowers_the_minute(client: Any) -> None:
    rpm = ROWS["requests-of-a-day"]["asked"]["rpm"]
    limit, settings = a_limit(client, "day", rpm=rpm)
    for used in (1, 2, 3):
        reset = f"{used * 8.64:.2f}s"
        left = str(10_000 - used)
        told = rates_of("requests-of-a-day", x_ratelimit_remaining_requests=left, x_ratelimit_reset_requests=reset)
        limit.observe((0, 0, 0), *told)
        assert limit.terms_in_force()[0] == rpm
        assert len(limit.snapshot(settings).long) == (used == 3)
    day = limit.snapshot(settings).long[0]
    assert (day.label, day.limit, day.used) == ("requests a day", 10_000, 3)
    assert limit.terms_in_force()[1] == 200_000  # the tokens are a minute's


def test_the_example_of_a_reset_as_a_time_stalls_nobody(client: Any) -> None:
    limit, settings = a_limit(client, "epoch", rpm=500)
    told = rates_of("reset-as-epoch-seconds")
    assert told[0].reset_s == pytest.approx(60, abs=2)
    limit.observe((0, 0, 0), *told)
    shown = limit.snapshot(settings)
    assert (shown.rpm, shown.long) == (500, ()) and shown.queue_s < 1


def test_the_example_of_a_proxys_key_teaches_its_minute(client: Any) -> None:
    limit, _ = a_limit(client, "proxy", rpm=500)
    limit.observe((0, 0, 0), *rates_of("limits-of-a-proxy-key"))
    assert limit.terms_in_force()[:2] == (60, 20_000)
