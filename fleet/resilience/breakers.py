"""The facade: one breaker and one retry budget for each `provider/model/key`, shared by the fleet.

What a process has heard is believed for a second at most; in health nobody asks, and successes are reported every ten
seconds. The rules themselves are in the scripts.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from fleet.errors import FleetError, NotSoon, ProviderUnavailable, StoreUnavailable, Waits
from fleet.quoting import brief, counted
from fleet.resilience.caution import Caution
from fleet.resilience.hearing import Hearer, passes_at, sort_of
from fleet.resilience.knowledge import Known, digest, wait_of
from fleet.resilience.layouts import (
    ALONE,
    CLOSED,
    FAILURE,
    NOTHING,
    OPEN,
    PROBE,
    RAMPING,
    SUCCESSES,
    TRIES,
    WAS_CLOSED,
    WAS_OPENED,
    WITH_OTHERS,
    BreakerReply,
    FailedCall,
)
from fleet.resilience.rules import (
    COMMON_LIMITS,
    IN_A_ROW,
    LATE_SORT,
    ROW_IN_COMMON,
    TROUBLE_TOLD_S,
    USUAL_COUNTS,
    WINDOW_S,
    YOUNG_IN_A_ROW,
    Weight,
    weight_of,
)
from fleet.resilience.scripts import COMMON, DID_WELL, FAILED, LIFTED, PROBED, SHOW, SILENT
from fleet.resilience.view import answered_s, row_of
from fleet.store import keys
from fleet.store.client import Script, Store
from fleet.waits import MOST_TOLD, Ruling, Wait

#: How a failure counts, as the script reads it.
_WEIGHTS: dict[Weight, int] = {"none": NOTHING, "at once": ALONE, "lasting": WITH_OTHERS}
#: What a call that was answered far too slowly counts as, while others got no answer in time.
_TOO_SLOW = ProviderUnavailable("answers come far more slowly than this model's usually do")

#: Seconds between two questions whether others were answered, while a call takes too long.
LOOK_EVERY_S = 1.0
#: Shortest pause (s) until who doubts an API asks again.
MIN_PAUSE_S = 0.05

logger = logging.getLogger("fleet.worker")


class Breakers:
    """The breakers of one process's limits. Lives on its loop.

    Args:
        store: State Redis.
        fingerprints: Of the settings and the key of each limit, by its name: see `fingerprint_of`.
        on_closed: Opens the gates of the pools of a limit, whose breaker has been closed. Every process does so that
            has known it open; the flag is true for the one of them that does what costs more.
        on_turn: Hears that this process has opened a breaker (with why), or closed it (None): for events and logs.
        on_trouble: Hears, now and then, of a limit under which failures are usual, though others do well, or from which
            nothing is heard.
        clock: Seconds that only grow.
        key_wait: Why calls under a limit wait for its key, before anything else; None: they need not.
    """

    def __init__(
        self,
        store: Store,
        fingerprints: Mapping[str, str],
        *,
        on_closed: Callable[[str, bool], Awaitable[None]],
        on_turn: Callable[[str, Wait | None], None] = lambda limit, wait: None,
        on_trouble: Callable[[str], None] = lambda limit: None,
        clock: Callable[[], float] = time.monotonic,
        key_wait: Callable[[str], Wait | None] = lambda limit: None,
    ) -> None:
        self._store = store
        self._fingerprints = dict(fingerprints)
        self._key_wait = key_wait
        self._on_closed = on_closed
        self._on_turn = on_turn
        self._on_trouble = on_trouble
        self._clock = clock
        self._known = {limit: Known(limit) for limit in fingerprints}
        self._caution = {limit: Caution(clock) for limit in fingerprints}
        self._lifting: set[asyncio.Task[None]] = set()
        self._process = uuid.uuid4().hex[:8]

    async def load(self) -> None:
        """Learn how the breakers stand, at the start of a process; one of other settings or another key is closed.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        for known in self._known.values():
            await self._ask(known, wants=0)

    async def close(self) -> None:
        """Stop opening gates; another process will."""
        for task in self._lifting:
            task.cancel()
        if self._lifting:
            await asyncio.wait(self._lifting)

    def standing(self, limit: str) -> Wait | None:
        """Return why calls would wait, as this process last heard; None: they need not, or it has to ask."""
        return self._key_wait(limit) or self._known[limit].standing(self._clock())

    def is_ramping(self, limit: str) -> bool:
        """True while the road fills step by step after an outage: a call may have to wait for seconds. Never waits."""
        known = self._known[limit]
        return known.wait is None and self._clock() < known.ramps_until

    def opened(self, limit: str) -> Wait | None:
        """Return why a breaker was open when this process last heard of it; None: it was closed. Never waits."""
        known = self._known.get(limit)
        return None if known is None else known.wait

    def is_open(self, limit: str) -> bool:
        """Return whether a breaker was open when this process last heard of it."""
        return self._known[limit].wait is not None

    async def renewed(self, limit: str, fingerprint: str) -> None:
        """Go by another key from now on: a breaker that the one before has opened is closed.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        if limit in self._known:
            self._fingerprints[limit] = fingerprint
            await self._ask(self._known[limit], wants=0)

    async def admit(self, limit: str) -> bool:
        """Let a call through to the limiter: True when this one is the fleet's probe of an open breaker.

        Raises:
            NotSoon: The breaker is open, and it is not this one's turn to try.
            StoreUnavailable: The breaker is not closed, and Redis does not answer.
        """
        if (key_wait := self._key_wait(limit)) is not None:
            raise NotSoon(key_wait)
        known, heard = self._known[limit], None
        if self._caution[limit].doubts:
            await self._caution[limit].turn()
        if known.wait is not None:
            async with known.asking:
                wait = known.standing(self._clock())
                if wait is not None:
                    raise NotSoon(wait)
                if known.wait is not None:
                    heard = await self._ask(known, wants=1)
        if heard is None:
            if self._clock() >= known.ramps_until:
                return False
            heard = await self._ask(known, wants=1)
        return await self._go(known, heard)

    async def turn_in_silence(self, limit: str, *, left_s: float) -> float | None:
        """Ask whether a call may try an API that is silent for too long; the last that left, `left_s` ago, was a try.

        Returns:
            0: it may; else the seconds until the fleet tries again. None: others are answered.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        known = self._known[limit]
        silent_s = self._clock() - known.answered_at
        heard = await self._ask(known, wants=2, silent_s=silent_s, left_s=left_s)
        known.report_at = -math.inf  # the first answer is news to all who doubt
        if heard.code == CLOSED:
            return None
        if silent_s >= TROUBLE_TOLD_S:  # what waits by then would find a burst
            self._trouble(known)
        return 0.0 if heard.code == TRIES else max(MIN_PAUSE_S, (heard.opens_at - heard.now) / 1e6)

    def is_answering(self, limit: str, *, within_s: float) -> bool:
        """Return whether a call was answered in the last seconds, here or as the fleet has told. Never waits.

        What this process does not know it asks for, once in a while: for a call that takes too long, never in health.
        """
        known, now = self._known[limit], self._clock()
        if now - known.answered_at < within_s:
            return True
        if now >= known.look_at:
            known.look_at = now + LOOK_EVERY_S
            call = SHOW.call(breaker=keys.breaker(limit))
            self._store.send(SHOW, *call, receiver=Hearer(partial(self._hear_of_others, known, now)))
        return False

    def spare(self, limit: str) -> None:
        """Give a probe back that was not sent, or tells nothing. Never waits, never raises."""
        known = self._known[limit]
        known.believed_until = self._clock()
        self._send(known, PROBED, fingerprint=self._fingerprints[limit], wants=-1, silent_us=0, left_us=0)

    def did_well(
        self, limit: str, *, who: str, seconds: float, output_tokens: int, place: int = 0, is_probe: bool = False
    ) -> None:
        """Note a call that was answered, if only by a refusal of this very request. Never waits, never raises."""
        known, now = self._known[limit], self._clock()
        known.answered_at, known.answered = now, max(known.answered, place)
        self._caution[limit].answered()
        is_slow = output_tokens > 0 and known.pace.is_slow(seconds, output_tokens)
        if is_slow and now < known.late_until:
            failure = FailedCall(weight=WITH_OTHERS, is_probe=is_probe, place=place, sort=LATE_SORT)
            self._send(known, FAILED, **self._failure(known, _TOO_SLOW, failure, who))
            return
        known.unsaid.add(who, now=now, seconds=seconds, place=place)
        if now >= known.report_at or is_probe:
            successes = SUCCESSES.pack(known.unsaid.take(now, is_probe=is_probe))
            fingerprint = self._fingerprints[limit]
            self._send(known, DID_WELL, fingerprint=fingerprint, successes=successes, by=digest(known.unsaid.by))

    async def hangs(self, limit: str, told: str, *, for_s: float, calls: int = 1, enough: int = 1) -> Wait | None:
        """Say that calls have had no answer for far longer than usual; return why calls wait, if it is open now.

        It opens unless others were answered meanwhile, as far as the fleet has told.

        Args:
            limit: `provider/model/key`.
            told: What is told of it.
            for_s: Seconds without an answer here.
            calls: How many have none; `enough` of all processes open it.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        known = self._known[limit]
        if known.wait is None:
            told_of = {**self._unsaid(known), "cause": "outage", "told": brief(told, MOST_TOLD)}
            here = {"lasted_us": round(for_s * 1e6), "process": self._process, "calls_here": calls, "enough": enough}
            call = SILENT.call(breaker=keys.breaker(limit), **here, **told_of)
            self._hear(known, BreakerReply._make(await self._store.run(SILENT, *call)))
        return known.wait

    async def failed(
        self, limit: str, error: Waits, *, who: str, since_s: float, lasted_s: float = 0.0, place: int = 0,
        is_probe: bool = False,
    ) -> Ruling:  # fmt: skip
        """Note a failed call, and hear what is made of it.

        While Redis does not answer nothing is: the task may try again, and nothing counts against it.
        """
        known, weight = self._known[limit], _WEIGHTS[weight_of(error)]
        if weight == WITH_OTHERS and known.wait is None:
            self._caution[limit].failed()
        failure = FailedCall(
            weight=weight,
            is_late=getattr(error, "timed_out", False),
            is_probe=is_probe,
            place=place,
            since_us=since_s * 1e6,
            passes_at=passes_at(error) * 1e6,
            sort=sort_of(error),
            lasted_us=lasted_s * 1e6,
        )
        call = FAILED.call(breaker=keys.breaker(limit), **self._failure(known, error, failure, who))
        try:
            heard = BreakerReply._make(await self._store.run(FAILED, *call))
        except StoreUnavailable:
            return Ruling(None, 0.0, counts=0.0)
        self._hear(known, heard)
        if 0 < heard.counts < USUAL_COUNTS:
            self._trouble(known)
        if heard.code == CLOSED and heard.row >= ROW_IN_COMMON and weight == WITH_OTHERS:
            await self._look_around(known, heard.row, error)
        return Ruling(known.wait, heard.retry_at / 1e6, heard.counts / 1000)

    async def _look_around(self, known: Known, row: int, error: Waits) -> None:
        """Open breakers whose failures in a row are, together, those of one outage: of what they have in common.

        Each looks at a few others, for a fleet may have thousands; in a fleet with one limit this costs nothing.
        """
        others = [other for other in self._known.values() if other is not known]
        others = heapq.nlargest(COMMON_LIMITS, others, key=lambda other: other.troubled_until)
        calls = [SHOW.call(breaker=keys.breaker(other.limit)) for other in others]
        try:
            replies = await asyncio.gather(*(self._store.run(SHOW, *call) for call in calls))
            rows = [(known, row)]
            for other, reply in zip(others, replies, strict=True):
                answered_s = self._clock() - other.answered_at  # here, and not told yet
                rows.append((other, row_of(reply, answered=other.answered, answered_s=answered_s)))
            total = sum(min(count, IN_A_ROW) for _, count in rows)  # the outage of one says little of another
            failing = [(one, count) for one, count in rows if count >= ROW_IN_COMMON]
            if total < YOUNG_IN_A_ROW or len(failing) < 2:
                return
            for one, count in failing:
                if one.wait is None:
                    told = brief(error.wait(about=one.limit).told, MOST_TOLD // 2) if one is known else "its calls fail"
                    told = f"{told}; so do those of {counted(len(failing) - 1, 'other API')}"
                    call = COMMON.call(
                        breaker=keys.breaker(one.limit), fingerprint=self._fingerprints[one.limit],
                        others=total - min(count, IN_A_ROW), cause="outage", told=told,
                    )  # fmt: skip
                    self._hear(one, BreakerReply._make(await self._store.run(COMMON, *call)))
        except StoreUnavailable:
            return

    def _trouble(self, known: Known) -> None:
        """Tell, now and then, that there is trouble."""
        if self._clock() >= known.trouble_told_at + TROUBLE_TOLD_S:
            known.trouble_told_at = self._clock()
            self._on_trouble(known.limit)

    def _failure(self, known: Known, error: Waits, failure: FailedCall, who: str) -> dict[str, Any]:
        """Return the arguments of `failed.lua`."""
        wait = error.wait(about=known.limit)
        return {
            **self._unsaid(known),
            "failure": FAILURE.pack(failure),
            "who": digest(who),
            "cause": wait.cause,
            "told": brief(wait.told, MOST_TOLD),
        }

    def _unsaid(self, known: Known) -> dict[str, Any]:
        """Return what a script hears of this process, whatever it is told: its settings, and successes not told yet."""
        return {
            "fingerprint": self._fingerprints[known.limit],
            "successes": SUCCESSES.pack(known.unsaid.take(self._clock())),
            "by": digest(known.unsaid.by),
        }

    async def _ask(self, known: Known, *, wants: int, silent_s: float = 0.0, left_s: float = 0.0) -> BreakerReply:
        """Ask whether a call may go."""
        call = PROBED.call(
            breaker=keys.breaker(known.limit), fingerprint=self._fingerprints[known.limit], wants=wants,
            silent_us=round(min(silent_s, WINDOW_S) * 1e6), left_us=round(min(left_s, WINDOW_S) * 1e6),
        )  # fmt: skip
        heard = BreakerReply._make(await self._store.run(PROBED, *call))
        self._hear(known, heard)
        return heard

    async def _go(self, known: Known, heard: BreakerReply) -> bool:
        """Return whether a call is the probe, once it may go."""
        if heard.code == RAMPING:
            await asyncio.sleep(max(0, heard.go_at - heard.now) / 1e6)
            await self._caution[known.limit].turn()  # it may have failed again meanwhile
        elif heard.code == CLOSED:
            known.ramps_until = self._clock()
        elif heard.code == OPEN:
            raise NotSoon(wait_of(known.limit, heard))
        return heard.code == PROBE

    def _send(self, known: Known, script: Script, **arguments: Any) -> None:
        """Run a script some time soon, and learn from its answer."""
        call = script.call(breaker=keys.breaker(known.limit), **arguments)
        self._store.send(script, *call, receiver=Hearer(lambda reply: self._hear(known, BreakerReply._make(reply))))

    def _hear_of_others(self, known: Known, asked_at: float, reply: list[Any]) -> None:
        age_s = answered_s(reply)
        if age_s is not None:
            known.answered_at = max(known.answered_at, asked_at - age_s)

    def _hear(self, known: Known, heard: BreakerReply) -> None:
        was_open = known.wait is not None
        known.hear(heard, self._clock())
        if known.wait is not None:
            self._caution[known.limit].ruled()
        if heard.turned == WAS_OPENED:
            self._on_turn(known.limit, known.wait)
        elif heard.turned == WAS_CLOSED:
            self._on_turn(known.limit, None)
        if heard.lift_at or (was_open and known.wait is None):
            self._lift(known, heard.lift_at)

    def _lift(self, known: Known, lift_at: int) -> None:
        task = asyncio.get_running_loop().create_task(self._open_gates(known, lift_at))
        self._lifting.add(task)
        task.add_done_callback(self._lifting.discard)

    async def _open_gates(self, known: Known, lift_at: int) -> None:
        """Open the gates of the pools of a limit; if this process dies before it has said so, another one does."""
        try:
            await self._on_closed(known.limit, bool(lift_at))
            if lift_at:
                await self._store.run(LIFTED, *LIFTED.call(breaker=keys.breaker(known.limit), lift_at=lift_at))
        except FleetError as error:
            logger.warning("gates_not_opened limit=%s error=%s", known.limit, type(error).__name__)
