"""The fleet's own record of asks: of each kind of tasks the newest, in one list of the state Redis.

An entry says which models agreed with which, and which were right where that was known; never what was answered.
Weights are learnt from it, and `fleet ask --advise` counts it anew in every way to ask.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from weakref import WeakKeyDictionary

from pydantic import Field, ValidationError

from fleet.answers import Counts, Kinship, Vote, learnt
from fleet.errors import FleetError
from fleet.frozen import Lasting
from fleet.roster.grading import models_of
from fleet.signals.catalogue import Counter
from fleet.store import answer_keys, keys
from fleet.store.client import Store

#: Asks of a kind that are kept (count): about 200 kB.
MOST_KEPT = 2000
#: Seconds for which a process goes by what it has read: reading and weighing 2,000 asks takes 20 ms. And kinds at most.
KNOWN_S, MOST_KINDS = 10.0, 100
#: By connection and kind: until when (monotonic) it is gone by, and who errs together. One reads for all who ask.
_known: WeakKeyDictionary[Store, dict[str, tuple[float, asyncio.Task[Kinship]]]] = WeakKeyDictionary()
#: Label of the right answer where nobody gave it.
NOBODYS = -1


class PastAsk(Lasting):
    """One ask, as it is kept. Answers are numbers: of equal ones the same, in the order in which they came."""

    sources: tuple[str, ...]
    labels: tuple[int, ...]
    right: int | None = Field(None, description="Number of the right answer; -1: nobody gave it; None: unknown.")
    n: int
    asked: int
    adaptive: tuple[int, bool] | None = None
    cost_usd_picos: int | None = None
    took_ms: int = 0
    at: float = 0.0

    @property
    def votes(self) -> list[Vote]:
        """Its votes, in the order in which they came."""
        return [Vote(source, str(label)) for source, label in zip(self.sources, self.labels, strict=True)]


def labelled(votes: Sequence[Vote], right: str | None) -> tuple[tuple[int, ...], int | None]:
    """Return the numbers of the votes' answers, and that of the right one."""
    numbers: dict[str, int] = {}
    labels = tuple(numbers.setdefault(vote.key, len(numbers)) for vote in votes)
    return labels, None if right is None else numbers.get(right, NOBODYS)


async def count(state: Store, counts: Mapping[Counter, int]) -> None:
    """Count an ask among the fleet's totals. One round trip.

    Raises:
        FleetError: When Redis does not take it.
    """
    await asyncio.gather(
        *(state.command("HINCRBY", keys.totals(), counter.name, number) for counter, number in counts.items() if number)
    )


async def note(state: Store, kind: str, ask: PastAsk) -> None:
    """Keep an ask. One round trip.

    Raises:
        FleetError: When Redis does not take it.
    """
    name, entry = answer_keys.asks(kind), json.dumps(ask.model_dump(mode="json", exclude_defaults=True))
    await asyncio.gather(
        state.command("LPUSH", name, entry),
        state.command("LTRIM", name, 0, MOST_KEPT - 1),
        state.command("EXPIRE", name, keys.STATE_TTL_S),
    )


async def counts(state: Store, kind: str) -> Counts:
    """Return what is known of who is right in a kind, and who errs together. One round trip.

    How often a model is right, all graded tasks tell; who errs together, the asks with a known answer.

    Raises:
        FleetError: When Redis does not answer.
    """
    rows, flat = await asyncio.gather(
        state.command("LRANGE", answer_keys.asks(kind), 0, -1), state.command("HGETALL", answer_keys.models(kind))
    )
    known = counts_of(read(rows))
    graded = {one.model: (one.good, one.bad) for one in models_of(dict(zip(flat[::2], flat[1::2], strict=True)))}
    more = {model: row for model, row in graded.items() if sum(row) >= sum(known.alone.get(model, (0.0,)))}
    return Counts({**known.alone, **more}, known.pairs)


async def kinship(state: Store, kind: str) -> Kinship:
    """Return who errs together in a kind, by its record, as it was a few seconds ago. One round trip now and then.

    Raises:
        FleetError: When Redis does not answer.
    """
    kinds = _known.setdefault(state, {})
    if kind not in kinds or kinds[kind][0] < time.monotonic():
        if len(kinds) >= MOST_KINDS:
            kinds.clear()
        kinds[kind] = time.monotonic() + KNOWN_S, asyncio.ensure_future(_read_kinship(state, kind))
    reading = kinds[kind][1]
    try:
        return await asyncio.shield(reading)
    except FleetError:
        if kinds.get(kind, (0, None))[1] is reading:
            del kinds[kind]
        raise


async def _read_kinship(state: Store, kind: str) -> Kinship:
    return Kinship(await counts(state, kind))


def forget(state: Store, kind: str) -> None:
    """Let the record of a kind be read anew: whoever asks has just added to what is known."""
    _known.get(state, {}).pop(kind, None)


def read(rows: Iterable[bytes]) -> list[PastAsk]:
    """Return the asks of a list; rows that cannot be read, of another release, are left out."""
    found = []
    for row in rows:
        try:
            found.append(PastAsk.model_validate_json(row))
        except ValidationError:
            continue
    return found


def counts_of(asks: Iterable[PastAsk]) -> Counts:
    """Return what the asks with a known answer teach of who errs together."""
    return learnt((ask.votes, str(ask.right)) for ask in asks if ask.right is not None)
