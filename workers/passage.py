"""One call on its way: what it may cost is reserved, it waits for its grant, and what it has used is settled once.

What is sent, and what is learnt from the answer, is the caller's: `gateway.py` for chats, `frameworks/exchanges.py` for
requests of SDKs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

from fleet.entries import Entry
from fleet.errors import (
    DeadlineExceeded,
    FleetError,
    GiveUp,
    KeyRejected,
    KeySpent,
    MachineExhausted,
    NotSoon,
    RateLimited,
    Waits,
)
from fleet.grants import Grant
from fleet.money import PICOS_PER_MICRO
from fleet.rates import RateReadings
from fleet.usage import Usage
from fleet.waits import Ruling, Wait
from fleet.workers.costs import Line, afford, counted_nothing, is_free
from fleet.workers.errands import Errand, KeySeeker, Sent
from fleet.workers.keys import KeyChoice
from fleet.workers.meter import NO_USAGE, Meter
from fleet.workers.ports import Bill, CostShares, Limiter
from fleet.workers.providers.rates.headers import read_rates
from fleet.workers.road import Road
from fleet.workers.roads import Roads
from fleet.workers.rungs import CAUSES_OF, Route, together

#: Hold on a limit after a 429 that did not say how long to wait, in seconds.
DEFAULT_HOLD_S = 1.0

#: Gives the cost of one call in 10^-12 dollars by `provider/model`, usage and tier (None: the usual one); None when the
#: model has no price in that tier.
Price = Callable[[str, Usage, str | None], int | None]

#: What is told of a call whose key was replaced while it was on its way.
_RENEWED = "the provider refused a key that has been replaced: tried again with the new one"

#: How often a call goes once more because its key was replaced while it was on its way: a source may change again.
MOST_RENEWALS = 3

T = TypeVar("T")

logger = logging.getLogger(__name__)


#: Sends one call under its grant and settles that; the errand's route is that of one key.
Send = Callable[[Errand, Grant, Line], Awaitable[T]]


class _KeyRenewed(Exception):
    """A key was refused that is no longer the one to use."""

    def __init__(self, key: Route) -> None:
        super().__init__(key.limit)
        self.key = key


class Passages:
    """The ways of all calls of a process. Arguments as `Gateway`; belongs to one event loop."""

    def __init__(
        self, limiter: Limiter, roads: Roads, price: Price, *, now_s: Callable[[], float], costs: CostShares | None,
        bill: Bill | None,
    ) -> None:  # fmt: skip
        self.limiter = limiter
        self.roads = roads
        self.bill = bill
        self.now_s = now_s
        self.keys = KeyChoice(self._stands)
        self._price = price
        self._costs = costs

    async def go(self, errand: Errand, send: Send[T], output_tokens: Callable[[T], int]) -> T:
        """Pass the breaker, wait for a grant, send one call; tell breaker and deadline how it ended.

        A call whose key is refused goes once more, with the key that has replaced it, or with another one of the
        provider's that calls may go with: that is no failure of the call.

        Args:
            errand: Whose call it is.
            send: Sends it under its grant, and settles that.
            output_tokens: How much an answer says; 0: not known.

        Raises:
            FleetError: As `Gateway.chat`, or as `send` raises it.
        """
        refused: list[str] = []
        renewals = 0
        while True:
            keys = self.keys.of(errand.route, errand, refused)
            try:
                return await self._go(errand, keys, send, output_tokens)
            except _KeyRenewed as error:
                renewals += 1
                if renewals > MOST_RENEWALS:
                    about = error.key.limit
                    raise NotSoon(Wait("key", self.now_s(), about, _RENEWED, is_everyones=False)) from error.__cause__
            except NotSoon as error:
                wait = error.wait()
                if not (wait.is_everyones and self.keys.is_narrowed(errand.route, errand)):
                    raise
                raise NotSoon(replace(wait, is_everyones=False)) from error
            except Waits as error:
                is_the_keys = isinstance(error, RateLimited) or error.cause in CAUSES_OF["key"]
                refused.append(error.about)
                has_others = self._has_others(errand, refused)
                if not (is_the_keys and has_others):
                    if has_others and error.ruling is not None:  # that key's breaker shuts no road
                        error.ruling = replace(error.ruling, wait=None)
                    elif error.ruling is not None and error.ruling.wait is not None:
                        error.ruling = self._of_this_call(error.ruling, error.ruling.wait, errand)
                    raise

    async def _go(self, errand: Errand, keys: Sequence[Route], send: Send[T], output_tokens: Callable[[T], int]) -> T:
        route, most, meter, deadline = keys[0], errand.most, errand.meter, errand.deadline
        picos, most_micros = self.priced(route, most, errand.tier)
        expected = 0
        if meter.most_picos is not None:
            with deadline.standing():
                expected = await self._afforded(route, errand.caller.kind, picos, meter)
        caller = errand.caller
        asked = Entry(
            "", meter.who, errand.pool, caller.bot, caller.tenant, caller.kind, caller.run, route.limit,
            errand.tier or "", NO_USAGE, picos, "unknown", 0.0,
        )  # fmt: skip
        with meter.pending(expected):  # from here on, so that another call of the task does not spend the same money
            with deadline.standing():
                road = await self.roads.turn(
                    [key.limit for key in keys], most, asked=asked, cost_usd_micros=most_micros, meter=meter,
                    caller=caller, patience_s=errand.patience_s, offers=errand.offers,
                )  # fmt: skip
            if route.limit != road.grant.limit:
                route = next(key for key in keys if key.limit == road.grant.limit)
                asked = asked._replace(limit=route.limit)
            if route is not errand.route:
                errand = replace(errand, route=route)
            if road.brief_s is not None:
                route = replace(route, timeout_s=min(route.timeout_s, road.brief_s))
                errand = replace(errand, route=route)
            out, counts, key = deadline.sends(road.is_answering), False, route.api_key
            try:
                answer = await send(errand, road.grant, Line(asked, road.grant))
                counts = True
            except KeyRejected as error:
                if await is_renewed(route, key, error):
                    road.did_well(meter.who, 0)
                    raise _KeyRenewed(route) from error
                await self._failed(road, error, meter)
                raise
            except BaseException as error:
                counts = isinstance(error, GiveUp | asyncio.CancelledError)
                await self._failed(road, error, meter)
                raise
            finally:
                deadline.came(out, counts=counts)
        road.did_well(meter.who, output_tokens(answer))
        return answer

    async def _failed(self, road: Road, error: BaseException, meter: Meter) -> None:
        """Tell the breaker of a failed call, and the error under which limit it went."""
        await road.failed(error, meter)
        if isinstance(error, Waits):
            error.about = error.about or road.grant.limit

    def _of_this_call(self, ruling: Ruling, wait: Wait, errand: Errand) -> Ruling:
        """Return what is made of a failure: a breaker shuts no pool's road where other calls may use other keys."""
        if not self.keys.is_narrowed(errand.route, errand):
            return ruling
        return replace(ruling, wait=replace(wait, is_everyones=False))

    def open_key(self, route: Route, asking: KeySeeker, without: Sequence[str]) -> Route:
        """Return the key for a request that needs no grant: the bot's own of several, if that may be used.

        Args:
            route: Where the request goes.
            asking: Who asks.
            without: Limits whose keys have refused it.

        Raises:
            NotSoon: None may be used now.
        """
        waits = []
        for key in self.keys.of(route, asking, without):
            wait = self.roads.breakers.standing(key.limit)
            if wait is None or wait.cause not in CAUSES_OF["key"]:
                return key
            waits.append(wait)
        raise NotSoon(together(waits) if waits else Wait("key", self.now_s(), route.limit, is_everyones=False))

    def _stands(self, limit: str) -> bool:
        return self.roads.closed(limit) is not None or self.roads.breakers.is_ramping(limit)

    def _has_others(self, errand: Errand, refused: Sequence[str]) -> bool:
        """True when a call that keys have refused may go with another one now."""
        if len(errand.route.keys) <= len(refused):
            return False
        try:
            keys = self.keys.of(errand.route, errand, refused)
        except FleetError:  # its scopes, or what is left of the day, have changed since
            return False
        return any(self.roads.closed(key.limit) is None for key in keys)

    def settling(self, errand: Errand, grant: Grant, line: Line, sent: Sent) -> Reckoning:
        """Return a block (`with`) in which one call is sent, and behind which its grant is settled, whatever came.

        Args:
            errand: Whose call it is.
            grant: Under which it goes.
            line: Of the bill.
            sent: What is sent.
        """
        return Reckoning(self, errand, grant, line, sent)

    def priced(self, route: Route, usage: Usage, tier: str | None) -> tuple[int | None, float]:
        """Return what a call costs in 10^-12 dollars, and what a day's budget counts for it, in micro-dollars.

        A budget counts a tier without a price as the usual one: it must not leak through it.
        """
        counted = picos = self._price(route.priced_as, usage, tier)
        if picos is None and tier is not None:
            counted = self._price(route.priced_as, usage, None)
        return picos, (counted or 0) / PICOS_PER_MICRO

    async def _afforded(self, route: Route, kind: str, most_picos: int | None, meter: Meter) -> int:
        share = 1.0 if self._costs is None or not most_picos else await self._costs.share(route.limit, kind)
        return afford(route.priced_as, most_picos, share, meter)


class Reckoning:
    """A block in which one call is sent, and what it has used, as far as that is known; settled once, behind it.

    Until it is known what the provider counted, all tokens of the reservation are taken as used: a call that was cut or
    cancelled may have been served, and too little would let the fleet run into a 429. Of money a day counts what the
    bill enters, and nothing for a call that is refused as the provider is down. A stream that was cut is known by
    what came. The task is charged with a cancelled call's input at least, and with all that came.
    """

    __slots__ = (
        "_began", "_cached_tokens", "_cost", "_errand", "_grant", "_house", "_line", "_output_tokens", "_rates",
        "_sent", "_used",
    )  # fmt: skip

    def __init__(self, house: Passages, errand: Errand, grant: Grant, line: Line, sent: Sent) -> None:
        self._house, self._errand, self._grant, self._line, self._sent = house, errand, grant, line, sent
        self._used, self._output_tokens, self._cost = (
            grant.reserved_tokens, grant.reserved_output_tokens, grant.noted_usd_micros or grant.cost_usd_micros,
        )  # fmt: skip
        self._cached_tokens: int | None = None
        self._rates: RateReadings | None = None

    def __enter__(self) -> Reckoning:
        self._began = asyncio.get_running_loop().time()
        self._errand.meter.calls += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        seconds = asyncio.get_running_loop().time() - self._began
        self._errand.meter.calling_s += seconds
        try:
            if error is not None:
                self._broke(error, seconds)
        finally:
            self._close()

    def _broke(self, error: BaseException, seconds: float) -> None:
        """Note that there was no answer; what is no failure of a call's leaves it as it stands."""
        if isinstance(error, asyncio.CancelledError):
            self._cancelled(*self._sent.cut())
        elif isinstance(error, MachineExhausted):  # no call, and no failure of the provider's
            self._unsent()
            _log(self._errand.route, error, seconds)
        elif isinstance(error, FleetError):
            usage = None if error.usage is None else self._sent.believed(error.usage)
            self._failed(error, usage, is_cut=self._sent.is_cut)
            _log(self._errand.route, error, seconds)

    def answered(self, usage: Usage, tier: str | None, headers: Mapping[str, str]) -> None:
        """Note an answer: what it used, and in which tier it came; None: who says nothing has done what was asked."""
        tier = tier or self._errand.tier
        price, budgeted = self._house.priced(self._errand.route, usage, tier)
        if usage.total_tokens:
            self._count(usage, budgeted)
            self._cached_tokens = usage.cached_tokens
            self._line.settle(usage, price, tier)
        self._errand.meter.charge(usage, price)
        if self._house.limiter.listens(self._grant):
            self._rates = read_rates(headers, now_s=time.time())

    def left(self) -> None:
        """Note that it is answered later: its input counts here, and its answer is billed when it comes."""
        self._errand.meter.calls -= 1
        self._line.is_void = True
        self._count(Usage(input_tokens=self._used - self._output_tokens), 0.0)

    def _cancelled(self, usage: Usage, has_begun: bool) -> None:
        """Note that it was cancelled: what it has used at least, and whether something of the answer had come."""
        meter = self._errand.meter
        meter.failed[DeadlineExceeded.__name__] += 1
        price, budgeted = self._house.priced(self._errand.route, usage, self._errand.tier)
        meter.charge(usage, price)
        self._line.told(usage)
        if has_begun:
            self._count(usage, budgeted)

    def _unsent(self) -> None:
        """Note that it never left."""
        self._errand.meter.calls -= 1
        self._line.is_void = True
        self._count(NO_USAGE, 0.0)

    def _failed(self, error: FleetError, usage: Usage | None, *, is_cut: bool) -> None:
        """Note a failure: what it has used, as far as the provider said so, and whether the answer broke off."""
        tier, meter, limiter = self._errand.tier, self._errand.meter, self._house.limiter
        if usage is not None:
            self._count(usage, 0.0)
            if usage.total_tokens:
                price, cost = self._house.priced(self._errand.route, usage, tier)
                self._count(usage, cost)
                meter.charge(usage, price)
                if is_cut:
                    self._line.told(usage)
                else:
                    self._line.settle(usage, price, tier)
            else:
                self._line.settle_free()
        elif counted_nothing(error):
            self._count(NO_USAGE, 0.0)
            self._line.settle_free()
        elif is_free(error):
            self._line.settle_free()
            self._cost = 0.0
        meter.failed[type(error).__name__] += 1
        if isinstance(error, RateLimited):
            hold_s = DEFAULT_HOLD_S if error.retry_after_s is None else error.retry_after_s
            if error.parallel:
                limiter.narrow(self._errand.route.limit, most=error.most_parallel)
            else:
                limiter.penalise(self._errand.route.limit, retry_after_s=hold_s)
            self._rates = error.rates

    def _close(self) -> None:
        """Tell limiter, bill and budgets, once."""
        house, grant = self._house, self._line.over(at_s=self._house.now_s())
        house.limiter.settle(
            grant, used_tokens=self._used, used_output_tokens=self._output_tokens, cached_tokens=self._cached_tokens,
            cost_usd_micros=self._cost,
        )  # fmt: skip
        house.limiter.observe(grant, self._rates)
        self._line.enter(house.bill)
        house.roads.settle_budgets(grant, self._line.counted_picos, is_unknown=self._line.is_unknown, tokens=self._used)

    def _count(self, usage: Usage, cost_usd_micros: float) -> None:
        self._used, self._output_tokens, self._cost = usage.total_tokens, usage.output_tokens, cost_usd_micros


def _log(route: Route, error: FleetError, seconds: float) -> None:
    """Log a failure by its type only: a provider's message may quote the prompt."""
    logger.warning("call_failed limit=%s error=%s ms=%d", route.limit, type(error).__name__, seconds * 1000)


async def is_renewed(route: Route, used: str, error: KeyRejected) -> bool:
    """True when a refused key is not the one to use any more, so that its refusal says nothing of the new one."""
    if route.renew is None or isinstance(error, KeySpent):
        return False
    return await route.renew(used)
