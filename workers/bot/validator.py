"""A user's own validator: a Python function named by dotted path, asked about every answer of its pool.

How it is loaded and called is in `user_function.py` and `user_loops.py`. Here is told whether what it raises is about
one answer, or about all of them: then the pool waits, and no answer is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import Callable

from fleet.errors import BadAnswer, FleetError, HeldUp, MachineExhausted, ValidatorFailed
from fleet.faults import Fault
from fleet.models import BotTask
from fleet.quoting import QUOTED_CHARS, brief
from fleet.waits import MOST_TOLD, Wait
from fleet.workers.bot.user_function import FunctionThreads, UserFunction, load_function, raised
from fleet.workers.bot.user_loops import UserLoops
from fleet.workers.deadline import Deadline

#: Times that it is asked about one answer before that answer is to blame (count): what it needs may be away a moment.
ASKS = 3
#: Tasks in a row on whose answers it raises, which show that it is no answer's fault (count).
FEW = 3
#: First and longest pause until it is asked again, in seconds; it doubles. Asking costs no call.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
#: Seconds for which its pool is held beyond the next time that it is asked, so that nothing slips in between.
BEYOND_S = 5.0

logger = logging.getLogger(__name__)


def load_validator(path: str) -> UserFunction:
    """Import a validator.

    Args:
        path: `package.module:function`.

    Raises:
        ConfigurationError: When it cannot be imported, is not callable, or does not take `(task, answer)`.
    """
    return load_function(path, setting="validator", arguments=("task", "answer"))


class Validator:
    """A pool's validator at work. Belongs to one event loop.

    An `async def` one runs on the users' loop; a plain one in a thread of its own.

    Weakness: a process knows of its own answers only. Where they come one by one, seconds apart, two tasks fail before
    it is known that the validator is broken.

    Args:
        function: What is asked.
        threads: Where a plain one runs.
        loops: Where an `async def` one runs.
        on_broken: Told why the pool waits, as long as it raises on every answer.
        now_s: The clock, Unix time in seconds.
    """

    def __init__(
        self,
        function: UserFunction,
        *,
        threads: FunctionThreads,
        loops: UserLoops,
        on_broken: Callable[[Wait], None],
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._function = function
        self._threads = threads
        self._loops = loops
        self._on_broken = on_broken
        self._now_s = now_s
        #: Tasks on whose answers it has raised since its last verdict, and how many verdicts it has given.
        self._raised_on: set[str] = set()
        self._verdicts = 0
        self._wait: Wait | None = None
        self._works_again = asyncio.Event()

    @property
    def standing(self) -> Wait | None:
        """Why an answer would wait for its verdict, as this process knows; None: it would not."""
        wait = self._wait
        return wait if wait is not None and (wait.opens_at or 0.0) > self._now_s() else None

    async def check(self, task_id: str, task: BotTask, answer: str, deadline: Deadline) -> None:
        """Ask it about an answer: None and True are good; False and a str (the reason) reject it.

        An answer on which it raises is kept, and it is asked again. While it raises on all of them, that goes on; the
        task's clock stands still meanwhile.

        Raises:
            BadAnswer: It rejected the answer. The reason is in the message, shortened.
            ValidatorFailed: It raised or returned anything else, about this answer and not about others.
        """
        asks, before = 0, self._verdicts
        while True:
            try:
                rejection = await self._ask(task, answer, deadline)
                break
            except HeldUp:  # a function has blocked the loop that it had begun on: there is another one
                continue
            except MachineExhausted:
                await self._stand(FIRST_PAUSE_S, deadline)
            except ValidatorFailed as error:
                asks += 1
                self._raised_on.add(task_id)
                if asks >= ASKS and (self._verdicts > before or len(self._raised_on) < FEW):
                    raise
                if await self._pause(error, asks, deadline):
                    asks, before = 0, self._verdicts
        self._gave_verdict()
        if rejection is not None:
            raise BadAnswer(
                f"rejected: expected an answer that {self._function.path} takes{rejection}", fault=Fault.REJECTED
            )

    async def _ask(self, task: BotTask, answer: str, deadline: Deadline) -> str | None:
        """Return the reason for which it rejects an answer; None: it takes it."""
        function = self._function
        if function.is_async:
            verdict = await self._loops.call(function, task, answer, translate=_translate, deadline=deadline)
        else:
            verdict = await self._threads.call(
                function, task, answer, name="validator", translate=_translate, deadline=deadline
            )
        return _rejection(function, verdict)

    async def _pause(self, error: ValidatorFailed, asks: int, deadline: Deadline) -> bool:
        """Wait until it is asked again; True when it was broken, and has given a verdict meanwhile."""
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (asks - 1))
        if len(self._raised_on) < FEW:
            await self._stand(pause_s, deadline)
            return False
        self._hold(error, self._now_s() + pause_s + BEYOND_S)
        works_again = self._works_again
        with deadline.standing(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await works_again.wait()
        return works_again.is_set()

    async def _stand(self, seconds: float, deadline: Deadline) -> None:
        with deadline.standing():
            await asyncio.sleep(seconds)

    def _hold(self, error: ValidatorFailed, until: float) -> None:
        """Let the pool wait; said again when that has become longer."""
        known = self._wait
        if known is not None and until < (known.opens_at or 0.0) + 1.0:
            return
        if known is None:
            logger.error("validator_broken function=%s: %s; its pool waits", self._function.path, error)
        told = brief(str(error), MOST_TOLD)
        self._wait = Wait("configuration", until, f"validator {self._function.path}", told)
        self._on_broken(self._wait)

    def _gave_verdict(self) -> None:
        self._verdicts += 1
        self._raised_on.clear()
        if self._wait is not None:
            self._wait = None
            logger.info("validator_works_again function=%s", self._function.path)
            self._works_again.set()
            self._works_again = asyncio.Event()


def _rejection(validator: UserFunction, verdict: object) -> str | None:
    if verdict is None or verdict is True:
        return None
    if verdict is False or isinstance(verdict, str):
        return f": {verdict[:QUOTED_CHARS]}" if verdict else ""
    got = type(verdict).__name__
    if inspect.iscoroutine(verdict):
        verdict.close()
        got = "a coroutine; declare it `async def`"
    raise ValidatorFailed(f"validator {validator.path}: expected None, True, False or a str (the reason), got {got}")


def _translate(validator: UserFunction, error: BaseException) -> FleetError:
    return ValidatorFailed(
        f"validator {validator.path}: expected None, True, False or a str (the reason), got {raised(error)}"
    )
