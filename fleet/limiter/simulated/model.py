"""The limiter's scripts in plain Python: the same state, questions and times give the same answers.

For `fleet simulate`, which asks it millions of questions in no time, and for the tests, which hold it against the Lua.
One candidate only; what the numbers of the state mean stands in `layouts.py`.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from fleet.grants import Tokens
from fleet.limiter import limits
from fleet.limiter.layouts import BESIDE, STATE, At
from fleet.limiter.limits import Terms
from fleet.limiter.simulated.question import DAY, Answer, Question, day_is_full, day_of

SEND, ASK_AGAIN, TOO_LATE = 1, 2, 0

_WINDOW = slice(At.WINDOW + 1, At.WINDOW + 5)


@dataclass(slots=True)
class _Standing:
    """How a call stands: what `survey` in `acquire.lua` returns."""

    need: list[float]
    slot: float
    interval: float
    order: float
    waits: bool
    fresh: bool
    horizon: float
    est: float
    by_credit: bool
    may_go: bool
    cost: float
    used_up: int
    is_beyond: bool


@dataclass(slots=True)
class LimitModel:
    """One limit in memory."""

    terms: Terms
    state: list[float] = field(
        default_factory=lambda: [*STATE.unpack(b""), *BESIDE.unpack(b"")[1:]]
    )  # from index 1, as in Lua
    uses: dict[str, tuple[float, ...]] = field(default_factory=dict)
    orders: dict[str, float] = field(default_factory=dict)
    queue: list[tuple[float, str]] = field(default_factory=list)
    due: list[tuple[float, str]] = field(default_factory=list)
    dues: dict[str, float] = field(default_factory=dict)
    log: list[tuple[float, str, tuple[int, int, int]]] = field(default_factory=list)
    leases: dict[str, float] = field(default_factory=dict)
    bots: dict[str, float] = field(default_factory=dict)
    _dirty: bool = False
    _burst_us: float = 0.0  # the terms', or less of it after a used-up day

    def ask(self, question: Question, now: int) -> Answer:
        """Answer one question, as `acquire.lua`."""
        q, state = question, self.state
        day, self._dirty = [state[place] for place in DAY], False
        self._keep_calm(now)
        at = self._survey(q, now)
        unused = now - at.slot - self._burst_us / 4
        idle = math.floor(unused / at.interval) + 1 if unused >= 0 and at.interval > 0 else 0

        def answer(code: int, wait: float, backlog: float, *why: Any) -> Answer:
            charged = Tokens(int(at.need[2]), int(at.need[3]), int(at.need[4]))
            held = int(state[At.HELD_UNTIL]) if state[At.HELD_UNTIL] > now else 0
            quiet = math.floor(max(limits.LONG_US, at.interval) / 3)
            numbers = (math.ceil(wait), int(at.order), now, held, idle, math.ceil(backlog), 1, quiet)
            return replace(Answer(code, *numbers, charged, at.cost, *why), is_beyond=at.is_beyond)

        hopeless = not at.may_go and at.est - now > limits.HOPELESS * q.max_wait_us + at.horizon
        turn = at.slot if at.may_go else max(at.est, at.slot)
        patience_us = q.patience_us * (1 if at.fresh else limits.HOPELESS)
        if max(at.slot - now, 0) > q.max_wait_us or hopeless or (0 <= patience_us < turn - now):
            self.forget(q.ticket)
            opens, *why = self._not_soon(q, at, turn, now)
            self._leave_day(day)
            if q.patience_us >= 0:
                return answer(TOO_LATE, opens - now, at.est - now, *why)
            return answer(TOO_LATE, max(at.est, at.slot) - now, at.est - now)
        if q.priority < 4 and now / 1000 - state[At.ASKED_MS + q.priority] > limits.NOTED_EVERY_MS:
            state[At.ASKED_MS + q.priority] = math.floor(now / 1000)
            self._dirty = True
        if at.fresh:
            price = q.charge if q.charge > 0 else max(1, at.need[2]) / q.weight
            if q.by_tenant:
                price *= max(1, sum(tag > state[At.VIRTUAL_TIME] for tag in self.bots.values()))
            self.bots[q.bot] = _whole(at.order % limits.CLASS + price)
        if not at.may_go:
            early = limits.EARLY_SHARE + limits.EARLY_SPREAD * q.random
            wait = at.est - now - max(at.horizon, (at.est - now) * limits.FAR_SHARE) * early
            wait = max(wait, limits.MIN_SLEEP_US + q.random * at.horizon * limits.SLEEP_SPREAD)
            wait = min(wait, limits.MAX_SLEEP_US * (1 + q.random), q.max_wait_us)
            self._queue(q.ticket, at.order, _whole(now + wait))
            self._leave_day(day)
            return answer(ASK_AGAIN, wait, at.est - now)
        send = max(now, at.slot)
        self._commit(q, at, send, now)
        return answer(SEND, send - now, send - now)

    def settle(
        self, ticket: str, *, sent: bool, charged: tuple[int, int, int], used: tuple[int, int, int], now: int,
        reserved_money: float = 0, money: float = 0, reserved_day: int | None = None, since_slot_us: float = 0.0,
    ) -> None:  # fmt: skip
        """Account for a call that is over, as `settle.lua`: its clocks, window, leases and counts.

        Without a `reserved_day` it was granted today.
        """
        state, rates = self.state, astuple(self.terms)
        self._keep_calm(now)
        before, after = (1, *charged), (int(sent), *used)
        lost = not sent and not self.terms.window_us and since_slot_us > self._burst_us
        for k in range(1, 5):
            if rates[k - 1] > 0 and before[k - 1] != after[k - 1] and not lost:
                us, clock, held_until = limits.MINUTE_US / rates[k - 1], state[At.CLOCK + k], state[At.HELD_UNTIL]
                least = min(clock, held_until + self._burst(k)) if held_until > now else -math.inf
                state[At.CLOCK + k] = max(clock - math.ceil(before[k - 1] * us) + math.ceil(after[k - 1] * us), least)
            if sent and k > 1:
                state[At.MEAN + k] += (after[k - 1] - before[k - 1]) * self._weight_of_newest()
        later_us = since_slot_us if sent and since_slot_us < self.terms.window_us * limits.QUICK else 0.0
        if self.terms.window_us and (before != after or later_us):
            self._correct_log(ticket, before, after, sent=sent, later_us=later_us)
        if self.terms.in_flight:
            self.leases.pop(ticket, None)
            if sent:
                mean = state[At.MEAN_FLIGHT_US]
                newest = mean * (1 - limits.NEWEST_FLIGHT) + since_slot_us * limits.NEWEST_FLIGHT
                state[At.MEAN_FLIGHT_US] = newest if mean > 0 else since_slot_us
        if state[At.DAY] == (now // limits.DAY_US if reserved_day is None else reserved_day):
            state[At.DAY_REQUESTS] += int(sent) - 1
            state[At.DAY_USD_MICROS] += money - reserved_money
            state[At.DAY_RESERVED] = max(0, state[At.DAY_RESERVED] - reserved_money)
        state[At.GRANTED] += int(sent) - 1
        state[At.GRANTED_TOKENS] += used[0] - charged[0]
        minute = now // limits.MINUTE_US
        if minute != state[At.MINUTE]:
            is_next = minute == state[At.MINUTE] + 1
            state[At.BEFORE_REQUESTS] = state[At.MINUTE_REQUESTS] if is_next else 0
            state[At.BEFORE_TOKENS] = state[At.MINUTE_TOKENS] if is_next else 0
            state[At.MINUTE], state[At.MINUTE_REQUESTS], state[At.MINUTE_TOKENS] = minute, 0, 0
        state[At.MINUTE_REQUESTS] += int(sent)
        state[At.MINUTE_TOKENS] += used[0]

    def learn(self, kind: str, shares: tuple[float, ...]) -> None:
        """Learn what a call of `kind` used of its tokens, output tokens and, if priced, money, as `settle.lua`."""
        old = self.uses.get(kind, ())
        if not old and len(self.uses) >= limits.MOST_KINDS:
            return
        learnt: list[float] = []
        for k, share in enumerate(shares):
            if len(old) < 2 * k + 2:
                learnt += [share, share * limits.FIRST_DEVIATION]
            else:
                mean, deviation = old[2 * k], old[2 * k + 1]
                learnt += [
                    mean + (share - mean) * limits.NEWEST_USE,
                    deviation + (abs(share - mean) - deviation) * limits.NEWEST_USE,
                ]
        self.uses[kind] = (*(float(f"{number:.4f}") for number in learnt), *old[len(learnt) :])

    def penalise(self, retry_after_us: int, now: int) -> int:
        """Hold everybody, as `penalise.lua`; return for how long."""
        state, rates = self.state, astuple(self.terms)
        self._keep_calm(now)
        opens = max(state[At.HELD_UNTIL], now + retry_after_us)
        state[At.HELD_UNTIL], state[At.REFUSED], state[At.REFUSED_AT] = opens, state[At.REFUSED] + 1, now
        for k in range(1, 5):
            if rates[k - 1] > 0:
                one = limits.MINUTE_US / rates[0] if k == 1 else 0
                state[At.CLOCK + k] = max(state[At.CLOCK + k], math.ceil(opens + self._burst(k) - one))
        return int(opens - now)

    def forget(self, ticket: str) -> None:
        """Drop a ticket, as `forget.lua`."""
        order = self.orders.pop(ticket, None)
        if order is not None:
            del self.queue[bisect_left(self.queue, (order, ticket))]
        due = self.dues.pop(ticket, None)
        if due is not None:
            del self.due[bisect_left(self.due, (due, ticket))]

    def _survey(self, q: Question, now: int) -> _Standing:
        state, terms = self.state, self.terms
        need = self._need(q)
        slot, interval = self._slot(need, now)
        blocked = beyond = False
        if terms.window_us:
            opens, blocked = self._window_opens(need, now)
            slot = max(slot, opens) if opens > now else slot
        if terms.in_flight:
            mean_us = state[At.MEAN_FLIGHT_US]
            flight = (mean_us if mean_us > 0 else limits.FIRST_FLIGHT_US) / terms.in_flight
            interval = max(interval, flight)
            if len(self.leases) >= terms.in_flight:
                self.leases = {ticket: expiry for ticket, expiry in self.leases.items() if expiry > now}
            beyond = terms.in_flight <= len(self.leases) < terms.in_flight + q.beyond
            if len(self.leases) >= terms.in_flight + q.beyond:
                slot, blocked = max(slot, now + flight), True
        cost, used_up = float(q.money), 0
        if terms.requests_a_day or terms.usd_micros_a_day:
            midnight = (now // limits.DAY_US + 1) * limits.DAY_US
            cost, used_up = day_of(q, state, terms, self.uses.get(q.kind, ()), now)
            slot = max(slot, midnight) if used_up else slot
            blocked = blocked or slot >= midnight
        self._drop_dead(q.ticket, now)
        order, waits, fresh, rank = self._place(q)
        own, horizon, ahead_us, credit = rank, max(limits.LONG_US, interval), rank * interval, 0.0
        urgent = max((state[At.ASKED_MS + k] for k in range(q.priority)), default=0.0)
        if urgent > 0 and now / 1000 - urgent < limits.URGENT_MEMORY_MS:
            horizon, credit = max(limits.SHORT_US, interval / 2), state[At.CREDIT + q.priority]
            if rank > 0:
                own = rank - bisect_left(self.queue, (q.priority * limits.CLASS, ""))
            by_order = rank - own + own / max(1 - state[At.URGENT_SHARE + q.priority], 1 / (1 + limits.LEAVE))
            ahead_us = min(by_order, max(0, own + 1 - credit) * (1 + limits.LEAVE)) * interval
        in_turn = slot + rank * interval - now <= horizon
        by_credit = not in_turn and credit >= own + 1 and slot - now <= max(limits.LONG_US, interval)
        may_go = not blocked and (in_turn or by_credit or now - slot >= self._burst_us)
        est = slot + ahead_us
        return _Standing(
            need, slot, interval, order, waits, fresh, horizon, est, by_credit, may_go, cost, used_up, beyond
        )

    def _need(self, q: Question) -> list[float]:
        need: list[float] = [0, 1, q.tokens, q.input_tokens, q.output_tokens]
        uses = self.uses.get(q.kind)
        if uses:
            need[2] = math.ceil(q.tokens * min(limits.MOST_SHARE, uses[0] + uses[1]))
            need[4] = math.ceil(q.output_tokens * min(limits.MOST_SHARE, uses[2] + uses[3]))
            need[2] = max(need[2], q.input_tokens + need[4])
        return [need[0], need[1], need[2], need[3], need[4]]

    def _burst(self, k: int) -> float:
        if k == 1 and self.terms.rpm > 0:
            return max(self._burst_us, limits.MINUTE_US / self.terms.rpm)
        return self._burst_us

    def _leave_day(self, day: list[float]) -> None:
        """Let the day be as it was, unless the state is written: who only asks begins no new one."""
        for place, number in zip(DAY, day, strict=True):
            self.state[place] = self.state[place] if self._dirty else number

    def _keep_calm(self, now: int) -> None:
        self._burst_us, calm_at = self.terms.burst_us, self.state[At.CALM_AT]
        if calm_at > 0:
            burst_us = limits.CALM_BURST_US + max(0, now - calm_at) * limits.CALM_GROWTH
            self._burst_us = min(self._burst_us, burst_us)
            self.state[At.CALM_AT] = calm_at if burst_us < self.terms.burst_us else 0

    def _slot(self, need: list[float], now: int) -> tuple[float, float]:
        state, rates = self.state, astuple(self.terms)
        slot: float = now - self._burst_us
        interval = 0.0
        for k in range(1, 5):
            if rates[k - 1] > 0:
                us, burst = limits.MINUTE_US / rates[k - 1], self._burst(k)
                mean = 1.0 if k == 1 else state[At.MEAN + k] if state[At.MEAN + k] > 0 else need[k]
                interval = max(interval, mean * us)
                cost = us if k == 1 else math.ceil(need[k] * us)
                slot = max(slot, state[At.CLOCK + k] + min(math.ceil(cost), burst) - burst)
        return max(slot, state[At.HELD_UNTIL]), interval

    def _window_opens(self, need: list[float], now: int) -> tuple[float, bool]:
        state, terms, rates = self.state, self.terms, astuple(self.terms)
        kept_us = terms.window_us + terms.margin_us
        most = [math.inf] * 4
        for k in range(4):
            if rates[k] > 0:
                limit = max(1, math.floor(rates[k] * terms.window_us / limits.MINUTE_US))
                most[k] = limit - min(need[k + 1], limit)
        held, opens, dropped = state[_WINDOW], float(now), 0
        over = any(held[k] > most[k] for k in range(4))
        for sent_us, _, counts in self.log[: limits.LOG_STEPS] if over or now >= state[At.SWEEP_AT] else []:
            leaves = sent_us + kept_us
            if leaves > now and not over:
                break
            opens = max(opens, leaves)
            held = [amount - count for amount, count in zip(held, (1, *counts), strict=True)]
            over = any(held[k] > most[k] for k in range(4))
            if leaves <= now:
                dropped, state[_WINDOW], self._dirty = dropped + 1, held, True
        del self.log[:dropped]
        return opens, over

    def _not_soon(self, q: Question, at: _Standing, turn: float, now: int) -> tuple[float, int, bool, int]:
        """Return when to try again, the cause, whether it is only this call's, and the lowest priority that passes."""
        state = self.state
        held_until = state[At.HELD_UNTIL]
        is_long = held_until - now > q.patience_us and not at.used_up
        if held_until > now and (held_until >= at.slot or is_long):
            return state[At.HELD_UNTIL], limits.BY_HOLD, False, -1
        if at.used_up:
            told = day_is_full(q, state, self.terms, at.cost, at.used_up, now)
            if not told[2] and q.patience_us >= 0:
                state[At.CALM_AT], self._dirty = now, True
            return told
        is_next = at.slot - now > q.patience_us
        wait = max(limits.MIN_SLEEP_US, turn - now - q.patience_us * limits.EARLY_PATIENCE)
        is_own = not is_next and q.by_tenant and at.order % limits.CLASS > state[At.VIRTUAL_TIME]
        return now + wait, limits.BY_LIMIT, is_own, -1 if is_next else q.priority - 1

    def _drop_dead(self, ticket: str, now: int) -> None:
        if now < self.state[At.SWEEP_AT]:
            return
        self._dirty, others_asked = True, now - self.state[At.SWEEP_AT] < limits.GRACE_US
        late = self.due[: min(limits.DEAD_STEPS, bisect_right(self.due, (now - limits.GRACE_US, "\x7f")))]
        dead = {name for _, name in late}
        processes = {_process_of(name) for name in dead} - {_process_of(ticket), ""}
        if processes and others_asked:
            dead |= {name for _, name in self.queue[: limits.FIRST] if _process_of(name) in processes}
        for name in dead - {ticket}:
            self.forget(name)
        if len(late) < limits.DEAD_STEPS:
            self.state[At.SWEEP_AT] = now + limits.SWEEP_US

    def _place(self, q: Question) -> tuple[float, bool, bool, int]:
        if q.order < 0:
            order = q.priority * limits.CLASS + max(self.state[At.VIRTUAL_TIME], self.bots.get(q.bot, 0))
        elif q.ticket in self.orders:
            return q.order, True, False, bisect_left(self.queue, (q.order, q.ticket))
        else:
            order = q.order
        return order, False, q.order < 0, bisect_right(self.queue, (_whole(order), "\x7f"))

    def _queue(self, ticket: str, order: float, due: float) -> None:
        if ticket in self.dues:
            del self.due[bisect_left(self.due, (self.dues[ticket], ticket))]
        if ticket not in self.orders:
            self.orders[ticket] = _whole(order)
            insort(self.queue, (_whole(order), ticket))
        self.dues[ticket] = due
        insort(self.due, (due, ticket))

    def _commit(self, q: Question, at: _Standing, send: float, now: int) -> None:
        state, terms, rates = self.state, self.terms, astuple(self.terms)
        for k in range(1, 5):
            if rates[k - 1] > 0:
                state[At.CLOCK + k] = max(send, state[At.CLOCK + k]) + math.ceil(
                    at.need[k] * limits.MINUTE_US / rates[k - 1]
                )
            if k > 1:
                state[At.MEAN + k] += (at.need[k] - state[At.MEAN + k]) * self._weight_of_newest()
            urgent_share = state[At.URGENT_SHARE + k] * (1 - limits.NEWEST_GRANT)
            state[At.URGENT_SHARE + k] = urgent_share + (limits.NEWEST_GRANT if q.priority < k else 0)
            if q.priority < k:
                state[At.CREDIT + k] = min(limits.MOST_CREDIT, state[At.CREDIT + k] + 1 / limits.LEAVE)
            if terms.window_us:
                state[At.WINDOW + k] += at.need[k]
        if at.by_credit:
            state[At.CREDIT + q.priority] -= 1
        state[At.VIRTUAL_TIME] = max(state[At.VIRTUAL_TIME], at.order % limits.CLASS)
        state[At.GRANTED] += 1
        state[At.GRANTED_TOKENS] += at.need[2]
        state[At.DAY_REQUESTS] += 1
        state[At.DAY_USD_MICROS] += at.cost
        state[At.DAY_RESERVED] += at.cost
        if not 0 <= now - state[At.RESERVED_AT] < limits.RESERVED_US:
            state[At.RESERVED_AT] = now
        self.forget(q.ticket)
        if terms.window_us:
            insort(self.log, (_whole(send), q.ticket, (int(at.need[2]), int(at.need[3]), int(at.need[4]))))
        if terms.in_flight:
            self.leases[q.ticket] = _whole(send + q.lease_us)
        if now % limits.NOW_AND_THEN == 0:
            self.bots = {bot: tag for bot, tag in self.bots.items() if tag > _whole(state[At.VIRTUAL_TIME])}

    def _weight_of_newest(self) -> float:
        return max(limits.NEWEST_CALL, 1 / (self.state[At.GRANTED] + 1))

    def _correct_log(
        self, ticket: str, before: tuple[int, ...], after: tuple[int, ...], *, sent: bool, later_us: float
    ) -> None:
        for place, (at, name, counts) in enumerate(self.log):
            if name == ticket and counts == before[1:]:
                del self.log[place]
                for k in range(4):
                    self.state[At.WINDOW + 1 + k] += after[k] - before[k]
                if sent:
                    insort(self.log, (_whole(at + later_us), ticket, (after[1], after[2], after[3])))
                return


def _process_of(ticket: str) -> str:
    return ticket.partition("-")[2].rpartition("-")[0]


def _whole(number: float) -> float:
    return float(math.trunc(number))
