"""What the simulator would have billed: counters per key and in total. Keys are shown by label only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from fleet.workers.simulator.options import SimulatorOptions

#: Pico-dollars (10^-12 $) of a micro-dollar.
PICOS = 1_000_000


class Classes(NamedTuple):
    """What a rich call used beside plain input and output.

    Args:
        cached: Of the input: read from the prefix cache.
        written: Of the input: written to it for 5 minutes.
        written_long: Of the input: written to it for an hour.
        thinking: Of the output.
        tier: The service tier that answered.
    """

    cached: int = 0
    written: int = 0
    written_long: int = 0
    thinking: int = 0
    tier: str | None = None


@dataclass(slots=True)
class Account:
    """Counters of one key.

    Every call with a key ends in exactly one of `served`, `refused_429`, `errors_5xx`, `cut`, `hung`, `abandoned` and
    `bad_requests`; until then it is in flight.

    Attributes:
        served: The answer was made whole and handed to the network. Only these are in the tokens and the bill.
        refused_429: Refused for a limit, or for want of capacity or money; whatever the status of that was.
        cut: The connection was closed in the middle of the body on purpose, or the client left in the middle of a
            stream. Real providers bill such calls, because the answer was made; so their tokens are counted, apart from
            the others. Of a stream only what was sent.
        hung: Taken and never answered. Nothing was made, nothing is billed.
        abandoned: The client left before the answer was made. Nothing is billed here; a real provider may bill.
        unmatched: Served or cut calls whose question has no recorded answer, when answers are replayed.
        surcharge_usd_picos: What the bill of served calls differs by from that of plain tokens, in pico-dollars, for
            what was cached, written to a cache, or answered by another tier. A discount is negative.
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
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    thinking_tokens: int = 0
    flex: int = 0
    priority: int = 0
    surcharge_usd_picos: int = 0

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

    def classify(self, used: Classes, surcharge_usd_picos: int) -> None:
        """Count what a served call used beside plain tokens."""
        self.cached_tokens += used.cached
        self.cache_write_tokens += used.written + used.written_long
        self.cache_write_1h_tokens += used.written_long
        self.thinking_tokens += used.thinking
        self.flex += used.tier == "flex"
        self.priority += used.tier == "priority"
        self.surcharge_usd_picos += surcharge_usd_picos

    def reject(self) -> None:
        """Count a call that the wire refuses."""
        self.calls += 1
        self.bad_requests += 1

    def refuse(self, status: int) -> None:
        """Count a call that was taken and refused, by the status that this means."""
        if status == 429:
            self.refused_429 += 1
        elif status >= 498:
            self.errors_5xx += 1
        else:
            self.bad_requests += 1

    def cut_off(self, input_tokens: int, output_tokens: int, *, matched: bool) -> None:
        """Count an answer that was made, but cut on its way."""
        self.cut += 1
        self.unmatched += not matched
        self.cut_input_tokens += input_tokens
        self.cut_output_tokens += output_tokens


class Ledger:
    """All accounts, and the prices: a price of a million tokens is also micro-dollars per token."""

    def __init__(self, options: SimulatorOptions) -> None:
        self._prices = (options.input_usd_per_mtok, options.output_usd_per_mtok)
        others = (options.cached_usd_per_mtok, options.cache_write_usd_per_mtok, options.cache_write_1h_usd_per_mtok)
        self._extras = tuple(0 if price is None else round((price - self._prices[0]) * PICOS) for price in others)
        self._factors: Mapping[str | None, float] = {"flex": options.flex_factor, "priority": options.priority_factor}
        self._shown = {name: getattr(options, name) for name in _PRICES if getattr(options, name) is not None}
        self._accounts: dict[str, Account] = {}
        self.unauthorized_401 = 0

    def account(self, key: str) -> Account:
        """Return the account of a key, opened at its first call."""
        found = self._accounts.get(key)
        if found is None:
            found = self._accounts[key] = Account()
        return found

    def surcharge_usd_picos(self, input_tokens: int, output_tokens: int, used: Classes) -> int:
        """Return what a call costs more than its tokens as plain ones; less is negative."""
        given, made = (round(price * PICOS) for price in self._prices)
        plain = input_tokens * given + output_tokens * made
        extras = sum(price * tokens for price, tokens in zip(self._extras, used[:3], strict=True))
        return round((plain + extras) * self._factors.get(used.tier, 1)) - plain

    def reset(self) -> None:
        """Start anew. A call in flight counts to the old accounts."""
        self._accounts = {}
        self.unauthorized_401 = 0

    def report(self) -> dict[str, Any]:
        """Return all counters as JSON values: `total`, and `keys` by label."""
        return {
            "simulator": True,
            "unauthorized_401": self.unauthorized_401,
            "prices": self._shown,
            "total": self._line(_total(self._accounts.values())),
            "keys": {key_label(key): self._line(account) for key, account in self._accounts.items()},
        }

    def _line(self, account: Account) -> dict[str, int]:
        return {
            **asdict(account),
            "in_flight": account.in_flight,
            "billed_usd_micros": self._cost(account.input_tokens, account.output_tokens, account.surcharge_usd_picos),
            "cut_billed_usd_micros": self._cost(account.cut_input_tokens, account.cut_output_tokens),
        }

    def _cost(self, input_tokens: int, output_tokens: int, surcharge_usd_picos: int = 0) -> int:
        """Money of a sum of tokens, rounded once: the sum of rounded calls may differ by half a micro-dollar each."""
        plain = input_tokens * self._prices[0] + output_tokens * self._prices[1]
        return round(plain + surcharge_usd_picos / PICOS)


#: Prices that the ledger shows.
_PRICES = (
    "input_usd_per_mtok", "output_usd_per_mtok", "cached_usd_per_mtok", "cache_write_usd_per_mtok",
    "cache_write_1h_usd_per_mtok", "flex_factor", "priority_factor",
)  # fmt: skip


def key_label(key: str) -> str:
    """Return how the ledger shows a key: its first four characters and eight of its hash."""
    return f"{key[:4]}..{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _total(accounts: Iterable[Account]) -> Account:
    total = Account()
    for account in accounts:
        for name, value in asdict(account).items():
            setattr(total, name, getattr(total, name) + value)
    return total
