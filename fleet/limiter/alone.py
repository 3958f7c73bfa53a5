"""The limiter in a program of your own, without the fleet: opened by URL, for asyncio and for threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Required, Self, TypedDict, TypeVar, Unpack
from weakref import WeakSet

from fleet.config import LimitSettings
from fleet.errors import StoreUnavailable
from fleet.grants import Caller, Grant
from fleet.limiter.limiter import Limiter
from fleet.rates import RateReadings
from fleet.store.cluster import store_of
from fleet.store.running.loop_thread import LoopThread

T = TypeVar("T")

#: Longest wait for a turn unless it is said, in seconds.
PATIENCE_S = 60.0
#: Hold after a 429 that did not say for how long, in seconds.
HOLD_S = 1.0


@dataclass(slots=True)
class LimitedCall:
    """One call that has its turn. Say what came of it before the block ends; else all that it asked for counts as used.

    Attributes:
        grant: Its grant.
    """

    grant: Grant
    _used: dict[str, Any] | None = field(default=None, init=False)
    _rates: RateReadings | None = field(default=None, init=False)
    _hold_s: float | None = field(default=None, init=False)
    _parallel: int | None = field(default=None, init=False)

    def used(
        self,
        tokens: int,
        *,
        output_tokens: int = 0,
        cached_tokens: int | None = None,
        cost_usd_micros: float | None = None,
        rates: RateReadings | None = None,
    ) -> None:
        """It was answered.

        Args:
            tokens: Input and output together, as billed.
            output_tokens: Those of them that are output.
            cached_tokens: Of the input: read from the provider's cache, for a limit with `count_cached=False`.
            cost_usd_micros: What it cost; None: the most that it might have cost.
            rates: What the answer's headers said.
        """
        cost = self.grant.cost_usd_micros if cost_usd_micros is None else cost_usd_micros
        self._used = {
            "used_tokens": tokens, "used_output_tokens": output_tokens, "cached_tokens": cached_tokens,
            "cost_usd_micros": cost,
        }  # fmt: skip
        self._rates = rates

    def refused(
        self, *, retry_after_s: float = HOLD_S, rates: RateReadings | None = None, parallel: int | None = None
    ) -> None:
        """The provider answered 429: nothing was used, and all callers of this limit wait for `retry_after_s`.

        Args:
            retry_after_s: How long.
            rates: What the answer's headers said.
            parallel: Nobody waits, but no more calls go at once than this (0: than are under way); None: not that.
        """
        self._used, self._hold_s, self._rates, self._parallel = {"used_tokens": 0}, retry_after_s, rates, parallel

    def settle(self, limiter: Limiter) -> None:
        """Tell the limiter. On its loop."""
        if self._parallel is not None:
            limiter.narrow(self.grant.limit, most=self._parallel)
        elif self._hold_s is not None:
            limiter.penalise(self.grant.limit, retry_after_s=self._hold_s)
        used: dict[str, Any] = dict(self._used or {})
        if not used:
            used = {"used_tokens": self.grant.reserved_tokens, "cost_usd_micros": self.grant.cost_usd_micros}
        limiter.settle(self.grant, **used)
        limiter.observe(self.grant, self._rates)


@asynccontextmanager
async def open_limiter(
    url: str, limits: Mapping[str, LimitSettings], *, timeout_s: float = 5.0
) -> AsyncIterator[Limiter]:
    """Open a limiter for the asyncio loop that runs.

    Args:
        url: Of Redis; a cluster is `redis+cluster://host:port,host:port`.
        limits: By `provider/model` or `provider/model/key`.
        timeout_s: Longest wait for an answer of Redis.
    """
    store = store_of(url, timeout_s=timeout_s)
    try:
        yield Limiter(store, limits)
    finally:
        await store.close()


class Ask(TypedDict, total=False):
    """What a call asks for, as keyword arguments: those of `Limiter.acquire`, but that `timeout_s` may be left out."""

    tokens: Required[int]
    timeout_s: float
    caller: Caller
    input_tokens: int
    cost_usd_micros: float | None
    patience_s: float | None


@asynccontextmanager
async def limited(limiter: Limiter, limit: str | Sequence[str], **ask: Unpack[Ask]) -> AsyncIterator[LimitedCall]:
    """Wait for a turn, and account for the call when the block ends. Arguments and errors as `Limiter.acquire`."""
    call = LimitedCall(await limiter.acquire(limit, **_patient(ask)))
    try:
        yield call
    finally:
        call.settle(limiter)


class ThreadedLimiter:
    """A limiter for programs with threads. All threads share it; it runs a loop in a thread of its own.

    A forked process gets a thread and a connection of its own; who waited for a turn in the parent waits only there.
    Close it, or use it as a context manager.

    Args:
        url: Of Redis; a cluster is `redis+cluster://host:port,host:port`.
        limits: By `provider/model` or `provider/model/key`.
        timeout_s: Longest wait for an answer of Redis.
    """

    def __init__(self, url: str, limits: Mapping[str, LimitSettings], *, timeout_s: float = 5.0) -> None:
        self._make_store = partial(store_of, url, timeout_s=timeout_s)
        self._limits = limits
        self._inherited: object = None
        self._open()
        _OPEN.add(self)

    def _open(self) -> None:
        self._store = self._make_store()
        self._limiter = Limiter(self._store, self._limits)
        self._waiting: set[asyncio.Task[Any]] = set()
        self._runner = LoopThread("fleet-limiter")

    def start_over(self) -> None:
        """Open anew in a forked process, unless it was closed.

        The parent's loop is kept, not closed: that would take its sockets out of the selector, which both share.
        """
        self._inherited = (self._inherited, self._runner, self._store, self._waiting)
        if not self._runner.is_closed:
            self._open()

    def acquire(self, limit: str | Sequence[str], **ask: Unpack[Ask]) -> Grant:
        """Block until one call may be sent; settle its grant. Arguments and errors as `Limiter.acquire`."""
        return self._wait_for(self._limiter.acquire(limit, **_patient(ask)))

    @contextmanager
    def limited(self, limit: str | Sequence[str], **ask: Unpack[Ask]) -> Iterator[LimitedCall]:
        """Block until it is this call's turn, and account for it when the block ends. As `acquire`."""
        call = LimitedCall(self.acquire(limit, **ask))
        try:
            yield call
        finally:
            self._runner.post(partial(call.settle, self._limiter))

    def settle(
        self,
        grant: Grant,
        *,
        used_tokens: int,
        used_output_tokens: int = 0,
        cached_tokens: int | None = None,
        cost_usd_micros: float = 0,
    ) -> None:
        """As `Limiter.settle`. Does not block."""
        settle = partial(
            self._limiter.settle, grant, used_tokens=used_tokens, used_output_tokens=used_output_tokens,
            cached_tokens=cached_tokens, cost_usd_micros=cost_usd_micros,
        )  # fmt: skip
        self._runner.post(settle)

    def penalise(self, limit: str, *, retry_after_s: float, told: str = "") -> None:
        """As `Limiter.penalise`. Does not block."""
        self._runner.post(partial(self._limiter.penalise, limit, retry_after_s=retry_after_s, told=told))

    def narrow(self, limit: str, *, most: int = 0) -> None:
        """As `Limiter.narrow`. Does not block."""
        self._runner.post(partial(self._limiter.narrow, limit, most=most))

    def observe(self, grant: Grant, rates: RateReadings | None) -> None:
        """As `Limiter.observe`. Does not block."""
        self._runner.post(partial(self._limiter.observe, grant, rates))

    def close(self) -> None:
        """Send what is still to be sent, and end the thread. Threads that wait for a turn get an error."""
        self._runner.close(self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = self._runner.begin(self._tracked(coroutine))
        if future is None:
            coroutine.close()
            raise _closed()
        try:
            return future.result()
        except CancelledError as error:
            raise _closed() from error
        except BaseException:
            future.cancel()
            raise

    async def _tracked(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await it, so that `close` finds it."""
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        try:
            return await coroutine
        finally:
            self._waiting.discard(task)

    async def _end(self) -> None:
        """Let nobody wait any more, send what that gives back, and end what else runs on the loop."""
        await _cancel(self._waiting)
        await self._store.close()
        await _cancel(asyncio.all_tasks() - {asyncio.current_task()})


#: Limiters of this process.
_OPEN: WeakSet[ThreadedLimiter] = WeakSet()


def _start_over() -> None:
    for limiter in tuple(_OPEN):
        limiter.start_over()


os.register_at_fork(after_in_child=_start_over)


def _patient(ask: Ask) -> Any:
    """Return what is asked for, with a timeout in any case."""
    return {"timeout_s": PATIENCE_S, **ask}


async def _cancel(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    ended = [task for task in tasks if task is not None and task.cancel()]
    await asyncio.gather(*ended, return_exceptions=True)


def _closed() -> StoreUnavailable:
    return StoreUnavailable("expected an open limiter, got one that was closed: nothing may be sent; open another one")
