"""The gateway: the one place that every provider call passes. Breaker, limiter, one HTTP request, then settle.

It never retries; that is the bot's rule (`bot/asker.py`). It never logs a prompt, an answer or a key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial

from fleet.config.scopes import ScopeAsk
from fleet.conversation import Message
from fleet.errors import ContextTooLong, DeadlineExceeded, TierBusy
from fleet.grants import ANYBODY, Caller, Grant
from fleet.lessons import FAST, TEACHING_TOKENS, UNSENT, Measure, Notebook
from fleet.schema import Schema
from fleet.usage import Usage
from fleet.waits import Wait
from fleet.workers.calls import CONTEXT_FULL, PLAIN, Call, Completion, Wishes
from fleet.workers.costs import Line
from fleet.workers.deadline import Deadline
from fleet.workers.document_ports import Contexts
from fleet.workers.errands import Errand, KeySeeker
from fleet.workers.frameworks.asked import RawAsk
from fleet.workers.frameworks.exchanges import Exchanges
from fleet.workers.frameworks.passing import Passing
from fleet.workers.frameworks.raw import Onlooker, RawAnswer
from fleet.workers.judge import broken_off, is_known
from fleet.workers.keys import head_of
from fleet.workers.ladders import Ladders, Turn, plain
from fleet.workers.lanes import LaneRoads, Lanes
from fleet.workers.load import UNSEEN_TOKENS, is_plain, may_write_for_an_hour, most_tokens, sent_tokens
from fleet.workers.meter import Meter
from fleet.workers.passage import Passages, Price
from fleet.workers.ports import Bill, Breakers, CostShares, Knowledge, Limiter
from fleet.workers.providers.taught.student import asked_of, names_of
from fleet.workers.providers.wire_schema import Form, Forms, SchemaRefused
from fleet.workers.roads import PATIENCE_S, Budgets, Roads
from fleet.workers.rungs import Route as Route
from fleet.workers.rungs import Rung
from fleet.workers.streaming import Streaming, asked_usage
from fleet.workers.thinking import CLOSING, apart, is_unopened

#: Smallest context window that a model is believed to have, in tokens: less is a number that was misread.
LEAST_WINDOW_TOKENS = 256

#: Sizes of calls whose dearest usage is kept (count).
SIZES_KEPT = 4096

#: What something else stands for where a model is not sent it: a facet, more effort, more words (`bot/persona.py`).
STOOD_FOR = ("temperature", "effort", "verbosity")

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
        lanes: Those of calls that say by when they are needed; None: all take the usual one.
        contexts: The documents that tasks share; None: this process has none.
        keys: Chooses among the keys of a provider; whoever knows of scopes narrows it there.
        ladders: Of every pool.
        roads: Those of the process.
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
        roads = self.roads = Roads(limiter, breakers, clock, bill, budgets, costs)
        self.unanswered = roads.unanswered
        self._passages = Passages(limiter, roads, price, now_s=clock, costs=costs, bill=bill)
        self.keys = self._passages.keys
        self.lanes: LaneRoads | None = None
        self._lessons: Knowledge = Notebook() if lessons is None else lessons
        self._routes = routes
        self._disbelieved: set[str] = set()
        self._exchanges = Exchanges(self._passages, self._lessons)
        self._forms = Forms(self._lessons)
        self.contexts: Contexts | None = None
        self._unopened: set[str] = set()
        self.ladders = Ladders({**plain(routes), **(ladders or {})}, standing=roads.closed, on_turn=on_turn)
        roads.steps.know(ladders or {})

    def take_lanes(self, lanes: Lanes) -> None:
        """Let calls that say by when they are needed take the lanes that this chooses."""
        self.lanes = LaneRoads(lanes, self._passages, self.roads, self.ladders.of, self.now_s)

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
        if wishes.prefix and self.contexts is not None:
            caller = replace(caller, warm=self.contexts.limits(wishes.prefix, meter.who))
            wishes = replace(wishes, keep=self.contexts.keeps(wishes.prefix, route.limit))
        given, made = sent_tokens(messages, wishes), max_output_tokens * wishes.n
        most = _dearest(given, made, for_an_hour=may_write_for_an_hour(messages, wishes))
        call = Call(route.model, messages, temperature, max_output_tokens, route.timeout_s, wishes)
        offers = tuple(tool.name for tool in wishes.tools)
        head = head_of((*offers, *(message.text for message in messages))) if route.keys else None
        errand = Errand(pool, route, most, wishes.tier, deadline, meter, caller, patience_s, offers, head)
        if wishes.by_at is not None and self.lanes is not None:
            with deadline.standing():
                taken = await self.lanes.take(errand, call)
            if isinstance(taken, Completion):
                return apart(self.believed(route, call, taken), messages)
            wishes = replace(wishes, tier=taken)
            call, errand = replace(call, wishes=wishes), replace(errand, tier=taken)
        try:
            completion = await self._passages.go(
                errand, partial(self._send, call, streaming), lambda completion: completion.usage.output_tokens
            )
        except ContextTooLong as error:
            self._learn_from(error, route, most.input_tokens)
            raise
        except TierBusy:
            if wishes.by_at is None or wishes.tier is None or self.lanes is None:
                raise
            self.lanes.busy(route.priced_as, wishes.tier)  # so the next lane takes it, at once
            return await self.chat(
                pool, messages, temperature=temperature, max_output_tokens=max_output_tokens, deadline=deadline,
                meter=meter, caller=caller, wishes=wishes, streaming=streaming, patience_s=patience_s, route=route,
            )  # fmt: skip
        if call.wishes is not PLAIN and self.lanes is not None:
            self.lanes.used(route.priced_as, call, completion.usage)
        if most.input_tokens >= TEACHING_TOKENS and is_plain(call):
            true = completion.usage.input_tokens
            self._lessons.counted(route.priced_as, estimated=most.input_tokens, true=true)
        if deadline.left_s <= 0:
            raise DeadlineExceeded("the answer came too late")
        return completion

    async def exchange(
        self,
        pool: str,
        ask: RawAsk,
        *,
        usual_output_tokens: int,
        bound: int | None,
        deadline: Deadline,
        meter: Meter,
        caller: Caller,
        patience_s: float,
        route: Route,
        passing: Passing | None = None,
        watch: Onlooker | None = None,
    ) -> RawAnswer:
        """Send a request of an SDK as `chat()` sends a call: breaker, grant, one HTTP request, settle.

        Args:
            pool: Whose call it is.
            ask: What is asked; what asks no model is sent without a grant.
            usual_output_tokens: Of an answer to a request that names no limit: these are reserved.
            bound: The most output tokens that the pool or the task allows; None: neither says.
            deadline, meter, caller, patience_s: As for `chat()`.
            route: Where it goes.
            passing: Hands on an answer in pieces; None: it is wanted whole.
            watch: Hears the answer.

        Returns:
            The answer, or a refusal of this very request as the provider said it.

        Raises:
            FleetError: As `chat()`; `ConfigurationError` also when the provider does not speak the request's wire.
        """
        if ask.asked is None:
            if self.roads.scopes is not None:
                self.roads.scopes.check(route.limit, ScopeAsk(pool, caller.bot, caller.tenant), meter.who)
            return await self._exchanges.pass_on(route, ask, KeySeeker(pool, caller, meter.who))
        most = ask.most(ask.output_tokens(usual_output_tokens, bound))
        errand = Errand(pool, route, most, ask.tier, deadline, meter, caller, patience_s, ask.offers)
        answer = await self._exchanges.ask(errand, ask, bound=bound, passing=passing, watch=watch)
        if isinstance(answer.refusal, ContextTooLong):
            self._learn_from(answer.refusal, route, most.input_tokens)
        return answer

    def _learn_from(self, error: ContextTooLong, route: Route, estimated: int) -> None:
        """Learn how a model counts from one that says that a prompt is too long."""
        if error.true_input_tokens:
            self._lessons.counted(route.priced_as, estimated=estimated, true=error.true_input_tokens, weight=FAST)
        if error.window_tokens and error.window_tokens >= LEAST_WINDOW_TOKENS:
            self._lessons.overflowed(route.priced_as, window_tokens=error.window_tokens)

    async def _send(
        self, call: Call, streaming: Streaming | None, errand: Errand, grant: Grant, line: Line
    ) -> Completion:
        """Send one call and settle its grant, also when the call is cancelled."""
        route = errand.route
        if route.timeout_s < call.timeout_s:
            call = replace(call, timeout_s=route.timeout_s)
        refused = self._lessons.refused(route.priced_as)
        shared, who = self.contexts if call.wishes.prefix else None, errand.meter.who
        if shared is not None and streaming is None and call.wishes.n == 1 and shared.is_first(call.wishes.prefix, who):
            streaming = Streaming(lambda text: shared.begun(call.wishes.prefix, route.limit, who))  # others wait for it
        with self._passages.settling(errand, grant, line, _Chat(self, route, call, streaming)) as settlement:
            try:
                if streaming is None:
                    answered = await route.provider.complete(call, api_key=route.api_key)
                else:
                    unopened = route.priced_as in self._unopened
                    answered = await streaming.receive(route.provider, call, route.api_key, is_unopened=unopened)
            except SchemaRefused as error:
                if (schema := call.wishes.schema) is not None:
                    self._forms.refused(route.priced_as, schema.name, call.wishes.form, whole=error.whole)
                raise
            completion = apart(self.believed(route, call, answered), call.messages)
            if not (is_known(completion.finish_reason) or completion.finish_reason == CONTEXT_FULL):
                raise broken_off(completion)
            self._note_thinking(route, call, answered.text)
            settlement.answered(completion.usage, completion.tier, completion.headers)
            if shared is not None:
                shared.came(call.wishes.prefix, route.limit, who, completion.usage, completion.tier)
            if completion.left_out or refused:
                self._learn_unsent(route.priced_as, call, completion.left_out, refused)
                errand.meter.left_out = errand.meter.left_out.union(asked_of(completion.left_out, call.wishes))
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

    def believed(self, route: Route, call: Call, completion: Completion) -> Completion:
        """Return the answer with no more usage than the call can have had.

        A limit counts what is told here: an absurd number would hold all calls of the fleet for years. Said once for
        each limit and process.
        """
        told = completion.usage
        if told.input_tokens <= UNSEEN_TOKENS and told.output_tokens <= call.max_output_tokens:
            return completion  # no call is too small for that, and most use no more: nothing is counted for them
        most_given, most_made = most_tokens(call, completion.reasoning + completion.text)
        if told.input_tokens <= most_given and told.output_tokens <= most_made:
            return completion
        usage = told.within(input_tokens=most_given, output_tokens=most_made)
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


@lru_cache(maxsize=SIZES_KEPT)
def _dearest(given: int, made: int, *, for_an_hour: bool) -> Usage:
    """Return the dearest usage that a call can have: nothing is read from a cache, and all is written to one.

    Kept, for tasks of a kind come in few sizes.
    """
    for_1h = given if for_an_hour else 0
    return Usage(input_tokens=given, cache_write_tokens=given, cache_write_1h_tokens=for_1h, output_tokens=made)


class _Chat:
    """A call that is sent, for its settlement: `passage.Sent`."""

    __slots__ = ("_call", "_gateway", "_route", "_streaming")

    def __init__(self, gateway: Gateway, route: Route, call: Call, streaming: Streaming | None) -> None:
        self._gateway, self._route, self._call, self._streaming = gateway, route, call, streaming

    @property
    def is_cut(self) -> bool:
        return self._streaming is not None and self._streaming.is_cut

    def cut(self) -> tuple[Usage, bool]:
        if self._streaming is None:
            return asked_usage(self._call), False
        return self._streaming.used(self._call), self._streaming.has_begun

    def believed(self, usage: Usage) -> Usage:
        return self._gateway.believed(self._route, self._call, Completion("", "", usage)).usage
