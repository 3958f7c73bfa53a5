"""What the simulator would have billed: counters per key and in total, and lines by day, model and tier of a key.

Keys are shown by label only. Each call is priced in whole pico-dollars when it ends, as Fleet prices its own: sums of
them are exact.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Any, NamedTuple

from fleet.money import PICOS_PER_MICRO, micros_of
from fleet.workers.simulator.options import SimulatorOptions

#: Seconds of a day, the unit of a line.
DAY_S = 86_400


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


class Served(NamedTuple):
    """What one answer took.

    Args:
        model: As the call spelled it.
        input_tokens: All input.
        output_tokens: All output; of a cut stream what was sent.
        classes: Which of them are billed otherwise.
        matched: False: its question has no recorded answer.
    """

    model: str
    input_tokens: int
    output_tokens: int
    classes: Classes = Classes()
    matched: bool = True


@dataclass(slots=True)
class LedgerLine:
    """What was billed for one model, tier and day of a key.

    Attributes:
        served: Answers that were made whole; the tokens and `billed_usd_picos` are theirs.
        surcharge_usd_picos: What their bill differs by from that of plain tokens, for what was cached, written to a
            cache, or answered by another tier. A discount is negative.
        cut: Answers that were cut. Their tokens and money stand apart.
    """

    served: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    thinking_tokens: int = 0
    billed_usd_picos: int = 0
    surcharge_usd_picos: int = 0
    cut: int = 0
    cut_input_tokens: int = 0
    cut_output_tokens: int = 0
    cut_billed_usd_picos: int = 0

    def add(self, other: LedgerLine) -> None:
        """Add another line."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_COUNTS = tuple(LedgerLine.__slots__)


@dataclass(slots=True)
class Account:
    """Counters of one key.

    Every call with a key ends in exactly one of `served`, `refused_429`, `errors_5xx`, `cut`, `hung`, `abandoned`,
    `bad_requests` and `rejected_401`; until then it is in flight.

    Attributes:
        served: The answer was made whole and handed to the network. Only these are in the tokens and the bill.
        refused_429: Refused for a limit, or for want of capacity or money; whatever the status of that was.
        cut: The connection was closed in the middle of the body on purpose, or the client left in the middle of a
            stream. Real providers bill such calls, because the answer was made; so their tokens are counted, apart from
            the others. Of a stream only what was sent.
        hung: Taken and never answered. Nothing was made, nothing is billed.
        abandoned: The client left before the answer was made. Nothing is billed here; a real provider may bill.
        rejected_401: The key is none of those that are taken.
        last_call_at_s: Unix time in seconds at which its last call came.
        unmatched: Served or cut calls whose question has no recorded answer, when answers are replayed.
        lines: What was billed, by model, tier and day (days since 1970, UTC).
    """

    calls: int = 0
    served: int = 0
    refused_429: int = 0
    errors_5xx: int = 0
    cut: int = 0
    hung: int = 0
    abandoned: int = 0
    bad_requests: int = 0
    rejected_401: int = 0
    last_call_at_s: float = 0.0
    unmatched: int = 0
    lines: dict[tuple[str, str, int], LedgerLine] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        """Calls that have not ended."""
        ended = self.served + self.refused_429 + self.errors_5xx + self.cut + self.hung
        return self.calls - ended - self.abandoned - self.bad_requests - self.rejected_401

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

    def line(self, spent: Served, day: int) -> LedgerLine:
        """Return the line of an answer, begun at its first one."""
        place = (spent.model, spent.classes.tier or "", day)
        found = self.lines.get(place)
        if found is None:
            found = self.lines[place] = LedgerLine()
        return found


class Ledger:
    """All accounts, and the prices.

    Args:
        options: The prices.
        now_s: The clock that dates a line, Unix time in seconds.
    """

    def __init__(self, options: SimulatorOptions, *, now_s: Callable[[], float] = time.time) -> None:
        self._plain = _Rates(options, 1.0)
        self._tiers = {tier: _Rates(options, getattr(options, name)) for tier, name in _FACTORS.items()}
        if options.batch_cached_factor is not None:
            self._tiers["batch"] = _Rates(options, options.batch_factor, cached_factor=options.batch_cached_factor)
        self._shown = {name: getattr(options, name) for name in _PRICES if getattr(options, name) is not None}
        self._accounts: dict[str, Account] = {}
        self._now_s = now_s
        self._since_s = now_s()
        self.unauthorized_401 = 0

    def account(self, key: str) -> Account:
        """Return the account of a key, opened at its first call."""
        found = self._accounts.get(key)
        if found is None:
            found = self._accounts[key] = Account()
        return found

    def serve(self, account: Account, spent: Served) -> None:
        """Count an answer that was made whole."""
        account.served += 1
        account.unmatched += not spent.matched
        line, used = account.line(spent, int(self._now_s() // DAY_S)), spent.classes
        cost = self._tiers.get(used.tier or "", self._plain).cost_usd_picos(spent)
        line.served += 1
        line.input_tokens += spent.input_tokens
        line.output_tokens += spent.output_tokens
        line.cached_tokens += used.cached
        line.cache_write_tokens += used.written + used.written_long
        line.cache_write_1h_tokens += used.written_long
        line.thinking_tokens += used.thinking
        line.billed_usd_picos += cost
        line.surcharge_usd_picos += cost - self._plain.cost_usd_picos(spent._replace(classes=Classes()))

    def cut_off(self, account: Account, spent: Served) -> None:
        """Count an answer that was made, but cut on its way."""
        account.cut += 1
        account.unmatched += not spent.matched
        line = account.line(spent, int(self._now_s() // DAY_S))
        line.cut += 1
        line.cut_input_tokens += spent.input_tokens
        line.cut_output_tokens += spent.output_tokens
        line.cut_billed_usd_picos += self._tiers.get(spent.classes.tier or "", self._plain).cost_usd_picos(spent)

    def reset(self) -> None:
        """Start anew. A call in flight counts to the old accounts."""
        self._accounts = {}
        self._since_s = self._now_s()
        self.unauthorized_401 = 0

    def report(self) -> dict[str, Any]:
        """Return all counters as JSON values: `total`, `keys` by label, and `usage` by day, key, model and tier."""
        return {
            "simulator": True,
            "period": {"since_s": self._since_s, "until_s": self._now_s()},
            "unauthorized_401": self.unauthorized_401,
            "prices": self._shown,
            "total": _shown(self._accounts.values()),
            "keys": {
                key_label(key): {**_shown([account]), "last_call_at_s": account.last_call_at_s}
                for key, account in self._accounts.items()
            },
            "usage": [
                {"day": _day(day), "key": key_label(key), "model": model, "tier": tier, **asdict(line)}
                for key, account in self._accounts.items()
                for (model, tier, day), line in sorted(account.lines.items(), key=lambda item: item[0][::-1])
            ],
        }


class _Rates:
    """What each class costs in one tier: whole numbers that are multiplied by tokens."""

    def __init__(self, options: SimulatorOptions, factor: float, *, cached_factor: float | None = None) -> None:
        given = options.input_usd_per_mtok
        rest = (options.cached_usd_per_mtok, options.cache_write_usd_per_mtok, options.cache_write_1h_usd_per_mtok)
        prices = (given, options.output_usd_per_mtok, *(given if price is None else price for price in rest))
        picos = [_written(price) * PICOS_PER_MICRO * _written(factor) for price in prices]  # $1 per M is 1 micro each
        if cached_factor is not None:
            picos[2] = _written(prices[2]) * PICOS_PER_MICRO * _written(cached_factor)
        self._scale = lcm(*(rate.denominator for rate in picos))
        self._rates = tuple(int(rate * self._scale) for rate in picos)

    def cost_usd_picos(self, spent: Served) -> int:
        """Return what one answer costs, rounded half up where a rate is no whole number of picos."""
        given, made, cached, written, written_long = self._rates
        used = spent.classes
        plain = spent.input_tokens - used.cached - used.written - used.written_long
        cost = plain * given + spent.output_tokens * made
        cost += used.cached * cached + used.written * written + used.written_long * written_long
        return (cost + self._scale // 2) // self._scale


def _written(value: float) -> Fraction:
    """Return a number as it is written, not the float nearest to it."""
    return Fraction(Decimal(repr(value)))


#: Tiers that cost otherwise, and the option that says how much.
_FACTORS = {
    "flex": "flex_factor", "priority": "priority_factor", "batch": "batch_factor",
    "background-2h": "background_2h_factor", "background-8h": "background_8h_factor",
}  # fmt: skip
#: Prices that the ledger shows.
_PRICES = (
    "input_usd_per_mtok", "output_usd_per_mtok", "cached_usd_per_mtok", "cache_write_usd_per_mtok",
    "cache_write_1h_usd_per_mtok", "batch_cached_factor", *_FACTORS.values(),
)  # fmt: skip


def key_label(key: str) -> str:
    """Return how the ledger shows a key: its first four characters and eight of its hash."""
    return f"{key[:4]}..{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _shown(accounts: Iterable[Account]) -> dict[str, int]:
    """Return the counters of accounts together; what is billed also in micro-dollars, rounded once from the sum."""
    together, counts = LedgerLine(), dict.fromkeys(_CALLS, 0)
    tiers = dict.fromkeys(_FACTORS, 0)
    for account in accounts:
        counts = {name: count + getattr(account, name) for name, count in counts.items()}
        for (_, tier, _), line in account.lines.items():
            together.add(line)
            if tier in tiers:
                tiers[tier] += line.served
    return {
        **counts,
        **asdict(together),
        **tiers,
        "billed_usd_micros": micros_of(together.billed_usd_picos),
        "cut_billed_usd_micros": micros_of(together.cut_billed_usd_picos),
    }


#: Counters of calls that are in no line.
_CALLS = (
    "calls", "in_flight", "refused_429", "errors_5xx", "hung", "abandoned", "bad_requests", "rejected_401", "unmatched",
)  # fmt: skip


def _day(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()
