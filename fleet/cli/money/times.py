"""Times on a command line: how long ago, or a day, or a day and an hour, all UTC."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

from fleet.quoting import quote

#: Seconds in the units that a length of time may have.
UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def moment_of(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the Unix time (s) of `24h` (so long ago), `2026-11-01` or `2026-11-01T15:00`."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,6})([mhdw])", value)
    if match:
        return time.time() - int(match[1]) * UNITS_S[match[2]]
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"expected a time like 24h, 7d, 2026-11-01 or 2026-11-01T15:00 (UTC), got {quote(value)}"
        ) from None


def told(at_s: float) -> str:
    """Return a Unix time for people."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def iso(at_s: float) -> str:
    """Return a Unix time for programs."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
