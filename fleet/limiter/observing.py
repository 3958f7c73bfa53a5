"""What a process does with the headers of answers: hand them to Redis often enough, and say what surprises.

What follows from them is decided in `observe.lua`.
"""

from __future__ import annotations

import asyncio
import logging
import struct

from fleet.grants import Grant, Mark
from fleet.limiter.call import LocalLimit
from fleet.limiter.layouts import HEARD
from fleet.limiter.scripts import OBSERVE
from fleet.rates import RateReadings
from fleet.store.client import Store

#: Seconds between two readings that a process hands on for one limit: often enough for a bucket of a few seconds.
EVERY_S = 0.2
#: What a limit counts, as `fleet.toml` names it, in the order of readings.
RATES = ("rpm", "tpm", "input_tpm", "output_tpm")

#: Readings of a question: `RATES` of a minute, of an hour, and of a day.
_PLACES = 12

logger = logging.getLogger("fleet.limiter")


class Observer:
    """Hands what providers say to Redis, in the flush of the settlement that goes before it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, grant: Grant, rates: RateReadings | None, limit: LocalLimit, *, within_s: float) -> None:
        """Take note of one answer.

        Args:
            grant: Under which the call went.
            rates: What its headers said; None: nothing, which matters where nothing is configured either.
            limit: Of the grant.
            within_s: As `Store.send`.
        """
        now = asyncio.get_running_loop().time()
        if now < limit.observe_at:
            return
        limit.observe_at = now + EVERY_S
        names, heard = limit.keys_for(), packed_readings(grant.mark, rates or ())
        told = OBSERVE.call(state=names.state, facts=names.facts, heard=heard, terms=limit.packed)
        self._store.send(OBSERVE, *told, within_s=within_s, receiver=_Lowered(limit) if rates else None)


class _Lowered:
    """Says once for each number that a provider allows less than is configured, when Redis is sure of it."""

    __slots__ = ("_limit",)

    def __init__(self, limit: LocalLimit) -> None:
        self._limit = limit

    def done(self) -> bool:
        return False

    def set_result(self, reply: bytes) -> None:
        if not any(reply[_LOWERED_AT:]):
            return
        limit = self._limit
        for name, was, now in zip(RATES, limit.terms.rates, _LOWERED.unpack_from(reply)[3:], strict=True):
            if 0 < now < was and limit.told_lowered.get(name) != now:
                limit.told_lowered[name] = now
                logger.warning("limit_lowered limit=%s %s=%d provider_allows=%d", limit.name, name, was, now)

    def set_exception(self, error: Exception) -> None:
        logger.debug("limit_observe_failed limit=%s error=%s", self._limit.name, error)  # whoever asks is told


_LOWERED = struct.Struct("<7q")
_LOWERED_AT = 3 * 8


def packed_readings(mark: Mark, rates: RateReadings) -> bytes:
    """Return what the headers of a call said, packed as `layouts.Heard`."""
    rest = (-1.0,) * (_PLACES - len(rates))
    limits = [_said(reading.limit) for reading in rates]
    left = [_said(reading.remaining) for reading in rates]
    resets_us = [_us(reading.reset_s) for reading in rates]
    periods_us = [_us(reading.period_s) for reading in rates]
    return HEARD.pack((*mark, *limits, *rest, *left, *rest, *resets_us, *rest, *periods_us, *rest))


def _said(number: float | None) -> float:
    return -1.0 if number is None else number


def _us(seconds: float | None) -> float:
    return -1.0 if seconds is None else seconds * 1e6
