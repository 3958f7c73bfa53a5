"""Suspects run apart: in child processes of this worker, whose deaths harm nobody else.

All suspects run together in one child. When it dies while its worker lives, those that it had not finished are halved
and tried again (Torvalds' bisection, on tasks); who was alone in a child that died, and again in a second one, is
poison. A child that dies with its worker proves nothing: its suspects go back as suspects. The other side: `child.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from celery.exceptions import Reject

from fleet.economy.bill.notes import child_of
from fleet.engine.outcomes.dead_letters import body_of
from fleet.engine.outcomes.results import Done
from fleet.engine.process.request import tag_of
from fleet.engine.process.suspects.frames import (
    HEAD_BYTES,
    Begun,
    Cancel,
    Ended,
    Failed,
    Hello,
    Logged,
    Run,
    Stop,
    Work,
    framed,
    length_of,
    value_of,
)
from fleet.engine.transport import leases
from fleet.errors import Poison
from fleet.store.private.service import PYTHON_MODULE

logger = logging.getLogger("fleet.worker")

#: Deaths of a child that prove the only task in it to be poison (count). One may be a kill from outside.
LONE_DEATHS = 2
#: Children at once (count): each takes the memory of a worker.
CHILDREN_AT_ONCE = 4
#: Seconds that a child without a task waits for another suspect: they come in bursts.
LINGER_S = 5.0
#: Seconds that a child gets to close everything, and what it said last to be read.
LAST_WORDS_S = 2.0
#: Seconds until the next try when a child died before it began anything: at first, and at most.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0

Bury = Callable[[str, Poison, Mapping[str, Any], bytes], Awaitable[Done]]


@dataclass(eq=False, slots=True)
class Suspect:
    """A task whose process died while it ran.

    Args:
        work: As the child gets it.
        answer: How it ended.
        lone_deaths: Children that have died while it was alone in them.
    """

    work: Work | Run
    answer: asyncio.Future[Any]
    lone_deaths: int = 0


@dataclass(eq=False, slots=True)
class Experiment:
    """One child process and the suspects in it, from its start to its end."""

    suspects: list[Suspect]
    begun: set[str] = field(default_factory=set)
    #: False when its end has begun: nobody may join any more.
    is_open: bool = True
    writer: asyncio.StreamWriter | None = None
    #: Id of the child, by that of this worker: what it has reserved and what it calls carries that.
    process: str = field(default_factory=lambda: child_of(leases.process_id()))
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def left(self) -> list[Suspect]:
        """Those without an answer."""
        return [suspect for suspect in self.suspects if not suspect.answer.done()]

    def add(self, suspect: Suspect) -> None:
        """Let one more run in this child."""
        self.suspects.append(suspect)
        self._say(suspect.work)

    def cancel(self, suspect: Suspect) -> None:
        """Stop work on one of them."""
        self._say(Cancel(suspect.work.tag))
        self._news.set()

    async def run(self, *, linger_s: float) -> int | None:
        """Run a child until all suspects have their answers.

        Args:
            linger_s: Seconds that it waits for more of them then.

        Returns:
            None; or how it died before that, as `subprocess` tells it.
        """
        loop = asyncio.get_running_loop()
        process, reader, self.writer = await _start_child()
        dying = asyncio.ensure_future(process.wait())
        listening = asyncio.ensure_future(self._listen(reader))
        listening.add_done_callback(lambda _: loop.call_later(LAST_WORDS_S, _kill, process))
        try:
            self._say(Hello(sys.path, logging.getLogger().getEffectiveLevel(), self.process))
            for suspect in self.suspects:
                self._say(suspect.work)
            await self._until_answered(dying, linger_s)
            self.is_open, died = False, dying.done()
            if died:  # what it said before is still on its way
                await asyncio.wait([listening], timeout=LAST_WORDS_S)
            return dying.result() if died and self.left else None
        finally:
            self.is_open = False
            await self._end(process, dying)
            listening.cancel()

    async def _until_answered(self, dying: asyncio.Future[int], linger_s: float) -> None:
        while not dying.done():
            self._news.clear()
            waits_for_more = not self.left
            news = asyncio.ensure_future(self._news.wait())
            either: list[asyncio.Future[Any]] = [news, dying]
            timeout_s = linger_s if waits_for_more else None
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            if waits_for_more and not self.left and not self._news.is_set():
                return

    async def _end(self, process: asyncio.subprocess.Process, dying: asyncio.Future[int]) -> None:
        """End the child: it closes what it has open, or is killed."""
        self._say(Stop())
        if self.left:  # this worker stops, or a suspect would go on without its lease
            _kill(process)
        try:
            await asyncio.wait([dying], timeout=LAST_WORDS_S)
        finally:
            _kill(process)
            if self.writer is not None:
                self.writer.close()
                self.writer = None
            await asyncio.wait([dying], timeout=LAST_WORDS_S)  # the kernel clears a killed process away

    def _say(self, said: object) -> None:
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(framed(said))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Hear the child out; one that says nothing more is killed soon, for it is of no use."""
        try:
            while True:
                head = await reader.readexactly(HEAD_BYTES)
                self._hear(value_of(await reader.readexactly(length_of(head))))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        except Exception as error:  # noqa: BLE001 - the process' boundary: a user's objects may be in a log record
            logger.error("a child process cannot be understood error=%s", type(error).__name__)

    def _hear(self, said: Any) -> None:
        if isinstance(said, Logged):
            logging.getLogger(said.record.name).handle(said.record)
        elif isinstance(said, Begun):
            self.begun.add(said.tag)
        else:
            self._settle(said)

    def _settle(self, said: Ended | Failed) -> None:
        for suspect in self.left:
            if suspect.work.tag != said.tag:
                continue
            if isinstance(said, Ended):
                suspect.answer.set_result(said.done)
            else:
                suspect.answer.set_exception(
                    Reject(said.reason, requeue=True) if said.goes_back else RuntimeError(said.reason)
                )
        self._news.set()


class Apart:
    """Tries suspects, and tells their slots what came of them. Lives on the loop.

    Args:
        bury: Gives a poisonous task its failed result: (task id, the proof, headers, body).
        ended: Hears the id of each child that has ended, however it did.
    """

    def __init__(self, bury: Bury, ended: Callable[[str], None] = lambda process: None) -> None:
        self._bury = bury
        self._ended = ended
        self._children = asyncio.Semaphore(CHILDREN_AT_ONCE)
        self._experiments: set[Experiment] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        #: Takes further suspects; None: the next one starts another.
        self._open: Experiment | None = None
        #: Suspects that wait or run here.
        self.count = 0

    async def work(self, task_id: str, request: dict[str, Any]) -> Done:
        """Work on a suspect; as `DataPlane.work`."""
        try:
            done: Done = await self._ask(Work(tag_of(request) or task_id, task_id, request))
        except Poison as proven:
            return await self._bury(task_id, proven, request, body_of(request))
        return done

    async def run(self, tag: str, module: str, arguments: tuple[Any, ...]) -> Any:
        """Run a suspect task of the user's own, and return what Celery's tracer does.

        Raises:
            Poison: When it is proven.
        """
        return await self._ask(Run(tag, module, arguments))

    async def _ask(self, work: Work | Run) -> Any:
        suspect = Suspect(work, asyncio.get_running_loop().create_future())
        logger.warning("suspect message=%s: its worker died while it ran; it runs apart", work.tag)
        self._let_in(suspect)
        self.count += 1
        try:
            return await suspect.answer
        except asyncio.CancelledError:
            for experiment in self._experiments:
                if suspect in experiment.suspects:
                    experiment.cancel(suspect)
            raise
        finally:
            self.count -= 1

    async def close(self) -> None:
        """End all children; what runs in them has no answer and goes back."""
        for job in self._jobs:
            job.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs)

    def _let_in(self, suspect: Suspect) -> None:
        if self._open is not None and self._open.is_open:
            self._open.add(suspect)
            return
        self._open = Experiment([suspect])
        self._begin(self._open)

    def _begin(self, experiment: Experiment) -> None:
        job = asyncio.ensure_future(self._try(experiment))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _try(self, experiment: Experiment) -> None:
        """Run an experiment and, as long as children die, those that follow from it."""
        pause_s = FIRST_PAUSE_S
        while experiment.left:
            death = await self._run(experiment)
            if death is None:
                return
            left = experiment.left
            logger.warning("a child process %s with suspects=%d", told(death), len(left))
            if not experiment.begun:
                logger.error("it had begun nothing; another child process in %.1f s", pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
            elif len(experiment.suspects) == 1:
                _count_lone_death(left[0], death)
            else:
                halves = left[: len(left) // 2], left[len(left) // 2 :]
                for half in filter(None, halves):  # each a job: a cancelled `gather` ends with its first, not its last
                    self._begin(Experiment(half))
                return
            experiment = Experiment(experiment.left)

    async def _run(self, experiment: Experiment) -> int | None:
        self._experiments.add(experiment)
        try:
            async with self._children:
                return await experiment.run(linger_s=LINGER_S if experiment is self._open else 0.0)
        except OSError as error:  # no memory, no files, no processes
            logger.error("a child process does not start error=%s: %s", type(error).__name__, error)
            return os.EX_OSERR
        finally:
            self._ended(experiment.process)
            self._experiments.discard(experiment)
            if experiment is self._open:
                self._open = None


async def _start_child() -> tuple[asyncio.subprocess.Process, asyncio.StreamReader, asyncio.StreamWriter]:
    """Start a child, and return it and our end of the connection to it: when that closes, it ends.

    Raises:
        OSError: When the machine lacks memory, files or processes.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            process = await asyncio.create_subprocess_exec(
                *PYTHON_MODULE, "fleet.engine.process.suspects.child", str(theirs.fileno()),
                pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            writer.close()
            raise
    return process, reader, writer


def _count_lone_death(suspect: Suspect, death: int) -> None:
    suspect.lone_deaths += 1
    if suspect.lone_deaths == LONE_DEATHS and not suspect.answer.done():
        suspect.answer.set_exception(Poison(
            f"expected a process to survive this task, got one death after another: it ran alone in a child process, "
            f"which {told(death)}, {LONE_DEATHS} times"
        ))  # fmt: skip


def told(death: int) -> str:
    """Return how a child died, of the return code that `subprocess` gives it."""
    if death >= 0:
        return f"died by exit code {death}"
    with suppress(ValueError):
        return f"died by signal {-death} ({signal.Signals(-death).name})"
    return f"died by signal {-death}"


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
