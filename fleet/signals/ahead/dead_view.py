"""Dead letters as the Fleet tab and `fleet dead reasons` count them, and what queueing them again may cost."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from fleet.frozen import Frozen


class DeadGroup(Frozen):
    """Dead letters of one pool and reason."""

    pool: str = Field(description="`-`: of no configured pool.")
    reason: str = Field(description="Type of the error.")
    cause: str
    count: int
    newest_at: float
    each_usd_micros: float | None = Field(
        None, description="What an answered task of its pool has cost on average, the last two days; None: unknown."
    )

    replay_usd_micros: int | None = Field(None, description="So what queueing all of them again may cost.")

    @classmethod
    def of(cls, pool: str, reason: str, cause: str, count: int, newest_at: float, each: float | None) -> DeadGroup:
        """Return a group of so many letters, `each` of which may cost so many micro-dollars."""
        return cls(
            pool=pool, reason=reason, cause=cause, count=count, newest_at=newest_at,
            each_usd_micros=None if each is None else round(each, 3),
            replay_usd_micros=None if each is None else round(count * each),
        )  # fmt: skip


def told_cost(groups: Iterable[DeadGroup]) -> str:
    """Return in words what queueing all of these again may cost."""
    rows = list(groups)
    known = [cost for row in rows if (cost := row.replay_usd_micros) is not None]
    unknown = sum(row.count for row in rows if row.each_usd_micros is None)
    if not known:
        return "nobody knows what that costs: no task of their pools was answered in the last two days"
    rest = f", and what {unknown:,} of pools without an answer in the last two days cost" if unknown else ""
    total = sum(known) / 1e6
    return f"about ${total:,.4f}{rest}" if total < 1 else f"about ${total:,.2f}{rest}"
