"""Reports: earned, taken back and paid by payee and asset, in a time. They sum to the ledger, to the smallest unit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis

from fleet.config.payouts.tables import tokens_in_full
from fleet.earnings.ledger import DAYS_KEPT, rows_between
from fleet.earnings.rows import DAY_S, Asset, day_of
from fleet.payouts.book import payments_of, read_payouts

#: What a line counts, in this order.
_Counts = list[int]


@dataclass(frozen=True, slots=True)
class ReportLine:
    """What one payee has earned of one asset; units are whole, of the smallest kind.

    Args:
        day: UTC; empty: of all days.
        tasks: That have earned something, less those that were taken back.
    """

    payee: str
    asset: Asset
    day: str
    tasks: int
    earned: int
    taken_back: int
    paid: int

    def as_data(self) -> dict[str, Any]:
        """Return it for JSON and CSV: exact amounts as text."""
        names = ("earned", "taken_back", "paid")
        return {
            "payee": self.payee, "network": self.asset.network, "token": self.asset.token, "day": self.day,
            "tasks": self.tasks,
            **{name: tokens_in_full(getattr(self, name), self.asset.decimals) for name in names},
            **{f"units_{name}": str(getattr(self, name)) for name in names},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class EarningsReport:
    """Lines by payee, asset and day, of whole days (UTC)."""

    since_s: int
    until_s: int
    kept_from_s: int
    lines: tuple[ReportLine, ...]

    @property
    def is_whole(self) -> bool:
        """False when days of it are not kept any more."""
        return self.since_s >= self.kept_from_s


def read_report(
    client: redis.Redis, *, since_s: float, until_s: float, by_day: bool = False, payee: str | None = None
) -> EarningsReport:
    """Return what payees have earned and were paid. O(rows of those days)."""
    found: dict[tuple[str, str, Asset], _Counts] = {}

    def line(who: str, asset: str, day: int) -> _Counts:
        return found.setdefault((_date(day) if by_day else "", who, Asset.of(asset)), [0, 0, 0, 0])

    for day, rows in rows_between(client, since_s, until_s):
        for row, count in rows.items():
            counts = line(row.payee, row.asset, day)
            counts[0] += count if row.units > 0 else -count
            counts[1 if row.units > 0 else 2] += abs(row.units) * count
    days = range(day_of(since_s), day_of(until_s - 1) + 1)
    for record in read_payouts(client):
        for payment in payments_of(record):
            if payment.state == "settled" and payment.settled_s is not None and day_of(payment.settled_s) in days:
                line(payment.payee, payment.asset, day_of(payment.settled_s))[3] += payment.units
    return EarningsReport(
        days.start * DAY_S, days.stop * DAY_S, (day_of(float(client.time()[0])) - DAYS_KEPT) * DAY_S,
        tuple(_lines(found.items(), payee)),
    )  # fmt: skip


def _lines(found: Iterable[tuple[tuple[str, str, Asset], _Counts]], payee: str | None) -> Iterable[ReportLine]:
    for (day, who, asset), counts in sorted(found):
        if payee in (None, who):
            yield ReportLine(who, asset, day, *counts)


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_S, UTC).strftime("%Y-%m-%d")
