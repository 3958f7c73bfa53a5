"""The limiter: ask, sleep, send. Who goes when is decided in Redis (`acquire.lua`); here callers wait for it.

Weaknesses: slots that were promised within the horizon (at most 0.4 s, 0.06 s while urgent calls are about) are not
taken back for somebody more urgent. It trusts the clock of the Redis host: a jump backwards makes everybody wait for
its length. Waits are estimates from mean sizes; a caller may be asked to ask again more than once.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fleet.config import LimitSettings
from fleet.errors import ConfigurationError, DeadlineExceeded, quote
from fleet.limiter.limits import Terms
from fleet.limiter.scripts import ACQUIRE, FORGET, PENALISE, SETTLE
from fleet.limiter.sleepers import Sleepers
from fleet.limiter.snapshot import LimitSnapshot, read_snapshot
from fleet.models import ANYBODY, MAX_DEADLINE_S, Caller, Grant
from fleet.store import keys
from fleet.store.client import Store

#: Longest penalty that is believed, in seconds (1 day): daily quotas say so, more is a provider's mistake.
MAX_PENALTY_S = 86_400.0
#: Seconds for which a call in flight counts without having been settled: longer than any provider's answer.
LEASE_S = 600.0
#: What one call is charged in the fair order when calls are what is shared out evenly.
CALL_CHARGE = 1000

_SEND, _ASK_AGAIN = 1, 2
_ASKED = struct.Struct("<13d")
_SETTLED = struct.Struct("<13d")


@dataclass(slots=True)
class _Call:
    """One call on its way to a grant."""

    ticket: str
    number: int
    limits: tuple[str, ...]
    terms: tuple[bytes, ...]
    names: list[str]
    asks: tuple[int, int, int]
    cost_usd_micros: int
    caller: Caller
    deadline: float
    order: int = -1
    candidate: int = 0
    nudged: bool = False


@dataclass(frozen=True, slots=True)
class _Reply:
    """What `acquire.lua` answered."""

    code: int
    wait_us: int
    order: int
    now_us: int
    held_us: int
    idle: int
    backlog_us: int
    candidate: int
    quiet_us: int
    tokens: int
    input_tokens: int
    output_tokens: int


class Limiter:
    """Hands out grants under the fleet's limits. Implements `workers.ports.Limiter`.

    Args:
        store: Redis of the fleet's state.
        limits: Limits by `provider/model/key`, or by `provider/model` for every key of it.
        draw: Source of randomness in [0, 1) for the jitter of ask-again times.
    """

    def __init__(
        self, store: Store, limits: Mapping[str, LimitSettings], *, draw: Callable[[], float] = random.random
    ) -> None:
        self._store = store
        self._settings = dict(limits)
        self._terms = {name: Terms.of(settings).pack() for name, settings in limits.items()}
        self._keys: dict[tuple[str, str], list[str]] = {}
        self._draw = draw
        self._numbers = itertools.count()
        self._origin = f"{os.getpid():x}{random.getrandbits(32):08x}"
        self._sleepers: defaultdict[str, Sleepers] = defaultdict(Sleepers)
        #: Loop time until which a limit is held, as far as this process knows.
        self._held: dict[str, float] = {}
        #: Seconds that a call would have waited, as last heard.
        self._backlog_s: dict[str, float] = {}
        #: Questions asked so far: per acquire, that is what the order costs.
        self.questions = 0

    async def acquire(
        self,
        limit: str | Sequence[str],
        *,
        tokens: int,
        timeout_s: float,
        caller: Caller = ANYBODY,
        input_tokens: int = 0,
        cost_usd_micros: int = 0,
    ) -> Grant:
        """Wait until one call of `tokens` may be sent.

        Args:
            limit: The limit, or several of the same provider and model: the one that can go soonest is taken.
            tokens: Input and output together, the most that the call may use.
            timeout_s: Longest wait.
            caller: For whom: decides the order.
            input_tokens: Those of `tokens` that are input, for providers that count them apart.
            cost_usd_micros: The most that the call may cost, for a limit of money a day.

        Raises:
            DeadlineExceeded: When the turn comes later than `timeout_s`; nothing is reserved then.
            StoreUnavailable: When Redis does not answer: nothing may be sent.
            ConfigurationError: When the limit is not known.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        timeout_s = min(max(0.0, timeout_s), MAX_DEADLINE_S)
        number, tokens, input_tokens = next(self._numbers), max(0, tokens), max(0, input_tokens)
        limits = (limit,) if isinstance(limit, str) else tuple(limit)
        call = _Call(
            # Tickets of equal order go by name: those that came first, by this host's clock.
            ticket=f"{int(time.time() * 1000):011x}-{self._origin}-{number:x}",
            number=number,
            limits=limits,
            terms=tuple(self._known(name) for name in limits),
            names=[key for name in limits for key in self._names(name, caller.tenant)],
            asks=(tokens, input_tokens, max(0, tokens - input_tokens)),
            cost_usd_micros=cost_usd_micros,
            caller=caller,
            deadline=started + timeout_s,
        )
        while True:
            reply = await self._ask(call)
            if reply.code == _SEND:
                grant = await self._wait_for_slot(call, reply, started)
                if grant is not None:
                    return grant
            elif reply.code == _ASK_AGAIN:
                await self._sleep(call, reply)
            else:
                raise DeadlineExceeded(
                    f"{call.limits[0]}: expected a turn within {timeout_s:.1f} s, "
                    f"the next one is in {reply.wait_us / 1e6 + loop.time() - started:.1f} s; "
                    "raise the limit, allow a later deadline or submit less at once"
                )

    def settle(self, grant: Grant, *, used_tokens: int, used_output_tokens: int = 0, cost_usd_micros: int = 0) -> None:
        """Give back what was reserved but not used, or charge the excess. Never waits, never raises.

        A use of exactly what was reserved, or of nothing, teaches nothing: it is what a call of unknown use is given.
        """
        used_tokens = max(0, used_tokens)
        self._settle(grant, sent=1, used_tokens=used_tokens, output=used_output_tokens, money=cost_usd_micros)

    def penalise(self, limit: str, *, retry_after_s: float) -> None:
        """Hold the whole fleet on `limit`: the provider answered 429. Never waits, never raises."""
        terms = self._find(limit)
        if terms is None:
            return
        hold_s = min(max(0.0, retry_after_s), MAX_PENALTY_S)
        self._hold(limit, hold_s)
        self._store.send(PENALISE, self._names(limit, "")[:2], [round(hold_s * 1e6), terms])

    def backlog_s(self, limit: str) -> float:
        """Return the seconds that a call would have waited under `limit`, as this process last heard."""
        return self._backlog_s.get(limit, 0.0)

    async def snapshot(self, limit: str) -> LimitSnapshot:
        """Read how a limit stands.

        Raises:
            StoreUnavailable: When Redis does not answer.
            ConfigurationError: When the limit is not known.
        """
        self._known(limit)
        return await read_snapshot(self._store, limit, self._settings_of(limit))

    def _find(self, limit: str) -> bytes | None:
        return self._terms.get(limit) or self._terms.get(limit.rpartition("/")[0])

    def _settings_of(self, limit: str) -> LimitSettings:
        return self._settings.get(limit) or self._settings[limit.rpartition("/")[0]]

    def _known(self, limit: str) -> bytes:
        terms = self._find(limit)
        if terms is None:
            known = ", ".join(sorted(self._terms)) or "none"
            raise ConfigurationError(f"expected a known limit ({known}), got {quote(limit)}; add it to [limits]")
        return terms

    async def _ask(self, call: _Call) -> _Reply:
        """Put one question to Redis."""
        caller = call.caller
        left_us = max(0.0, (call.deadline - asyncio.get_running_loop().time()) * 1e6)
        by_token = self._settings_of(call.limits[0]).charge == "token"
        charge = 0.0 if by_token else CALL_CHARGE / caller.weight
        numbers = _ASKED.pack(
            caller.priority, call.order, call.candidate, charge, caller.weight, bool(caller.tenant), *call.asks,
            call.cost_usd_micros, left_us, self._draw(), LEASE_S * 1e6,
        )  # fmt: skip
        args = [call.ticket, caller.bot or call.ticket, f"q:{caller.kind}", numbers, *call.terms]
        self.questions += 1
        reply = _Reply(*map(int, await self._store.run(ACQUIRE, call.names, args)))
        call.order, call.candidate = reply.order, reply.candidate
        limit = call.limits[reply.candidate - 1]
        self._backlog_s[limit] = reply.backlog_us / 1e6
        if reply.held_us:
            self._hold(limit, (reply.held_us - reply.now_us) / 1e6)
        is_refused = call.nudged and reply.code == _ASK_AGAIN
        self._sleepers[limit].heard(
            idle=0 if is_refused else reply.idle, quiet_s=reply.quiet_us / 1e6, in_vain=is_refused
        )
        call.nudged = False
        return reply

    async def _sleep(self, call: _Call, reply: _Reply) -> None:
        """Sleep until it is time to ask again; who is cancelled meanwhile gives up its place."""
        limit = call.limits[reply.candidate - 1]
        try:
            call.nudged = await self._sleepers[limit].sleep(reply.wait_us / 1e6, reply.order, call.number)
        except asyncio.CancelledError:
            queue, due = self._names(limit, call.caller.tenant)[2:4]
            self._store.send(FORGET, [queue, due], [call.ticket])
            raise

    async def _wait_for_slot(self, call: _Call, reply: _Reply, started: float) -> Grant | None:
        """Sleep until the slot comes; None when a 429 has come first: then the slot is given back."""
        loop = asyncio.get_running_loop()
        limit = call.limits[reply.candidate - 1]
        heard = loop.time()
        grant = Grant(
            limit,
            reserved_tokens=call.asks[0],
            ticket=call.ticket,
            kind=call.caller.kind,
            reserved_output_tokens=call.asks[2],
            charged=(reply.tokens, reply.input_tokens, reply.output_tokens),
            cost_usd_micros=call.cost_usd_micros,
            sent_at=heard + reply.wait_us / 1e6,
            waited_ms=round((heard - started) * 1000 + reply.wait_us / 1000),
        )
        if reply.wait_us > 0:
            try:
                await asyncio.sleep(reply.wait_us / 1e6)
            except asyncio.CancelledError:
                self._settle(grant, sent=0)
                raise
        if self._held.get(limit, 0.0) > max(loop.time(), grant.sent_at + 1e-3):
            self._settle(grant, sent=0)
            return None
        return grant

    def _settle(self, grant: Grant, *, sent: int, used_tokens: int = 0, output: int = 0, money: int = 0) -> None:
        terms = self._find(grant.limit)
        if terms is None or not grant.ticket:
            return
        output = min(output or max(0, used_tokens - grant.charged[1]), used_tokens)
        learns = sent and used_tokens not in (0, grant.reserved_tokens)
        flight_s = max(0.0, asyncio.get_running_loop().time() - grant.sent_at) if sent else 0.0
        numbers = _SETTLED.pack(
            sent, *grant.charged, used_tokens, used_tokens - output, output, grant.reserved_tokens,
            grant.reserved_output_tokens, grant.cost_usd_micros, money, flight_s * 1e6, bool(learns),
        )  # fmt: skip
        state, facts, _, _, log, leases, _ = self._names(grant.limit, "")
        self._store.send(SETTLE, [state, facts, log, leases], [grant.ticket, f"q:{grant.kind}", numbers, terms])

    def _hold(self, limit: str, hold_s: float) -> None:
        until = asyncio.get_running_loop().time() + hold_s
        self._held[limit] = max(until, self._held.get(limit, 0.0))

    def _names(self, limit: str, tenant: str) -> list[str]:
        """Return the keys of a limit in the order of `acquire.lua`."""
        names = self._keys.get((limit, tenant))
        if names is None:
            if len(self._keys) > 10_000:
                self._keys.clear()  # tenants are many; names are quickly made again
            names = self._keys[limit, tenant] = keys.limit_parts(limit, tenant)
        return names
