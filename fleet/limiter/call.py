"""What one process knows: its calls on their way to a grant, and the limits that they wait under.

What becomes of a call: `limiter.py`. Why one does not go soon is told here.
"""

from __future__ import annotations

import asyncio
import math
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fleet.config import LimitSettings
from fleet.errors import DeadlineExceeded, NotSoon
from fleet.grants import Caller, Grant, Mark, Tokens
from fleet.limiter.clock import RedisClock
from fleet.limiter.layouts import Reply, pack_asked, pack_settled
from fleet.limiter.limits import (
    BY_MONEY,
    BY_REQUESTS,
    DAY_US,
    MOST_KINDS,
    NEWEST_USE,
    RETURNS_US,
    Terms,
)  # fmt: skip
from fleet.limiter.scripts import ACQUIRE, FORGET, NARROW, SETTLE
from fleet.limiter.sleepers import Sleepers
from fleet.store import keys
from fleet.store.limit_keys import LimitKeys
from fleet.store.wire import Together
from fleet.waits import Wait

#: Seconds for which a call in flight counts without having been settled: longer than any provider's answer.
LEASE_S = 600.0
#: Seconds for which a reason to wait is told of again without asking: an operator may end it meanwhile.
FRESH_S = 0.5
#: How much of a day is used when that is said, in thousandths; that it is used up is said, too.
WARN_AT = 800
#: A hold that is longer by less than this is the same one (s).
HOLD_STEP_S = 0.05
#: Tenants whose keys are kept; names are quickly made again.
MOST_TENANTS = 10_000
#: A question overtakes nothing that makes room, or that gives back what its own call was promised.
_ASKS_PAST = frozenset({ACQUIRE.name})
_SETTLES_PAST = frozenset({ACQUIRE.name, SETTLE.name})


@dataclass(slots=True, eq=False)
class WaitingCall:
    """A call that asks, sleeps, and asks again. The store hands it the replies to its questions (`store.Receiver`).

    Args:
        ticket: Its name in the order.
        number: Its number in this process.
        limits: Candidates.
        asking: What its questions have in common with those of other calls.
        asks: The most tokens that it may use.
        cost_usd_micros: The most that it may cost.
        caller: For whom.
        charge: What it is charged in the fair order; 0: its tokens.
        started: Loop time of `acquire`.
        deadline: Loop time after which it does not want to go.
        patience_s: A turn that is further away is refused, with the reason; None: as far as the deadline.
        note: What the bill enters if nobody settles it; empty: nothing is noted.
        outcome: Gets the grant, or why there is none.
        heard: Called with the call and each reply.
        lost: Called with limit and ticket, where there is a note, when a reply is lost: what it granted is not used.
    """

    ticket: str
    number: int
    limits: tuple[LocalLimit, ...]
    asking: Together
    asks: Tokens
    cost_usd_micros: float
    caller: Caller
    charge: float
    started: float
    deadline: float
    patience_s: float | None
    note: str
    outcome: asyncio.Future[Grant]
    heard: Callable[[WaitingCall, Reply], None]
    lost: Callable[[str, str], None]
    order: int = -1
    candidate: int = 0
    #: While it sleeps: when it asks again (loop time); 0 otherwise.
    due: float = 0.0
    #: It asks before its time.
    nudged: bool = False
    #: Loop time of its last question, and the seconds that the loop had stood by then.
    asked_at: float = 0.0
    stood_s: float = 0.0
    #: While a slot is promised: the promise, the loop time of the slot and the timer for it.
    reply: Reply | None = None
    slot_at: float = 0.0
    timer: asyncio.TimerHandle | None = None
    #: Promised slots that it was too late for.
    missed: int = 0

    @property
    def limit(self) -> LocalLimit:
        """The candidate that it waits for."""
        return self.limits[self.candidate - 1]

    def lacks_patience(self, seconds: float) -> bool:
        """True when it does not wait for so long."""
        return self.patience_s is not None and self.patience_s < seconds

    def is_shut_out(self, shut: Callable[[str], Wait | None]) -> bool:
        """Tell a call that is no probe why it waits, where that is not its limits' to say; True when it does."""
        if self.caller.is_probe or self.outcome.done():
            return False
        waits = [wait for limit in self.limits if (wait := shut(limit.name)) is not None]
        if len(waits) < len(self.limits):
            return False
        self.outcome.set_exception(NotSoon(min(waits, key=lambda wait: wait.opens_at or math.inf)))
        return True

    def question(self, now: float, random: float) -> tuple[Any, ...]:
        """Return those arguments of `acquire.lua` for its next question that are its own."""
        caller = self.caller
        self.asked_at = now
        asked = pack_asked(
            priority=caller.priority,
            asked_order=self.order,
            asked_candidate=self.candidate,
            charge=self.charge,
            weight=caller.weight,
            by_tenant=bool(caller.tenant),
            tokens=self.asks.total,
            input=self.asks.input,
            output=self.asks.output,
            usd_micros=self.cost_usd_micros,
            max_wait_us=max(0.0, (self.deadline - now) * 1e6),
            random=random,
            lease_us=LEASE_S * 1e6,
            patience_us=-1.0 if self.patience_s is None else self.patience_s * 1e6,
            beyond=caller.is_probe,
        )
        return self.ticket, caller.bot, f"q:{caller.kind}", asked, self.note

    def taken(self, now: float) -> Grant:
        """Return what it was promised as a grant, and take the promise off it."""
        reply, self.reply, self.timer = self.reply, None, None
        self.limit.promised.discard(self)
        assert reply is not None
        return Grant(
            self.limit.name,
            reserved_tokens=self.asks.total,
            ticket=self.ticket,
            kind=self.caller.kind,
            reserved_output_tokens=self.asks.output,
            charged=Tokens(reply.tokens, reply.input_tokens, reply.output_tokens),
            cost_usd_micros=self.cost_usd_micros,
            charged_usd_micros=reply.cost_usd_micros,
            noted_usd_micros=reply.noted_usd_micros,
            sent_at=self.slot_at,
            waited_ms=round((now - self.started) * 1000),
            mark=Mark(reply.now_us + reply.wait_us, reply.granted, reply.granted_tokens),
            is_beyond=bool(reply.is_beyond),
        )

    def refusal(self, reply: Reply) -> DeadlineExceeded | NotSoon:
        """Return why it does not go."""
        if self.patience_s is not None:
            wait = reply.wait(about=self.limit.name)
            self.limit.note(wait)
            return NotSoon(wait)
        timeout_s, passed_s = self.deadline - self.started, asyncio.get_running_loop().time() - self.started
        return DeadlineExceeded(
            f"{self.limits[0].name}: expected a turn within {timeout_s:.1f} s, the next one is in "
            f"{reply.wait_us / 1e6 + passed_s:.1f} s; raise the limit, allow a later deadline or submit less at once"
        )

    # -- as a receiver of replies

    def done(self) -> bool:
        """Always False: also the reply to a call that was cancelled is wanted, for what it promises is given back."""
        return False

    def set_result(self, reply: Any) -> None:
        try:
            self.heard(self, Reply.unpack(reply))
        except Exception as error:  # noqa: BLE001 - not into the connection's reader: it belongs to who waits
            self.set_exception(error)

    def set_exception(self, error: Exception) -> None:
        for limit in self.limits if self.note else ():  # whichever of them has granted it
            self.lost(limit.name, self.ticket)
        if not self.outcome.done():
            self.outcome.set_exception(error)


@dataclass(slots=True, eq=False)
class LocalLimit:
    """A limit in this process. All times are the loop's (s).

    Args:
        name: `provider/model/key`.
        configured_as: The same, or `provider/model` where that is what is configured.
        settings: What is configured.
        terms: The same as numbers.
        packed: The same for the scripts.
        has_rates: Requests or tokens a minute are limited.
        slack_s: How much later than promised a call may be sent.
        sleepers: Its waiting calls.
    """

    name: str
    configured_as: str
    settings: LimitSettings
    terms: Terms
    packed: bytes
    has_rates: bool
    slack_s: float
    sleepers: Sleepers[WaitingCall]
    clock: RedisClock = field(default_factory=RedisClock)
    #: Until when it is held, as far as this process knows.
    held_until: float = 0.0
    #: When this process itself held it: replies to older questions do not know of it.
    penalised_at: float = -math.inf
    #: Seconds that a call would have waited, as last heard.
    backlog_s: float = 0.0
    #: What an operator had set when a reply last said so (None: none did), and when that was.
    was_set: bytes | None = None
    heard_at: float = 0.0
    #: Day (UTC, since 1970) and percentage of it that were last warned of.
    warned: tuple[int, int] = (0, 0)
    #: Why a call did not go soon, as last heard, and when that was (`time.monotonic()`).
    refused: Wait | None = None
    refused_at: float = -math.inf
    #: When the next reading of headers is handed on.
    observe_at: float = 0.0
    #: What was said of rates that the provider lowers: name -> number.
    told_lowered: dict[str, int] = field(default_factory=dict)
    #: Calls of this process that are under way.
    flying: int = 0
    #: The provider has refused one of too many at once: a call that is over makes room.
    is_narrow: bool = False
    #: Share of the input that calls of a kind surely have in the provider's cache, where that does not count.
    cached: dict[str, float] = field(default_factory=dict)
    #: Calls that have a slot which is far ahead.
    promised: set[WaitingCall] = field(default_factory=set)
    #: Looks for changes while nobody asks.
    watch: asyncio.Task[None] | None = None
    _keys: dict[str, LimitKeys] = field(default_factory=dict)
    _asking: dict[tuple[tuple[LocalLimit, ...], str], Together] = field(default_factory=dict)
    _settling: Together | None = None

    @classmethod
    def of(
        cls, name: str, configured_as: str, settings: LimitSettings, ask: Callable[[WaitingCall], None]
    ) -> LocalLimit:
        """Return a limit of which nothing was heard yet; `ask` puts the question of one call to Redis."""
        terms = Terms.of(settings)
        has_rates = terms.has_rates
        slack_s = settings.burst * 60 if has_rates else math.inf
        return cls(name, configured_as, settings, terms, terms.pack(), has_rates, slack_s, Sleepers(ask))

    def keys_for(self, tenant: str = "") -> LimitKeys:
        """Return its keys, those of one tenant."""
        names = self._keys.get(tenant)
        if names is None:
            if len(self._keys) > MOST_TENANTS:
                self._keys.clear()
            names = self._keys[tenant] = keys.limit_keys(self.name, tenant)
        return names

    def asking(self, limits: tuple[LocalLimit, ...], tenant: str) -> Together:
        """Return what questions of a tenant for one of these limits have in common; this one is the first of them."""
        common = self._asking.get((limits, tenant))
        if common is None:
            if len(self._asking) > MOST_TENANTS:
                self._asking.clear()
            names = tuple(key for one in limits for key in one.keys_for(tenant))
            common = Together(ACQUIRE, names, (b"".join([one.packed for one in limits]),), _ASKS_PAST)
            self._asking[limits, tenant] = common
        return common

    @property
    def settling(self) -> Together:
        """What settlements have in common."""
        if self._settling is None:
            known = {name: getattr(self.keys_for(), name) for name in SETTLE.names.keys.names}
            names, arguments = map(tuple, SETTLE.call(**known, terms=self.packed, calls=()))
            self._settling = Together(SETTLE, names, arguments, _SETTLES_PAST)
        return self._settling

    def narrow_call(self, most: int) -> tuple[list[Any], list[Any]]:
        """Return KEYS and ARGV of `narrow.lua`; one of the calls under way is the refused one."""
        names, flying = self.keys_for(), max(0, self.flying - 1)
        return NARROW.call(
            state=names.state, facts=names.facts, leases=names.leases,
            most=max(0, most), flying=flying, terms=self.packed,
        )  # fmt: skip

    def forget_call(self, ticket: str) -> tuple[list[Any], list[Any]]:
        """Return KEYS and ARGV of `forget.lua`."""
        names = self.keys_for()
        return FORGET.call(queue=names.queue, due=names.due, leases=names.leases, ticket=ticket)

    def spare_s(self, now: float) -> float:
        """Return how long what is told about it may wait for a question to leave with."""
        if self.terms.in_flight or self.is_narrow or self.was_set:
            return 0.0  # a call that is over makes room at once
        return 1.1 * self.sleepers.spare_s(now)  # behind the next question of whoever settles

    def not_counted(self, grant: Grant, input_tokens: int, cached_tokens: int | None) -> int:
        """Return the tokens of a call that the limit does not count: read from the provider's cache, where it is so.

        What is surely in the cache is learnt from them: at once when it is less than before, slowly when it is more.
        """
        if cached_tokens is None or self.settings.count_cached is not False or input_tokens <= 0:
            return 0
        cached_tokens = min(max(0, cached_tokens), input_tokens)
        share, known = cached_tokens / input_tokens, self.cached.get(grant.kind, 0.0)
        if share or known:
            if len(self.cached) > MOST_KINDS:
                self.cached.clear()
            self.cached[grant.kind] = share if share < known else known + (share - known) * NEWEST_USE
        return cached_tokens

    def surely_cached(self, kind: str, input_tokens: int) -> int:
        """Return the tokens of a call to come that need not be reserved."""
        return int(input_tokens * self.cached.get(kind, 0.0))

    def hold(self, until: float) -> bool:
        """Nobody goes before that time; return whether that is news."""
        is_longer, self.held_until = until > self.held_until + HOLD_STEP_S, max(until, self.held_until)
        return is_longer

    def impatient(self, seconds: float) -> list[WaitingCall]:
        """Return the calls with a slot that is far ahead which do not wait for `seconds` any more."""
        return [call for call in self.promised if call.lacks_patience(seconds)]

    def crossed(self, reply: Reply) -> int:
        """Return the percentage that the day's use has reached, once for 80 and for 100; 0: that was said."""
        is_full = reply.day_used >= 1000 or (
            reply.cause in (BY_REQUESTS, BY_MONEY)
            and not (reply.is_own or reply.lowest >= 0 or reply.wait_us <= RETURNS_US)
        )
        reached = reply.now_us // DAY_US, 100 if is_full else 80
        if reached <= self.warned or not (is_full or reply.day_used >= WARN_AT):
            return 0
        self.warned = reached
        return reached[1]

    def note(self, wait: Wait) -> None:
        """Remember why a call did not go soon."""
        self.refused, self.refused_at = wait, time.monotonic()

    def standing(self) -> Wait | None:
        """Return why calls do not go soon, when that was heard just now and holds for all of them."""
        wait = self.refused
        is_fresh = wait is not None and time.monotonic() - self.refused_at < FRESH_S
        is_for_all = wait is not None and wait.is_everyones and wait.lowest < 0
        return wait if is_fresh and is_for_all else None

    def settlement(
        self, grant: Grant, now: float, *, sent: int, used_tokens: int = 0, output: int = 0, money: float = 0
    ) -> tuple[tuple[Any, ...], float]:
        """Return those ARGV of `settle.lua` that are a grant's own, and how long they may wait for company (s)."""
        charged = grant.charged
        output = min(output or max(0, used_tokens - charged.input), used_tokens)
        used = Tokens(used_tokens, used_tokens - output, output)
        learns = sent and used_tokens not in (0, grant.reserved_tokens)
        since_slot_s = now - grant.sent_at
        if sent and since_slot_s < 0:
            since_slot_s = 0.0
        settled = pack_settled(
            sent=sent,
            tokens=charged.total,
            input=charged.input,
            output=charged.output,
            used_tokens=used.total,
            used_input=used.input,
            used_output=used.output,
            asked_tokens=grant.reserved_tokens,
            asked_output=grant.reserved_output_tokens,
            reserved_usd_micros=grant.charged_usd_micros,
            usd_micros=money,
            reserved_day=grant.mark.at_us // DAY_US,
            since_slot_us=since_slot_s * 1e6,
            learns=bool(learns),
            asked_usd_micros=grant.cost_usd_micros,
        )
        is_excess = money > grant.charged_usd_micros or any(map(operator.gt, used, charged))
        told = grant.ticket, f"q:{grant.kind}", settled, grant.came
        return told, self.spare_s(now) if sent and not is_excess else 0.0
