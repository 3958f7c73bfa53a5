"""How times are told to people: always in UTC, and it is said: hosts and operators may be anywhere.

For machines: ISO 8601, or Unix seconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

#: A time as ISO 8601 has it, in UTC: what earlier releases wrote into the fields of events.
_ISO = re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:\+00:00|Z)")


def clock(at: float, now_s: float) -> str:
    """Return a time as it is read on a clock, with its day when that is another one: `14:05:09 UTC`.

    Args:
        at: Unix seconds.
        now_s: Unix seconds; its day is left out.
    """
    when, now = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now_s, UTC)
    return f"{when:%H:%M:%S} UTC" if when.date() == now.date() else f"{when:%Y-%m-%d %H:%M} UTC"


def stamp(at: float) -> str:
    """Return a time with its day, for lists of many days: `2026-11-30 14:05:09 UTC`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def with_clocks(text: str, now_s: float) -> str:
    """Return a text in which each time of ISO 8601 in UTC is told as `clock` does."""
    return _ISO.sub(lambda found: _told(found[0], now_s), text)


def _told(iso: str, now_s: float) -> str:
    try:
        at = datetime.fromisoformat(f"{iso.removesuffix('Z').removesuffix('+00:00')}+00:00")
    except ValueError:
        return iso  # looks like one, and is none
    return clock(at.timestamp(), now_s)
