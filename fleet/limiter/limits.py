"""From rates to times: what a limit of N per minute means in microseconds. Pure; no Redis, no clock.

The limiter is a GCRA (ITU-T I.371, "virtual scheduling") over two rates at once: each rate has a clock that every call
moves forward by its emission interval, and a call may go as long as its clock is not further ahead than the burst.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.config import LimitSettings

#: Microseconds in the minute that rates refer to.
MINUTE_US = 60_000_000
#: Share of the burst that is kept free for jitter: what leaves later than its slot must not meet the next burst.
JITTER_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Pace:
    """A limit as the scripts want it.

    What it lets through: in any window, at most rate x window + burst share of a minute, jitter included. The
    exceptions are sizes that a burst cannot hold: one request always fits, and a call of more tokens than the burst
    goes when the whole burst is there and leaves a debt, so that a window may hold its tokens instead of the burst.

    Args:
        rpm: Requests per minute; None: not limited.
        tpm: Tokens per minute; None: not limited.
        request_us: Emission interval of one request, rounded up; 0 when not limited.
        request_burst_us: How far the request clock may be ahead; at least one interval.
        token_burst_us: How far the token clock may be ahead.
        jitter_us: Most that a call may leave after its slot; 0 when the burst has no room for it.
    """

    rpm: int | None
    tpm: int | None
    request_us: int
    request_burst_us: int
    token_burst_us: int
    jitter_us: int

    @classmethod
    def of(cls, settings: LimitSettings) -> Pace:
        """Work out the pace of a configured limit."""
        burst_us = int(settings.burst * MINUTE_US)
        request_us = _up(MINUTE_US, settings.rpm) if settings.rpm else 0
        jitter_us = max(0, min(int(burst_us * JITTER_SHARE), burst_us - request_us))
        return cls(
            rpm=settings.rpm,
            tpm=settings.tpm,
            request_us=request_us,
            request_burst_us=max(request_us, burst_us - jitter_us),
            token_burst_us=burst_us - jitter_us,
            jitter_us=jitter_us,
        )

    @property
    def is_unlimited(self) -> bool:
        return self.rpm is None and self.tpm is None

    def tokens_us(self, tokens: int) -> int:
        """Return the emission interval of a call of so many tokens, rounded up; 0 when tokens are not limited."""
        return _up(tokens * MINUTE_US, self.tpm) if self.tpm else 0


def _up(amount: int, divisor: int) -> int:
    return -(-amount // divisor)
