"""How one limit stands, for operators and for the budget signal. Read only; nothing here decides anything."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from fleet.config import LimitSettings
from fleet.limiter.limits import MINUTE_US, Terms
from fleet.limiter.observing import RATES
from fleet.limiter.scripts import SHOW
from fleet.store import keys
from fleet.store.client import Store

_LEARNT = struct.Struct("<11d")


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


@dataclass(frozen=True, slots=True)
class Standing:
    """What `show.lua` replied, typed: `state` as in `limit.lua`, `learnt` as in `learning.lua`, but from index 0."""

    now_us: int
    operator: str
    learnt: tuple[float, ...]
    waiting: int
    in_flight: int
    state: tuple[float, ...]


async def read_standing(store: Store, limit: str) -> Standing:
    """Read the state of a limit. Raises `StoreUnavailable`."""
    return standing_of(await store.run(SHOW, show_keys(limit)))


def show_keys(limit: str) -> list[str]:
    """Return the KEYS of `show.lua`."""
    state, facts, queue, _, _, leases, _ = keys.limit_parts(limit)
    return [state, facts, queue, leases]


def standing_of(reply: Sequence[Any]) -> Standing:
    """Return what `show.lua` replied, typed."""
    _, _, now_us, operator, learnt, waiting, in_flight, numbers = reply
    told = _LEARNT.unpack(learnt) if len(learnt) == _LEARNT.size else (0.0,) * 11
    return Standing(now_us, operator.decode(), told, waiting, in_flight, tuple(map(float, numbers)))


def terms_in_force(terms: Terms, standing: Standing) -> tuple[float, ...]:
    """Return the ten numbers in force, as `limit.lua` reads them."""
    numbers, learnt = list(_as_set(terms, standing)), standing.learnt
    for k in range(4):
        if learnt[k] and not 0 < numbers[k] <= learnt[k]:
            numbers[k] = learnt[k]
    if not any(numbers[:4]):
        numbers[:2] = learnt[4:6]
    return tuple(numbers)


def _as_set(terms: Terms, standing: Standing) -> tuple[float, ...]:
    """Return the ten numbers as configured, or as an operator has set them."""
    numbers: list[float] = list(astuple(terms))
    for k, number in enumerate(standing.operator.split()):
        if float(number) >= 0:
            numbers[k] = float(number)
    return tuple(numbers)


def interval_us(terms: tuple[float, ...], state: Sequence[float]) -> float:
    """Return the microseconds from one call to the next at their mean size, 0 when nothing limits them."""
    means = (1.0, *(state[6 + k] or 0.0 for k in range(3)))
    rates = [mean * MINUTE_US / rate for mean, rate in zip(means, terms[:4], strict=True) if rate]
    flight = [(state[30] or 1_000_000.0) / terms[6]] if terms[6] else []
    return max((*rates, *flight), default=0.0)


async def read_snapshot(store: Store, limit: str, settings: LimitSettings) -> LimitSnapshot:
    """Read how a limit stands. Raises `StoreUnavailable`."""
    return snapshot_of(limit, await read_standing(store, limit), settings)


def snapshot_of(limit: str, standing: Standing, settings: LimitSettings) -> LimitSnapshot:
    """Return how a limit stands, from what `show.lua` replied."""
    now_us, state = standing.now_us, standing.state
    terms = terms_in_force(Terms.of(settings), standing)
    used_rpm, used_tpm = last_minute(state[31:36], now_us)
    set_terms, learnt = _as_set(Terms.of(settings), standing), standing.learnt
    others = learnt[6:8] if learnt[10] > now_us else (0.0, 0.0)
    between_us = interval_us(terms, state)
    return LimitSnapshot(
        limit=limit,
        rpm=round(terms[0]) or None,
        tpm=round(terms[1]) or None,
        used_rpm=used_rpm,
        used_tpm=used_tpm,
        queue_s=(max(now_us, state[4], *_free_us(terms, state)) - now_us) / 1e6,
        held_until=state[4] / 1e6 if state[4] > now_us else None,
        granted=int(state[21]),
        granted_tokens=int(state[22]),
        refused=int(state[36]),
        refused_at=state[37] / 1e6 if state[36] else None,
        waiting=standing.waiting,
        in_flight=standing.in_flight,
        is_changed=bool(standing.operator),
        is_learnt=any(terms[:4]) and not any(set_terms[:4]),
        lowered={name: round(was) for name, was, now in zip(RATES, set_terms, terms, strict=False) if 0 < now < was},
        others_rpm=others[0],
        others_tpm=others[1],
        rate=1e6 / between_us if between_us else None,
        usd_micros_per_day=round(terms[5]) or None,
    )


def _free_us(terms: tuple[float, ...], state: tuple[float, ...]) -> list[float]:
    """Return for each rate the time at which its next slot is free."""
    free_us = [0.0]
    for k in range(4):
        if terms[k]:
            one_us = MINUTE_US / terms[0] if k == 0 else 0.0
            free_us.append(state[k] + one_us - max(terms[7], one_us))
    return free_us


def last_minute(counted: Sequence[float], now_us: int) -> tuple[float, float]:
    """Return requests and tokens of the 60 s before now: this minute, and the share of the last one that still counts.

    Args:
        counted: The minute that is counted, its requests and tokens, those of the one before.
        now_us: Time of Redis.
    """
    minute, elapsed_us = divmod(now_us, MINUTE_US)
    counted_minute, requests, tokens, last_requests, last_tokens = counted
    left = 1 - elapsed_us / MINUTE_US
    if counted_minute == minute:
        return requests + last_requests * left, tokens + last_tokens * left
    if counted_minute == minute - 1:
        return requests * left, tokens * left
    return 0.0, 0.0
