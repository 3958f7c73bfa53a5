"""Whether a task can pay for its next call, and what a call that is over is entered at. Pure.

The longest answer is seldom the usual one: how much of the most that they may cost calls really do, the fleet learns.
"""

from __future__ import annotations

from fleet.entries import Entry, State, packed_end
from fleet.errors import (
    BadRequest,
    ConfigurationError,
    FleetError,
    InvalidTask,
    KeyRejected,
    ProviderUnavailable,
    RateLimited,
    Relearnt,
    TierBusy,
    TooExpensive,
)
from fleet.grants import Grant
from fleet.money import PICOS_PER_MICRO, dollars_of
from fleet.usage import Usage
from fleet.workers.meter import NO_USAGE, Meter
from fleet.workers.ports import Bill


def afford(api: str, most_picos: int | None, share: float, meter: Meter) -> int:
    """Return what a call of a task with a `max_cost_usd` is taken to cost, in 10^-12 dollars.

    Weakness: a call may cost more than is expected.

    Args:
        api: `provider/model`.
        most_picos: The most that the call may cost; None: the model has no price.
        share: How much of that calls of its kind cost, 0 to 1.
        meter: What the task may cost, and has cost.

    Raises:
        TooExpensive: When that is more than is left.
        InvalidTask: When nobody can say what it costs.
    """
    if most_picos is None:
        raise InvalidTask(
            f"max_cost_usd: expected a model with a price, got {api}; "
            f'set [prices."{api}"], or submit the task without max_cost_usd'
        )
    expected, allowed = round(most_picos * share), meter.most_picos or 0
    left = max(0, allowed - (meter.cost_usd_picos or 0) - meter.pending_picos)
    if expected > left:
        raise TooExpensive(
            f"max_cost_usd: expected a call of at most ${dollars_of(left):.6f}, which is left of "
            f"${dollars_of(allowed):.6f}, got one of about ${dollars_of(expected):.6f}; raise it, or ask for a "
            "shorter answer (max_output_tokens)"
        )
    return expected


class Line:
    """What the bill is told of one call. Until more is known: that it was sent, and cost what was reserved for it.

    Args:
        asked: The call before it was sent.
        grant: Under which it is sent.
    """

    __slots__ = ("_asked", "_entry", "_grant", "_picos", "_state", "_tier", "_usage", "is_void")

    def __init__(self, asked: Entry, grant: Grant) -> None:
        reserved = round(grant.noted_usd_micros * PICOS_PER_MICRO) or asked.usd_picos
        self._asked, self._grant, self._entry = asked, grant, asked
        self._usage, self._tier = asked.usage, asked.tier
        self._picos = None if asked.usd_picos is None else reserved
        self._state: State = "unknown"
        #: It was not sent after all.
        self.is_void = False

    @property
    def counted_picos(self) -> int | None:
        """What budgets count, in 10^-12 dollars, as the bill has it; None: it has no price, so what was reserved."""
        return 0 if self.is_void else self._picos

    @property
    def is_unknown(self) -> bool:
        """True when nobody knows what the provider has counted, and it may be told later."""
        return not self.is_void and self._state != "settled"

    def told(self, usage: Usage) -> None:
        """Note what was used at least, of a call of which nobody knows what was counted."""
        self._usage = usage

    def settle(self, usage: Usage, usd_picos: int | None, tier: str | None) -> None:
        """Note what the provider has counted, and by which tier it has answered."""
        self._usage, self._picos, self._tier, self._state = usage, usd_picos, tier or "", "settled"

    def settle_free(self) -> None:
        """Note that the provider has surely counted nothing."""
        self.settle(NO_USAGE, 0, self._tier)

    def over(self, *, at_s: float) -> Grant:
        """Return the grant as its limiter is to settle it, of a call that is over at that Unix time (s).

        What its provider has counted goes with it: entries reach the bill a moment later, and if this process dies
        before that, whoever finds the note of the call enters it as it was.
        """
        asked, grant = self._asked, self._grant
        self._entry = Entry(
            grant.ticket, asked.task, asked.pool, asked.bot, asked.tenant, asked.kind, asked.run, asked.limit,
            self._tier, self._usage, self._picos, self._state, at_s, grant.reservation,
        )  # fmt: skip
        is_told = grant.ticket and self._state == "settled" and not self.is_void
        return grant._replace(came=packed_end(self._entry)) if is_told else grant

    def enter(self, bill: Bill | None) -> None:
        """Write the call, which is over, into the bill."""
        if bill is not None and self.is_void:
            bill.void(self._asked.limit, self._grant.ticket)
        elif bill is not None:
            bill.enter(self._entry)


def is_free(error: FleetError) -> bool:
    """True for a call that its provider refused when it was down: it may count against a rate, and is on no bill."""
    return isinstance(error, ProviderUnavailable) and error.refused


def counted_nothing(error: FleetError) -> bool:
    """True when the provider surely counted no tokens: it refused the call, or never got it."""
    return isinstance(error, RateLimited | TierBusy | KeyRejected | BadRequest | ConfigurationError | Relearnt) or (
        isinstance(error, ProviderUnavailable) and not error.sent
    )
