"""What the simulator would have billed: counters per key and in total. Keys are shown by label only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class Account:
    """Counters of one key.

    Every call with a key ends in exactly one of `served`, `refused_429`, `errors_5xx`, `cut`, `hung`, `abandoned` and
    `bad_requests`; until then it is in flight.

    Attributes:
        served: The answer was made whole and handed to the network. Only these are in the tokens and the bill.
        cut: The connection was closed in the middle of the body on purpose. Real providers bill such calls, because
            the answer was made; so their tokens are counted, apart from the others.
        hung: Taken and never answered. Nothing was made, nothing is billed.
        abandoned: The client left before the answer was made. Nothing is billed here; a real provider may bill.
        unmatched: Served or cut calls whose question has no recorded answer, when answers are replayed.
    """

    calls: int = 0
    served: int = 0
    refused_429: int = 0
    errors_5xx: int = 0
    cut: int = 0
    hung: int = 0
    abandoned: int = 0
    bad_requests: int = 0
    unmatched: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cut_input_tokens: int = 0
    cut_output_tokens: int = 0

    @property
    def in_flight(self) -> int:
        """Calls that have not ended."""
        ended = self.served + self.refused_429 + self.errors_5xx + self.cut + self.hung
        return self.calls - ended - self.abandoned - self.bad_requests

    def serve(self, input_tokens: int, output_tokens: int, *, matched: bool) -> None:
        """Count an answer that was made whole."""
        self.served += 1
        self.unmatched += not matched
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens

    def reject(self) -> None:
        """Count a call that the wire refuses."""
        self.calls += 1
        self.bad_requests += 1

    def cut_off(self, input_tokens: int, output_tokens: int, *, matched: bool) -> None:
        """Count an answer that was made, but cut on its way."""
        self.cut += 1
        self.unmatched += not matched
        self.cut_input_tokens += input_tokens
        self.cut_output_tokens += output_tokens


class Ledger:
    """All accounts.

    Args:
        input_usd_per_mtok: Price of a million input tokens, which is also micro-dollars per token.
        output_usd_per_mtok: The same for output.
    """

    def __init__(self, *, input_usd_per_mtok: float, output_usd_per_mtok: float) -> None:
        self._prices = (input_usd_per_mtok, output_usd_per_mtok)
        self._accounts: dict[str, Account] = {}
        self.unauthorized_401 = 0

    def account(self, key: str) -> Account:
        """Return the account of a key, opened at its first call."""
        found = self._accounts.get(key)
        if found is None:
            found = self._accounts[key] = Account()
        return found

    def reset(self) -> None:
        """Start anew. A call in flight counts to the old accounts."""
        self._accounts = {}
        self.unauthorized_401 = 0

    def report(self) -> dict[str, Any]:
        """Return all counters as JSON values: `total`, and `keys` by label."""
        return {
            "simulator": True,
            "unauthorized_401": self.unauthorized_401,
            "prices": {"input_usd_per_mtok": self._prices[0], "output_usd_per_mtok": self._prices[1]},
            "total": self._line(_total(self._accounts.values())),
            "keys": {key_label(key): self._line(account) for key, account in self._accounts.items()},
        }

    def _line(self, account: Account) -> dict[str, int]:
        return {
            **asdict(account),
            "in_flight": account.in_flight,
            "billed_usd_micros": self._cost(account.input_tokens, account.output_tokens),
            "cut_billed_usd_micros": self._cost(account.cut_input_tokens, account.cut_output_tokens),
        }

    def _cost(self, input_tokens: int, output_tokens: int) -> int:
        """Money of a sum of tokens, rounded once: the sum of rounded calls may differ by half a micro-dollar each."""
        return round(input_tokens * self._prices[0] + output_tokens * self._prices[1])


def key_label(key: str) -> str:
    """Return how the ledger shows a key: its first four characters and eight of its hash."""
    return f"{key[:4]}..{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _total(accounts: Iterable[Account]) -> Account:
    total = Account()
    for account in accounts:
        for name, value in asdict(account).items():
            setattr(total, name, getattr(total, name) + value)
    return total
