"""The gateway: the one place that every provider call passes. Breaker, limiter, one HTTP request, then settle.

It never retries; that is the bot's rule (`bot/asker.py`). It never logs a prompt, an answer or a key.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from fleet.conversation import Message
from fleet.entries import Entry
from fleet.errors import (
    ContextTooLong,
    DeadlineExceeded,
    FleetError,
    GiveUp,
    MachineExhausted,
    RateLimited,
)
from fleet.grants import ANYBODY, Caller, Grant
from fleet.lessons import FAST, TEACHING_TOKENS, UNSENT, Measure, Notebook
from fleet.money import PICOS_PER_MICRO
from fleet.rates import RateReadings
from fleet.schema import Schema
from fleet.usage import Usage
from fleet.waits import Wait
from fleet.workers.costs import Line, afford, counted_nothing, is_free
from fleet.workers.deadline import Deadline
from fleet.workers.judge import broken_off, is_known
from fleet.workers.ladders import Ladders, Turn, plain
from fleet.workers.load import is_plain, may_write_for_an_hour, most_usage, sent_tokens
from fleet.workers.meter import NO_USAGE, Meter
from fleet.workers.ports import (
    CONTEXT_FULL,
    PLAIN,
    Bill,
    Breakers,
    Call,
    Completion,
    CostShares,
    Knowledge,
    Limiter,
    Wishes,
)
from fleet.workers.providers.rates.headers import read_rates
from fleet.workers.providers.taught.student import asked_of, names_of
from fleet.workers.providers.wire_schema import Form, Forms, SchemaRefused
from fleet.workers.roads import PATIENCE_S, Budgets, Roads
from fleet.workers.rungs import Route as Route
from fleet.workers.rungs import Rung
from fleet.workers.streaming import Streaming, asked_usage
from fleet.workers.thinking import CLOSING, apart, is_unopened

#: Hold on a limit after a 429 that did not say how long to wait, in seconds.
DEFAULT_HOLD_S = 1.0

#: Smallest context window that a model is believed to have, in tokens: less is a number that was misread.
LEAST_WINDOW_TOKENS = 256

#: What something else stands for where a model is not sent it: a facet, more effort, more words (`bot/persona.py`).
STOOD_FOR = ("temperature", "effort", "verbosity")

#: Gives the cost of one call in 10^-12 dollars by `provider/model`, usage and tier (None: the usual one); None when the
#: model has no price in that tier.
Price = Callable[[str, Usage, str | None], int | None]

logger = logging.getLogger(__name__)


class Gateway:
    """Sends calls: exactly one HTTP request per grant, and every grant settled exactly once.

    Args:
        limiter: The fleet-wide limiter.
        routes: Each pool's own route.
        price: Cost of a call.
        breakers: Whether calls are worth sending.
        lessons: What models refuse, and how they count; None: this gateway's own, which nobody shares.
        clock: Unix time in seconds, as Redis has it.
        ladders: Of pools that have a fallback, the own route first.
        on_turn: Hears when a pool goes down its ladder, and when it is back.
        costs: How much of the most that they may cost calls do; None: all of it.
        bill: Where each call is written down; None: nowhere.
        budgets: What may be spent; None: anything.

    Attributes:
        ladders: Of every pool.
    """

    def __init__(
        self,
        limiter: Limiter,
        routes: Mapping[str, Route],
        price: Price,
        *,
        breakers: Breakers,
        lessons: Knowledge | None = None,
        clock: Callable[[], float] = time.time,
        ladders: Mapping[str, tuple[Rung, ...]] | None = None,
        on_turn: Callable[[Turn], None] | None = None,
        costs: CostShares | None = None,
        bill: Bill | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self.now_s = clock
        self._bill = bill
        self._roads = Roads(limiter, breakers, clock, bill, budgets, costs)
        self.unanswered = self._roads.unanswered
        self._costs = costs
        self._lessons: Knowledge = Notebook() if lessons is None else lessons
        self._limiter = limiter
        self._routes = routes
        self._price = price
        self._disbelieved: set[str] = set()
        self._forms = Forms(self._lessons)
        self._unopened: set[str] = set()
        self.ladders = Ladders({**plain(routes), **(ladders or {})}, standing=self._roads.closed, on_turn=on_turn)

    def closed(self, pool: str) -> Wait | None:
        """Return why the calls of `pool` do not go soon, as this process has heard; None: try. Never waits."""
        return self.ladders.closed(pool)

    def form(self, route: Route, schema: Schema) -> Form:
        """Return how a model is told of a schema: by the wire (strict, loose), or by the prompt."""
        return self._forms.form(route.priced_as, schema.name)

    def refuses(self, route: Route, name: str) -> bool:
        """True when a model is known to refuse this, or not to be sent it."""
        return any(name in names_of(field) for field in self._lessons.refused(route.priced_as))

    def came(self, route: Route, schema: Schema, *, is_json: bool) -> None:
        """Learn whether a model has read a schema that it was told by the wire."""
        self._forms.came(route.priced_as, schema.name, is_json=is_json)

    def measure(self, route: Route) -> Measure:
        """Return how a model counts, as far as it is known."""
        return self._lessons.measure(route.priced_as)

    async def chat(
        self,
        pool: str,
        messages: tuple[Message, ...],
        *,
        temperature: float | None,
        max_output_tokens: int,
        deadline: Deadline,
        meter: Meter,
        caller: Caller = ANYBODY,
        wishes: Wishes = PLAIN,
        streaming: Streaming | None = None,
        patience_s: float = PATIENCE_S,
        route: Route | None = None,
    ) -> Completion:
        """Pass the breaker, wait for a grant, send one call, settle.

        Input by estimate plus the longest answer (each of `n`) is reserved, and what they cost at most in the tier that
        is asked; what was not used comes back when the call is settled.

        Args:
            pool: Whose call it is.
            messages: The conversation, already cut to the bot's window.
            temperature: Sampling temperature; None: the model's own.
            max_output_tokens: Longest answer.
            deadline: Of the task; it stands still while the call waits, and a call that fails does not count.
            meter: Where to write what was used.
            caller: For whom: the limiter orders waiting calls by it.
            wishes: What is asked beyond an answer; each of several answers is reserved.
            streaming: Hands on the answer while it is made; None: it is wanted whole.
            patience_s: How far away its turn may be.
            route: Of the rung that takes it; None: the pool's own.

        Raises:
            NotSoon: The call cannot leave soon; nothing was sent.
            RateLimited: 429; the whole fleet is held on this limit already.
            Relearnt: The model refuses what this call carried: the next one won't.
            ContextTooLong: The prompt is more than the model takes; what it said of that is learnt.
            ProviderUnavailable, KeyRejected, NotServed: As the provider raised them, each with the `ruling` of its
                breaker.
            BadRequest: As the provider raised it.
            DeadlineExceeded: The answer came after the deadline. It is paid.
            TooExpensive: What is left of the task's `max_cost_usd` does not pay for the call; nothing was sent.
            InvalidTask: The task has a `max_cost_usd`, and the model has no price.
            StoreUnavailable: The limiter has no Redis; nothing was sent.
            MachineExhausted: This machine has no room for a connection; nothing was sent.
        """
        route = route or self._routes[pool]
        given, made = sent_tokens(messages, wishes), max_output_tokens * wishes.n
        # Nothing is read from a cache, and all is written to one where that costs more: the dearest that it can be.
        for_1h = given if may_write_for_an_hour(messages, wishes) else 0
        most = Usage(input_tokens=given, cache_write_tokens=given, cache_write_1h_tokens=for_1h, output_tokens=made)
        picos, most_micros = self._priced(route, most, wishes.tier)
        expected = 0
        if meter.most_picos is not None:
            with deadline.standing():
                expected = await self._afforded(route, caller.kind, picos, meter)
        call = Call(route.model, messages, temperature, max_output_tokens, route.timeout_s, wishes)
        asked = Entry(
            "", meter.who, pool, caller.bot, caller.tenant, caller.kind, caller.run, route.limit, wishes.tier or "",
            NO_USAGE, picos, "unknown", 0.0,
        )  # fmt: skip
        with meter.pending(expected):  # from here on, so that another chat of the task does not spend the same money
            with deadline.standing():
                road = await self._roads.turn(
                    route.limit, most, asked=asked, cost_usd_micros=most_micros, meter=meter, caller=caller,
                    patience_s=patience_s,
                )  # fmt: skip
            out, counts = deadline.sends(road.is_answering), False
            try:
                completion = await self._send(route, call, road.grant, meter, streaming, Line(asked, road.grant))
                counts = True
            except BaseException as error:
                counts = isinstance(error, GiveUp | asyncio.CancelledError)
                if isinstance(error, ContextTooLong):
                    self._learn_from(error, route, most.input_tokens)
                await road.failed(error, meter)
                raise
            finally:
                deadline.came(out, counts=counts)
        road.did_well(meter.who, completion.usage.output_tokens)
        if most.input_tokens >= TEACHING_TOKENS and is_plain(call):
            true = completion.usage.input_tokens
            self._lessons.counted(route.priced_as, estimated=most.input_tokens, true=true)
        if deadline.left_s <= 0:
            raise DeadlineExceeded("the answer came too late")
        return completion

    async def _afforded(self, route: Route, kind: str, most_picos: int | None, meter: Meter) -> int:
        share = 1.0 if self._costs is None or not most_picos else await self._costs.share(route.limit, kind)
        return afford(route.priced_as, most_picos, share, meter)

    def _learn_from(self, error: ContextTooLong, route: Route, estimated: int) -> None:
        """Learn how a model counts from one that says that a prompt is too long."""
        if error.true_input_tokens:
            self._lessons.counted(route.priced_as, estimated=estimated, true=error.true_input_tokens, weight=FAST)
        if error.window_tokens and error.window_tokens >= LEAST_WINDOW_TOKENS:
            self._lessons.overflowed(route.priced_as, window_tokens=error.window_tokens)

    async def _send(
        self, route: Route, call: Call, grant: Grant, meter: Meter, streaming: Streaming | None, line: Line
    ) -> Completion:
        """Send one call and settle its grant, also when the call is cancelled.

        Until it is known what the provider counted, the whole reservation is taken as used: a call that was cut or
        cancelled may have been served, and too little would let the fleet run into a 429. A stream that was cut is
        known by what came. The task is charged with a cancelled call's input at least, and with all that came.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        used_tokens, output_tokens, cost = grant.reserved_tokens, grant.reserved_output_tokens, grant.cost_usd_micros
        meter.calls += 1
        refused = self._lessons.refused(route.priced_as)
        rates: RateReadings | None = None
        cached_tokens: int | None = None
        try:
            if streaming is None:
                answered = await route.provider.complete(call, api_key=route.api_key)
            else:
                unopened = route.priced_as in self._unopened
                answered = await streaming.receive(route.provider, call, route.api_key, is_unopened=unopened)
            completion = apart(self._believed(route, call, answered), call.messages)
            if not (is_known(completion.finish_reason) or completion.finish_reason == CONTEXT_FULL):
                raise broken_off(completion)
            self._note_thinking(route, call, answered.text)
            tier = completion.tier or call.wishes.tier  # who says nothing has done what was asked
            price, budgeted = self._priced(route, completion.usage, tier)
            if completion.usage.total_tokens:
                used_tokens, output_tokens = completion.usage.total_tokens, completion.usage.output_tokens
                cached_tokens, cost = completion.usage.cached_tokens, budgeted
                line.settle(completion.usage, price, tier)
            meter.charge(completion.usage, price)
            if completion.left_out or refused:
                self._learn_unsent(route.priced_as, call, completion.left_out, refused)
                meter.left_out = meter.left_out.union(asked_of(completion.left_out, call.wishes))
            if self._limiter.listens(grant):
                rates = read_rates(completion.headers, now_s=time.time())
        except asyncio.CancelledError:
            meter.failed[DeadlineExceeded.__name__] += 1
            usage = asked_usage(call) if streaming is None else streaming.used(call)
            price, budgeted = self._priced(route, usage, call.wishes.tier)
            meter.charge(usage, price)
            line.told(usage)
            if streaming is not None and streaming.has_begun:
                used_tokens, output_tokens, cost = usage.total_tokens, usage.output_tokens, budgeted
            raise
        except MachineExhausted as error:  # no call, and no failure of the provider's
            meter.calls -= 1
            line.is_void = True
            used_tokens = output_tokens = cost = 0
            _log(route, error, clock() - started)
            raise
        except FleetError as error:
            if error.usage is not None:
                usage = self._believed(route, call, Completion("", "", error.usage)).usage
                used_tokens, output_tokens, cost = usage.total_tokens, usage.output_tokens, 0.0
                if used_tokens:
                    price, cost = self._priced(route, usage, call.wishes.tier)
                    meter.charge(usage, price)
                    if streaming is not None and streaming.is_cut:
                        line.told(usage)
                    else:
                        line.settle(usage, price, call.wishes.tier)
                else:
                    line.settle_free()
            elif counted_nothing(error):
                used_tokens = output_tokens = cost = 0
                line.settle_free()
            elif is_free(error):
                line.settle_free()
            if isinstance(error, SchemaRefused) and (schema := call.wishes.schema) is not None:
                self._forms.refused(route.priced_as, schema.name, call.wishes.form, whole=error.whole)
            meter.failed[type(error).__name__] += 1
            if isinstance(error, RateLimited):
                hold_s = DEFAULT_HOLD_S if error.retry_after_s is None else error.retry_after_s
                if error.parallel:
                    self._limiter.narrow(route.limit, most=error.most_parallel)
                else:
                    self._limiter.penalise(route.limit, retry_after_s=hold_s)
                rates = error.rates
            _log(route, error, clock() - started)
            raise
        finally:
            meter.calling_s += clock() - started
            self._limiter.settle(
                grant, used_tokens=used_tokens, used_output_tokens=output_tokens, cached_tokens=cached_tokens,
                cost_usd_micros=cost,
            )  # fmt: skip
            self._limiter.observe(grant, rates)
            line.enter(self._bill, at_s=self.now_s())
            self._roads.settle_budgets(grant, line.counted_picos)
        return completion

    def _note_thinking(self, route: Route, call: Call, text: str) -> None:
        """Note whether a model's answers begin with thinking that is only closed: for those that come in pieces."""
        if any(sign in text for sign in CLOSING) and is_unopened(text, call.messages):
            self._unopened.add(route.priced_as)
        elif self._unopened:
            self._unopened.discard(route.priced_as)

    def _learn_unsent(self, api: str, call: Call, left_out: tuple[str, ...], refused: frozenset[str]) -> None:
        """Learn what a model is not sent although it does not refuse it; a day later, learn it anew or forget it.

        Args:
            api: `provider/model`.
            call: What was asked.
            left_out: What of it was not sent.
            refused: What was known when it was sent: answers on their way when a lesson is forgotten teach nothing.
        """
        for name in STOOD_FOR:
            what = f"{UNSENT}{name}"
            if what in refused:
                if _asks(call, name) and self._lessons.may_probe(api, what):
                    (self._lessons.learn if name in left_out else self._lessons.forget)(api, what)
            elif name in left_out and not any(name in names_of(field) for field in refused):
                self._lessons.learn(api, what)

    def _priced(self, route: Route, usage: Usage, tier: str | None) -> tuple[int | None, float]:
        """Return what a call costs in 10^-12 dollars, and what a day's budget counts for it, in micro-dollars.

        A budget counts a tier without a price as the usual one: it must not leak through it.
        """
        counted = picos = self._price(route.priced_as, usage, tier)
        if picos is None and tier is not None:
            counted = self._price(route.priced_as, usage, None)
        return picos, (counted or 0) / PICOS_PER_MICRO

    def _believed(self, route: Route, call: Call, completion: Completion) -> Completion:
        """Return the answer with no more usage than the call can have had.

        A limit counts what is told here: an absurd number would hold all calls of the fleet for years. Said once for
        each limit and process.
        """
        told, most = completion.usage, most_usage(call, completion.reasoning + completion.text)
        if told.input_tokens <= most.input_tokens and told.output_tokens <= most.output_tokens:
            return completion
        usage = told.within(input_tokens=most.input_tokens, output_tokens=most.output_tokens)
        if route.limit not in self._disbelieved:
            self._disbelieved.add(route.limit)
            logger.warning(
                "usage_disbelieved limit=%s told=%d+%d counted=%d+%d hint=more_tokens_than_such_a_call_can_have",
                route.limit, told.input_tokens, told.output_tokens, usage.input_tokens, usage.output_tokens,
            )  # fmt: skip
        return replace(completion, usage=usage)


def _asks(call: Call, name: str) -> bool:
    """True when a call has what one of `STOOD_FOR` names."""
    return (call.temperature if name == "temperature" else getattr(call.wishes, name)) is not None


def _log(route: Route, error: FleetError, seconds: float) -> None:
    """Log a failure by its type only: a provider's message may quote the prompt."""
    logger.warning("call_failed limit=%s error=%s ms=%d", route.limit, type(error).__name__, seconds * 1000)
