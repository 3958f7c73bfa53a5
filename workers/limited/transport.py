"""A transport for httpx and httpx2 that puts the limiter under a client, such as that of a vendor's SDK.

It reads what a request asks for, waits for its turn, sends it once, and settles by the usage in the answer. It retries
nothing; switch the SDK's own retries off (`max_retries=0`), they would send calls that nobody granted.

A request that could ask a model but names none in a JSON body is refused (Gemini names it in the URL, forms with files
in a field), unless the transport is told the model of its client. Reading, deleting and managing files need no grant.

A streamed answer is settled when it ends, by the usage that its last event tells; one that is cut, by what came.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

from fleet.entries import Entry
from fleet.errors import ConfigurationError, FleetError, RateLimited
from fleet.grants import ANYBODY, Caller, Grant
from fleet.quoting import quote
from fleet.rates import RateReadings
from fleet.usage import Usage
from fleet.workers.limited.asks import ClientAsk, guess, read_ask, read_object
from fleet.workers.limited.clients import AsyncTransport, BlockingLimiter, BlockingTransport
from fleet.workers.limited.lines import SdkBill, SdkLine
from fleet.workers.limited.streams import StreamWatch, usage_of, watched
from fleet.workers.passage import DEFAULT_HOLD_S
from fleet.workers.ports import Bill, Limiter
from fleet.workers.providers.bodies import carries_error
from fleet.workers.providers.problem import read_problem
from fleet.workers.providers.rates.headers import read_rates
from fleet.workers.providers.verdict import error_of

#: Gives the cost of one call in micro-dollars, with their parts, by `provider/model` and usage; None: not known.
Price = Callable[[str, Usage], float | None]

L = TypeVar("L")
T = TypeVar("T")

#: Longest wait for a turn unless it is said, in seconds.
PATIENCE_S = 60.0
#: Methods that ask no model, and parts of the paths of requests that do neither.
_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_STREAMS_BY_PATH = ":streamGenerateContent"  # Gemini's: an array of JSON, or events with `alt=sse`
_NO_MODEL = frozenset({"files", "uploads", "batches", "vector_stores"})


class _Limited(Generic[L, T]):
    """What both transports are made of.

    Args:
        limiter: The limiter.
        provider: Calls to `model` go under the limit `provider/model/key`.
        inner: What really sends.
        key: Label of the key in the limit's name, never the key.
        caller: For whom: decides the order.
        timeout_s: Longest wait for a turn.
        model: The model of all requests of this client, whatever they say.
        price: Gives micro-dollars by `provider/model` and usage, None: not known. Needed under `usd_per_day`.
        bill: Where each call is entered: of `fleet.economy.bill.alone`; None: nowhere. Budgets don't count these calls.
        pool: Under which pool they stand there.
    """

    def __init__(
        self,
        limiter: L,
        provider: str,
        inner: T,
        *,
        key: str = "default",
        caller: Caller = ANYBODY,
        timeout_s: float = PATIENCE_S,
        model: str | None = None,
        price: Price | None = None,
        bill: Bill | None = None,
        pool: str = "",
    ) -> None:
        self._limiter, self._inner = limiter, inner
        ledger = None if bill is None else SdkBill(bill, pool, caller)
        self._plan = _Plan(provider, key, caller, timeout_s, model, price, ledger)


class LimitedTransport(_Limited[Limiter, AsyncTransport]):
    """Transport of an asyncio client: `AsyncClient(transport=LimitedTransport(...))`."""

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request when its turn has come.

        Raises:
            DeadlineExceeded: When the turn comes too late; nothing was sent.
            StoreUnavailable: When Redis does not answer; nothing was sent.
            ConfigurationError: When the model, its limit, or under `usd_per_day` its price is not known.
        """
        ask = self._plan.ask(request, await request.aread())
        if ask is None:
            return await self._inner.handle_async_request(request)
        asked = self._plan.asked(ask)
        grant = await self._limiter.acquire(**self._plan.arguments(ask, asked))
        told = self._plan.told(asked, grant)
        outcome = _Outcome(grant, told)
        try:
            response = await self._inner.handle_async_request(request)
            if _comes_in_pieces(ask, response):
                outcome = self._plan.watch(self._limiter, outcome, ask, response)
            else:
                await response.aread()
                outcome = self._plan.outcome(outcome, ask, response)
        except BaseException as error:
            outcome.broke(error)
            raise
        finally:
            outcome.tell(self._limiter)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class BlockingLimitedTransport(_Limited[BlockingLimiter, BlockingTransport]):
    """Transport of a blocking client: `Client(transport=BlockingLimitedTransport(ThreadedLimiter(...), ...))`.

    Errors as `LimitedTransport`.
    """

    def handle_request(self, request: Any) -> Any:
        """Send one request when its turn has come."""
        ask = self._plan.ask(request, request.read())
        if ask is None:
            return self._inner.handle_request(request)
        asked = self._plan.asked(ask)
        grant = self._limiter.acquire(**self._plan.arguments(ask, asked))
        told = self._plan.told(asked, grant)
        outcome = _Outcome(grant, told)
        try:
            response = self._inner.handle_request(request)
            if _comes_in_pieces(ask, response):
                outcome = self._plan.watch(self._limiter, outcome, ask, response)
            else:
                response.read()
                outcome = self._plan.outcome(outcome, ask, response)
        except BaseException as error:
            outcome.broke(error)
            raise
        finally:
            outcome.tell(self._limiter)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a call; of one that failed or was cut nothing is known, so all that was reserved counts as used."""

    grant: Grant
    told: SdkLine | None = None
    used: Usage | None = None
    cost_usd_micros: float | None = None
    rates: RateReadings | None = None
    hold_s: float | None = None
    parallel: int | None = None
    is_open: bool = False

    def broke(self, error: BaseException) -> None:
        """Hear that no answer came."""
        if self.told is not None:
            self.told.broke(error)

    def tell(self, limiter: Limiter | BlockingLimiter) -> None:
        """Settle; nothing of a stream that goes on."""
        if self.is_open:
            return
        if self.parallel is not None:
            limiter.narrow(self.grant.limit, most=self.parallel)
        elif self.hold_s is not None:
            limiter.penalise(self.grant.limit, retry_after_s=self.hold_s)
        used, cost = self.used, self.cost_usd_micros
        limiter.settle(
            self.grant if self.told is None else self.told.over(time.time()),
            used_tokens=self.grant.reserved_tokens if used is None else used.total_tokens,
            used_output_tokens=self.grant.reserved_output_tokens if used is None else used.output_tokens,
            cached_tokens=None if used is None else used.cached_tokens,
            cost_usd_micros=self.grant.cost_usd_micros if cost is None else cost,
        )
        limiter.observe(self.grant, self.rates)
        if self.told is not None:
            self.told.enter()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What both transports do around a request."""

    provider: str
    key: str
    caller: Caller
    timeout_s: float
    model: str | None
    price: Price | None
    ledger: SdkBill | None

    def ask(self, request: Any, body: bytes) -> ClientAsk | None:
        """Return what a request asks for; None when it is surely none to a model."""
        if request.method in _HARMLESS:
            return None
        try:
            ask = read_ask(body, self.model, guess(request, body))
            if ask is not None and _STREAMS_BY_PATH in request.url.path:
                ask = replace(ask, is_streamed=True, is_array=True)
        except RecursionError as error:
            raise self._unreadable(request) from error
        if ask is None and _NO_MODEL.isdisjoint(request.url.path.split("/")):
            raise self._unreadable(request)
        return ask

    def _unreadable(self, request: Any) -> ConfigurationError:
        return ConfigurationError(
            f"expected a JSON body with a model, got none in {request.method} {quote(request.url.path)}: it cannot be "
            "limited; name the model for this client (model=...), or send without this transport what asks no model"
        )

    def asked(self, ask: ClientAsk) -> Entry | None:
        """Return the call as the bill has it until more is known; None: there is none."""
        return None if self.ledger is None else self.ledger.asked(self._limit(ask), self._most(ask))

    def told(self, asked: Entry | None, grant: Grant) -> SdkLine | None:
        """Return what hears what the call is entered at."""
        return None if asked is None or self.ledger is None else SdkLine(self.ledger.bill, asked, grant)

    def _limit(self, ask: ClientAsk) -> str:
        return f"{self.provider}/{ask.model}/{self.key}"

    def _most(self, ask: ClientAsk) -> float | None:
        return self.cost(ask.model, Usage(input_tokens=ask.input_tokens, output_tokens=ask.output_tokens))

    def arguments(self, ask: ClientAsk, asked: Entry | None) -> dict[str, Any]:
        """Return the arguments of `acquire`."""
        cost = self._most(ask)
        return {
            "limit": self._limit(ask),
            "tokens": ask.tokens,
            "timeout_s": self.timeout_s,
            "caller": self.caller,
            "input_tokens": ask.input_tokens,
            **({} if cost is None else {"cost_usd_micros": cost}),
            **({} if asked is None or self.ledger is None else {"note": self.ledger.bill.opened(asked)}),
        }

    def cost(self, model: str, usage: Usage) -> float | None:
        """Return what a call costs, None when nobody knows."""
        return None if self.price is None else self.price(f"{self.provider}/{model}", usage)

    def outcome(self, begun: _Outcome, ask: ClientAsk, response: Any) -> _Outcome:
        """Return what came of a call that was answered."""
        headers, now_s = response.headers, time.time()
        rates = read_rates(headers, now_s=now_s)
        raw = response.content
        error, used = self._error(response.status_code, raw, headers, now_s), _usage(ask, response)
        cost = self.cost(ask.model, used) if used else None
        if error is None:
            if begun.told is not None and used is not None:
                begun.told.answered(used, cost)
            return replace(begun, used=used, cost_usd_micros=cost, rates=rates)
        if begun.told is not None:
            begun.told.refused(error, used, cost)
        if response.status_code < 500 or error.holds:
            told, cost = used or Usage(), cost if used and used.total_tokens else 0
            return replace(
                begun, used=told, cost_usd_micros=cost or 0, rates=rates, hold_s=_hold_s(error),
                parallel=_parallel(error),
            )  # fmt: skip
        return replace(begun, used=used, cost_usd_micros=cost, rates=rates)

    def watch(self, limiter: Limiter | BlockingLimiter, begun: _Outcome, ask: ClientAsk, response: Any) -> _Outcome:
        """Have a streamed answer settled at its end, once; what its headers say is told then, too."""
        headers = response.headers
        watch = StreamWatch(headers.get("content-type", ""), headers.get("content-encoding", ""))
        rates, is_told = read_rates(headers, now_s=time.time()), False

        def end() -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                watch.close()
                self._streamed(begun, ask, watch, headers, rates).tell(limiter)

        response.stream = watched(response.stream, watch.feed, end, watch.ended)
        return replace(begun, is_open=True)

    def _streamed(
        self, begun: _Outcome, ask: ClientAsk, watch: StreamWatch, headers: Any, rates: RateReadings | None
    ) -> _Outcome:
        """Return what came of a stream, whole or cut."""
        told = watch.used(ask.input_tokens)
        used = None if told is None else ask.believed(told, 0)
        cost = self.cost(ask.model, used) if used else None
        outcome = replace(begun, used=used, cost_usd_micros=cost, rates=rates)
        error = None if watch.error is None else self._error(200, watch.error, headers, time.time())
        if begun.told is not None and error is not None and not watch.has_said:
            begun.told.refused(error, None, None)
        elif begun.told is not None and used is not None:
            begun.told.answered(used, cost, is_whole=watch.is_whole and error is None)
        if error is None:
            return outcome
        if not watch.has_said:
            outcome = replace(outcome, used=Usage(), cost_usd_micros=0)
        return replace(outcome, hold_s=_hold_s(error), parallel=_parallel(error))

    def _error(self, status: int, raw: bytes, headers: Any, now_s: float) -> FleetError | None:
        """Return the error that a response is, also one that hides in a 2xx; None for an answer."""
        if status < 300 and not carries_error(read_object(raw) or {}):
            return None
        problem = read_problem(raw, secrets=(), texts=())
        return error_of(self.provider, status, problem, headers, now_s=now_s)


def _hold_s(error: FleetError) -> float | None:
    """Return the seconds for which an error holds the fleet, None when it holds nobody."""
    if not isinstance(error, RateLimited):
        return None
    return DEFAULT_HOLD_S if error.retry_after_s is None else error.retry_after_s


def _parallel(error: FleetError) -> int | None:
    """Return how many calls may be under way when an error says that there are too many, 0 when it does not say."""
    return error.most_parallel if isinstance(error, RateLimited) and error.parallel else None


def _comes_in_pieces(ask: ClientAsk, response: Any) -> bool:
    """True for an answer that comes as a stream; a refusal comes in one piece."""
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return ask.is_streamed and response.status_code < 300 and (ask.is_array or not is_json)


def _usage(ask: ClientAsk, response: Any) -> Usage | None:
    told = usage_of(response.content, response.headers.get("content-type", ""), ask.input_tokens)
    return None if told is None else ask.believed(told, len(response.content))
