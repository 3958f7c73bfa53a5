"""How a request of an SDK is asked until it has an answer: where it waits, and what its function hears.

What is tried again, and how often, is as for `chat()` (`asker.py`); the request itself is its function's, so nothing of
it is cut, judged or repaired.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import cached_property

from fleet.errors import ConfigurationError, DeadlineExceeded, FleetError, GiveUp, NotSoon, Relearnt, Waits
from fleet.workers.bot.asker import BEGUN_PATIENCE_S
from fleet.workers.bot.footing import Moved
from fleet.workers.bot.sequel import out_of_tries
from fleet.workers.bot.watched_asker import WatchedAsker
from fleet.workers.frameworks.asked import UNNAMED, RawAsk, asked_by, read
from fleet.workers.frameworks.exchanges import speaking
from fleet.workers.frameworks.passing import Passing
from fleet.workers.frameworks.raw import Chunks, RawAnswer, RawRequest
from fleet.workers.frameworks.watch import RequestWatch

#: Times in a row that a request is sent anew because of what Fleet itself had put into it (count).
MOST_RELEARNT = 3
#: Times that a request which asks no model is sent until its function is called anew (count): no breaker hears of it.
MOST_PASSED = 4
#: Longest wait (s) for what follows the last words of a stream that its reader has left: mostly the usage.
LAST_WORDS_S = 1.0
#: Endpoints of which each request is a turn of a run.
TURNS = frozenset({"chat/completions", "completions", "responses", "messages"})
#: Least time (s) after which a function is called anew that speaks what the pool's provider doesn't, or lacks an SDK.
UNLIKELY_S = 60.0


class RawAsker(WatchedAsker):
    """One bot whose function sends requests of its own. Arguments and attributes as `Asker`."""

    _wrong_wire: ConfigurationError | None = None

    @cached_property
    def ended_by(self) -> list[FleetError]:
        """What its requests ended with for good: its function may let that through inside an SDK's own error."""
        return []

    @cached_property
    def _streams(self) -> dict[asyncio.Task[None], Passing]:
        return {}

    async def exchange(self, request: RawRequest) -> RawAnswer:
        """Send a request of an SDK with the pool's model and key; return its answer, or a refusal of it.

        What is not the request's fault is waited out: limits, outages, budgets, a key that is not taken. An answer in
        pieces is returned when its first words are there; what fails until then is tried again, what fails later is
        raised where the pieces are read.

        Raises:
            FleetError: What ended the task's calls for good, as `chat()`.
            ConfigurationError: The pool's provider does not speak the request's wire.
            Moved: Nor does the rung that is to take it, and the request may be written anew.
        """
        watch: RequestWatch | None = None
        try:
            ask = read(request)
            if ask.body is not None and ask.asked is not None and ask.endpoint in TURNS:
                watch = RequestWatch(self.run_watch)
                ask = asked_by(ask, watch.before(ask.body))
            return await (self._stream(ask, watch) if ask.is_streamed else self._until_answered(ask, None, watch))
        except Moved:
            if watch is not None:
                watch.moved()
            raise
        except Waits as error:
            self.broken.append(error)
            raise
        except GiveUp as error:
            self.ended_by.append(error)
            raise

    def lacks(self, error: ConfigurationError) -> None:
        """Note what only a change of this machine or of fleet.toml can cure; on any thread."""
        error.passes_at = self._gateway.now_s() + UNLIKELY_S
        self.broken.append(error)

    async def end_streams(self) -> None:
        """Cut the answers that still come in pieces; of those whose last words came, only the usage is awaited."""
        streams = dict(self._streams)
        ended = [stream for stream, passing in streams.items() if passing.has_ended]
        for stream in streams.keys() - set(ended):
            stream.cancel()
        if ended:
            await asyncio.wait(ended, timeout=LAST_WORDS_S)
            for stream in ended:
                stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

    async def _stream(self, ask: RawAsk, watch: RequestWatch | None) -> RawAnswer:
        """Return an answer when its first piece is there; the others follow in a task of their own."""
        loop = asyncio.get_running_loop()
        first: asyncio.Future[RawAnswer] = loop.create_future()

        def cut() -> None:
            if not passing.has_ended:  # SDKs leave at the last event: what follows is read, for it is paid
                task.cancel()

        def leave() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it is over
                loop.call_soon_threadsafe(cut)

        chunks = Chunks(leave)
        passing = Passing(
            ask,
            lambda status, headers: None if first.done() else first.set_result(RawAnswer(status, headers, b"", chunks)),
            chunks.put,
            collects=watch is not None,
        )
        task = loop.create_task(self._passed(ask, passing, watch, first, chunks))
        self._streams[task] = passing
        task.add_done_callback(lambda done: self._streams.pop(done, None))
        try:
            return await asyncio.shield(first)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise

    async def _passed(
        self,
        ask: RawAsk,
        passing: Passing,
        watch: RequestWatch | None,
        first: asyncio.Future[RawAnswer],
        chunks: Chunks,
    ) -> None:
        """See one streamed answer through; tell its reader how it ended."""
        try:
            whole = await self._until_answered(ask, passing, watch)
        except asyncio.CancelledError:
            chunks.end(DeadlineExceeded("expected to read the answer before the task ended: return from your function"))
            first.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - raised by whoever reads
            if not first.done():
                first.set_exception(error)
                return
            ended = (
                error if isinstance(error, FleetError) else FleetError(f"its answer ended by {type(error).__name__}")
            )
            if isinstance(ended, Waits):
                self.broken.append(ended)
            else:
                self.ended_by.append(ended)
            chunks.end(ended)
        else:
            chunks.end()
            if not first.done():  # it came in one piece
                first.set_result(whole)

    async def _until_answered(self, ask: RawAsk, passing: Passing | None, watch: RequestWatch | None) -> RawAnswer:
        relearnt = passed = 0
        while True:
            if self.tries >= self._max_attempts:  # it was told so already: no SDK may go on
                raise out_of_tries(self.tries, FleetError("expected an end after OutOfTries, got another request"))
            await self._find_rung()
            try:
                self._check_wire(ask)
                return await self._try_raw(ask, passing, watch)
            except Relearnt:
                relearnt += 1
                if relearnt >= MOST_RELEARNT:
                    raise
            except Waits as error:
                passed += ask.asked is None
                has_told = passing is not None and passing.has_told
                if has_told or error is self._wrong_wire or passed >= MOST_PASSED:
                    raise
                await self._wait_out(error)

    def _check_wire(self, ask: RawAsk) -> None:
        """Check that the rung's provider understands what is asked. A fallback that doesn't is passed over.

        Raises:
            Moved: It doesn't, and the request can be written anew.
            ConfigurationError: The pool's own doesn't: no wait will change that.
            NotSoon: The rung doesn't.
        """
        try:
            speaking(self.route, ask)
        except ConfigurationError as error:
            if ask.request.may_move:
                raise Moved from error
            if self.rung.is_own:
                error.passes_at = self._gateway.now_s() + UNLIKELY_S
                self._wrong_wire = error
                raise
            raise NotSoon(error.wait(about=self.route.limit)) from error

    async def _try_raw(self, ask: RawAsk, passing: Passing | None, watch: RequestWatch | None) -> RawAnswer:
        before_s, route = self.meter.calling_s, self.route
        answer = await self._gateway.exchange(
            self.pool, ask, usual_output_tokens=self._max_output_tokens, bound=self._bound, deadline=self.deadline,
            meter=self.meter, caller=self._caller, patience_s=BEGUN_PATIENCE_S, route=route, passing=passing,
            watch=watch,
        )  # fmt: skip
        self._is_answered = self.is_begun = True
        self._failures = 0
        self._did_well()
        if answer.refusal is not None:
            return answer
        self._footing.served(self.meter.calling_s - before_s)
        if ask.asked is not None and ask.asked.model not in (route.model, UNNAMED):
            self.sent["model"] = route.model
        if self._bound is not None and ask.limit is not None and ask.limit > self._bound:
            self.sent["max_output_tokens"] = self._bound
        return answer

    @property
    def _bound(self) -> int | None:
        """The most output tokens that the task, else its pool, allows; None: neither says."""
        is_set = self._sets_its_length or "max_output_tokens" in self._pool.model_fields_set
        return self._max_output_tokens if is_set else None
