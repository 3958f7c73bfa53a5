"""Processes that tests started: whether one has ended, and all that run for one state folder (by its FLEET_HOME).

What Fleet closes against its own user hides its environment too, so such tests start theirs with `OPEN`; root sees all.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

#: Variable and value for whatever a test wants to find again.
OPEN = ("FLEET_SAFETY__CORE_DUMPS", "true")


def has_ended(process: psutil.Process | int) -> bool:
    """Return whether it is gone, or only its entry is left; it may vanish while we look."""
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def processes_of(home: Path) -> list[psutil.Process]:
    """Return the living processes, this one aside, that were started with `home` or a folder in it."""
    found = []
    for process in psutil.process_iter():
        try:
            place = process.environ().get("FLEET_HOME", "")
            if Path(place).is_relative_to(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.pid != os.getpid()]


def end_all_of(home: Path) -> None:
    """Kill whatever a failed test left running."""
    for process in processes_of(home):
        with suppress(psutil.NoSuchProcess):  # it was about to end
            process.kill()
    psutil.wait_procs(processes_of(home), timeout=5)
