"""When it passes, in the words of vendors and proxies: spans before and behind their words, clocks, other languages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.workers.providers.bodies import said_in
from fleet.workers.providers.delays import MAX_DELAY_S, read_delay

#: Now, in all tests.
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
NOW_S, DAY_S = NOW.timestamp(), 86_400.0


def until(*at: int) -> float:
    return datetime(*at, tzinfo=UTC).timestamp() - NOW_S  # type: ignore[misc, arg-type]


def read(message: str, **fields: Any) -> float | None:
    return read_delay(said_in({"error": {"message": message, **fields}}), now_s=NOW_S)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 7m12s.", 432),
        ("request reached max organization concurrency: 1, please try again after 1 seconds", 1),
        ("Try again in 6 days 13 hours", 6 * DAY_S + 13 * 3600),
        ("try again in 1 hour and 30 minutes", 5400),
        ("In 30 seconds you may try again.", 30),
        ("After 2 minutes, your quota resets", 120),
        ("In 5 minutes and 3 seconds access is restored", 303),
        ("Rate limited; cooldown: 25 seconds", 25),
        ("Quota will be replenished in 3 hours", 10_800),
        ("Retry after: 17", 17),
        ("请求过于频繁，请在 60 秒后重试", 60),
        ("您的账户已达到速率限制，请 1 分钟后再试", 60),
        ("请等待 2 小时 5 分钟后重试", 7500),
        ("リクエストが多すぎます。30秒後に再試行してください", 30),
        ("30초 후에 다시 시도하세요", 30),
        ("5시간 후에 다시 시도하세요", 18_000),
    ],
)
def test_a_span_is_read_before_and_behind_its_words_in_the_languages_of_vendors(message: str, seconds: float) -> None:
    assert read(message) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("已达到 5 小时的使用上限。您的限额将在 2026-11-28 15:30:00 重置。", 3.5 * 3600),
        ("Usage limit reached for 5 hour. Your limit will reset at 2026-11-28 15:30:00", 3.5 * 3600),
        ("You will regain access on 2026-12-01 at 00:00 UTC.", until(2026, 12, 1)),
        ("Try again at Dec 1st, 2026 9:45 AM.", until(2026, 12, 1, 9, 45)),
        ("retry after 2026-11-28T12:05:00+00:00", 300),
        ("You've hit your limit, resets 8pm (UTC)", 8 * 3600),
        ("Your limit will reset at 3pm (EST)", 8 * 3600),
        ("limit resets at 8:30 PM PST", 16.5 * 3600),
        ("Quota resets at midnight UTC", 12 * 3600),
        ("Quota resets at midnight PST", 20 * 3600),
        ("reset at 2026-11-28 23:00 (UTC+8)", 3 * 3600),
        ("resets at 9:00 PM GMT+1", 8 * 3600),
        ("resets at 14:00 UTC+05:30", 20.5 * 3600),
    ],
)
def test_a_date_or_a_clock_with_its_zone_says_when(message: str, seconds: float) -> None:
    assert read(message) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "message",
    [
        "You've hit your limit · resets 8pm (America/New_York)",
        "Try again at 3:04 PM.",
        "try again tomorrow",
        "try again in a few seconds",
        "limit: 20 requests per minute, please slow down",
        "within 5 hours you may send 20 requests",
        "5小时内最多 100 次，请稍后重试",
    ],
)
def test_what_says_no_time_or_a_clock_of_no_zone_counts_as_not_said(message: str) -> None:
    assert read(message) is None


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"nextResetTime": int((NOW_S + 100) * 1000)}, 100),
        ({"time_until_reset": "1h"}, 3600),
        ({"retryAfterSeconds": 5}, 5),
        ({"resets_in_seconds": 529_498}, 529_498),
        ({"cooldown_seconds": 9}, 9),
    ],
)
def test_a_field_says_when(fields: dict[str, Any], seconds: float) -> None:
    assert read("no more for now", **fields) == pytest.approx(seconds)


@given(st.text(alphabet="0123456789秒分小时后後tryagin restamdhPST:+-(). ", max_size=120))
def test_no_message_breaks_the_reader_or_leaves_its_bounds(message: str) -> None:
    seconds = read(message)
    assert seconds is None or 0 <= seconds <= MAX_DELAY_S
