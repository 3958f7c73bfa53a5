"""A user's own validator: a Python function named by dotted path, asked about every answer of its pool.

How it is loaded and called is in `user_function.py` and `user_loops.py`. Here is told whether what it raises is about
one answer, about all of them (then the pool waits, and no answer is lost), or about all of this process (then others
have them).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import time
from collections.abc import Callable

from fleet.errors import BadAnswer, FleetError, HeldUp, MachineExhausted, ValidatorFailed
from fleet.faults import Fault
from fleet.models import BotTask
from fleet.quoting import QUOTED_CHARS, brief
from fleet.waits import MOST_TOLD, Wait
from fleet.workers.bot.inquiry import MustWait
from fleet.workers.bot.peers import Alone, Peers
from fleet.workers.bot.user_function import FunctionThreads, UserFunction, load_function, raised
from fleet.workers.bot.user_loops import UserLoops
from fleet.workers.bot.verdicts import OneKind, Verdicts
from fleet.workers.deadline import Deadline

#: Times that it is asked before that answer may be to blame (count): what it needs may be away for a moment.
ASKS = 3
#: Times after which its pool waits also where too few answers have come to tell (count).
ALONE_ASKS = 4
#: First and longest pause until it is asked again, in seconds; it doubles. Asking costs no call.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
#: Seconds for which its pool is held beyond the next time that it is asked, so that nothing slips in between.
BEYOND_S = 5.0
#: Seconds for which the pool is open between two holds while it isn't proven that all answers meet the same.
WINDOW_S = 2.0
#: Seconds for which a verdict on an answer of another class tells that the pool's tasks do not all meet the same.
OTHERS_S = 10.0
#: Longest time that it is asked about an answer that it knows, in seconds.
CONTROL_S = 30.0
#: Seconds for which a process whose validator raises leaves the pool to others that do better; it doubles.
LEAVE_S, LONGEST_LEAVE_S = 10.0, 60.0
#: Seconds for which it is believed that others do better when they have done well before it raised here, but not since.
BELIEVED_S = 20.0

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

    What it raises is an answer's own fault only when it gives verdicts, at the same time and in this process, on
    answers of the same task class that it has taken or rejected before. Where there is no such answer, or it raises on
    that one too, the task waits: here, or at another process whose validator does better.

    Weakness: one that needs what is away for some of the answers of a class only, and looks at the others without it,
    seems to raise on those alone.

    Args:
        function: What is asked.
        threads: Where a plain one runs.
        loops: Where an `async def` one runs.
        on_broken: Told why the pool waits, as long as it raises on every answer.
        peers: Other processes that serve the pool; None: there are none.
        now_s: The clock, Unix time in seconds.
    """

    def __init__(
        self,
        function: UserFunction,
        *,
        threads: FunctionThreads,
        loops: UserLoops,
        on_broken: Callable[[Wait], None],
        peers: Peers | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._function = function
        self._threads = threads
        self._loops = loops
        self._on_broken = on_broken
        self._peers = peers or Alone()
        self._now_s = now_s
        self._verdicts = Verdicts()
        #: Answers that wait here for a verdict (count).
        self._waiting = 0
        self._wait: Wait | None = None
        #: For how long (s) it left the pool to others, and when last (Unix time, s).
        self._left_s, self._left_at = 0.0, -math.inf
        self._scouted_at = -math.inf
        self._works_again = asyncio.Event()

    @property
    def standing(self) -> Wait | None:
        """Why an answer would wait for its verdict, as this process knows; None: it would not."""
        wait = self._wait
        return wait if wait is not None and (wait.opens_at or 0.0) > self._now_s() else None

    @property
    def given_at(self) -> float | None:
        """When it gave its last verdict, Unix time in seconds; None: it gave none, or is in doubt."""
        return None if self._verdicts.is_in_doubt else self._verdicts.given_at

    async def check(
        self, task_id: str, task: BotTask, answer: str, deadline: Deadline, *, may_leave: bool = False
    ) -> None:
        """Ask it about an answer: None and True are good; False and a str (the reason) reject it.

        An answer on which it raises is kept, and it is asked again. Until it is proven to be about this answer alone
        that goes on; the task's clock stands still meanwhile.

        Args:
            task_id: Whose answer.
            task: Of which it is one.
            answer: As it is to be delivered.
            deadline: The task's.
            may_leave: The task may go to another process, which asks its bot anew.

        Raises:
            BadAnswer: It rejected the answer. The reason is in the message, shortened.
            ValidatorFailed: It raised or returned anything else, about this answer and not about others.
            MustWait: It raises here, and does better in other processes.
        """
        try:
            rejection = await self._ask(task, answer, deadline)
        except (HeldUp, MachineExhausted, ValidatorFailed) as error:
            self._waiting += 1
            try:
                rejection = await self._ask_until(task_id, task, answer, deadline, error, may_leave)
            finally:
                self._waiting -= 1
                self._make_room()
        self._gave_verdict(self._verdicts.gave(task, answer, self._now_s()))
        if rejection is not None:
            raise BadAnswer(
                f"rejected: expected an answer that {self._function.path} takes{rejection}", fault=Fault.REJECTED
            )

    async def _ask_until(
        self, task_id: str, task: BotTask, answer: str, deadline: Deadline, error: FleetError, may_leave: bool
    ) -> str | None:
        """Ask again and again, until there is a verdict, or the answer is known to have none. As `check`."""
        asks = 0
        while True:
            if isinstance(error, MachineExhausted):
                await self._stand(FIRST_PAUSE_S, deadline)
            elif isinstance(error, ValidatorFailed):
                asks += 1
                case = self._verdicts.of(task.kind)
                case.raised(task_id, self._now_s())
                if await self._is_its_own(case, asks, deadline):
                    raise error
                if await self._leaves(case, asks, error, may_leave):
                    raise MustWait(self._elsewhere(error, self._now_s()))
                if await self._pause(asks, deadline):
                    asks = 0
            try:
                return await self._ask(task, answer, deadline)
            except (HeldUp, MachineExhausted, ValidatorFailed) as again:  # held up: there is another loop
                error = again

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

    async def _is_its_own(self, case: OneKind, asks: int, deadline: Deadline) -> bool:
        """Return whether it is proven that it raises for a reason of this answer: it gives verdicts on known ones."""
        if asks < ASKS and not case.is_general:
            return False
        known = tuple(case.known)
        with deadline.standing():
            for task, answer in known:
                try:
                    async with asyncio.timeout(CONTROL_S):
                        await self._ask(task, answer, deadline)
                except ValidatorFailed:
                    case.is_proven = True
                    return False
                except (HeldUp, MachineExhausted, TimeoutError):
                    return False
        if known:
            self._gave_verdict(case)
        return bool(known) and asks >= ASKS

    async def _leaves(self, case: OneKind, asks: int, error: ValidatorFailed, may_leave: bool) -> bool:
        """Let the pool wait, or leave it to processes that do better; return whether this answer's task is theirs.

        Those that have given a verdict since it raised here get all of them. Those that have done so before may meet
        the same: one task goes first. It is left to them again only if they have given one since it was: each time, the
        answers are paid for anew.
        """
        if asks < ASKS and not case.is_general:
            return False
        now_s = self._now_s()
        at, after, is_back = await self._peers.gave_verdict_at(), case.since, False
        if not self._is_away and self._left_at >= case.since:
            after, is_back = self._left_at, True
        if at is None or (at <= after and (is_back or now_s - after > BELIEVED_S)):
            if (asks >= ALONE_ASKS or case.is_general) and not self._verdicts.gave_another(
                case.since, now_s - OTHERS_S
            ):
                self._hold(case, asks, error)
            self._make_room()
            return False
        self._leave_to_others(error)
        if asks < ASKS or not may_leave:
            return False
        if at <= after:
            if now_s - self._scouted_at < LEAVE_S:
                return False
            self._scouted_at = now_s
        return True

    @property
    def _is_away(self) -> bool:
        """True while the pool is left to others."""
        standing = self.standing
        return standing is not None and standing.cause == "function"

    def _leave_to_others(self, error: ValidatorFailed) -> None:
        """Take no more of the pool's tasks for a while: others do better."""
        if self._is_away:
            return
        if self._wait is not None and self._wait.is_everyones:
            self._peers.lift()
        self._left_s = min(LONGEST_LEAVE_S, max(LEAVE_S, 2 * self._left_s))
        logger.error(
            "validator_broken_here function=%s: %s; others do better, and get its pool's tasks",
            self._function.path,
            error,
        )
        self._left_at = self._now_s()
        self._wait = self._elsewhere(error, self._left_at + self._left_s)
        self._peers.leave(self._left_s)

    def _elsewhere(self, error: ValidatorFailed, opens_at: float) -> Wait:
        about, told = f"validator {self._function.path}", brief(str(error), MOST_TOLD)
        return Wait("function", opens_at, about, told, is_everyones=False)

    async def _pause(self, asks: int, deadline: Deadline) -> bool:
        """Wait until it is asked again; True when it was broken, and has given a verdict meanwhile."""
        is_held, works_again = self._wait is not None, self._works_again
        with deadline.standing(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_pause_s(asks)):
                await (works_again.wait() if is_held or asks >= ASKS else asyncio.sleep(LONGEST_PAUSE_S))
        return is_held and works_again.is_set()

    async def _stand(self, seconds: float, deadline: Deadline) -> None:
        with deadline.standing():
            await asyncio.sleep(seconds)

    def _hold(self, case: OneKind, asks: int, error: ValidatorFailed) -> None:
        """Let the pool wait; said again when that has become longer.

        Where it isn't proven to be broken there is a window between two holds: an answer on which it gives a verdict
        tells that it is not.
        """
        now_s, known = self._now_s(), self._wait
        until = now_s + _pause_s(asks) + BEYOND_S
        opens_at = (known.opens_at or 0.0) if known is not None and known.is_everyones else -math.inf
        if until < opens_at + 1.0 or (not case.is_proven and now_s < opens_at + WINDOW_S):
            return
        if known is None or not known.is_everyones:
            logger.error("validator_broken function=%s: %s; its pool waits", self._function.path, error)
        if known is not None and not known.is_everyones:
            self._peers.leave(0.0)
        told = brief(str(error), MOST_TOLD)
        self._wait = Wait("configuration", until, f"validator {self._function.path}", told)
        self._on_broken(self._wait)

    def _make_room(self) -> None:
        """Let other answers come while too few are here to tell: those that wait keep the slots."""
        self._peers.make_room(0 if self._verdicts.is_proven else self._waiting)

    def _gave_verdict(self, case: OneKind) -> None:
        """Note that it gives verdicts on the answers of a task class."""
        if not case.gave() and self._wait is None:
            return
        if self._wait is not None:
            if not self._wait.is_everyones:
                self._peers.leave(0.0)
            self._wait, self._left_s = None, 0.0
            logger.info("validator_works_again function=%s", self._function.path)
            self._peers.lift()
        self._works_again.set()
        self._works_again = asyncio.Event()


def _pause_s(asks: int) -> float:
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (asks - 1))


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
