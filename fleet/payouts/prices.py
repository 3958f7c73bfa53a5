"""Prices that are new: what tasks have earned by them waits as a new address does. A lower price holds at once. Pure.

Workers price tasks by the settings that they have, so what counts is what the ledger shows: a price that was another
one for an hour between two looks is new, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from fleet.config.payouts.tables import EarnSettings, tokens_in_full
from fleet.earnings.rows import Asset, EarningRow


class Price(NamedTuple):
    """A line of `payouts.earn`, or what a row of the ledger shows of one that nobody has looked at."""

    pool: str
    kind: str
    tenant: str
    price: str

    @classmethod
    def of(cls, row: EarningRow) -> Price:
        """Return by which price a row was earned; rows do not say of which tenant."""
        return cls(row.pool, row.kind, "*", tokens_in_full(row.units, Asset.of(row.asset).decimals))

    @property
    def amount(self) -> Fraction:
        """Tokens for one task."""
        return Fraction(self.price)

    def explains(self, other: Price, *, stands: bool) -> bool:
        """True when tasks may have earned the other by it; one that stands allows lower ones, too."""
        fits = self.pool in ("*", other.pool) and self.kind in ("*", other.kind)
        return fits and (self.amount >= other.amount if stands else self.amount == other.amount)

    def covers(self, other: Price) -> bool:
        """True when the other is for the same tasks, and no higher."""
        return self[:3] == other[:3] and self.amount >= other.amount


def seen_prices(
    known: Mapping[Price, float] | None, lines: Iterable[EarnSettings], rows: Collection[EarningRow], *,
    now_s: float, wait_s: float,
) -> dict[Price, float]:  # fmt: skip
    """Return which prices are known, and since when those wait that do not hold yet; 0: it holds.

    Args:
        known: As they were before; None: nobody has looked yet, so all that there are hold.
        lines: Of the settings.
        rows: Of the ledger, with positive units.
        now_s: Unix time.
        wait_s: Seconds for which a price waits.
    """
    first_s = 0.0 if known is None else now_s
    since = {price: at if min(at, now_s) + wait_s > now_s else 0.0 for price, at in (known or {}).items()}
    since = {price: min(at, now_s) for price, at in since.items()}  # the clock was put back
    for line in lines:
        price = Price(line.pool, line.kind, line.tenant, line.price)
        is_lower = any(one.covers(price) for one, at in since.items() if not at)
        since.setdefault(price, 0.0 if is_lower else first_s if wait_s else 0.0)
    for price in {Price.of(row) for row in rows}:
        if not any(one.explains(price, stands=not at) for one, at in since.items()):
            since[price] = first_s if wait_s else 0.0
    return since


def held_rows(prices: Mapping[Price, float], rows: Iterable[EarningRow]) -> set[EarningRow]:
    """Return rows whose price waits, also where another line of the same price holds: rows name no tenant."""
    waiting = [price for price, since_s in prices.items() if since_s]
    is_held = {
        price: any(one.explains(price, stands=False) for one in waiting) for price in {Price.of(row) for row in rows}
    }
    return {row for row in rows if is_held[Price.of(row)]}
