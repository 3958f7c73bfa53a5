"""What the simulator admits: a count of requests and one of tokens per key and model; of requests also by the day.

They count as real providers do: in a continuously refilled bucket, in a sliding minute, or in fixed minutes. Time is an
argument; nothing here sleeps or reads a clock. How it is told in headers: `limit_headers.py`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

from fleet.workers.simulator.wires.limit_headers import FAMILIES, Family, Readings

#: How a provider counts what a minute holds.
Mode = Literal["bucket", "sliding", "fixed"]

#: Seconds that a wait is rounded up by at least, so that who waits exactly as told is admitted despite float rounding.
WAIT_MARGIN_S = 0.001
#: Minutes of a day.
DAY_MINUTES = 1440


class RateCounter(Protocol):
    """One rate, as a provider counts it."""

    def refill(self, now_s: float) -> None:
        """Bring the count up to `now_s`; a clock that goes back changes nothing."""
        ...

    def wait_s(self, amount: float) -> float:
        """Return the seconds until `amount` is admitted, 0 when it is now."""
        ...

    def take(self, amount: float) -> None:
        """Charge `amount`, whether it fits or not."""
        ...

    @property
    def full_in_s(self) -> float:
        """Seconds until nothing is used any more."""
        ...

    @property
    def remaining(self) -> int:
        """What may be sent at once, at least 0."""
        ...


class Bucket:
    """A continuously refilled token bucket.

    An amount larger than the capacity is admitted when the bucket is full and leaves it in debt: else a call larger
    than the burst could never go. So in any time t the bucket admits at most capacity + rate * t, plus what one such
    call exceeds the capacity by.

    Args:
        rate_per_s: Refill per second.
        capacity: Most that the bucket holds.
        now_s: Monotonic time; the bucket starts full.
    """

    __slots__ = ("at_s", "capacity", "level", "rate_per_s")

    def __init__(self, *, rate_per_s: float, capacity: float, now_s: float) -> None:
        self.rate_per_s = rate_per_s
        self.capacity = capacity
        self.level = capacity
        self.at_s = now_s

    def refill(self, now_s: float) -> None:
        """Bring the level up to `now_s`; a clock that goes back refills nothing."""
        if now_s > self.at_s:
            self.level = min(self.capacity, self.level + (now_s - self.at_s) * self.rate_per_s)
            self.at_s = now_s

    def wait_s(self, amount: float) -> float:
        """Return the seconds until `amount` is admitted, 0 when it is now."""
        missing = min(amount, self.capacity) - self.level
        return missing / self.rate_per_s if missing > 0 else 0.0

    def take(self, amount: float) -> None:
        """Charge `amount`, whether it fits or not."""
        self.level -= amount

    @property
    def full_in_s(self) -> float:
        """Seconds until the bucket is full again."""
        return (self.capacity - self.level) / self.rate_per_s

    @property
    def remaining(self) -> int:
        """What may be sent at once, at least 0."""
        return max(0, math.floor(self.level))


class _Window:
    """At most `limit` in a window of time.

    Args:
        limit: Most that a window holds.
        window_s: Its length.
        now_s: Monotonic time.
    """

    __slots__ = ("at_s", "limit", "used", "window_s")

    def __init__(self, *, limit: float, window_s: float, now_s: float) -> None:
        self.limit, self.window_s, self.at_s = limit, window_s, now_s
        self.used = 0.0

    @property
    def remaining(self) -> int:
        """What may be sent at once, at least 0."""
        return max(0, math.floor(self.limit - self.used))


class SlidingWindow(_Window):
    """At most `limit` in any `window_s`; an amount larger than the limit is admitted when the window is empty."""

    __slots__ = ("_taken",)

    def __init__(self, *, limit: float, window_s: float, now_s: float) -> None:
        super().__init__(limit=limit, window_s=window_s, now_s=now_s)
        self._taken: deque[tuple[float, float]] = deque()

    def refill(self, now_s: float) -> None:
        """Forget what is older than the window; a clock that goes back changes nothing."""
        self.at_s = max(self.at_s, now_s)
        while self._taken and self._taken[0][0] <= self.at_s - self.window_s:
            self.used -= self._taken.popleft()[1]

    def wait_s(self, amount: float) -> float:
        """Return the seconds until `amount` is admitted, 0 when it is now."""
        excess = self.used + min(amount, self.limit) - self.limit
        for taken_s, taken in self._taken:
            if excess <= 0:
                return 0.0
            excess -= taken
            if excess <= 0:
                return taken_s + self.window_s - self.at_s
        return 0.0

    def take(self, amount: float) -> None:
        """Charge `amount`, whether it fits or not."""
        self.used += amount
        self._taken.append((self.at_s, amount))

    @property
    def full_in_s(self) -> float:
        """Seconds until the window is empty."""
        return self._taken[-1][0] + self.window_s - self.at_s if self._taken else 0.0


class FixedWindow(_Window):
    """At most `limit` in each `window_s` of the clock; an amount larger than the limit is admitted when it is empty."""

    __slots__ = ("_window",)

    def __init__(self, *, limit: float, window_s: float, now_s: float) -> None:
        super().__init__(limit=limit, window_s=window_s, now_s=now_s)
        self._window = now_s // window_s

    def refill(self, now_s: float) -> None:
        """Begin anew when a new window has begun; a clock that goes back changes nothing."""
        self.at_s = max(self.at_s, now_s)
        if self.at_s // self.window_s != self._window:
            self._window = self.at_s // self.window_s
            self.used = 0.0

    def wait_s(self, amount: float) -> float:
        """Return the seconds until `amount` is admitted, 0 when it is now."""
        fits = self.used + min(amount, self.limit) <= self.limit
        return 0.0 if fits else self.full_in_s

    def take(self, amount: float) -> None:
        """Charge `amount`, whether it fits or not."""
        self.used += amount

    @property
    def full_in_s(self) -> float:
        """Seconds until the next window begins."""
        return (self._window + 1) * self.window_s - self.at_s


def make_counter(mode: Mode, *, limit: float, burst: float, minute_s: float, now_s: float) -> RateCounter:
    """Return an unused counter of `limit` a minute.

    Args:
        mode: How it counts.
        limit: What a minute holds.
        burst: Share of a minute that a bucket holds; windows have none.
        minute_s: Seconds that a minute lasts.
        now_s: Monotonic time.
    """
    if mode == "sliding":
        return SlidingWindow(limit=limit, window_s=minute_s, now_s=now_s)
    if mode == "fixed":
        return FixedWindow(limit=limit, window_s=minute_s, now_s=now_s)
    return Bucket(rate_per_s=limit / minute_s, capacity=max(1.0, limit * burst), now_s=now_s)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call was not admitted.

    Args:
        what: The limit that binds longest: "requests", "tokens" or "requests of a day".
        retry_after_s: Seconds until this very call would be admitted if nobody else called.
    """

    what: str
    retry_after_s: float

    def headers(self) -> dict[str, str]:
        """Return both forms of `retry-after`; the one in seconds has decimals, which the vendors' SDKs read."""
        ms = math.ceil(self.retry_after_s * 1000)
        return {"retry-after": f"{ms / 1000:g}", "retry-after-ms": str(ms)}


class Allowance:
    """The counts of one key and model, charged together or not at all.

    Where requests of a day are limited, headers tell of these and not of the minute's, as OpenAI and Groq do.
    """

    __slots__ = ("_day", "_requests", "_rpd", "_rpm", "_tell", "_tokens", "_tpm")

    def __init__(
        self,
        *,
        rpm: int,
        tpm: int,
        burst: float,
        minute_s: float,
        now_s: float,
        mode: Mode = "bucket",
        rpd: int | None = None,
        family: Family = "both",
    ) -> None:
        self._rpm, self._tpm = str(rpm), str(tpm)
        self._requests = make_counter(mode, limit=rpm, burst=burst, minute_s=minute_s, now_s=now_s)
        self._tokens = make_counter(mode, limit=tpm, burst=burst, minute_s=minute_s, now_s=now_s)
        self._rpd, self._day = str(rpd), None
        if rpd is not None:
            self._day = make_counter(mode, limit=rpd, burst=1.0, minute_s=minute_s * DAY_MINUTES, now_s=now_s)
        self._tell = FAMILIES[family]

    def admit(self, tokens: int, now_s: float) -> Refusal | None:
        """Charge one request and `tokens`, or say why not; a refused call is charged nothing."""
        requests, all_tokens = self._requests, self._tokens
        requests.refill(now_s)
        all_tokens.refill(now_s)
        wait_requests_s, wait_tokens_s = requests.wait_s(1.0), all_tokens.wait_s(tokens)
        if self._day is not None:
            self._day.refill(now_s)
            wait_day_s = self._day.wait_s(1.0)
            if wait_day_s:
                return Refusal("requests of a day", max(wait_day_s, wait_requests_s, wait_tokens_s) + WAIT_MARGIN_S)
        if wait_requests_s or wait_tokens_s:
            what = "requests" if wait_requests_s >= wait_tokens_s else "tokens"
            return Refusal(what, max(wait_requests_s, wait_tokens_s) + WAIT_MARGIN_S)
        requests.take(1.0)
        all_tokens.take(tokens)
        if self._day is not None:
            self._day.take(1.0)
        return None

    def headers(self, wall_s: float, family: Family | None = None) -> dict[str, str]:
        """Return the rate-limit headers as of the last `admit`.

        Args:
            wall_s: Unix time, for the resets that are dates.
            family: Instead of the one that the allowance was made for.
        """
        requests, limit = (self._requests, self._rpm) if self._day is None else (self._day, self._rpd)
        tokens = self._tokens
        told = Readings(
            (limit, str(requests.remaining), requests.full_in_s),
            (self._tpm, str(tokens.remaining), tokens.full_in_s),
            wall_s,
        )
        return (self._tell if family is None else FAMILIES[family])(told)


class Limits:
    """The allowances of all keys and models, made at their first call and kept (about 500 bytes each)."""

    def __init__(
        self,
        *,
        rpm: int,
        tpm: int,
        burst: float,
        minute_s: float,
        mode: Mode = "bucket",
        rpd: int | None = None,
        family: Family = "both",
    ) -> None:
        self._rpm, self._tpm, self._burst, self._minute_s, self._mode = rpm, tpm, burst, minute_s, mode
        self._rpd, self._family = rpd, family
        self._allowances: dict[tuple[str, str], Allowance] = {}

    def allowance(self, key: str, model: str, now_s: float) -> Allowance:
        """Return the counts of `key` and `model`; new ones are unused."""
        found = self._allowances.get((key, model))
        if found is None:
            found = Allowance(
                rpm=self._rpm,
                tpm=self._tpm,
                burst=self._burst,
                minute_s=self._minute_s,
                now_s=now_s,
                mode=self._mode,
                rpd=self._rpd,
                family=self._family,
            )
            self._allowances[key, model] = found
        return found
