"""Which keys' caches have a beginning of prompts, for the whole fleet; where none has, one task goes first.

The others wait in Redis until its answer has begun: only then can a provider read what it was sent. If who goes first
dies, its claim ends within `CLAIM_S`, and the next one goes. Whatever is said here is a belief: providers drop what
they like, and what a call really read is in its usage.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleet.errors import FleetError
from fleet.store import context_keys
from fleet.store.client import Script, Store

#: Seconds that a claim to go first lives without being renewed, and between two renewals.
CLAIM_S, RENEW_EVERY_S = 15, 5.0
#: Seconds between two notes of a process about the same key and beginning.
NOTE_EVERY_S = 10.0
#: Seconds that are left of a key's warmth at least for a process not to ask Redis.
SURE_S = 30.0
#: Tasks that went first in vain, after which nobody waits (count): what fails is not their order.
MOST_FAILED = 3
#: Life of what is known of a beginning, in seconds: twice what a provider keeps at most.
LIFE_S = 7200
#: Seconds for which providers keep what nobody asks for: by default, and at most.
SHORT_S, LONG_S = 300, 3600
#: Answers from which on the counts of how they follow each other are halved.
MOST_LEARNT = 10_000
#: Beginnings that a process keeps in mind (count).
MOST_KNOWN = 10_000

_LOOK = Script.beside(__file__, "look.lua", keys="warmth", argv="holder claim_s life_s least_failed limits*")
_NOTE = Script.beside(
    __file__, "note.lua", keys="warmth", argv="limit kept_s answers life_s",
    constants={"SHORT_S": SHORT_S, "LONG_S": LONG_S, "MOST_LEARNT": MOST_LEARNT},
)  # fmt: skip
_CLAIM = Script.beside(__file__, "claim.lua", keys="warmth", argv="limit holder claim_s failed")
_WAITS, _GOES, _FIRST = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Start:
    """What a task is to do.

    Args:
        limit: Under which it goes: its key is warm, or is to be; empty: any.
        waits_until: Unix time in seconds when it is to look again; None: it goes.
    """

    limit: str = ""
    waits_until: float | None = None


@dataclass(slots=True)
class _Known:
    """What a process knows of one key and beginning: seconds of its own clock."""

    until: float
    noted_at: float
    answers: int = 0


@dataclass(frozen=True, slots=True)
class _Claim:
    limit: str
    holder: str
    renewing: asyncio.Task[None]


class Warmth:
    """One per process, on its loop.

    Args:
        state: Where all of it is known.
        clock: Seconds that only grow.
    """

    def __init__(self, state: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._clock = clock
        self._id = uuid.uuid4().hex[:12]
        self._known: OrderedDict[str, dict[str, _Known]] = OrderedDict()
        self._claims: dict[tuple[str, str], _Claim] = {}
        self._habits: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    async def look(self, prefix: str, who: str, limits: Sequence[str]) -> Start:
        """Return what a task is to do whose prompts begin so. No round trip where a key is known to be warm.

        Args:
            prefix: Name of the beginning.
            who: The task.
            limits: Under which its calls may go, best first.

        Raises:
            StoreUnavailable: Redis does not answer; it may be asked again.
        """
        now = self._clock()
        here = self._known.get(prefix, {})
        for limit in limits:
            known = here.get(limit)
            if known is not None and known.until > now + SURE_S:
                return Start(limit)
        holder = f"{self._id}:{who}"
        call = _LOOK.call(
            warmth=context_keys.warmth(prefix), holder=holder, claim_s=CLAIM_S, life_s=LIFE_S,
            least_failed=MOST_FAILED, limits=limits,
        )  # fmt: skip
        code, raw, at_s, *habits = await self._state.run(_LOOK, *call)
        limit = raw.decode()
        self._learn(prefix, habits)
        if code == _WAITS:
            return Start(limit, float(at_s))
        if code == _FIRST and (prefix, who) not in self._claims:
            renewing = asyncio.ensure_future(self._renew(prefix, limit, holder))
            self._claims[prefix, who] = _Claim(limit, holder, renewing)
        return Start(limit)

    def limits(self, prefix: str, who: str) -> tuple[str, ...]:
        """Return the limits whose keys are warm, as far as is known here; of who goes first, the one that it warms."""
        claim = self._claims.get((prefix, who))
        if claim is not None:
            return (claim.limit,)
        now = self._clock()
        return tuple(limit for limit, known in self._known.get(prefix, {}).items() if known.until > now)

    def habits(self, prefix: str) -> tuple[int, int, int]:
        """Return how many answers came within five minutes of the one before, within an hour, later; as last heard."""
        return self._habits.get(prefix, (0, 0, 0))

    def begun(self, prefix: str, limit: str, who: str, *, kept_s: float = SHORT_S) -> bool:
        """Note that an answer has begun: the key of its limit is warm. Never waits; True when others waited for it.

        Args:
            prefix: Name of the beginning.
            limit: Under which the call went.
            who: The task.
            kept_s: So long the provider keeps it.
        """
        now = self._clock()
        claim = self._claims.pop((prefix, who), None)
        known = self._known.setdefault(prefix, {}).setdefault(limit, _Known(now, now))
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        known.answers += 1
        is_new = known.until <= now
        known.until = now + kept_s
        if is_new or claim is not None or now - known.noted_at >= NOTE_EVERY_S:
            call = _NOTE.call(
                warmth=context_keys.warmth(prefix), limit=limit, kept_s=round(kept_s), answers=known.answers,
                life_s=LIFE_S,
            )  # fmt: skip
            self._state.send(_NOTE, *call)
            known.noted_at, known.answers = now, 0
        if claim is not None:
            claim.renewing.cancel()
            if claim.limit != limit:
                self._release(prefix, claim, failed=False)
        return claim is not None

    def goes_first_under(self, prefix: str, who: str) -> str:
        """Return the limit under which a task goes first; empty: it does not."""
        claim = self._claims.get((prefix, who))
        return "" if claim is None else claim.limit

    def leave(self, prefix: str, who: str, *, failed: bool) -> None:
        """Let another one go first, if this task was to and no answer of it has begun. Never waits.

        Args:
            prefix: Name of the beginning.
            who: The task.
            failed: It has ended without an answer; False: it waits, or its worker stops.
        """
        claim = self._claims.pop((prefix, who), None)
        if claim is not None:
            claim.renewing.cancel()
            self._release(prefix, claim, failed=failed)

    def _release(self, prefix: str, claim: _Claim, *, failed: bool) -> None:
        call = _CLAIM.call(
            warmth=context_keys.warmth(prefix), limit=claim.limit, holder=claim.holder, claim_s=0, failed=int(failed)
        )
        self._state.send(_CLAIM, *call)

    async def _renew(self, prefix: str, limit: str, holder: str) -> None:
        """Keep a claim while its task is at work. Another one goes first, too, when Redis does not answer for long."""
        call = _CLAIM.call(warmth=context_keys.warmth(prefix), limit=limit, holder=holder, claim_s=CLAIM_S, failed=0)
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                await self._state.run(_CLAIM, *call)
            except FleetError:
                continue  # it is tried again, and the claim's end is no harm

    def _learn(self, prefix: str, habits: Sequence[int]) -> None:
        short, long, later = habits
        self._habits[prefix] = (int(short), int(long), int(later))
        while len(self._habits) > MOST_KNOWN:
            self._habits.popitem(last=False)
