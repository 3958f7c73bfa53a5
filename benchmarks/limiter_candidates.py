"""What the limiter's benchmark compares: each candidate lets a call wait, and hears what became of it.

The libraries are an extra (`pip install "celery-fleet[bench]"`); one that is not installed is left out of the table.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

from fleet.config import LimitSettings
from fleet.grants import Caller, Grant
from fleet.limiter import Limiter
from fleet.models import Priority
from fleet.store.client import Store


@dataclass(frozen=True)
class Shape:
    """What the provider allows and who calls.

    Args:
        rpm: Requests per compressed minute.
        tpm: Tokens per compressed minute.
        minute_s: Seconds of that minute.
        callers: Callers in all processes.
        window: The provider counts in a window.
        charge: What Fleet's limiter shares out evenly.
    """

    rpm: int
    tpm: int
    minute_s: float
    callers: int
    window: bool = False
    charge: str = "call"


@dataclass
class Counts:
    """What a candidate has cost so far, where it can tell."""

    acquired: int = 0
    questions: int = 0
    round_trips: int = field(default=0)


class Candidate(Protocol):
    """One way to keep a provider's limits."""

    counts: Counts

    async def acquire(self, bot: str, tokens: int, *, urgent: bool) -> Any:
        """Wait until one call of `tokens` may be sent."""
        ...

    def settle(self, handle: Any, used_tokens: int) -> None:
        """Hear what a call has used."""
        ...

    async def refused(self, handle: Any, retry_after_s: float) -> None:
        """Hear of a 429; return when the call may be tried again."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class Fleet:
    """Fleet's own limiter."""

    NAME = "bench/model/key"

    def __init__(self, url: str, shape: Shape) -> None:
        per_minute = 60 / shape.minute_s
        settings = LimitSettings.model_validate(
            {
                "rpm": round(shape.rpm * per_minute),
                "tpm": round(shape.tpm * per_minute),
                "burst": 0.02 / per_minute,
                "counting": "window" if shape.window else "bucket",
                "window_s": shape.minute_s,
                "charge": shape.charge,
            }
        )
        self._store = Store(url)
        self._limiter = Limiter(self._store, {self.NAME: settings})
        self._acquired = 0

    @property
    def counts(self) -> Counts:
        return Counts(self._acquired, self._limiter.questions, self._store.writes)

    async def acquire(self, bot: str, tokens: int, *, urgent: bool) -> Grant:
        caller = Caller(bot=bot, priority=Priority.CRITICAL if urgent else Priority.NORMAL)
        grant = await self._limiter.acquire(self.NAME, tokens=tokens, timeout_s=600, caller=caller)
        self._acquired += 1
        return grant

    def settle(self, handle: Grant, used_tokens: int) -> None:
        self._limiter.settle(handle, used_tokens=used_tokens)

    async def refused(self, handle: Grant, retry_after_s: float) -> None:
        self._limiter.settle(handle, used_tokens=0)
        self._limiter.penalise(self.NAME, retry_after_s=retry_after_s)

    async def close(self) -> None:
        await self._store.close()


class Unlimited:
    """No limiter at all; what comes after a 429 is said by the classes below."""

    def __init__(self, url: str, shape: Shape) -> None:
        self.counts = Counts()

    async def acquire(self, bot: str, tokens: int, *, urgent: bool) -> list[int]:
        return [0]

    def settle(self, handle: Any, used_tokens: int) -> None:
        return None

    async def refused(self, handle: list[int], retry_after_s: float) -> None:
        handle[0] += 1
        await asyncio.sleep(random.uniform(0, min(10.0, 0.1 * 2 ** handle[0])))

    async def close(self) -> None:
        return None


class FullJitter(Unlimited):
    """No limiter; after a 429 tenacity's exponential backoff with full jitter."""

    def __init__(self, url: str, shape: Shape) -> None:
        from tenacity import wait_random_exponential

        super().__init__(url, shape)
        self._wait = wait_random_exponential(multiplier=0.1, max=10)

    async def refused(self, handle: list[int], retry_after_s: float) -> None:
        handle[0] += 1
        await asyncio.sleep(self._wait(SimpleNamespace(attempt_number=handle[0])))


class BlindSleep(Unlimited):
    """Each bot sleeps `60 / (rpm / bots) * U(0.5, 1.5)` before each call and knows of nobody else."""

    def __init__(self, url: str, shape: Shape) -> None:
        super().__init__(url, shape)
        calls_a_minute = min(shape.rpm, shape.tpm / 700)
        self._pause_s = shape.minute_s / (calls_a_minute / shape.callers)

    async def acquire(self, bot: str, tokens: int, *, urgent: bool) -> list[int]:
        await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.5))
        return [0]


class _Polling(Unlimited):
    """Base of libraries that say no, and when to ask again at best."""

    def __init__(self, url: str, shape: Shape) -> None:
        super().__init__(url, shape)
        self._shape = shape

    async def _poll(self, tokens: int) -> float:
        """Take, and return 0; or return the seconds after which to ask again."""
        raise NotImplementedError

    async def acquire(self, bot: str, tokens: int, *, urgent: bool) -> list[int]:
        while True:
            self.counts.questions += 1
            wait_s = await self._poll(tokens)
            if wait_s <= 0:
                self.counts.acquired += 1
                return [0]
            await asyncio.sleep(wait_s * random.uniform(1.0, 1.2))


class ThrottledPy(_Polling):
    """throttled-py: GCRA over requests, then over tokens, on Redis; it says when to ask again."""

    def __init__(self, url: str, shape: Shape) -> None:
        from datetime import timedelta

        from throttled.asyncio import RateLimiterType, Throttled, rate_limiter, store

        super().__init__(url, shape)
        redis_store = store.RedisStore(server=url)
        minute = timedelta(seconds=shape.minute_s)
        burst = 0.02 if not shape.window else 0.01

        def throttle(amount: int, key: str) -> Any:
            rate = round(amount * (1 - burst)) if shape.window else amount
            quota = rate_limiter.per_duration(
                minute, rate, burst=max(1200 if amount > 10_000 else 1, round(rate * burst))
            )
            return Throttled(key=key, using=RateLimiterType.GCRA.value, quota=quota, store=redis_store)

        self._requests, self._tokens = throttle(shape.rpm, "requests"), throttle(shape.tpm, "tokens")

    async def _poll(self, tokens: int) -> float:
        result = await self._tokens.limit(cost=tokens)
        if result.limited:
            return max(0.005, result.state.retry_after)
        result = await self._requests.limit(cost=1)
        return max(0.005, result.state.retry_after) if result.limited else 0.0


class Limits(_Polling):
    """limits: moving window over requests and a sliding counter over tokens, on Redis; polled."""

    def __init__(self, url: str, shape: Shape) -> None:
        from limits import RateLimitItemPerSecond
        from limits.aio.storage import RedisStorage
        from limits.aio.strategies import SlidingWindowCounterRateLimiter

        super().__init__(url, shape)
        self._limiter = SlidingWindowCounterRateLimiter(RedisStorage(f"async+{url}", implementation="redispy"))
        seconds = round(shape.minute_s)
        self._requests = RateLimitItemPerSecond(shape.rpm, seconds)
        self._tokens = RateLimitItemPerSecond(shape.tpm, seconds)

    async def _poll(self, tokens: int) -> float:
        if not await self._limiter.hit(self._tokens, "tokens", cost=tokens):
            return 0.05
        return 0.0 if await self._limiter.hit(self._requests, "requests") else 0.05


class PyrateLimiter(Unlimited):
    """pyrate-limiter: GCRA over tokens, then over requests, on Redis; it waits itself."""

    def __init__(self, url: str, shape: Shape) -> None:
        import redis.asyncio
        from pyrate_limiter import GCRA, Limiter, Rate, RedisStateStore, StateBucket

        super().__init__(url, shape)
        client = redis.asyncio.from_url(url)
        share, minute_ms = 0.99 if shape.window else 1.0, round(shape.minute_s * 1000)

        def limiter(name: str, amount: int, largest: int) -> Any:
            rate = Rate(round(amount * share), minute_ms, burst=max(largest, round(amount * (1.02 - share))))
            return Limiter(StateBucket([rate], algorithm=GCRA(), store=RedisStateStore(client, name)))

        self._tokens, self._requests = limiter("tokens", shape.tpm, 1200), limiter("requests", shape.rpm, 1)

    async def acquire(self, bot: str, tokens: int, *, urgent: bool) -> list[int]:
        await self._tokens.try_acquire_async("call", weight=tokens)
        await self._requests.try_acquire_async("call")
        self.counts.acquired += 1
        return [0]


class SelfLimiters(Unlimited):
    """self-limiters: a token bucket of requests on Redis that reserves; it knows no tokens."""

    def __init__(self, url: str, shape: Shape) -> None:
        from self_limiters import TokenBucket

        super().__init__(url, shape)
        calls = min(shape.rpm, shape.tpm / 700)
        self._bucket = TokenBucket(
            name="bench", capacity=1, refill_frequency=shape.minute_s / calls, refill_amount=1, redis_url=url,
            max_sleep=600,
        )  # fmt: skip

    async def acquire(self, bot: str, tokens: int, *, urgent: bool) -> list[int]:
        async with self._bucket:
            self.counts.acquired += 1
            return [0]


class LlmRateLimiter(Unlimited):
    """llmratelimiter: first come, first served over requests and tokens of a window on Redis; it reserves."""

    def __init__(self, url: str, shape: Shape) -> None:
        from llmratelimiter import RateLimiter

        super().__init__(url, shape)
        # Its own pace of requests would take a minute of 60 s for granted.
        self._limiter = RateLimiter(
            url, "bench", tpm=shape.tpm, rpm=shape.rpm, rps=round(shape.rpm / shape.minute_s),
            window_seconds=round(shape.minute_s), max_connections=shape.callers,
        )  # fmt: skip

    async def acquire(self, bot: str, tokens: int, *, urgent: bool) -> list[int]:
        await self._limiter.acquire(tokens=tokens)
        self.counts.acquired += 1
        return [0]


#: Module that each library brings.
MODULES = {
    "no limiter, full jitter": "tenacity", "throttled-py": "throttled", "limits": "limits",
    "pyrate-limiter": "pyrate_limiter", "self-limiters": "self_limiters", "llmratelimiter": "llmratelimiter",
}  # fmt: skip

CANDIDATES: dict[str, type[Any]] = {
    "fleet": Fleet,
    "no limiter, full jitter": FullJitter,
    "blind sleep": BlindSleep,
    "throttled-py": ThrottledPy,
    "limits": Limits,
    "pyrate-limiter": PyrateLimiter,
    "self-limiters": SelfLimiters,
    "llmratelimiter": LlmRateLimiter,
}
