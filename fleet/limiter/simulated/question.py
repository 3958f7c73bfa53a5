"""One question to the limiter, its answer, and what the day has to do with both. What decides: `model.py`."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.grants import Tokens
from fleet.limiter import limits
from fleet.limiter.layouts import At
from fleet.limiter.limits import Terms

#: Places of what is counted of the day.
DAY = (At.DAY, At.DAY_REQUESTS, At.DAY_USD_MICROS, At.DAY_RESERVED)


@dataclass(frozen=True, slots=True)
class Question:
    """One question, as `acquire.lua` gets it."""

    ticket: str
    bot: str
    kind: str = "default"
    priority: int = 2
    order: float = -1
    charge: float = 1000.0
    weight: float = 1.0
    by_tenant: bool = False
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    money: int = 0
    max_wait_us: float = 600_000_000.0
    random: float = 0.5
    lease_us: float = 600_000_000.0
    patience_us: float = -1.0
    beyond: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of `acquire.lua`; times in microseconds."""

    code: int
    wait_us: int
    order: int
    now_us: int
    held_us: int
    idle: int
    backlog_us: int
    candidate: int
    quiet_us: int
    charged: Tokens
    cost: float
    cause: int = 0
    is_own: bool = False
    lowest: int = -1
    is_beyond: bool = False


def day_of(q: Question, state: list[float], terms: Terms, uses: tuple[float, ...], now: int) -> tuple[float, int]:
    """Return what a call is charged of the day's money, and what of the day is used up (0: nothing)."""
    today, cost = now // limits.DAY_US, float(q.money)
    if state[At.DAY] != today:
        for place, number in zip(DAY, (today, 0, 0, 0), strict=True):
            state[place] = number
    if terms.usd_micros_a_day and len(uses) > 4:
        cost = q.money * min(1, uses[4] + uses[5])
    share = limits.FULL_SHARE if _is_bulk(q, terms) else 1
    if terms.requests_a_day and state[At.DAY_REQUESTS] + 1 > terms.requests_a_day * share:
        return cost, limits.BY_REQUESTS
    is_broke = terms.usd_micros_a_day and state[At.DAY_USD_MICROS] + cost > terms.usd_micros_a_day * share
    return cost, limits.BY_MONEY if is_broke else 0


def day_is_full(
    q: Question, state: list[float], terms: Terms, cost: float, used_up: int, now: int
) -> tuple[float, int, bool, int]:
    """Return when to try again, the cause, whether it is only this call's, and the lowest priority that passes."""
    opens, lowest, share = float((now // limits.DAY_US + 1) * limits.DAY_US), -1, 1.0
    if _is_bulk(q, terms):
        lowest, share = limits.LOWEST_ON_RESERVE, limits.FULL_SHARE
    if used_up == limits.BY_REQUESTS:
        return opens, used_up, False, lowest
    most, used = terms.usd_micros_a_day * share, state[At.DAY_USD_MICROS]
    if used - state[At.DAY_RESERVED] + cost <= most and now - state[At.RESERVED_AT] < q.lease_us:
        opens = now + limits.RETURNS_US
    mean = used / state[At.DAY_REQUESTS] if state[At.DAY_REQUESTS] > 0 else 0
    return opens, used_up, cost > terms.usd_micros_a_day or 0 < mean <= most - used, lowest


def _is_bulk(q: Question, terms: Terms) -> bool:
    return bool(terms.stops_bulk) and q.priority > limits.LOWEST_ON_RESERVE
