"""Where users' `async def` functions run: on an event loop and thread of their own, never on the data plane's.

One loop serves them all, so what they share (a session, a semaphore) belongs to one loop as usual. A function that
blocks it stops the other coroutines on it until it lets go: their deadlines stand still, and what their `chat()` paid
for waits for them. Calls that have not begun go to another loop; and the first loop serves again once it turns.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import sys
import time
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.errors import HeldUp
from fleet.quoting import duration
from fleet.workers.bot.user_function import Translate, UserFunction, guarded
from fleet.workers.deadline import Deadline
from fleet.workers.loops.crossing import Crossing
from fleet.workers.loops.patient_loop import PatientLoop
from fleet.workers.loops.runtime import Runtime

#: Seconds that a function may take to end once it is cancelled.
LAST_WORD_S = 1.0
#: Seconds between two looks at the loops, while functions run on them.
LOOK_EVERY_S = 0.25
#: Seconds without a turn after which a loop counts as blocked. A busy machine delays a turn by less.
BLOCKED_S = 1.0
#: Loops of a process at most (count): all but one are blocked, each with its thread, when there are so many.
MOST_LOOPS = 8
#: Seconds that a loop gets to end with its process; one that is blocked does not.
STOP_S = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Block:
    """A loop of users' functions that stands, or stood: who blocks it, where, and for how long so far."""

    function: str
    at: str
    seconds: float
    is_over: bool


class _Call(Crossing[object]):
    """One call of a user's function."""

    def __init__(self, function: UserFunction, work: Coroutine[Any, Any, object], deadline: Deadline) -> None:
        super().__init__(work)
        self.function = function
        self.deadline = deadline
        self.home: UserLoop | None = None
        self.context.run(_CALL.set, self)

    def begin_on(self, loop: UserLoop) -> None:
        """Start it. On the user's side."""
        self.home = loop
        loop.calls.add(self)
        self.begin(loop.loop)
        if self.task is None:
            loop.calls.discard(self)

    def ended(self, task: asyncio.Task[object]) -> None:
        if self.home is not None:
            self.home.calls.discard(self)
            self.home.loop.call_of.pop(task, None)  # as a call knows its task, neither would ever be freed
        super().ended(task)


#: The call that a task on a user's loop belongs to: tasks that a function starts inherit it.
_CALL: ContextVar[_Call] = ContextVar("fleet_user_call")


class _OwnedTasks(PatientLoop):
    """A loop that knows on whose behalf each of its tasks runs."""

    def __init__(self) -> None:
        self.call_of: weakref.WeakKeyDictionary[asyncio.Task[Any], _Call] = weakref.WeakKeyDictionary()
        super().__init__()

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        context = options.get("context")
        call = _CALL.get(None) if context is None else context.get(_CALL)
        if call is not None:
            self.call_of[task] = call
        return task


class UserLoop:
    """One loop, its thread, and the calls that have begun on it. Looked after from the data plane's loop.

    Args:
        number: For the name of its thread.

    Attributes:
        calls: Begun and not ended. Changed on this loop.
        silent_s: Seconds for which it has not turned, as far as the looks tell.
    """

    def __init__(self, number: int) -> None:
        self.loop = _OwnedTasks()
        self.calls: set[_Call] = set()
        self.silent_s = 0.0
        self.culprit: _Call | None = None
        self.at = "an unknown line"
        self.runtime = Runtime(f"fleet-user-loop-{number}", lambda: self.loop)
        self.runtime.start()
        self._beat_at = 0.0

    @property
    def is_blocked(self) -> bool:
        return self.silent_s >= BLOCKED_S

    def look(self, passed_s: float) -> None:
        """Note whether it has turned in the seconds since the last look."""
        beat_at, last = self.loop.beat_at, self._beat_at
        self._beat_at = beat_at
        self.silent_s = self.silent_s + passed_s if beat_at == last else 0.0

    def find_culprit(self) -> None:
        """Find out whose code runs on it now, and where that is."""
        task = asyncio.current_task(self.loop)
        self.culprit = self.loop.call_of.get(task) if task is not None else None
        frame = sys._current_frames().get(self.runtime.thread_id or 0)
        code = getattr(self.culprit.function.call, "__code__", None) if self.culprit else None
        if frame is not None:
            inner = frame
            while frame is not None and (code is None or frame.f_code.co_filename != code.co_filename):
                frame = frame.f_back
            found = frame or inner
            self.at = f"{Path(found.f_code.co_filename).name}:{found.f_lineno}"

    def blamed(self) -> str:
        """Return the function that blocks it, or those of which one does."""
        if self.culprit is not None:
            return self.culprit.function.path
        return " or ".join(sorted({call.function.path for call in tuple(self.calls)})) or "an earlier function"


class UserLoops:
    """Runs users' `async def` functions. One per process, used from the data plane's loop.

    Args:
        hang_s: Seconds after which those that a blocked loop holds up are given back to their queues.
        on_block: Told when a function blocks its loop, when it has for `hang_s`, and when that is over.
    """

    def __init__(self, hang_s: float, on_block: Callable[[Block], None] | None = None) -> None:
        self._served_at = time.monotonic()
        self._hang_s = hang_s
        self._on_block = on_block
        self._loops: list[UserLoop] = []
        self._waiting: collections.deque[_Call] = collections.deque()  # taken by whichever loop turns
        self._open = 0
        self._watch: asyncio.Task[None] | None = None

    @property
    def beat_at(self) -> float | None:
        """Monotonic time at which a loop last turned for those that wait; None: nobody waits. From any thread."""
        return self._served_at if self._waiting else None

    async def call(self, function: UserFunction, *arguments: Any, translate: Translate, deadline: Deadline) -> object:
        """Await a function on a loop of its own kind and return what it returns; what it raises comes translated.

        When our time is over it is cancelled; one that does not end then is abandoned, and the slot is free all the
        same.

        Raises:
            HeldUp: When another function has blocked the loop that it had begun on for too long.
        """
        call = _Call(function, guarded(function, arguments, translate), deadline)
        self._open += 1
        self._waiting.append(call)
        self._wake()
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._look_after())
        try:
            await asyncio.wait({call.answer})
        except asyncio.CancelledError:  # the deadline or the worker's end
            await self._give_up(call)
            raise
        finally:
            self._open -= 1
        try:
            return call.answer.result()
        except (asyncio.CancelledError, GeneratorExit) as error:  # the function's own doing: we did not cancel it
            raise translate(function, error) from error

    async def close(self) -> None:
        """End the loops, and what still runs on them."""
        if self._watch is not None:
            self._watch.cancel()
        loops, self._loops = self._loops, []
        await asyncio.gather(*(asyncio.to_thread(loop.runtime.stop, STOP_S) for loop in loops))

    async def _give_up(self, call: _Call) -> None:
        call.cancel()
        if call.task is None:
            self._wake()  # it is thrown away where it would have begun
        await asyncio.wait({call.answer}, timeout=LAST_WORD_S)
        if not call.answer.done():
            hint = "it_blocks_its_loop" if call.home and call.home.is_blocked else "it_ignores_its_cancellation"
            logger.warning("function_abandoned function=%s hint=%s", call.function.path, hint)
        call.drop()

    def _wake(self) -> None:
        """Have the first loop that turns take what waits; a new one when none does."""
        loop = next((loop for loop in self._loops if not loop.is_blocked), None)
        if loop is None and len(self._loops) < MOST_LOOPS:
            loop = UserLoop(len(self._loops) + 1)
            self._loops.append(loop)
        if loop is not None:
            self._served_at = time.monotonic()
            loop.runtime.call_soon(self._take, loop)

    def _take(self, loop: UserLoop) -> None:
        """Begin what waits. On the user's side."""
        while self._waiting:
            try:
                call = self._waiting.popleft()
            except IndexError:  # another loop was quicker
                return
            call.begin_on(loop)

    # -- looking after them

    async def _look_after(self) -> None:
        clock = asyncio.get_running_loop().time  # a stall of the whole process is no block
        last = clock()
        while self._open:
            await asyncio.sleep(LOOK_EVERY_S)
            now = clock()
            passed_s, last = min(now - last, 2 * LOOK_EVERY_S), now
            for loop in self._loops:
                self._look_at(loop, passed_s)
            if self._waiting:
                self._wake()
                for call in tuple(self._waiting):
                    call.deadline.stand(passed_s)
        self._watch = None

    def _look_at(self, loop: UserLoop, passed_s: float) -> None:
        before_s, was_blocked = loop.silent_s, loop.is_blocked
        loop.look(passed_s)
        if was_blocked and not loop.is_blocked:
            self._say(Block(loop.blamed(), loop.at, before_s, is_over=True))
            loop.culprit = None
        if not loop.is_blocked:
            return
        if not was_blocked:
            loop.find_culprit()
        if not was_blocked or before_s <= self._hang_s < loop.silent_s:
            self._say(Block(loop.blamed(), loop.at, loop.silent_s, is_over=False))
        for call in tuple(loop.calls):
            if call is not loop.culprit:
                call.deadline.stand(passed_s if was_blocked else loop.silent_s)
                if loop.silent_s > self._hang_s and not call.answer.done():
                    call.cancel()
                    call.answer.set_exception(
                        HeldUp(f"{loop.blamed()} has blocked the loop of this task for {duration(loop.silent_s)}")
                    )

    def _say(self, block: Block) -> None:
        if not block.is_over:
            logger.warning(
                "function_blocks function=%s at=%s s=%.1f hint=an_async_def_function_must_not_block",
                block.function, block.at, block.seconds,
            )  # fmt: skip
        elif block.seconds >= BLOCKED_S:
            logger.info("function_let_go function=%s at=%s s=%.1f", block.function, block.at, block.seconds)
        if self._on_block is not None:
            self._on_block(block)
