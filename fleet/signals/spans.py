"""What happened in 15 minutes, an hour or a day, and the last minute beside its hour. Pure; no Redis, no clock.

Minutes and hours are those of the series (`series.py`), so a span is as exact as its smallest step: the last 15 minutes
are 14 whole ones and the one that runs.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from pydantic import Field

from fleet.frozen import Frozen
from fleet.signals.series import day_in, minutes_in
from fleet.signals.windows import Period

#: Lengths of time that people can choose.
SpanName = Literal["15m", "1h", "24h"]
SPANS: tuple[SpanName, ...] = get_args(SpanName)
#: What one is called on a surface.
SPAN_WORDS: dict[SpanName, str] = {"15m": "last 15 minutes", "1h": "last hour", "24h": "last 24 hours"}
#: Minutes of those that are made of minutes.
_MINUTES: dict[SpanName, int] = {"15m": 15, "1h": 60}
#: Seconds of a minute.
_MINUTE_S = 60


class Span(Frozen):
    """Sums over one length of time."""

    name: SpanName
    completions: int
    ok: int
    degraded: int
    failed: int
    calls: int = Field(description="Calls sent to providers, answered or not.")
    calls_failed: int
    rate_limited: int
    input_tokens: int
    output_tokens: int
    cost_usd_micros: int
    dead_letters: int


class Trend(Frozen):
    """A figure of the last minute beside the same figure of the hour before it."""

    minute: float | None = Field(description="Of the last 60 seconds; None: there is nothing to tell it from.")
    hour: float | None = Field(description="Of the earlier minutes of the hour, from the first with a task on.")
    change: float | None = Field(
        description="Minute against hour: of amounts their growth (0.5: half as much again), of shares the difference."
    )


class Trends(Frozen):
    """The headline of each signal."""

    completions: Trend = Field(description="A minute.")
    failed_share: Trend = Field(description="Of the tasks that ended.")
    calls_failed_share: Trend = Field(description="Of the calls sent to providers, 429s included.")
    cost_usd_micros: Trend = Field(description="A minute.")


def spans_of(minutes: Mapping[int, Period], hours: Iterable[Period]) -> tuple[Span, ...]:
    """Return the sums of each span.

    Args:
        minutes: By their number, the oldest first, the one that runs last; at least an hour of them.
        hours: The last 24.
    """
    newest = list(minutes.values())
    parts: dict[SpanName, Iterable[Period]] = {name: newest[-count:] for name, count in _MINUTES.items()}
    parts["24h"] = hours
    return tuple(_span(name, parts[name]) for name in SPANS)


def spans_in(series: Sequence[array[float]], *, now_s: float) -> tuple[Span, ...]:
    """Return the sums of each span over pools, from their minutes and hours."""
    minutes = minutes_in(series, now_s)
    return spans_of(minutes, day_in(series, minutes, now_s=now_s).values())


def _span(name: SpanName, periods: Iterable[Period]) -> Span:
    sums = Period(*map(sum, zip(*periods, strict=True)))
    return Span(name=name, **{field: round(getattr(sums, field)) for field in Span.model_fields if field != "name"})


def trends_of(minutes: Mapping[int, Period], *, now_s: float) -> Trends:
    """Return the last 60 seconds beside the hour before them.

    Of the minute that was over last, the part within 60 seconds counts, as if its tasks had come evenly.

    Args:
        minutes: By their number, the oldest first, the one that runs last; at least an hour of them.
        now_s: Unix time in seconds.
    """
    *earlier, before, running = list(minutes.values())[-60:]
    left = 1 - (now_s % _MINUTE_S) / _MINUTE_S
    began = next((place for place, minute in enumerate(earlier) if minute.completions), len(earlier))
    known = earlier[began:]

    def last(name: str) -> float:
        return float(getattr(running, name) + left * getattr(before, name))

    def amount(name: str) -> Trend:
        hour = sum(getattr(one, name) for one in known) / len(known) if known else None
        minute = last(name)
        return Trend(minute=minute, hour=hour, change=minute / hour - 1 if hour else None)

    def share(name: str, of: str) -> Trend:
        hour = _share(sum(getattr(one, name) for one in known), sum(getattr(one, of) for one in known))
        minute = _share(last(name), last(of))
        return Trend(minute=minute, hour=hour, change=None if minute is None or hour is None else minute - hour)

    return Trends(
        completions=amount("completions"),
        failed_share=share("failed", "completions"),
        calls_failed_share=share("calls_failed", "calls"),
        cost_usd_micros=amount("cost_usd_micros"),
    )


def _share(part: float, whole: float) -> float | None:
    return min(1.0, part / whole) if whole else None
