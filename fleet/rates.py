"""What a provider's headers say of its rates. Who reads them: `workers/providers/rates/headers.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateReading:
    """One rate as a provider's headers tell it; None is "not said".

    Args:
        limit: What the provider allows in its period.
        remaining: What may still be sent at once.
        reset_s: Seconds until all of `limit` is there again.
        period_s: The period when the headers name it; else it is a minute, unless `reset_s` shows a longer one.
    """

    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None
    period_s: float | None = None


#: What an answer's headers said of requests, tokens, input tokens and output tokens, in this order; behind these four,
#: when the headers name such periods, the same four of an hour, and the same four of a day or longer.
RateReadings = tuple[RateReading, ...]
