"""The child process in which suspects run apart: `python -P -m fleet.engine.process.suspects.child FD`.

It is put together as a worker is (`assembly.py`), but takes nothing: its worker keeps the messages and their leases,
hands tasks over and hears of each end. What it says may be lost with it; results are in Redis before that. It ends with
its worker.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import logging
import logging.handlers
import os
import queue
import signal
import sys
import threading
from contextlib import suppress

from celery.app.trace import trace_task_ret
from celery.exceptions import Reject

from fleet import config
from fleet.engine import core_dumps
from fleet.engine.app import app
from fleet.engine.process.assembly import Assembly, put_together, renewing
from fleet.engine.process.duties.janitor import for_ever
from fleet.engine.process.request import decoded
from fleet.engine.process.suspects.frames import Begun, Cancel, Ended, Failed, Hello, Logged, Run, Socket, Stop, Work
from fleet.engine.process.waiting_room import GoneBack
from fleet.engine.telemetry.occupancy import DirectCall
from fleet.quoting import quote

#: Linux: the signal that a process gets when its parent ends (`prctl`).
_PR_SET_PDEATHSIG = 1


class Workbench:
    """Works on what the worker hands over.

    Args:
        worker: Whom to tell.
        assembly: What turns messages into results.
    """

    def __init__(self, worker: Socket, assembly: Assembly) -> None:
        self._worker = worker
        self._assembly = assembly
        self._jobs: dict[str, asyncio.Task[None]] = {}

    def begin(self, work: Work) -> None:
        """Start a task. On the loop, like `cancel`."""
        job = self._jobs[work.tag] = asyncio.ensure_future(self._do(work))
        job.add_done_callback(lambda _: self._jobs.pop(work.tag, None))

    def cancel(self, tag: str) -> None:
        """Stop a task; the worker has settled it already."""
        if tag in self._jobs:
            self._jobs[tag].cancel()

    async def _do(self, work: Work) -> None:
        self._worker.say(Begun(work.tag))
        try:
            done = await self._assembly.plane.work(work.task_id, work.request)
        except (Reject, GoneBack) as error:  # what is parked has gone back already: then the worker finds nothing to do
            self._worker.say(Failed(work.tag, True, str(error)))
        except Exception as error:  # noqa: BLE001 - the task boundary: the worker tells Celery
            self._worker.say(Failed(work.tag, False, f"{type(error).__name__}: {quote(error)}"))
        else:
            self._worker.say(Ended(work.tag, done))


def run_own(worker: Socket, run: Run) -> None:
    """Run a task of the user's own, in a thread as a worker does."""
    worker.say(Begun(run.tag))
    try:
        importlib.import_module(run.module)
        done = trace_task_ret(*decoded(run.arguments), app=app)
    except BaseException as error:  # noqa: BLE001 - the task boundary: the worker tells Celery
        worker.say(Failed(run.tag, isinstance(error, Reject), f"{type(error).__name__}: {quote(error)}"))
    else:
        worker.say(Ended(run.tag, done))


class ToWorker(logging.handlers.QueueHandler):
    """Hands what is logged here to the worker, whose handlers know where it goes."""

    def __init__(self, worker: Socket) -> None:
        super().__init__(queue.SimpleQueue())  # of no use: `enqueue` goes elsewhere
        self.setFormatter(logging.Formatter("%(message)s"))
        self._worker = worker

    def enqueue(self, record: logging.LogRecord) -> None:
        self._worker.say(Logged(record))


def die_with_parent() -> None:
    """End when the worker does, also while a function holds Python's lock: then nobody here reads the socket.

    Weakness: only Linux has that signal; elsewhere such a function has to let go first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's affair
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(fd: int) -> None:
    """Serve one worker until it is gone, or says that it is enough."""
    die_with_parent()
    core_dumps.begin_closed()
    worker = Socket(fd)
    hello: Hello | None = worker.hear()
    if hello is None:
        return
    sys.path[:] = hello.path
    logging.basicConfig(level=hello.log_level, handlers=[ToWorker(worker)], force=True)
    settings = config.current()
    core_dumps.settle(settings.safety.core_dumps)
    quiet = settings.model_copy(update={"signals": settings.signals.model_copy(update={"metrics_port": 0})})
    runtime, assembly = put_together(quiet, DirectCall(f"child-{os.getpid()}", process=hello.process))
    renewing(quiet, assembly.held)
    runtime.spawn(assembly.panel.watch(assembly.roster.read_out))
    runtime.spawn(for_ever(assembly.spending.keeper.keep))
    workbench = Workbench(worker, assembly)
    while (said := worker.hear()) is not None:
        if isinstance(said, Work):
            runtime.call_soon(workbench.begin, said)
        elif isinstance(said, Run):
            threading.Thread(target=run_own, args=(worker, said), daemon=True).start()
        elif isinstance(said, Cancel):
            runtime.call_soon(workbench.cancel, said.tag)
        elif isinstance(said, Stop):
            break
    runtime.run(assembly.close())  # also when the worker is gone: what was paid is counted


if __name__ == "__main__":
    main(int(sys.argv[1]))
    os._exit(0)  # threads of the user's would keep the process
