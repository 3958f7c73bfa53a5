"""What the bill is told of a call under an SDK: settled where the provider told the usage or surely counted none."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.entries import Entry
from fleet.errors import FleetError
from fleet.grants import Caller, Grant
from fleet.money import PICOS_PER_MICRO
from fleet.usage import Usage
from fleet.workers.costs import Line, counted_nothing, is_free
from fleet.workers.ports import Bill

#: Errors of httpx and httpx2 after which nothing can have been sent.
_UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})


@dataclass(frozen=True, slots=True)
class SdkBill:
    """Where the calls of a client are entered.

    Args:
        bill: The bill.
        pool: Under which they stand there; empty: under none.
        caller: Whose they are.
    """

    bill: Bill
    pool: str
    caller: Caller

    def asked(self, limit: str, cost_usd_micros: float | None) -> Entry:
        """Return a call that is to be sent, at the most that it may cost; None: it has no price."""
        caller = self.caller
        return Entry(
            "", "", self.pool, caller.bot, caller.tenant, caller.kind, "", limit, "", Usage(), picos(cost_usd_micros),
            "unknown", 0.0,
        )  # fmt: skip


class SdkLine:
    """What one call is entered at; while nothing is told, at what was reserved for it, as unknown."""

    __slots__ = ("_bill", "_line")

    def __init__(self, bill: Bill, asked: Entry, grant: Grant) -> None:
        self._bill, self._line = bill, Line(asked, grant)

    def answered(self, usage: Usage, cost_usd_micros: float | None, *, is_whole: bool = True) -> None:
        """Note what was used: of an answer that was cut, nobody knows what is billed."""
        if is_whole:
            self._line.settle(usage, picos(cost_usd_micros), None)
        else:
            self._line.told(usage)

    def refused(self, error: FleetError, usage: Usage | None, cost_usd_micros: float | None) -> None:
        """Note an error that the provider has answered with, and what it says of the usage."""
        if usage is not None and usage.total_tokens:
            self.answered(usage, cost_usd_micros)
        elif counted_nothing(error) or is_free(error):
            self._line.settle_free()

    def broke(self, error: BaseException) -> None:
        """Note that no answer came."""
        if not _UNSENT.isdisjoint(base.__name__ for base in type(error).__mro__):
            self._line.settle_free()

    def over(self, at_s: float) -> Grant:
        """Return the grant to settle, of a call that is over at that Unix time (s)."""
        return self._line.over(at_s=at_s)

    def enter(self) -> None:
        """Write it into the bill, once it is over."""
        self._line.enter(self._bill)


def picos(usd_micros: float | None) -> int | None:
    """Return an amount in 10^-12 dollars."""
    return None if usd_micros is None else round(usd_micros * PICOS_PER_MICRO)
