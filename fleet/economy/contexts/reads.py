"""What calls with documents have read from their providers' caches: counted in steps of ten minutes, and in all.

A call is `cold` that went first, because no key was believed to have the documents; else it is `hit` or `missed`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

from fleet.store import context_keys
from fleet.store.client import Script, Store

What = Literal["cold", "hit", "missed"]
WHATS: tuple[What, ...] = get_args(What)
#: Sums beside the counts: tokens read from caches, and what caches have saved, in 10^-12 dollars.
READ, SAVED = "read_tokens", "saved_picos"
#: Seconds of one step, the life of its counts, and that of the sums over all after their last call.
STEP_S, LIFE_S, TOTALS_LIFE_S = 600, 7200, 31 * 86_400
#: Steps that are shown (count): as many as live for sure.
STEPS = 8
#: Seconds for which a process keeps its counts before they go to Redis.
KEEP_S = 5.0

_COUNT = Script.beside(__file__, "count.lua", keys="reads totals", argv="life_s totals_life_s pairs*")


class ReadCounter:
    """Counts for one process, on its loop; what it has not sent yet is lost with it.

    Args:
        state: Where the counts go.
    """

    def __init__(self, state: Store) -> None:
        self._state = state
        self._counts = Counter[str]()

    def count(
        self, document: str, limit: str, what: What, *, read_tokens: int = 0, saved_picos: int = 0
    ) -> None:  # fmt: skip
        """Count one call. Never waits.

        Args:
            document: The first of its documents.
            limit: Under which it went.
            what: What became of it.
            read_tokens: That it has read from the cache.
            saved_picos: What it would have cost more without a cache, in 10^-12 dollars; below 0: less.
        """
        if not self._counts:
            asyncio.get_running_loop().call_later(KEEP_S, self._send)
        for name, more in ((what, 1), (READ, read_tokens), (SAVED, saved_picos)):
            if more:
                self._counts[f"{document}|{name}|{limit}"] += more

    def _send(self) -> None:
        counts, self._counts = self._counts, Counter()
        call = _COUNT.call(
            reads=context_keys.reads(step_of(time.time())), totals=context_keys.read_totals(), life_s=LIFE_S,
            totals_life_s=TOTALS_LIFE_S,
            pairs=[part for pair in counts.items() for part in pair],
        )  # fmt: skip
        self._state.send(_COUNT, *call)


def step_of(now_s: float) -> int:
    """Return the number of the step that a time (Unix, s) lies in."""
    return int(now_s // STEP_S)


def counts_in(rows: Mapping[bytes, bytes]) -> Iterator[tuple[tuple[str, str], What, int]]:
    """Yield what a step has counted: document and limit, what, how many calls."""
    for field, count in rows.items():
        document, _, rest = field.decode(errors="replace").partition("|")
        word, _, limit = rest.partition("|")
        what = next((one for one in WHATS if one == word), None)
        if what is not None and limit:
            yield (document, limit), what, int(count)
