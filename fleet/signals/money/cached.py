"""What kept answers have done, by task class: tasks that got one, tasks that were asked, money that was not spent.

Counted in `keys.pool_totals` with each result, in the same step; only kinds that are deterministic have such rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field

from fleet.frozen import Frozen
from fleet.money import PICOS_PER_MICRO
from fleet.signals.catalogue import Counter

#: Stands for the kinds that fleet.toml does not name.
OTHERS = ""
_HITS, _MISSES, _SAVED = "cache_hits", "cache_misses", "cache_saved_usd_nanos"
#: 10^-12 dollars in the unit of the sum: that of a counter would end at $9 million.
_PICOS = 1000


class CacheRow(Frozen):
    """What kept answers of one task class have done."""

    kind: str = Field(description="Empty: all that fleet.toml does not name, of tasks that say `reuse`.")
    hits: int = Field(description="Tasks that got the answer of an equal one.")
    misses: int = Field(description="Tasks that were asked.")
    hit_share: float | None = Field(description="Hits of both; None: there was no task yet.")
    saved_usd_micros: int = Field(description="What the answers had cost that were given again.")

    def counts(self) -> tuple[tuple[str, int], ...]:
        """Return the tasks by what became of them."""
        return ("hit", self.hits), ("miss", self.misses)


def counters_of(kind: str, *, is_hit: bool, saved_picos: int = 0) -> tuple[tuple[Counter, int], ...]:
    """Return the counters of a task whose kind is deterministic, and what it adds to them."""
    if not is_hit:
        return ((Counter(f"{_MISSES}|{kind}", "Tasks of a deterministic kind that were asked."), 1),)
    return (
        (Counter(f"{_HITS}|{kind}", "Tasks that got the answer of an equal one."), 1),
        (Counter(f"{_SAVED}|{kind}", "What that had cost, in 10^-9 dollars."), saved_picos // _PICOS),
    )


def rows_of(totals: Mapping[str, int], kinds: Iterable[str] = ()) -> tuple[CacheRow, ...]:
    """Return a row of each task class that has counted anything, and of those that are named.

    Args:
        totals: All counters by name.
        kinds: Task classes that are deterministic now.
    """
    counted = [name.partition("|")[2] for name in totals if name.partition("|")[0] in (_HITS, _MISSES)]
    return tuple(_row(kind, totals) for kind in sorted({*counted, *kinds}))


def _row(kind: str, totals: Mapping[str, int]) -> CacheRow:
    hits, misses = totals.get(f"{_HITS}|{kind}", 0), totals.get(f"{_MISSES}|{kind}", 0)
    saved = totals.get(f"{_SAVED}|{kind}", 0) * _PICOS // PICOS_PER_MICRO
    share = hits / (hits + misses) if hits + misses else None
    return CacheRow(kind=kind, hits=hits, misses=misses, hit_share=share, saved_usd_micros=saved)
