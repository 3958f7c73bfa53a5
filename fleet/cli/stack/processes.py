"""Processes that outlive the one who started them: known by pid *and* start time, never by name.

A pid alone is not enough: after a reboot or a long time it may belong to someone else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil

#: Seconds between two looks at processes that are asked to end.
POLL_S = 0.05
#: Seconds by which two readings of one start time may differ: the kernel derives it from the adjustable clock.
SAME_START_S = 2.0

#: Seconds that the kernel may need to clear away a killed process.
KILLED_S = 5.0


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process and no other: its pid and its start time in Unix seconds."""

    pid: int
    started_at: float

    @classmethod
    def own(cls) -> ProcessId:
        """Return the identity of this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Return the identity of a process that was just started; one that is gone already has start time 0."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return cls(pid, 0.0)

    def is_alive(self) -> bool:
        """True while this very process runs; a zombie does not run, unless a thread of it has still to end.

        Until its last thread has ended a process keeps its ports, though it is shown as a zombie.
        """
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started_at) < SAME_START_S
            return bool(is_same and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1))
        except psutil.NoSuchProcess:
            return False

    def signal(self, number: int) -> None:
        """Send a signal to this very process, and none when it has gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self.is_alive():
                psutil.Process(self.pid).send_signal(number)


def wait_gone(processes: Iterable[ProcessId], *, timeout_s: float) -> list[ProcessId]:
    """Wait until all have ended, at most `timeout_s`; return those that still run."""
    deadline = time.monotonic() + timeout_s
    alive = [p for p in processes if p.is_alive()]
    while alive and time.monotonic() < deadline:
        time.sleep(POLL_S)
        alive = [p for p in alive if p.is_alive()]
    return alive


def end_all(processes: Sequence[ProcessId], *, grace_s: float) -> None:
    """Ask all to end with SIGTERM and kill those that still run after `grace_s`."""
    for process in processes:
        process.signal(signal.SIGTERM)
    for process in wait_gone(processes, timeout_s=grace_s):
        process.signal(signal.SIGKILL)
    wait_gone(processes, timeout_s=KILLED_S)
