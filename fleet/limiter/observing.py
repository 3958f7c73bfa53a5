"""What a process does with the headers of answers: hand them to Redis often enough, and say what surprises.

What follows from them is decided in `observe.lua`.
"""

from __future__ import annotations

import asyncio
import logging
import struct

from fleet.limiter.limits import Terms
from fleet.limiter.local import LocalLimit
from fleet.limiter.scripts import OBSERVE
from fleet.models import Grant
from fleet.rates import RateReading, RateReadings
from fleet.store.client import Store

#: Seconds between two readings that a process hands on for one limit: often enough for a bucket of a few seconds.
EVERY_S = 0.2
#: What a limit counts, as `fleet.toml` names it, in the order of readings.
RATES = ("rpm", "tpm", "input_tpm", "output_tpm")

_HEARD = struct.Struct("<15d")
_NOT_SAID = RateReading()
_SILENCE: RateReadings = (_NOT_SAID, _NOT_SAID, _NOT_SAID, _NOT_SAID)

logger = logging.getLogger("fleet.limiter")


class Observer:
    """Hands what providers say to Redis, in the flush of the settlement that goes before it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._warned: set[tuple[str, int, float]] = set()

    def note(self, grant: Grant, rates: RateReadings | None, limit: LocalLimit, *, within_s: float) -> None:
        """Take note of one answer.

        Args:
            grant: Under which the call went.
            rates: What its headers said; None: nothing, which matters only where nothing is configured either.
            limit: Of the grant.
            within_s: As `Store.send`.
        """
        if rates is None and limit.terms.has_rates:
            return
        now = asyncio.get_running_loop().time()
        if now < limit.observe_at:
            return
        limit.observe_at = now + EVERY_S
        if rates is not None:
            self._warn(limit.name, rates, limit.terms)
        numbers = [number for reading in rates or _SILENCE for number in reading_numbers(reading)]
        told = [_HEARD.pack(*grant.mark, *numbers), limit.packed]
        self._store.send(OBSERVE, limit.keys_for("")[:2], told, within_s=within_s)

    def _warn(self, limit: str, rates: RateReadings, terms: Terms) -> None:
        """Say once that a provider allows less than is configured."""
        configured = (terms.rpm, terms.tpm, terms.itpm, terms.otpm)
        for k, (rate, reading) in enumerate(zip(configured, rates, strict=True)):
            told = reading.limit
            if told is not None and told < rate and (limit, k, told) not in self._warned:
                self._warned.add((limit, k, told))
                logger.warning("limit_lowered limit=%s %s=%d provider_allows=%d", limit, RATES[k], rate, told)


def reading_numbers(reading: RateReading) -> tuple[float, float, float]:
    """Return a reading as `observe.lua` wants it: limit, remaining, microseconds until all is there; -1: not said."""
    limit, remaining, reset_s = reading.limit, reading.remaining, reading.reset_s
    return (
        -1.0 if limit is None else limit,
        -1.0 if remaining is None else remaining,
        -1.0 if reset_s is None else reset_s * 1e6,
    )
