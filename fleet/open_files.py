"""How many files (a connection is one) this process may have open: raised as far as it goes, and what fits then."""

from __future__ import annotations

import resource

#: Files that a worker has open beside its slots' connections (Redis, logs, pipes, modules, a child): about.
SPARE = 64
#: Files that a slot needs: its connection to the provider; a quarter more for those that are just being closed.
OF_A_SLOT = 1.25
#: What is tried where the hard limit is "none", as on macOS: the kernel has a limit of its own below it.
_WITHOUT_END = (1_048_576, 65_536, 10_240)


def raise_limit() -> int:
    """Let this process open as many files as it may: the soft limit becomes the hard one.

    Returns:
        How many it may have open now; -1: any number.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in _WITHOUT_END if hard == resource.RLIM_INFINITY else (hard,):
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # more than this kernel gives
            continue
        break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def slots_that_fit(files: int) -> int | None:
    """Return how many slots a worker may have with so many files; None: any number. At least one."""
    if files < 0:
        return None
    return max(1, int((files - SPARE) / OF_A_SLOT))


def files_for(slots: int) -> int:
    """Return how many files a worker with so many slots needs."""
    return SPARE + int(slots * OF_A_SLOT) + 1
