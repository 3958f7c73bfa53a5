"""Findings about the bill: calls of which nobody knows what they cost. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.money import dollars_of
from fleet.signals.diagnosis.finding import Diagnosis, Help, diagnosis
from fleet.signals.diagnosis.symptoms import Case

#: Share of today's calls, and calls (count), from which it is told that they are unknown.
MANY, LEAST = 0.05, 10


def unknown(case: Case) -> Iterator[Diagnosis]:
    """Yield that nobody knows what many of today's calls have cost."""
    day = case.view.bill.day
    if day.unknown_calls < LEAST or day.unknown_calls < MANY * day.calls:
        return
    reserved = dollars_of(day.unknown_usd_picos)
    yield diagnosis(
        "calls_unknown", "warning",
        f"Nobody knows what {day.unknown_calls:,} of today's {day.calls:,} calls have cost", now_s=case.now_s,
        cause=f"they were cut off, or their workers died; ${reserved:,.4f} is reserved for them",
        help=Help(advice="look at what cuts them off; compare with the provider's own usage",
                  command="fleet bill unknown"),
    )  # fmt: skip
