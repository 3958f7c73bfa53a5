"""One call on its way to a grant, and the wire form of its questions. What becomes of it: `limiter.py`."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from fleet.limiter.local import LocalLimit
from fleet.models import Caller, Grant

#: Seconds for which a call in flight counts without having been settled: longer than any provider's answer.
LEASE_S = 600.0

_ASKED = struct.Struct("<13d")
_REPLY = struct.Struct("<15q")


class Reply(NamedTuple):
    """What `acquire.lua` answered."""

    code: int
    wait_us: int
    order: int
    now_us: int
    held_us: int
    idle: int
    backlog_us: int
    candidate: int
    quiet_us: int
    tokens: int
    input_tokens: int
    output_tokens: int
    granted: int
    granted_tokens: int
    horizon_us: int
    was_set: bytes

    @classmethod
    def unpack(cls, reply: bytes) -> Reply:
        """Return the reply that the script has packed."""
        return cls._make((*_REPLY.unpack_from(reply), reply[_REPLY.size :]))


@dataclass(slots=True, eq=False)
class WaitingCall:
    """A call that asks, sleeps, and asks again. The store hands it the replies to its questions (`store.Receiver`).

    Args:
        ticket: Its name in the order.
        number: Its number in this process.
        limits: Candidates.
        names: Keys of all candidates.
        terms: Packed terms of all candidates.
        asks: Tokens, input and output tokens.
        cost_usd_micros: The most that it may cost.
        caller: For whom.
        charge: What it is charged in the fair order; 0: its tokens.
        started: Loop time of `acquire`.
        deadline: Loop time after which it does not want to go.
        outcome: Gets the grant, or why there is none.
        heard: Called with the call and each reply.
    """

    ticket: str
    number: int
    limits: tuple[LocalLimit, ...]
    names: list[str]
    terms: list[bytes]
    asks: tuple[int, int, int]
    cost_usd_micros: int
    caller: Caller
    charge: float
    started: float
    deadline: float
    outcome: asyncio.Future[Grant]
    heard: Callable[[WaitingCall, Reply], None]
    order: int = -1
    candidate: int = 0
    #: While it sleeps: when it asks again (loop time); 0 otherwise.
    due: float = 0.0
    #: It asks before its time.
    nudged: bool = False
    #: Loop time of its last question.
    asked_at: float = 0.0
    #: While a slot is promised: the promise, the loop time of the slot and the timer for it.
    reply: Reply | None = None
    slot_at: float = 0.0
    timer: asyncio.TimerHandle | None = None
    #: Promised slots that it was too late for.
    missed: int = 0

    @property
    def limit(self) -> LocalLimit:
        """The candidate that it waits for."""
        return self.limits[self.candidate - 1]

    def question(self, now: float, random: float) -> list[Any]:
        """Return the arguments of `acquire.lua` for its next question."""
        caller = self.caller
        self.asked_at = now
        left_us = max(0.0, (self.deadline - now) * 1e6)
        numbers = _ASKED.pack(
            caller.priority, self.order, self.candidate, self.charge, caller.weight, bool(caller.tenant), *self.asks,
            self.cost_usd_micros, left_us, random, LEASE_S * 1e6,
        )  # fmt: skip
        return [self.ticket, caller.bot, f"q:{caller.kind}", numbers, *self.terms]

    # -- as a receiver of replies

    def done(self) -> bool:
        """Always False: also the reply to a call that was cancelled is wanted, for what it promises is given back."""
        return False

    def set_result(self, reply: Any) -> None:
        try:
            self.heard(self, Reply.unpack(reply))
        except Exception as error:  # noqa: BLE001 - not into the connection's reader: it belongs to who waits
            self.set_exception(error)

    def set_exception(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
