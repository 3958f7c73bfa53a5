"""A budget as the Fleet tab, `fleet top`, `fleet budgets` and the metrics show it, and when it ends. Pure."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.config import Period
from fleet.frozen import Frozen
from fleet.signals.ahead.outlook import YOUNG_S, clock, usd

#: How the periods are told of.
_WORDS: dict[Period, str] = {"hour": "an hour", "day": "a day", "month": "a month", "in all": "in all"}
#: Seconds beyond which nobody asks when a budget in all ends (a year).
_FAR_S = 365 * 86_400.0


class AmountView(Frozen):
    """What one period of a budget allows, and what is spent of it."""

    period: Period
    spent_usd: float
    allowed_usd: float
    share: float = Field(description="Of it that is spent; 1: no call is sent until it opens, or is raised.")
    closes_at: float | None = Field(None, description="Unix time at which the period ends; None: it has no end.")
    ends_at: float | None = Field(
        None, description="Unix time at which the money ends at this pace; None: it lasts the period."
    )
    line: str = Field("", description="All of it in words.")

    @property
    def word(self) -> str:
        """What it is for, as a wait tells it: `a day`."""
        return _WORDS[self.period]


class BudgetScopeView(Frozen):
    """The budget of one scope, just now: fleet, pool, tenant, bot or run."""

    scope: str
    when_full: Literal["wait", "degrade", "stop bulk"]
    is_live: bool = Field(description="It was set while the fleet runs: fleet.toml says something else, or nothing.")
    reserved_usd: float = Field(description="For calls that are under way.")
    amounts: tuple[AmountView, ...]

    @property
    def share(self) -> float:
        """Used share of the fullest amount."""
        return max((one.share for one in self.amounts), default=0.0)

    @property
    def fullest(self) -> AmountView | None:
        """The fullest amount."""
        return max(self.amounts, key=lambda one: one.share, default=None)


def amount_view(
    period: Period,
    spent: float,
    allowed: float,
    *,
    began_at: float,
    closes_at: float | None,
    now_s: float,
    per_s: float | None,
) -> AmountView:
    """Return one amount, with when it ends.

    Args:
        period: What it is for.
        spent: US dollars that were spent of it.
        allowed: US dollars that it allows.
        began_at: Unix time at which it was first spent from, in this period.
        closes_at: Unix time at which the period ends; None: never.
        now_s: Unix time.
        per_s: US dollars a second just now; None: nobody knows apart from others, so the average since then.
    """
    pace = spent / max(YOUNG_S, now_s - began_at) if per_s is None else per_s
    ends_at = now_s if spent >= allowed else now_s + (allowed - spent) / pace if pace > 0 else None
    if ends_at is not None and ends_at > now_s and ends_at >= (now_s + _FAR_S if closes_at is None else closes_at):
        ends_at = None
    return AmountView(
        period=period, spent_usd=spent, allowed_usd=allowed, share=round(spent / allowed, 6), closes_at=closes_at,
        ends_at=ends_at, line=f"{usd(spent)} of {usd(allowed)} {_WORDS[period]}, {_ends(ends_at, closes_at, now_s)}",
    )  # fmt: skip


def _ends(ends_at: float | None, closes_at: float | None, now_s: float) -> str:
    if ends_at is not None and ends_at <= now_s:
        return "used up until it is raised" if closes_at is None else f"used up until {clock(closes_at, now_s)}"
    if ends_at is None:
        return "no end in sight at this pace" if closes_at is None else "lasts at this pace"
    return f"at this pace ends {clock(ends_at, now_s)}"
