"""Keeps child processes running: starts them, restarts those that die with a growing pause, ends them in order.

It knows nothing of Celery or Redis. Nothing here waits for long: the owner calls `tick()` a few times a second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.cli.stack.processes import POLL_S, ProcessId
from fleet.cli.stack.stack_file import StackPart
from fleet.store.private.log_file import rotate

#: Seconds before the first restart of a child that died; doubled at each further death.
FIRST_PAUSE_S = 0.5
#: Longest pause before a restart, in seconds.
LONGEST_PAUSE_S = 10.0
#: Seconds of life after which a child counts as healthy and its pause starts over.
HEALTHY_S = 30.0
#: Seconds that the children get to finish what they run before they are killed.
GRACE_S = 30.0
#: Seconds that a child which hangs gets to end by itself before it is killed.
HANG_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run and where its output goes; `address` is for people, and the name under which a worker reports."""

    name: str
    command: tuple[str, ...]
    log: Path
    address: str = ""
    is_worker: bool = False


class Child:
    """One child process through all its lives."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.pause_s = FIRST_PAUSE_S
        self.restarts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._since = 0.0
        self._due = 0.0
        self._kill_at: float | None = None

    @property
    def pid(self) -> int | None:
        """Return its pid, or None while it does not run."""
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def part(self) -> StackPart | None:
        """Return the child as people see it, or None while it does not run."""
        if self._process is None:
            return None
        return StackPart(self.spec.name, ProcessId.of(self._process.pid), self.spec.address, str(self.spec.log))

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C in the terminal reaches the supervisor only."""
        with _open_log(self.spec.log).open("ab") as log:
            self._process = subprocess.Popen(
                self.spec.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._since = time.monotonic()
        self._kill_at = None

    def end(self, now: float) -> bool:
        """Ask it to end, and kill it some seconds later if it has not; False when that is under way already."""
        if self._kill_at is not None:
            return False
        self._kill_at = now + HANG_GRACE_S
        self.signal(signal.SIGTERM)
        return True

    def revive(self, now: float) -> str | None:
        """Start it again if it has died and its pause is over; return what there is to say, if anything."""
        if self.running:
            if self._kill_at is not None and now > self._kill_at:
                self.signal(signal.SIGKILL)
            if now - self._since > HEALTHY_S:
                self.pause_s = FIRST_PAUSE_S
            return None
        if self._process is not None:
            return self._note_death(now, self._process)
        if now < self._due:
            return None
        try:
            self.start()
        except FileNotFoundError as error:
            self._due = now + self.pause_s
            return f"{self.spec.name} was not started again: {error.filename} is gone"
        self.restarts += 1
        return f"{self.spec.name} started again"

    def signal(self, number: int) -> None:
        """Send a signal if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def last_words(self, lines: int = 8) -> str:
        """Return the end of its log."""
        return tail(self.spec.log, lines)

    def _note_death(self, now: float, process: subprocess.Popen[bytes]) -> str:
        pause_s, self.pause_s = self.pause_s, min(self.pause_s * 2, LONGEST_PAUSE_S)
        self._due = now + pause_s
        self._process = None
        return (
            f"{self.spec.name} (pid {process.pid}) {_ending(process.returncode)}; "
            f"starting it again in {pause_s:g} s; log: {self.spec.log}"
        )


class Supervisor:
    """A set of children that is kept running.

    Args:
        specs: What to run, in the order of starting; it is ended in the reverse order.
        say: Told in one line about each death and restart.
    """

    def __init__(self, specs: Sequence[ChildSpec], say: Callable[[str], None]) -> None:
        self.children = [Child(spec) for spec in specs]
        self._say = say

    @property
    def parts(self) -> tuple[StackPart, ...]:
        """Return the children that run now."""
        return tuple(part for child in self.children if (part := child.part) is not None)

    @property
    def workers(self) -> dict[str, int]:
        """Return the pids of the workers that run now, by address."""
        return {child.spec.address: child.pid for child in self.children if child.spec.is_worker and child.pid}

    def start(self) -> None:
        """Start all children."""
        for child in self.children:
            child.start()

    def tick(self) -> bool:
        """Look after every child once; return True when one has died or was started."""
        said = [line for child in self.children if (line := child.revive(time.monotonic())) is not None]
        for line in said:
            self._say(line)
        return bool(said)

    def replace(self, pid: int, why: str) -> None:
        """End a child that hangs; the next ticks see its death and start it again."""
        for child in self.children:
            if child.pid == pid and child.end(time.monotonic()):
                self._say(f"{child.spec.name} (pid {pid}) hangs: {why}; ending it")

    def stop(self, *, insisted: Callable[[], bool] = lambda: False, grace_s: float = GRACE_S) -> None:
        """End all children with SIGTERM, the last one started first; those that outlive the grace, by force.

        Args:
            insisted: Asked all the time; True ends the patience.
            grace_s: Seconds until those that still run are killed.
        """
        deadline = time.monotonic() + grace_s
        for child in reversed(self.children):
            child.signal(signal.SIGTERM)
        while any(child.running for child in self.children):
            if insisted() or time.monotonic() > deadline:
                for child in self.children:
                    child.signal(signal.SIGKILL)
            time.sleep(POLL_S)


def tail(path: Path, lines: int) -> str:
    """Return the last lines of a text file, or nothing when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def _open_log(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)  # without its parents: a state folder that was deleted is not made anew
    rotate(path)
    return path


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
