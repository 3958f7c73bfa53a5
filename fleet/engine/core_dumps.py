"""Keys and prompts stay out of core dumps, and out of reach of the user's other processes: by two marks of the kernel.

What it costs: no debugger or profiler of the same user attaches (gdb, strace, py-spy); root's still do. That is why a
setting lets a worker and Flower go without.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import suppress

#: Linux, `prctl(2)`: whether a process may be dumped and traced, and whom its files under /proc belong to.
_PR_SET_DUMPABLE = 4


#: `safety.core_dumps` as a variable: what is known of it before fleet.toml is read, and what pydantic takes for yes.
_VARIABLE, _YES = "FLEET_SAFETY__CORE_DUMPS", ("1", "on", "t", "true", "y", "yes")


def begin_closed() -> None:
    """`forbid`, for programs that have not read fleet.toml yet, or never do; the setting's variable is obeyed."""
    if os.environ.get(_VARIABLE, "").lower() not in _YES:
        forbid()


def forbid() -> None:
    """Let no core dump be written of this process, nor its memory be read by others of its user (Linux only).

    The hard limit stays: a program that is started from here decides for itself. The second mark does not outlive an
    `exec` either, so each program of Fleet calls this for itself.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    _mark_dumpable(0)


def allow() -> None:
    """Undo `forbid`, and what was inherited of it."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    _mark_dumpable(1)


def settle(are_allowed: bool) -> None:
    """Let this process be dumped or not, as `safety.core_dumps` says."""
    if are_allowed:
        allow()
    else:
        forbid()


def _mark_dumpable(yes: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, yes, 0, 0, 0)
