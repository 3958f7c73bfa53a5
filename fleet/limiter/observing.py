"""What a process does with the headers of answers: hand them to Redis often enough, and say what surprises.

What follows from them is decided in `observe.lua`.
"""

from __future__ import annotations

import asyncio
import logging

from fleet.limiter.call import LocalLimit
from fleet.limiter.layouts import HEARD
from fleet.limiter.limits import Terms
from fleet.limiter.scripts import OBSERVE
from fleet.models import Grant, Mark
from fleet.rates import RateReading, RateReadings
from fleet.store.client import Store

#: Seconds between two readings that a process hands on for one limit: often enough for a bucket of a few seconds.
EVERY_S = 0.2
#: What a limit counts, as `fleet.toml` names it, in the order of readings.
RATES = ("rpm", "tpm", "input_tpm", "output_tpm")

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
        names, heard = limit.keys_for(), packed_readings(grant.mark, rates or _SILENCE)
        told = OBSERVE.call(state=names.state, facts=names.facts, heard=heard, terms=limit.packed)
        self._store.send(OBSERVE, *told, within_s=within_s)

    def _warn(self, limit: str, rates: RateReadings, terms: Terms) -> None:
        """Say once that a provider allows less than is configured."""
        for k, (rate, reading) in enumerate(zip(terms.rates, rates, strict=True)):
            told = reading.limit
            if told is not None and told < rate and (limit, k, told) not in self._warned:
                self._warned.add((limit, k, told))
                logger.warning("limit_lowered limit=%s %s=%d provider_allows=%d", limit, RATES[k], rate, told)


def packed_readings(mark: Mark, rates: RateReadings) -> bytes:
    """Return what the headers of a call said, packed as `layouts.Heard`."""
    limits = [_said(reading.limit) for reading in rates]
    left = [_said(reading.remaining) for reading in rates]
    resets_us = [-1.0 if reading.reset_s is None else reading.reset_s * 1e6 for reading in rates]
    return HEARD.pack((*mark, *limits, *left, *resets_us))


def _said(number: float | None) -> float:
    return -1.0 if number is None else number
