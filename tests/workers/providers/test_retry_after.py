"""Reading when to come back, in all the ways that providers say it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.workers.providers.rates.retry_after import MAX_RETRY_AFTER_S, read_duration, read_retry_after

#: Sun, 06 Nov 1994 08:49:37 GMT, the date of the RFC's example.
NOW_S = 784_111_777.0
NAMES = (
    "retry-after", "retry-after-ms", "date", "x-ratelimit-reset-requests", "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-tokens-remaining",
)  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "7", "retry-after-ms": "6500"}, 6.5),
        ({"retry-after": "Sun, 06 Nov 1994 08:50:07 GMT"}, 30),
        ({"retry-after": "Sun, 06 Nov 1994 08:50:07 GMT", "date": "Sun, 06 Nov 1994 08:50:00 GMT"}, 7),
        ({"retry-after": "Sun, 06 Nov 1994 08:00:00 GMT"}, 0),
        ({"retry-after": "99999999"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-reset-requests": "1.2s"}, 1.2),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        (
            {"x-ratelimit-reset-requests": "1s", "x-ratelimit-remaining-requests": "0",
             "x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "900"},
            1,
        ),
        ({"anthropic-ratelimit-tokens-reset": "1994-11-06T08:49:47.5Z"}, 10.5),
        ({"anthropic-ratelimit-tokens-reset": "1994-11-06T08:00:00Z"}, None),
        ({"retry-after": "3", "x-ratelimit-reset-tokens": "6m0s"}, 3),
        ({"retry-after": "784111807"}, 30),
        ({"retry-after": "30s"}, 30),
        ({"retry-after": "1994-11-06T08:50:07Z"}, 30),
        ({"x-ratelimit-timeremaining": "12"}, 12),
        ({"llm_provider-retry-after": "9", "x-ratelimit-reset-tokens": "6m0s"}, 9),
        ({"x-ratelimit-reset": "784111807000", "x-ratelimit-remaining": "0"}, 30),
        ({"x-ratelimit-reset-requests-day": "600", "x-ratelimit-remaining-requests-day": "0",
          "x-ratelimit-reset-tokens-minute": "20", "x-ratelimit-remaining-tokens-minute": "500"}, 600),
    ],
)  # fmt: skip
def test_the_wait_is_what_the_headers_say(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers, now_s=NOW_S) == pytest.approx(seconds)


def test_resets_can_be_left_out() -> None:
    assert read_retry_after({"x-ratelimit-reset-requests": "1.2s"}, now_s=NOW_S, resets=False) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1.2s", 1.2), ("120ms", 0.12), ("6m0s", 360), ("1h2m3.5s", 3723.5), ("1d", 86_400), ("7", 7), ("1x", None),
     ("", None), ("s", None), ("1s junk", None), (None, None)],
)  # fmt: skip
def test_durations_are_read(text: str | None, seconds: float | None) -> None:
    assert read_duration(text) == pytest.approx(seconds)


@given(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.text(max_size=30) | st.text(alphabet="0123456789.:-TZ hms+eE", max_size=25) | st.floats().map(str),
    )
)
def test_no_header_breaks_the_reader_or_leaves_its_bounds(headers: dict[str, str]) -> None:
    seconds = read_retry_after(headers, now_s=NOW_S)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_S
