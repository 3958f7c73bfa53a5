"""A limit as eleven numbers, and the numbers that all limits go by. Pure; no Redis, no clock.

The limiter is a GCRA (ITU-T I.371, "virtual scheduling") over several rates at once: each rate has a clock that every
call moves forward by its emission interval, and a call may go as long as no clock is further ahead than the burst.

What is declared here is what the scripts and their model go by; Lua gets it by name as it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter

from fleet.config import LimitSettings
from fleet.store.layouts import Layout

#: Microseconds in the minute that rates refer to, and in a day.
MINUTE_US = 60_000_000
DAY_US = 86_400_000_000
#: Horizons (us): how far ahead slots are committed. The long one costs fewer questions; the short one holds while more
#: urgent calls are about. Slow limits have longer ones: a mean call, and half of one.
LONG_US, SHORT_US = 350_000, 60_000
#: So long after its last question a class is about (ms); it is noted this often (ms).
URGENT_MEMORY_MS, NOTED_EVERY_MS = 60_000, 1000
#: A ticket that is so late is taken for dead (us), and so are those of its process among the first in the order; if one
#: comes all the same, it keeps its place. So many are looked at in one go.
GRACE_US, FIRST, DEAD_STEPS = 150_000, 128, 16
#: Dead tickets and entries that no window holds any more are looked for so often (us), and when entries are in the way.
#: So many entries one question looks at.
SWEEP_US, LOG_STEPS = 20_000, 64
#: Who waits long is asked again by this share of its wait earlier: long estimates are further off.
FAR_SHARE = 0.1
#: A call asks again when its turn is off by a share of the horizon from the first to the sum of both of these.
EARLY_SHARE, EARLY_SPREAD = 0.15, 0.4
#: Shortest and longest sleep (us), and by what share of the horizon the shortest may be longer.
MIN_SLEEP_US, MAX_SLEEP_US, SLEEP_SPREAD = 1_000, 15_000_000, 0.2
#: A call whose turn is further off than so many times its longest wait is told so at once.
HOPELESS = 1.25
#: For every LEAVE grants to more urgent classes a class that waits gets one. The most credit that it saves up.
LEAVE, MOST_CREDIT = 7, 2
#: What a grant counts in the share of grants to more urgent classes.
NEWEST_GRANT = 0.03
#: A kind of call that uses more than it asks for is charged at most so many times as much.
MOST_SHARE = 4
#: A use counts in the window from its answer on, where that took less than this share of the window: a quick answer
#: says when the provider counted it at the latest.
QUICK = 0.01
#: Mean time in flight until one is known (us), and what the newest counts in it.
FIRST_FLIGHT_US, NEWEST_FLIGHT = 1_000_000, 0.1
#: Weight of the newest call in the mean sizes: of all calls at first, then of the last hundred.
NEWEST_CALL = 0.01
#: Weight of the newest use in what a kind of call uses, as TCP learns round-trip times (RFC 6298); the deviation of the
#: first one.
NEWEST_USE, FIRST_DEVIATION = 1 / 16, 1 / 4
#: Kinds of calls of which a limit learns; of more, which somebody invents, it does not.
MOST_KINDS = 1000
#: Longest penalty that is believed, in seconds (1 day): daily quotas say so, more is a provider's mistake.
MAX_PENALTY_S = 86_400.0
#: What one call is charged in the fair order when calls are what is shared out evenly.
CALL_CHARGE = 1000
#: Slots that one call may be too late for; a loop that is always late sends all the same.
MOST_MISSED = 2
#: Distance of two classes in the order of tickets.
CLASS = 10**15
#: Every so many microseconds of the clock, by chance, a call does what need not be done each time.
NOW_AND_THEN = 64
#: What a refusal for too many calls at once taught grows by this share, and at least one call, each so often (us); at
#: so many times as much it is no limit any more.
IN_FLIGHT_GROWTH, IN_FLIGHT_STEP_US, IN_FLIGHT_FADES = 0.1, 10_000_000, 10
#: Why a call does not go soon.
BY_LIMIT, BY_HOLD, BY_REQUESTS, BY_MONEY = 1, 2, 3, 4
#: Where a full day stops bulk: from this share on, only that priority and more urgent ones go.
FULL_SHARE, LOWEST_ON_RESERVE = 0.8, 2
#: When to try again where the money that calls in flight have reserved would do (us).
RETURNS_US = 2_000_000
#: By how much the time at which money was last reserved may be too early (us).
RESERVED_US = 1_000_000
#: Who waits for its turn elsewhere comes back before it by this share of its patience.
EARLY_PATIENCE = 0.5
#: Deviations above the mean that a call is taken to have cost which nobody settles; the life of such notes is pushed
#: so often (us), beside when the first of them is made.
NOTED_DEVIATIONS, NOTED_US = 3, 3_600_000_000
#: The burst right after an outage (us), and by what share of the time since then it grows again.
CALM_BURST_US, CALM_GROWTH = 40_000, 0.0003
#: Share of the window by which a call stays counted longer than the provider does: what leaves in one order arrives in
#: another, and two calls at the edges of a window must not meet inside it (0.3% of a minute = 180 ms).
WINDOW_MARGIN = 0.003


@dataclass(frozen=True, slots=True)
class Terms:
    """A limit as the scripts want it; 0 is "not limited". The order of the fields is that of `terms` in Lua.

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
        stops_bulk: 1: a nearly full day has no room for low and bulk calls.
    """

    rpm: float = 0
    tpm: float = 0
    itpm: float = 0
    otpm: float = 0
    requests_a_day: float = 0
    usd_micros_a_day: float = 0
    in_flight: float = 0
    burst_us: float = 0
    window_us: float = 0
    margin_us: float = 0
    stops_bulk: float = 0

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
            stops_bulk=float(settings.when_full == "stop bulk"),
        )

    @property
    def rates(self) -> tuple[float, float, float, float]:
        """Requests, tokens, input and output tokens per minute."""
        return self.rpm, self.tpm, self.itpm, self.otpm

    @property
    def has_rates(self) -> bool:
        """True when requests or tokens a minute are limited."""
        return any(self.rates)

    def pack(self) -> bytes:
        """Return the terms as the scripts read them."""
        return _PACKED.pack(*self.numbers)

    @property
    def numbers(self) -> tuple[float, ...]:
        """All of them in order, faster than `dataclasses.astuple`."""
        return _numbers_of(self)


_PACKED = Layout.of(Terms).struct
_numbers_of: Callable[[Terms], tuple[float, ...]] = attrgetter(*(each.name for each in fields(Terms)))
