"""From settings to what the scripts want: a limit as ten numbers. Pure; no Redis, no clock.

The limiter is a GCRA (ITU-T I.371, "virtual scheduling") over several rates at once: each rate has a clock that every
call moves forward by its emission interval, and a call may go as long as no clock is further ahead than the burst.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

from fleet.config import LimitSettings

#: Microseconds in the minute that rates refer to.
MINUTE_US = 60_000_000
#: Share of the window by which a call stays counted longer than the provider does: what leaves in one order arrives in
#: another, and two calls at the edges of a window must not meet inside it (0.3% of a minute = 180 ms).
WINDOW_MARGIN = 0.003

_PACKED = struct.Struct("<10d")


@dataclass(frozen=True, slots=True)
class Terms:
    """A limit as the scripts want it; 0 is "not limited". The order of the fields is that of their ARGV.

    What it lets through, with counting "bucket": in any time, at most rate x time + burst. The exceptions are sizes
    that a burst cannot hold: one request always fits, and a call of more tokens than the burst goes when the whole
    burst is there and leaves a debt. With counting "window" in addition no window holds more than the rate.

    Args:
        rpm: Requests per minute.
        tpm: Tokens per minute, input and output together.
        itpm: Input tokens per minute.
        otpm: Output tokens per minute.
        requests_a_day: Requests per day (UTC).
        usd_micros_a_day: Micro-dollars per day (UTC).
        in_flight: Calls at the same time.
        burst_us: How far a clock may be ahead.
        window_us: Time over which the provider counts; 0 when it has a bucket.
        margin_us: How much longer than that a call stays counted.
    """

    rpm: int = 0
    tpm: int = 0
    itpm: int = 0
    otpm: int = 0
    requests_a_day: int = 0
    usd_micros_a_day: int = 0
    in_flight: int = 0
    burst_us: int = 0
    window_us: int = 0
    margin_us: int = 0

    @classmethod
    def of(cls, settings: LimitSettings) -> Terms:
        """Work out the terms of a configured limit."""
        window_us = round(settings.window_s * 1_000_000) if settings.counting == "window" else 0
        return cls(
            rpm=settings.rpm or 0,
            tpm=settings.tpm or 0,
            itpm=settings.input_tpm or 0,
            otpm=settings.output_tpm or 0,
            requests_a_day=settings.requests_per_day or 0,
            usd_micros_a_day=round((settings.usd_per_day or 0) * 1_000_000),
            in_flight=settings.in_flight or 0,
            burst_us=int(settings.burst * MINUTE_US),
            window_us=window_us,
            margin_us=round(window_us * WINDOW_MARGIN),
        )

    @property
    def has_rates(self) -> bool:
        """True when requests or tokens a minute are limited."""
        return bool(self.rpm or self.tpm or self.itpm or self.otpm)

    def pack(self) -> bytes:
        """Return the terms as the scripts read them."""
        return _PACKED.pack(*astuple(self))
