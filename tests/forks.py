"""Work in a forked process, as preloading web servers and `multiprocessing` do it."""

from __future__ import annotations

import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable

#: Seconds until a child must have ended.
CHILD_S = 60


def in_child(work: Callable[[], object]) -> Callable[[], str]:
    """Fork, let the child do `work`, and return how to wait for what it said: what `work` returned, as text."""
    reads, writes = os.pipe()
    with warnings.catch_warnings():  # Python 3.12 warns of forks beside threads: this is the case that must work
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException:  # noqa: BLE001 - a forked pytest must not go on with the tests
            said = traceback.format_exc()
        os.write(writes, said.encode()[-60_000:])
        os._exit(0)
    os.close(writes)
    return lambda: _said(child, reads)


def _said(child: int, reads: int) -> str:
    deadline = time.monotonic() + CHILD_S
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reads)
            return "the child hangs"
        time.sleep(0.01)
    with open(reads, "rb") as pipe:
        return pipe.read().decode()
