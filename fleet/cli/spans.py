"""Lengths of time on a command line: `90s`, `15m`, `8h`, `2d`, or seconds."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from fleet.quoting import quote

#: Seconds in the units that a length of time may have.
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhdw]?)")


class SpanType(click.ParamType[float]):
    """A length of time, in seconds. Longer than nothing, and at most `most_s`."""

    name = "time"

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds.

        Raises:
            click.BadParameter: When it is no such time, or too long.
        """
        found = _SPAN.fullmatch(str(value).strip())
        seconds = math.nan if found is None else float(found[1]) * UNITS_S[found[2] or "s"]
        if not 0 < seconds <= self._most_s:
            most = f"{self._most_s / UNITS_S['d']:g}d"
            self.fail(f"expected a time like 90s, 15m, 8h or 2d, at most {most}, got {quote(value)}", param, ctx)
        return seconds
