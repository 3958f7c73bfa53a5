"""The way of one call that may leave: its grant, and who hears of its end. Who may leave, and when: `roads.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from fleet.entries import Entry
from fleet.errors import GiveUp, MachineExhausted, RateLimited, Relearnt, TierBusy, Waits
from fleet.grants import Grant
from fleet.workers.meter import Meter
from fleet.workers.ports import Breakers, Limiter
from fleet.workers.silence.first_steps import FirstSteps
from fleet.workers.silence.restraint import Restraint
from fleet.workers.silence.under_way import UnderWay


class Hearers(Protocol):
    """Who hears of a call's begin and end, see `roads.py: Roads`."""

    under_way: UnderWay
    restraint: Restraint
    steps: FirstSteps
    breakers: Breakers
    clock: Callable[[], float]
    limiter: Limiter


class Road:
    """The way of one call that may leave: its grant, which is the sender's to settle, and who hears of its end.

    Args:
        roads: Those of the process.
        grant: Of the limiter.
        asked: Whose call it is.
        now: Loop time at which it leaves.
        is_probe: The breaker is open, and waits for what becomes of this call.
    """

    __slots__ = ("_is_probe", "_roads", "_since", "grant", "kind", "pool", "who")

    def __init__(self, roads: Hearers, grant: Grant, asked: Entry, now: float, *, is_probe: bool) -> None:
        self.grant = grant
        self.pool, self.who = asked.pool, asked.task
        #: What its time is compared with: a slow tier has times of its own.
        self.kind = f"{asked.kind} {asked.tier}" if asked.tier else asked.kind
        self._roads = roads
        self._is_probe = is_probe
        self._since = now
        roads.under_way.sent(grant.limit, self, now)

    def is_answering(self) -> bool:
        """True when another call under this limit was answered since this one left, as far as is known here."""
        passed_s = asyncio.get_running_loop().time() - self._since
        return self._roads.breakers.is_answering(self.grant.limit, within_s=passed_s)

    @property
    def brief_s(self) -> float | None:
        """Seconds for which it may go without an answer; None: as long as any call."""
        return self._roads.under_way.brief_s(self.grant.limit, self.kind) if self.grant.is_beyond else None

    def did_well(self, who: str, output_tokens: int) -> None:
        """Note that it was answered, if only by a refusal.

        Args:
            who: The task.
            output_tokens: What was said; 0: not known.
        """
        grant, now = self.grant, asyncio.get_running_loop().time()
        self._roads.under_way.ended(grant.limit, self, now, is_answered=True)
        self._roads.restraint.answered(grant.limit)
        self._roads.steps.answered(grant.limit)
        let_go(self._roads, grant.limit, now)
        self._roads.breakers.did_well(
            grant.limit, who=who, seconds=now - self._since, output_tokens=output_tokens, place=grant.mark.requests,
            is_probe=self._is_probe,
        )  # fmt: skip

    async def failed(self, error: BaseException, meter: Meter) -> None:
        """Tell the breaker how it ended; a failure hears what is made of it, as its `ruling`.

        A 429 is none: the limiter holds the fleet. Neither is what lies with this machine, or with who waited.
        """
        is_refusal = isinstance(error, GiveUp | Relearnt)
        is_answered = is_refusal or (isinstance(error, Waits) and not getattr(error, "timed_out", False))
        now = asyncio.get_running_loop().time()
        self._roads.under_way.ended(self.grant.limit, self, now, is_answered=is_answered, is_refused=True)
        if is_answered:
            self._roads.restraint.answered(self.grant.limit)
        if is_refusal:
            self.did_well(meter.who, 0)
            return
        if isinstance(error, Waits):
            meter.failed_s += now - self._since
            if not isinstance(error, MachineExhausted | RateLimited | TierBusy):
                await self._rule(error, meter, now - self._since)
                return
        if self._is_probe:
            self._roads.breakers.spare(self.grant.limit)

    async def _rule(self, error: Waits, meter: Meter, lasted_s: float) -> None:
        now_s = self._roads.clock()
        since_s = max(0.0, now_s - (meter.failed_at or now_s))
        meter.failed_at = now_s
        error.ruling = await self._roads.breakers.failed(
            self.grant.limit, error, who=meter.who, since_s=since_s, lasted_s=lasted_s,
            place=self.grant.mark.requests, is_probe=self._is_probe,
        )  # fmt: skip


def let_go(roads: Hearers, limit: str, now: float) -> None:
    """Count calls no more among those under way that hang while later ones are answered."""
    for call in roads.under_way.outlasted(limit, now):
        if isinstance(call, Road):
            roads.limiter.let_go(call.grant)
