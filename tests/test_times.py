"""Times are told alike everywhere, in UTC, and it is said; so are lengths of time."""

from __future__ import annotations

import re

import pytest

from fleet.quoting import clock, duration, stamp, with_clocks
from fleet.signals.picture import events_of
from tests.house import ROOT, modules_of

NOON_S = 1_796_040_000.0  # 2026-11-30 12:00:00 UTC
#: Ways to put a time into words.
_BY_HAND = re.compile(r"(?<!from)isoformat\(|strftime\(|localtime\(|:%H:%M|:%Y-%m-%d")
#: Who does so by hand: for programs, for providers, to the minute, or because a task's day or hour is a name.
BY_HAND = {
    "fleet.cli.money.times", "fleet.economy.bill.reader", "fleet.economy.exports.export",
    "fleet.engine.operations.obstacles", "fleet.engine.outcomes.stored", "fleet.engine.process.remote_control",
    "fleet.engine.process.waiting_room", "fleet.engine.operations.schedules.firing",
    "fleet.engine.transport.leases", "fleet.limiter.limiter", "fleet.signals.ahead.outlook", "fleet.quoting",
    "fleet.workers.providers.verdict", "fleet.workers.simulator.batch.anthropic_batches",
    "fleet.workers.simulator.ledger", "fleet.workers.simulator.wires.limit_headers",
    "fleet.workers.simulator.rich.made_json", "fleet.payouts.reports",
}  # fmt: skip
#: Ways to put a length of time into words.
_LENGTHS = re.compile(r":,?\.\df\} (?:s|min|h|days?)\b|/ ?(?:3600|86_?400):")
#: Who does so by hand: of what was allowed or set, to the digit; and a table whose numbers are all of one unit.
LENGTHS_BY_HAND = {
    "fleet.cli.demo.view", "fleet.economy.exports.checking", "fleet.engine.asking.question", "fleet.limiter.call",
    "fleet.limiter.limiter", "fleet.limiter.snapshot", "fleet.quoting", "fleet.signals.diagnosis.verdict",
    "fleet.workers.agent",
}  # fmt: skip
#: Lengths as people say them, in seconds: the page says them alike (`tests/dashboard/test_page.py`).
SAID = {
    -1: "0 ms", 0.35: "350 ms", 1: "1 s", 4.21: "4.2 s", 42.4: "42 s", 119: "119 s", 180: "3 min", 205: "3 min",
    3180: "53 min", 9000: "2.5 h", 27_000: "7.5 h", 86_400: "24 h", 345_600: "4 days",
}  # fmt: skip


def test_nobody_else_puts_lengths_of_time_into_words() -> None:
    found = {module for module, path in modules_of(ROOT).items() if _LENGTHS.search(path.read_text(encoding="utf-8"))}
    assert found == LENGTHS_BY_HAND


@pytest.mark.parametrize(("seconds", "said"), SAID.items())
def test_lengths_of_time_are_told_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_nobody_else_puts_times_into_words() -> None:
    found = {module for module, path in modules_of(ROOT).items() if _BY_HAND.search(path.read_text(encoding="utf-8"))}
    assert found == BY_HAND


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (NOON_S + 9, "12:00:09 UTC"),
        (NOON_S + 43_200, "2026-12-01 00:00 UTC"),
        (NOON_S - 86_400, "2026-11-29 12:00 UTC"),
    ],
)
def test_a_clock_says_the_day_when_it_is_another_one(at: float, said: str) -> None:
    assert clock(at, NOON_S) == said


def test_a_stamp_says_the_day_always() -> None:
    assert stamp(NOON_S) == "2026-11-30 12:00:00 UTC"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-11-30T14:05:09+00:00", "14:05:09 UTC"),
        ("2026-12-01 14:05:09.250Z", "2026-12-01 14:05 UTC"),
        ("back at 2026-11-30T12:00:00+00:00; or at 2026-11-30T12:00:01Z", "back at 12:00:00 UTC; or at 12:00:01 UTC"),
        ("claude-2026-11-30", "claude-2026-11-30"),
        ("2026-99-30T14:05:09Z", "2026-99-30T14:05:09Z"),
    ],
)
def test_a_time_for_programs_is_told_as_people_read_it(text: str, said: str) -> None:
    assert with_clocks(text, NOON_S) == said


def test_an_event_says_its_fields_in_words_and_keeps_them_for_programs() -> None:
    at = b"%d-0" % (NOON_S * 1000)
    fields = {b"event": b"hold_put", b"pool": b"research", b"opens_at": b"2026-11-30T12:05:00+00:00", b"task": b"t-1"}
    told, held, blocked, used, limited, paused, partly = events_of([
        (at, fields),
        (at, {b"event": b"provider_limited", b"limit": b"alpha/m-1", b"hold_s": b"12.4"}),
        (at, {b"event": b"function_blocked", b"function": b"f", b"s": b"3.0"}),
        (at, {b"event": b"budget_warning", b"limit": b"alpha/m-1", b"percent": b"80"}),
        (at, {b"event": b"limit_changed", b"limit": b"alpha/m-1", b"usd_per_day": b"2.788932", b"by": b"ann"}),
        (at, {b"event": b"pool_paused", b"pool": b"research", b"gate": b"closed", b"by": b"ann"}),
        (at, {b"event": b"pool_paused", b"pool": b"research", b"gate": b"high and above, for 5 min", b"by": b"ann"}),
    ])  # fmt: skip
    assert told.said == "pool research, opens at 12:05:00 UTC"
    assert told.whole == "task t-1, pool research, opens at 12:05:00 UTC"
    assert told.fields["opens_at"] == "2026-11-30T12:05:00+00:00"
    assert (held.said, blocked.said) == ("limit alpha/m-1, hold 12 s", "function f, for 3 s")
    assert used.said == "limit alpha/m-1, 80% of it is used"
    assert limited.said == "limit alpha/m-1, $2.79 per day, by ann"
    assert paused.said == "pool research, by ann"
    assert partly.said == "pool research, only high and above, for 5 min, by ann"
