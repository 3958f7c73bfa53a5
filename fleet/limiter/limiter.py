"""The limiter: ask, sleep, send. Who goes when is decided in Redis (`acquire.lua`); here callers wait for it.

Callbacks, not coroutines, carry a call from one question to the next: a task that wakes up only for its grant costs the
process half of one that wakes up for each reply.

Weaknesses: slots that were promised within the horizon (0.35 s or one interval of the limit, whichever is longer;
0.06 s or half an interval while more urgent calls are about) are not taken back for somebody more urgent. It trusts
the clock of the Redis host: one that is set back by less than a second makes everybody wait for that long; by more,
what is known of times moves back with it, and the window and the calls in flight are counted anew. Waits are estimates.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence

from fleet.config import LimitSettings
from fleet.errors import ConfigurationError
from fleet.grants import ANYBODY, Caller, Grant, Tokens
from fleet.limiter.call import WARN_AT, LocalLimit, WaitingCall
from fleet.limiter.clock import stood_s
from fleet.limiter.first_answers import FirstAnswers
from fleet.limiter.layouts import ASK_AGAIN, SEND, Reply
from fleet.limiter.limits import CALL_CHARGE, MAX_PENALTY_S, MOST_MISSED, Terms
from fleet.limiter.live import Changes
from fleet.limiter.observing import Observer
from fleet.limiter.scripts import CALM, FORGET, NARROW, PENALISE
from fleet.limiter.snapshot import Crowd, LimitSnapshot, read_crowd, read_snapshot
from fleet.models import MAX_DEADLINE_S
from fleet.quoting import quote
from fleet.rates import RateReadings
from fleet.store.client import Store
from fleet.waits import Wait

logger = logging.getLogger("fleet.limiter")


class Limiter:
    """Hands out grants under the fleet's limits. Implements `fleet.workers.ports.Limiter`.

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
        self._limits: dict[str, LocalLimit] = {}  # that were asked for so far
        self._observer = Observer(store)
        self._first_answers = FirstAnswers(name for name in limits if not Terms.of(limits[name]).has_rates)
        self._draw, self._numbers = draw, itertools.count()
        self._origin = f"{os.getpid():x}{random.getrandbits(32):08x}"
        self._changes = Changes(store, self._give_back)
        self.questions = 0  # asked so far: per acquire, that is what the order costs
        #: Hears limit and ticket of a call with a note whose reply was lost: it may have been granted, and is not sent.
        self.on_lost: Callable[[str, str], None] = lambda limit, ticket: None
        #: Why calls under a limit wait, whatever the limit says: who waits here leaves. None: they need not.
        self.shut: Callable[[str], Wait | None] = lambda limit: None

    async def acquire(
        self,
        limit: str | Sequence[str],
        *,
        tokens: int,
        timeout_s: float,
        caller: Caller = ANYBODY,
        input_tokens: int = 0,
        cost_usd_micros: float | None = None,
        patience_s: float | None = None,
        note: str = "",
    ) -> Grant:
        """Wait until one call of `tokens` may be sent.

        Args:
            limit: The limit, or several of the same provider and model: the one that can go soonest is taken.
            tokens: Input and output together, the most that the call may use.
            timeout_s: Longest wait.
            caller: For whom: decides the order.
            input_tokens: Those of `tokens` that are input, for providers that count them apart.
            cost_usd_micros: The most that the call may cost, parts of a micro-dollar included; must be said where money
                a day is limited.
            patience_s: A turn that is further away than this is refused, as soon as that is known; None: `timeout_s`
                alone counts.
            note: What the bill enters if nobody settles the call; kept with the grant, until it is in the bill.

        Raises:
            NotSoon: When the turn is further away than `patience_s`, with reason and time; nothing is reserved then.
            DeadlineExceeded: The same without a patience, when it comes later than `timeout_s`.
            StoreUnavailable: When Redis does not answer: nothing may be sent.
            ConfigurationError: When the limit is not known, or counts money and the cost is not said.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        timeout_s = min(max(0.0, timeout_s), MAX_DEADLINE_S)
        number, limits = next(self._numbers), tuple(map(self._known, (limit,) if isinstance(limit, str) else limit))
        first, tokens, input_tokens = limits[0], max(0, tokens), max(0, input_tokens)
        if first.cached:
            in_cache = first.surely_cached(caller.kind, input_tokens)
            tokens, input_tokens = tokens - in_cache, input_tokens - in_cache
        if cost_usd_micros is None and [one for one in limits if one.terms.usd_micros_a_day]:
            raise ConfigurationError(
                f"{first.name}: expected cost_usd_micros, for usd_per_day is limited, got none; say what the call may "
                "cost at most (LimitedTransport: price=...)"
            )
        if not first.has_rates:
            await self._first_answers.turn(first.configured_as, timeout_s=timeout_s)
        call = WaitingCall(
            # Tickets of equal order go by name: those that came first, by this host's clock.
            ticket=f"{int(time.time() * 1000):011x}-{self._origin}-{number:x}",
            number=number,
            limits=limits,
            asking=first.asking(limits, caller.tenant),
            asks=Tokens(tokens, input_tokens, max(0, tokens - input_tokens)),
            cost_usd_micros=cost_usd_micros or 0,
            caller=caller,
            charge=0.0 if first.settings.charge == "token" else CALL_CHARGE / caller.weight,
            started=started,
            deadline=started + timeout_s,
            patience_s=patience_s,
            note=note,
            outcome=loop.create_future(),
            heard=self._heard,
            lost=self.on_lost,
        )
        self._start(call, started if first.has_rates else loop.time())
        try:
            return await call.outcome
        except asyncio.CancelledError:
            self._leave(call)
            raise

    def settle(
        self,
        grant: Grant,
        *,
        used_tokens: int,
        used_output_tokens: int = 0,
        cached_tokens: int | None = None,
        cost_usd_micros: float = 0,
    ) -> None:
        """Give back what was reserved but not used, or charge the excess. Never waits, never raises.

        A use of exactly what was reserved, or of nothing, teaches nothing: it is what a call of unknown use is given.

        Args:
            grant: Under which the call went.
            used_tokens: Input and output together, as the provider told.
            used_output_tokens: Those of them that are output.
            cached_tokens: Of the input: read from the provider's cache, which not every limit counts; None: not known.
            cost_usd_micros: What it cost.
        """
        limit = self._find(grant.limit)
        if limit is None:
            return
        limit.flying = max(0, limit.flying - bool(grant.ticket))
        used_tokens = max(0, used_tokens - limit.not_counted(grant, used_tokens - used_output_tokens, cached_tokens))
        self._settle(limit, grant, sent=1, used_tokens=used_tokens, output=used_output_tokens, money=cost_usd_micros)
        if not limit.has_rates:
            self._first_answers.heard(limit.configured_as)

    def listens(self, grant: Grant) -> bool:
        """Return whether `observe` would use what an answer's headers say: a few times a second it does."""
        limit = self._find(grant.limit)
        return limit is not None and asyncio.get_running_loop().time() >= limit.observe_at

    def observe(self, grant: Grant, rates: RateReadings | None) -> None:
        """Correct the limit by what the answer's headers said (None: nothing). Never waits, never raises.

        Call it for every answer, right after `settle`: it leaves in the same write. Others may share the key, the
        configured rates may be more than the provider's, or none may be configured.
        """
        limit = self._find(grant.limit)
        if limit is not None and grant.ticket and not (rates is None and limit.has_rates):
            self._observer.note(grant, rates, limit, within_s=limit.spare_s(asyncio.get_running_loop().time()))

    def penalise(self, limit: str, *, retry_after_s: float, told: str = "") -> None:
        """Hold the whole fleet on `limit`: the provider answered 429. Never waits, never raises.

        Args:
            limit: `provider/model/key`.
            retry_after_s: For how long.
            told: What the provider said; empty: a 429 and this time.
        """
        held = self._find(limit)
        if held is None:
            return
        hold_s, now = min(max(0.0, retry_after_s), MAX_PENALTY_S), asyncio.get_running_loop().time()
        held.penalised_at = now
        names = held.keys_for()
        call = PENALISE.call(
            state=names.state, facts=names.facts, retry_after_us=round(hold_s * 1e6),
            held_by=told or f"429, Retry-After {hold_s:.0f} s, at {time.strftime('%H:%M:%S UTC', time.gmtime())}",
            terms=held.packed,
        )  # fmt: skip
        self._store.send(PENALISE, *call)
        self._hold(held, now + hold_s, now)

    def let_go(self, grant: Grant) -> None:
        """Count a call no more among those at the same time: it hangs while later ones are answered. Never waits."""
        if (limit := self._find(grant.limit)) is not None and grant.ticket:
            self._forget(limit, grant.ticket)

    def _forget(self, limit: LocalLimit, ticket: str) -> None:
        self._store.send(FORGET, *limit.forget_call(ticket))

    def calm(self, limit: str) -> None:
        """Let nobody find a burst: the provider is back, and what has waited goes at its pace. Never waits."""
        found = self._find(limit)
        if found is not None:
            names = found.keys_for()
            self._store.send(CALM, *CALM.call(state=names.state, facts=names.facts))

    def narrow(self, limit: str, *, most: int = 0) -> None:
        """Let no more calls go at once than the provider takes: it refused one too many. Never waits, never raises.

        Args:
            limit: `provider/model/key`.
            most: As the provider says; 0: it does not say, and what is under way is taken for the most.
        """
        narrowed = self._find(limit)
        if narrowed is not None:
            narrowed.is_narrow = True
            self._store.send(NARROW, *narrowed.narrow_call(most))

    def standing(self, limit: str) -> Wait | None:
        """Return why calls under `limit` do not go soon, as this process has just heard; None: ask. Never waits."""
        heard_of = self._limits.get(limit)
        return heard_of.standing() if heard_of else None

    def day_is_used(self, limit: str, percent: int) -> None:
        """Called once a day and limit, as 80% and as 100% of its requests or money are used: for who tells of it."""
        logger.warning("budget_warning limit=%s percent=%d", limit, percent)

    def backlog_s(self, limit: str) -> float:
        """Return the seconds that a call would have waited under `limit`, as this process last heard."""
        heard_of = self._limits.get(limit)
        return heard_of.backlog_s if heard_of else 0.0

    async def crowd(self, limit: str) -> Crowd:
        """Read who waits under a limit; raises as `snapshot`."""
        return await read_crowd(self._store, limit, self._known(limit).settings)

    async def snapshot(self, limit: str) -> LimitSnapshot:
        """Read how a limit stands.

        Raises:
            StoreUnavailable: When Redis does not answer.
            ConfigurationError: When the limit is not known.
        """
        return await read_snapshot(self._store, limit, self._known(limit).settings)

    def _find(self, name: str) -> LocalLimit | None:
        found = self._limits.get(name)
        if found is None:
            configured_as = name if name in self._settings else name.rpartition("/")[0]
            if configured_as in self._settings:
                found = LocalLimit.of(name, configured_as, self._settings[configured_as], self._ask)
                self._limits[name] = found
        return found

    def _known(self, name: str) -> LocalLimit:
        found = self._find(name)
        if found is None:
            known = ", ".join(sorted(self._settings)) or "none"
            raise ConfigurationError(f"expected a known limit ({known}), got {quote(name)}; add it to [limits]")
        return found

    def _start(self, call: WaitingCall, now: float) -> None:
        """Put the first question; where the wait is long in any case, together with others."""
        sleepers = [limit.sleepers for limit in call.limits]
        before = call.deadline if call.patience_s is None else min(call.deadline, now + call.patience_s)
        pause_s = min([each.spare_s(now, priority=call.caller.priority, before=before) for each in sleepers])
        if pause_s > 0:
            sleepers[-1].sleep(call, now + pause_s)  # where `call.limit` finds it
            sleepers[-1].set_timer()
            return
        self._ask(call, now)
        for each in sleepers:
            each.join(now)

    def _ask(self, call: WaitingCall, now: float | None = None) -> None:
        """Put one question to Redis; `_heard` gets the reply."""
        self.questions += 1
        now = asyncio.get_running_loop().time() if now is None else now
        question, call.stood_s = call.question(now, self._draw()), stood_s(call.outcome.get_loop())
        self._store.send_together(call.asking, (), question, receiver=call)

    def _heard(self, call: WaitingCall, reply: Reply) -> None:
        """Do what Redis answered: wait for the slot, sleep, or give up."""
        call.order, call.candidate = reply.order, reply.candidate
        limit, backlog_s = call.limit, reply.backlog_us / 1e6
        sleepers, now = limit.sleepers, asyncio.get_running_loop().time()
        limit.backlog_s = backlog_s
        if (reply.day_used >= WARN_AT or reply.cause) and (percent := limit.crossed(reply)):
            self.day_is_used(limit.name, percent)
        self._changes.heard(limit, reply.was_set, now)
        if reply.held_us:
            self._hold(limit, now + (reply.held_us - reply.now_us) / 1e6, now)
        elif call.asked_at > limit.penalised_at:
            limit.held_until = 0.0  # an operator has ended it
        is_refused = call.nudged and reply.code == ASK_AGAIN
        call.nudged = False
        sleepers.heard(
            now, idle=0 if is_refused else reply.idle, horizon_s=reply.horizon_us / 1e6, quiet_s=reply.quiet_us / 1e6,
            in_vain=is_refused, priority=call.caller.priority, backlog_s=backlog_s,
        )  # fmt: skip
        if reply.code == SEND:
            limit.refused = None
            self._promise(call, reply, now)
        elif reply.code == ASK_AGAIN and not call.is_shut_out(self.shut):
            sleepers.sleep(call, now + reply.wait_us / 1e6)
            self._changes.slept(limit, reply.wait_us / 1e6)
        elif reply.code == ASK_AGAIN:
            self._forget(limit, call.ticket)
        elif not call.outcome.done():
            call.outcome.set_exception(call.refusal(reply))
        if call.outcome.cancelled():
            self._leave(call)
        sleepers.set_timer()

    def _promise(self, call: WaitingCall, reply: Reply, now: float) -> None:
        """Wait for the slot."""
        call.slot_at = call.limit.clock.local(
            reply.now_us + reply.wait_us, now_us=reply.now_us, asked_at=call.asked_at, heard_at=now
        )
        call.reply = reply
        if call.slot_at > now:
            call.timer = asyncio.get_running_loop().call_at(call.slot_at, self._go, call)
            self._changes.promised(call, call.slot_at - now)
        else:
            self._go(call, now)

    def _go(self, call: WaitingCall, now: float | None = None) -> None:
        """The slot has come: grant it, or give it back and ask again when a 429 came first or the loop is too late.

        What is sent later than promised meets what was promised for later: more than a burst of it is a 429.
        """
        loop, limit = call.outcome.get_loop(), call.limit
        now = loop.time() if now is None else now
        grant = call.taken(now)
        is_held = limit.held_until > max(now, call.slot_at + 1e-3)
        is_late = now + stood_s(loop) - call.stood_s - call.slot_at > limit.slack_s and call.missed < MOST_MISSED
        is_gone = call.outcome.done()
        if not (is_held or is_late or is_gone):
            limit.flying += 1
            call.outcome.set_result(grant)
            return
        self._settle(limit, grant, sent=0)
        if not is_gone:
            call.missed += is_late
            # After all that are late have given back: a slot of the past must not make room for one more now.
            loop.call_soon(self._ask, call)

    def _hold(self, limit: LocalLimit, until: float, now: float) -> None:
        """Let nobody go before `until`; who has not that much patience is told so at once."""
        if limit.hold(until):
            for call in limit.impatient(until - now):
                self._give_back(call)
            limit.sleepers.wake_all(lambda call: call.lacks_patience(until - now))

    def _give_back(self, call: WaitingCall) -> None:
        """Give a promised slot back and ask anew: the limit has changed."""
        if call.timer is not None:
            call.timer.cancel()
        self._settle(call.limit, call.taken(asyncio.get_running_loop().time()), sent=0)
        self._ask(call)

    def _leave(self, call: WaitingCall) -> None:
        """The caller is gone: give back its place, its promise or its grant. A reply that is due comes here again."""
        limit = call.limit
        if limit.sleepers.wake(call):
            if call.order >= 0:
                self._forget(limit, call.ticket)
        elif call.reply is not None:
            if call.timer is not None:
                call.timer.cancel()
            self._settle(limit, call.taken(call.slot_at), sent=0)
        elif call.outcome.done() and not call.outcome.cancelled() and call.outcome.exception() is None:
            limit.flying = max(0, limit.flying - 1)
            self._settle(limit, call.outcome.result(), sent=0)

    def _settle(
        self, limit: LocalLimit, grant: Grant, *, sent: int, used_tokens: int = 0, output: int = 0, money: float = 0
    ) -> None:
        if not grant.ticket:
            return
        now = asyncio.get_running_loop().time()
        told, within_s = limit.settlement(grant, now, sent=sent, used_tokens=used_tokens, output=output, money=money)
        self._store.send_together(limit.settling, (), told, within_s=within_s)
