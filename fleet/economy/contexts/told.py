"""What documents have saved, for people and programs: by document of late, and of all since counting began."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import redis

from fleet.economy.contexts.documents import read_facts
from fleet.economy.contexts.reads import READ, SAVED, STEPS, step_of
from fleet.store import context_keys

#: What is counted, as `Reads` has it.
FIELDS = ("hit", "cold", "missed", READ, SAVED)


@dataclass(frozen=True, slots=True)
class Reads:
    """What calls with documents have read from caches.

    Args:
        hit: Calls that have read them.
        cold: Calls that went first.
        missed: Calls that should have read them, and did not.
        read_tokens: Tokens that were read from caches.
        saved_picos: What that has saved, less what was written at a surcharge, in 10^-12 dollars.
    """

    hit: int = 0
    cold: int = 0
    missed: int = 0
    read_tokens: int = 0
    saved_picos: int = 0

    @property
    def calls(self) -> int:
        return self.hit + self.cold + self.missed

    @property
    def share(self) -> float:
        """Of calls, those that have read them; 0 of none."""
        return self.hit / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class DocumentReads:
    """Those of one document; `name` is empty when it is not stored any more."""

    id: str
    name: str
    reads: Reads


@dataclass(frozen=True, slots=True)
class ContextBoard:
    """All of it.

    Args:
        stored: Documents (count).
        documents: Those that were asked about in the last 70 minutes at least, the most calls first.
        totals: Of all documents since counting began.
    """

    stored: int = 0
    documents: tuple[DocumentReads, ...] = ()
    totals: Reads = Reads()

    @property
    def lately(self) -> Reads:
        """Of all of them in that time."""
        sums = Counter[str]()
        for one in self.documents:
            sums.update({name: getattr(one.reads, name) for name in Reads.__slots__})
        return Reads(**sums)


def read_contexts(state: redis.Redis, now_s: float) -> ContextBoard:
    """Return what documents have saved. One round trip where none was asked about, else two; O(documents asked about).

    Args:
        state: Plain client of the state Redis.
        now_s: Unix time of Redis.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    with state.pipeline(transaction=False) as pipe:
        pipe.hlen(context_keys.documents())
        pipe.hgetall(context_keys.read_totals())
        for step in range(STEPS):
            pipe.hgetall(context_keys.reads(step_of(now_s) - step))
        stored, totals, *steps = pipe.execute()
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for rows in steps:
        for field, count in rows.items():
            document, what, _ = field.decode(errors="replace").split("|", 2)
            sums[document][what] += int(count)
    names = _names(state, list(sums))
    found = [DocumentReads(one, names[one], _reads_of(counts)) for one, counts in sums.items()]
    everything = _reads_of({name.decode(): int(count) for name, count in totals.items()})
    return ContextBoard(int(stored), tuple(sorted(found, key=lambda one: (-one.reads.calls, one.id))), everything)


def _names(state: redis.Redis, ids: list[str]) -> dict[str, str]:
    if not ids:
        return {}
    facts = [read_facts(raw) for raw in cast("list[bytes | None]", state.hmget(context_keys.documents(), ids))]
    return {one: known.name if known is not None else "" for one, known in zip(ids, facts, strict=True)}


def _reads_of(counts: Mapping[str, int]) -> Reads:
    return Reads(*(counts.get(what, 0) for what in FIELDS))
