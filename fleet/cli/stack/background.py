"""A stack in the background: start its supervisor apart from this terminal, wait until it is ready, stop it.

Also clears what a killed supervisor left behind. Processes are stopped by recorded pid and start time only.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fleet.cli.stack.processes import POLL_S, end_all, wait_gone
from fleet.cli.stack.stack_file import Stack, StackPart, forget_stack, is_up, read_stack
from fleet.cli.stack.supervisor import GRACE_S, tail
from fleet.errors import FleetError
from fleet.store.private.service import PYTHON_MODULE

#: Seconds that a stack may take until all its parts are ready.
READY_S = 90.0
#: Seconds that a supervisor may need beyond the grace of its children: stopping Redis and the simulator.
SERVICES_S = 15.0
#: Seconds between two signals to a supervisor that is to hurry: two at once may count as one.
INSIST_EVERY_S = 0.3


class StackFailed(FleetError):
    """The stack did not become ready."""


def supervisor_log(home: Path) -> Path:
    """Return the log of a supervisor in the background."""
    return home / "logs" / "supervisor.log"


class Background:
    """One supervisor in the background.

    Args:
        home: State folder of the stack.
        options: Options of `fleet up`, as on a command line.
    """

    def __init__(self, home: Path, options: Sequence[str] = ()) -> None:
        self._home = home
        self.log = supervisor_log(home)
        command = [*PYTHON_MODULE, "fleet.cli.main", "--home", str(home), "up", *options]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        with self.log.open("ab") as log:  # to append, so that it can be emptied while it is written
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def running(self) -> bool:
        """True while the supervisor lives."""
        return self._process.poll() is None

    def wait_ready(self, is_stopping: Callable[[], bool] = lambda: False) -> Stack:
        """Return the stack once all its parts are ready.

        Raises:
            StackFailed: With the end of its log, when it gave up or took longer than `READY_S`.
            KeyboardInterrupt: When `is_stopping` said so first.
        """
        deadline = time.monotonic() + READY_S
        while not is_stopping():
            stack = read_stack(self._home)
            if stack is not None and stack.ready and stack.supervisor.pid == self._process.pid:
                return stack
            if not self.running or time.monotonic() > deadline:
                raise StackFailed(f"the stack did not start; the end of {self.log}:\n{tail(self.log, 12)}")
            time.sleep(POLL_S)
        raise KeyboardInterrupt

    def stop(self, is_insisting: Callable[[], bool] = lambda: False) -> None:
        """Stop the supervisor and everything it started.

        Args:
            is_insisting: Asked all the time; while True, the supervisor is told again: end the children at once.
        """
        self._signal()
        deadline = time.monotonic() + GRACE_S + SERVICES_S
        again = time.monotonic() + INSIST_EVERY_S
        while self.running and time.monotonic() < deadline:
            if is_insisting() and time.monotonic() > again:
                again += INSIST_EVERY_S
                self._signal()
            time.sleep(POLL_S)
        if self.running:
            self._process.kill()
            self._process.wait()
        clear_leftovers(self._home, grace_s=0.0)

    def _signal(self) -> None:
        if self.running:
            self._process.send_signal(signal.SIGTERM)


def stop_stack(home: Path) -> Stack | None:
    """Stop the stack of `home`, also one whose supervisor was killed; return what it was, or None without one."""
    stack = read_stack(home)
    if stack is None:
        return None
    if is_up(home):
        stack.supervisor.signal(signal.SIGTERM)
        for process in wait_gone([stack.supervisor], timeout_s=GRACE_S + SERVICES_S):
            process.signal(signal.SIGKILL)
    clear_leftovers(home)
    return stack


def orphans(home: Path) -> list[StackPart]:
    """Return the children of a stack that still run."""
    stack = read_stack(home)
    return [part for part in stack.children if part.process and part.process.is_alive()] if stack else []


def clear_leftovers(home: Path, *, grace_s: float = GRACE_S) -> Stack | None:
    """End the children that a killed supervisor left running; return its stack with those that still ran.

    Workers finish what they run: they get SIGTERM first and are killed after the grace.
    """
    stack = read_stack(home)
    if stack is None:
        return None
    left = orphans(home)
    end_all([part.process for part in left if part.process], grace_s=grace_s)
    forget_stack(home)
    return replace(stack, children=tuple(left))
