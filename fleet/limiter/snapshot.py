"""How one limit stands, for operators and the budget signal, who waits under it, for the engine, and what calls cost of
the most that they may, as `settle.lua` has learnt for the whole fleet. Read only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fleet.config import LimitSettings
from fleet.limiter.layouts import LEARNT, SEEN, At, Learnt, Seen
from fleet.limiter.limits import (
    CLASS,
    DAY_US,
    FIRST_FLIGHT_US,
    IN_FLIGHT_FADES,
    IN_FLIGHT_GROWTH,
    IN_FLIGHT_STEP_US,
    MINUTE_US,
    MOST_KINDS,
    Terms,
)
from fleet.limiter.observing import RATES
from fleet.limiter.scripts import SHOW
from fleet.models import Priority
from fleet.store import keys
from fleet.store.client import Store

#: Deviations above the mean that are taken for the cost of a call.
DEVIATIONS = 3.0
#: Seconds for which what was read is believed; and where a call has no money by that.
FRESH_S, NEWEST_S = 1.0, 0.05
_COUNTED = dict(zip(RATES, ("requests", "tokens", "input tokens", "output tokens"), strict=True))
_PERIODS = {3600.0: "an hour", 86_400.0: "a day", 604_800.0: "a week", 2_592_000.0: "a month"}


@dataclass(frozen=True, slots=True)
class LongLimit:
    """A limit of more than a minute, as the provider's headers told it. Times by the clock of Redis.

    Args:
        what: What is counted, as `fleet.toml` names its limit a minute.
        limit: How much the provider allows in the period.
        left: What was left of it when it was heard of last, less what was granted meanwhile; None: not said.
        period_s: The period, mostly an hour or a day.
        full_at: Unix time at which all of it is there again; None: not said.
        heard_at: Unix time at which it was heard of last.
    """

    what: str
    limit: int
    left: int | None
    period_s: float
    full_at: float | None
    heard_at: float

    @property
    def used(self) -> int | None:
        """What is used of it; None: not said."""
        return None if self.left is None else max(0, self.limit - self.left)

    @property
    def label(self) -> str:
        """What it counts and over which time: `requests a day`."""
        return f"{_COUNTED[self.what]} {_PERIODS.get(self.period_s) or f'in {self.period_s / 3600:.3g} h'}"


@dataclass(frozen=True, slots=True)
class LimitSnapshot:
    """One limit just now. Times by the clock of Redis.

    Args:
        limit: Name, `provider/model/key`.
        rpm: Requests per minute in force; None: not limited.
        tpm: Tokens per minute in force; None: not limited.
        used_rpm: Requests settled in the last minute; the older part of it is interpolated.
        used_tpm: Tokens settled in the last minute, likewise.
        queue_s: Seconds until the next slot is free.
        held_until: Unix time until which a 429 holds everybody; None when it does not.
        granted: Requests granted since the limit is known.
        granted_tokens: Tokens granted, after settling.
        refused: 429s seen.
        refused_at: Unix time of the last one.
        waiting: Tickets in the order.
        in_flight: Calls under way, where they are limited.
        is_changed: An operator has set it live.
        is_learnt: Nothing is configured; what is in force was learnt.
        lowered: What is configured or set live, by name, where the provider allows less: its number is in force.
        others_rpm: Requests that others have used of the provider's minute, as its headers tell.
        others_tpm: Tokens, likewise.
        rate: Calls a second that the limit gives at their present mean size; None: not limited.
        usd_micros_per_day: Micro-dollars per day in force; None: not limited.
        used_usd_micros: Micro-dollars of them that calls of today cost, or have reserved.
        reserved_usd_micros: Those of them that calls in flight have reserved.
        requests_per_day: Requests per day in force; None: not limited.
        used_requests: Those of them that are used today.
        held_by: Who told of the hold; empty when there is none.
        most_in_flight: Calls at the same time in force; None: not limited.
        in_flight_is_learnt: The provider has refused one of more calls at the same time.
        long: Limits of more than a minute that the provider told of.
        paced_rpm: Calls a minute, while little is left of one of those; None: they bind nobody.
        resumed_by: The command that ends it, where it is held low for unusual use; the limiter does not know.
    """

    limit: str
    rpm: int | None
    tpm: int | None
    used_rpm: float
    used_tpm: float
    queue_s: float
    held_until: float | None
    granted: int
    granted_tokens: int
    refused: int
    refused_at: float | None
    waiting: int = 0
    in_flight: int = 0
    is_changed: bool = False
    is_learnt: bool = False
    lowered: Mapping[str, int] = field(default_factory=dict)
    others_rpm: float = 0.0
    others_tpm: float = 0.0
    rate: float | None = None
    usd_micros_per_day: int | None = None
    used_usd_micros: float = 0.0
    reserved_usd_micros: float = 0.0
    requests_per_day: int | None = None
    used_requests: int = 0
    held_by: str = ""
    most_in_flight: int | None = None
    in_flight_is_learnt: bool = False
    long: tuple[LongLimit, ...] = ()
    paced_rpm: float | None = None
    resumed_by: str = ""

    @property
    def is_full(self) -> bool:
        """True when as many calls are under way as may be."""
        return self.most_in_flight is not None and self.in_flight >= self.most_in_flight


@dataclass(frozen=True, slots=True)
class Crowd:
    """Waiting calls of one limit: what the engine goes by when it decides how many tasks to take.

    Args:
        waiting: Tickets by priority, the most urgent first.
        interval_s: Seconds from one call to the next at their mean size; 0: nothing limits them.
        next_s: Seconds until the next slot is free.
    """

    waiting: tuple[int, ...]
    interval_s: float
    next_s: float

    @property
    def total(self) -> int:
        """All tickets."""
        return sum(self.waiting)


@dataclass(frozen=True, slots=True)
class Standing:
    """What `show.lua` replied, typed. `state`, `learnt` and `seen` go by the places of `layouts.py`."""

    now_us: int
    operator: str
    learnt: tuple[float, ...]
    seen: tuple[float, ...]
    held_by: str
    waiting: int
    in_flight: int
    state: tuple[float, ...]


async def read_standing(store: Store, limit: str) -> Standing:
    """Read the state of a limit. Raises `StoreUnavailable`."""
    return standing_of(await store.run(SHOW, *show_call(limit)))


def show_call(limit: str) -> tuple[list[str], list[str]]:
    """Return KEYS and ARGV of `show.lua`."""
    names = keys.limit_keys(limit)
    return SHOW.call(state=names.state, facts=names.facts, queue=names.queue, leases=names.leases)


def standing_of(reply: Sequence[Any]) -> Standing:
    """Return what `show.lua` replied, typed."""
    _, _, now_us, operator, learnt, seen, held_by, waiting, in_flight, numbers = reply
    state = (0.0, *map(float, numbers))
    told = LEARNT.unpack(learnt), SEEN.unpack(seen)
    return Standing(now_us, operator.decode(), *told, held_by.decode("utf-8", "replace"), waiting, in_flight, state)


def terms_in_force(terms: Terms, standing: Standing) -> Terms:
    """Return the terms in force, as `limit.lua` reads them, but for the pace while little is left of a day."""
    numbers: list[float] = list(_as_set(terms, standing).numbers)
    for k in range(4):
        allowed = standing.learnt[Learnt.ALLOWED + 1 + k]
        is_believed = standing.learnt[Learnt.ALLOWED_UNTIL + 1 + k] > standing.now_us
        if allowed and is_believed and not 0 < numbers[k] <= allowed:
            numbers[k] = allowed
    if not any(numbers[:4]):
        numbers[:2] = standing.learnt[Learnt.GUESS + 1], standing.learnt[Learnt.GUESS + 2]
    in_force = Terms(*numbers)
    most = _learnt_in_flight(standing)
    return replace(in_force, in_flight=most) if most and not 0 < in_force.in_flight <= most else in_force


def _paced_rpm(terms: Terms, standing: Standing) -> float | None:
    """Return the calls a minute that little left of a day allows, when they are fewer than else."""
    pace = standing.learnt[Learnt.PACED]
    binds = standing.learnt[Learnt.PACED_UNTIL] > standing.now_us and not 0 < terms.rpm <= pace
    return pace if pace and binds else None


def _learnt_in_flight(standing: Standing) -> float:
    """Return the calls at the same time that a refusal allows by now; 0: none was, or it is too long ago."""
    least, grows_at = standing.learnt[Learnt.IN_FLIGHT], standing.learnt[Learnt.IN_FLIGHT_GROWS]
    steps = max(0.0, standing.now_us - grows_at) // IN_FLIGHT_STEP_US
    most = least + steps * max(1, int(least * IN_FLIGHT_GROWTH))
    return most if most < least * IN_FLIGHT_FADES else 0.0


def _long_limits(standing: Standing) -> Iterator[LongLimit]:
    """Yield the limits of more than a minute that were heard of within their period."""
    seen = standing.seen
    for slot in range(1, 9):
        limit, period_us, heard_at = (seen[at + slot] for at in (Seen.LONG_LIMIT, Seen.LONG_PERIOD, Seen.LONG_AT))
        if limit and standing.now_us - heard_at < period_us:
            left, full_at = seen[Seen.LONG_LEFT + slot], seen[Seen.LONG_FULL_AT + slot]
            yield LongLimit(
                what=RATES[(slot - 1) % 4],
                limit=round(limit),
                left=None if left < 0 else round(left),
                period_s=period_us / 1e6,
                full_at=full_at / 1e6 if full_at > standing.now_us else None,
                heard_at=heard_at / 1e6,
            )


def _as_set(terms: Terms, standing: Standing) -> Terms:
    """Return the terms as configured, or as an operator has set them."""
    numbers: list[float] = list(terms.numbers)
    for k, number in enumerate(standing.operator.split()):
        if float(number) >= 0:
            numbers[k] = float(number)
    return Terms(*numbers)


def interval_us(terms: Terms, state: Sequence[float]) -> float:
    """Return the microseconds from one call to the next at their mean size, 0 when nothing limits them."""
    means = (1.0, *(state[At.MEAN + k] or 0.0 for k in (2, 3, 4)))
    rates = [mean * MINUTE_US / rate for mean, rate in zip(means, terms.rates, strict=True) if rate]
    flight = [(state[At.MEAN_FLIGHT_US] or FIRST_FLIGHT_US) / terms.in_flight] if terms.in_flight else []
    return max((*rates, *flight), default=0.0)


async def read_snapshot(store: Store, limit: str, settings: LimitSettings) -> LimitSnapshot:
    """Read how a limit stands. Raises `StoreUnavailable`."""
    return snapshot_of(limit, await read_standing(store, limit), settings)


async def read_crowd(store: Store, limit: str, settings: LimitSettings) -> Crowd:
    """Read who waits, in one write. Raises `StoreUnavailable`."""
    queue = keys.limit_keys(limit).queue
    counts = [store.command("ZCOUNT", queue, priority * CLASS, f"({(priority + 1) * CLASS}") for priority in Priority]
    standing, *waiting = await asyncio.gather(read_standing(store, limit), *counts)
    shown = snapshot_of(limit, standing, settings)
    return Crowd(tuple(waiting), 1 / shown.rate if shown.rate else 0.0, shown.queue_s)


def snapshot_of(limit: str, standing: Standing, settings: LimitSettings) -> LimitSnapshot:
    """Return how a limit stands, from what `show.lua` replied."""
    now_us, state = standing.now_us, standing.state
    configured = Terms.of(settings)
    terms, set_terms, learnt = terms_in_force(configured, standing), _as_set(configured, standing), standing.learnt
    used_rpm, used_tpm = last_minute(state, now_us)
    are_others = learnt[Learnt.OTHERS_UNTIL] > now_us
    held_until, is_today = state[At.HELD_UNTIL], state[At.DAY] == now_us // DAY_US
    paced_rpm = _paced_rpm(terms, standing)
    at_pace = replace(terms, rpm=paced_rpm or terms.rpm)
    between_us = interval_us(at_pace, state)
    return LimitSnapshot(
        limit=limit,
        rpm=round(terms.rpm) or None,
        tpm=round(terms.tpm) or None,
        used_rpm=used_rpm,
        used_tpm=used_tpm,
        queue_s=(max(now_us, held_until, *_free_us(at_pace, state)) - now_us) / 1e6,
        held_until=held_until / 1e6 if held_until > now_us else None,
        granted=int(state[At.GRANTED]),
        granted_tokens=int(state[At.GRANTED_TOKENS]),
        refused=int(state[At.REFUSED]),
        refused_at=state[At.REFUSED_AT] / 1e6 if state[At.REFUSED] else None,
        waiting=standing.waiting,
        in_flight=standing.in_flight,
        is_changed=any(float(number) >= 0 for number in standing.operator.split()),
        is_learnt=terms.has_rates and not set_terms.has_rates,
        lowered={
            name: round(was)
            for name, was, now in zip(RATES, set_terms.rates, terms.rates, strict=True)
            if 0 < now < was
        },
        others_rpm=learnt[Learnt.OTHERS + 1] if are_others else 0.0,
        others_tpm=learnt[Learnt.OTHERS + 2] if are_others else 0.0,
        rate=1e6 / between_us if between_us else None,
        usd_micros_per_day=round(terms.usd_micros_a_day) or None,
        used_usd_micros=state[At.DAY_USD_MICROS] if is_today else 0.0,
        reserved_usd_micros=state[At.DAY_RESERVED] if is_today else 0.0,
        requests_per_day=round(terms.requests_a_day) or None,
        used_requests=int(state[At.DAY_REQUESTS]) if is_today else 0,
        held_by=standing.held_by if held_until > now_us else "",
        most_in_flight=round(terms.in_flight) or None,
        in_flight_is_learnt=terms.in_flight != set_terms.in_flight,
        long=tuple(_long_limits(standing)),
        paced_rpm=paced_rpm,
    )


def _free_us(terms: Terms, state: Sequence[float]) -> list[float]:
    """Return for each rate the time at which its next slot is free."""
    free_us = [0.0]
    for k, rate in enumerate(terms.rates, 1):
        if rate:
            one_us = MINUTE_US / rate if k == 1 else 0.0
            free_us.append(state[At.CLOCK + k] + one_us - max(terms.burst_us, one_us))
    return free_us


def last_minute(state: Sequence[float], now_us: int) -> tuple[float, float]:
    """Return requests and tokens of the 60 s before now: this minute, and the share of the last one that still counts.

    Args:
        state: Of the limit.
        now_us: Time of Redis.
    """
    minute, elapsed_us = divmod(now_us, MINUTE_US)
    left = 1 - elapsed_us / MINUTE_US
    requests, tokens = state[At.MINUTE_REQUESTS], state[At.MINUTE_TOKENS]
    if state[At.MINUTE] == minute:
        return requests + state[At.BEFORE_REQUESTS] * left, tokens + state[At.BEFORE_TOKENS] * left
    if state[At.MINUTE] == minute - 1:
        return requests * left, tokens * left
    return 0.0, 0.0


class LearntCosts:
    """Implements `fleet.workers.ports.CostShares`: one HGET a second and kind, and up to 20 while calls have no money.

    Args:
        store: Redis of the fleet's state.
        clock: Seconds that only grow.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._read: dict[tuple[str, str], tuple[float, float]] = {}

    async def share(self, limit: str, kind: str, *, newest: bool = False) -> float:
        """Return what a call is taken to cost, as a share of the most; 1 before anything is learnt.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        now, known = self._clock(), self._read.get((limit, kind))
        if known is not None and now - known[0] < (NEWEST_S if newest else FRESH_S):
            return known[1]
        found = await self._store.command("HGET", keys.limit_keys(limit).facts, f"q:{kind}")
        if len(self._read) >= MOST_KINDS:
            self._read.clear()
        share = _share(found)
        self._read[limit, kind] = now, share
        return share


def _share(learnt: bytes | None) -> float:
    """Return what the field of a kind of calls says; see `settle.lua`: of money are its last two of six words."""
    words = (learnt or b"").split()
    return 1.0 if len(words) < 6 else min(1.0, float(words[4]) + DEVIATIONS * float(words[5]))
