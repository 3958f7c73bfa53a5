"""What one task has used so far. No prices and no limits here."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial

from fleet.money import PICOS
from fleet.outcome import NOTHING_BEFORE, Before
from fleet.usage import Usage

#: Usage of a task that has called nobody yet.
NO_USAGE = Usage()


def most_of(usd: float | None, spent_picos: int) -> int | None:
    """Return what a task may still cost, in 10^-12 dollars; None: as much as it does.

    Args:
        usd: The most that it may cost in all.
        spent_picos: What others have spent on it.
    """
    return None if usd is None else max(0, round(usd * PICOS) - spent_picos)


@dataclass(slots=True)
class Meter:
    """What one task has used so far, summed over its calls. Belongs to one event loop.

    Attributes:
        who: The task, for the breakers: they count what one of them meets again and again once.
        most_picos: The most that it may cost, in 10^-12 dollars; None: as much as it does.
        calls: HTTP requests handed to the provider.
        failed: Those of them that were not answered as they should, by error type; 429s and calls cut by the deadline
            are among them.
        cost_usd_picos: In 10^-12 dollars; None until a priced call was answered.
        left_out: Names of what was asked and not sent, because the model refuses it.
        raced: The lane on which a call of it goes on, though it asks once more on another one; empty: none.
        cut_tokens: The most that was cut from a prompt so that it fits.
        limited_s: Seconds spent waiting for grants.
        calling_s: Seconds spent in HTTP requests.
        failed_s: Those of them in requests that failed.
        failed_at: Unix time (s) of its last failure that its breaker heard of, or of its beginning.
        pending_picos: What its calls that are under way, or wait for their turn, are taken to cost.
    """

    who: str = ""
    most_picos: int | None = None
    calls: int = 0
    failed: defaultdict[str, int] = field(default_factory=partial(defaultdict, int))
    usage: Usage = NO_USAGE
    cost_usd_picos: int | None = None
    left_out: frozenset[str] = frozenset()
    raced: str = ""
    cut_tokens: int = 0
    limited_s: float = 0.0
    calling_s: float = 0.0
    failed_s: float = 0.0
    failed_at: float = 0.0
    pending_picos: int = 0

    @classmethod
    def of(cls, who: str, before: Before, *, most_picos: int | None) -> Meter:
        """Go on where a task was parked.

        Args:
            who: The task.
            before: What it has had.
            most_picos: The most that it may cost.
        """
        if before is NOTHING_BEFORE:
            return cls(who, most_picos)
        return cls(
            who, most_picos, before.attempts, defaultdict(int, before.failed), before.usage, before.cost_usd_picos,
            limited_s=before.limited_ms / 1000,
        )  # fmt: skip

    def pending(self, cost_usd_picos: int) -> Pending:
        """Return a block (`with`) in which a call is under way that is taken to cost so much."""
        return Pending(self, cost_usd_picos)

    def charge(self, usage: Usage, cost_usd_picos: int | None) -> None:
        """Add one answered call."""
        self.usage += usage
        if cost_usd_picos is not None:
            self.cost_usd_picos = (self.cost_usd_picos or 0) + cost_usd_picos


class Pending:
    """What a call that is under way is taken to cost, for as long as the block lasts. A class: `contextmanager` costs
    five times as much, and each call has one.
    """

    __slots__ = ("_meter", "_picos")

    def __init__(self, meter: Meter, picos: int) -> None:
        self._meter, self._picos = meter, picos

    def __enter__(self) -> None:
        self._meter.pending_picos += self._picos

    def __exit__(self, *raised: object) -> None:
        self._meter.pending_picos -= self._picos
