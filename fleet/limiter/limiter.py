"""The limiter: one Redis call per grant, one sleep per caller, first come first served.

Weaknesses of this first limiter: priority and fairness over bots play no part; a slot that was reserved is used when
its time comes, even when a 429 has arrived meanwhile; a caller that dies asleep wastes its slot. It trusts the clock
of the Redis host: a jump backwards makes everybody wait for its length.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fleet.config import LimitSettings
from fleet.errors import ConfigurationError, DeadlineExceeded, quote
from fleet.limiter.limits import MINUTE_US, Pace
from fleet.models import MAX_DEADLINE_S, Grant
from fleet.store import keys
from fleet.store.client import Script, Store

#: Longest penalty that is believed, in seconds (1 day): daily quotas say so, more is a provider's mistake.
MAX_PENALTY_S = 86_400.0

ACQUIRE = Script.beside(__file__, "acquire.lua")
SETTLE = Script.beside(__file__, "settle.lua")
PENALISE = Script.beside(__file__, "penalise.lua")


@dataclass(frozen=True, slots=True)
class LimitSnapshot:
    """One limit just now, for operators and for the budget signal. Times by the clock of Redis.

    Args:
        limit: Name, `provider/model/key`.
        rpm: Requests per minute allowed; None: not limited.
        tpm: Tokens per minute allowed; None: not limited.
        used_rpm: Requests settled in the last minute; the older part of it is interpolated.
        used_tpm: Tokens settled in the last minute, likewise.
        queue_s: Seconds that the next call would wait.
        held_until: Unix time until which a 429 holds everybody; None when it does not.
        granted: Requests granted since the limit is known.
        granted_tokens: Tokens granted, after settling.
        refused: 429s seen.
        refused_at: Unix time of the last one.
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


class Limiter:
    """Hands out grants under the fleet's limits. Implements `workers.ports.Limiter`.

    A limit without rates costs no Redis call; a 429 under it holds only the callers of this process.

    Args:
        store: Redis of the fleet's state.
        limits: Rates by `provider/model/key`, or by `provider/model` for every key of it.
        draw: Source of randomness in [0, 1) for the jitter.
    """

    def __init__(
        self, store: Store, limits: Mapping[str, LimitSettings], *, draw: Callable[[], float] = random.random
    ) -> None:
        self._store = store
        self._paces = {name: Pace.of(settings) for name, settings in limits.items()}
        self._draw = draw
        #: Loop time until which an unlimited limit is held.
        self._held: dict[str, float] = {}

    async def acquire(self, limit: str, *, tokens: int, timeout_s: float) -> Grant:
        """Wait until one call of `tokens` may be sent under `limit`.

        A caller that is cancelled while it sleeps gives its tokens back; cancelled earlier, before Redis has answered,
        it wastes its slot.

        Raises:
            DeadlineExceeded: When the turn comes later than `timeout_s`; nothing is reserved then.
            StoreUnavailable: When Redis does not answer: nothing may be sent.
            ConfigurationError: When the limit is not known.
        """
        pace = self._pace(limit)
        tokens = max(0, tokens)
        wait_s = await self._reserve(limit, pace, tokens, timeout_s)
        grant = Grant(limit, reserved_tokens=tokens, waited_ms=round(wait_s * 1000))
        if wait_s > 0:
            try:
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                self._settle(grant, requests=0, used_tokens=0)
                raise
        return grant

    def settle(self, grant: Grant, *, used_tokens: int) -> None:
        """Give back what was reserved but not used, or charge the excess. Never waits, never raises."""
        self._settle(grant, requests=1, used_tokens=max(0, used_tokens))

    def penalise(self, limit: str, *, retry_after_s: float) -> None:
        """Hold the whole fleet on `limit`: the provider answered 429. Never waits, never raises."""
        pace = self._find(limit)
        if pace is None:
            return
        hold_s = min(max(0.0, retry_after_s), MAX_PENALTY_S)
        if pace.is_unlimited:
            until = asyncio.get_running_loop().time() + hold_s
            self._held[limit] = max(until, self._held.get(limit, 0.0))
        args = [_us(hold_s), pace.request_us, pace.request_burst_us, pace.token_burst_us]
        self._store.send(PENALISE, [keys.limit(limit)], args)

    async def snapshot(self, limit: str) -> LimitSnapshot:
        """Read how a limit stands.

        Raises:
            StoreUnavailable: When Redis does not answer.
            ConfigurationError: When the limit is not known.
        """
        pace = self._pace(limit)
        flat, time = await asyncio.gather(
            self._store.command("HGETALL", keys.limit(limit)), self._store.command("TIME")
        )
        fields = {bytes(name).decode(): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
        return _snapshot(limit, pace, fields, now_us=int(time[0]) * 1_000_000 + int(time[1]))

    def _find(self, limit: str) -> Pace | None:
        return self._paces.get(limit) or self._paces.get(limit.rpartition("/")[0])

    def _pace(self, limit: str) -> Pace:
        pace = self._find(limit)
        if pace is None:
            known = ", ".join(sorted(self._paces)) or "none"
            raise ConfigurationError(f"expected a known limit ({known}), got {quote(limit)}; add it to [limits]")
        return pace

    async def _reserve(self, limit: str, pace: Pace, tokens: int, timeout_s: float) -> float:
        """Return the seconds to wait for a slot, which is reserved."""
        timeout_s = min(max(0.0, timeout_s), MAX_DEADLINE_S)
        if pace.is_unlimited:
            wait_s = max(0.0, self._held.get(limit, 0.0) - asyncio.get_running_loop().time())
            is_granted = wait_s <= timeout_s
        else:
            args = [
                tokens, pace.request_us, pace.tokens_us(tokens), pace.request_burst_us, pace.token_burst_us,
                pace.jitter_us, self._draw(), _us(timeout_s),
            ]  # fmt: skip
            code, wait_us, _ = await self._store.run(ACQUIRE, [keys.limit(limit)], args)
            wait_s, is_granted = wait_us / 1e6, code == 1
        if not is_granted:
            raise DeadlineExceeded(
                f"{limit}: expected a turn within {timeout_s:.1f} s, the next one is in {wait_s:.1f} s; "
                "raise the limit, allow a later deadline or submit less at once"
            )
        return wait_s

    def _settle(self, grant: Grant, *, requests: int, used_tokens: int) -> None:
        pace = self._find(grant.limit)
        if pace is None or pace.is_unlimited:
            return
        back = grant.reserved_tokens - used_tokens
        back_us = pace.tokens_us(grant.reserved_tokens) - pace.tokens_us(used_tokens)
        args = [back_us, back, requests, used_tokens, pace.token_burst_us]
        self._store.send(SETTLE, [keys.limit(grant.limit)], args)


def _snapshot(limit: str, pace: Pace, fields: Mapping[str, int], *, now_us: int) -> LimitSnapshot:
    held_us, refused_us = fields.get("p", 0), fields.get("xa")
    free_us = [now_us, held_us]
    if pace.rpm:
        free_us.append(fields.get("r", 0) + pace.request_us - pace.request_burst_us)
    if pace.tpm:
        free_us.append(fields.get("t", 0) - pace.token_burst_us)
    return LimitSnapshot(
        limit=limit,
        rpm=pace.rpm,
        tpm=pace.tpm,
        used_rpm=_last_minute(fields, "mr", "lr", now_us),
        used_tpm=_last_minute(fields, "mt", "lt", now_us),
        queue_s=(max(free_us) - now_us) / 1e6,
        held_until=held_us / 1e6 if held_us > now_us else None,
        granted=fields.get("n", 0),
        granted_tokens=fields.get("k", 0),
        refused=fields.get("x", 0),
        refused_at=None if refused_us is None else refused_us / 1e6,
    )


def _last_minute(fields: Mapping[str, int], this: str, last: str, now_us: int) -> float:
    """Return what was used in the 60 s before now: this minute, and of the last one the share that still counts."""
    minute, elapsed_us = divmod(now_us, MINUTE_US)
    current, previous = fields.get(this, 0), fields.get(last, 0)
    age = minute - fields.get("m", -2)
    if age == 1:
        current, previous = 0, current
    elif age != 0:
        return 0.0
    return current + previous * (1 - elapsed_us / MINUTE_US)


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
