"""`Waker`: lets any thread wake the worker's loop, which sleeps until a file descriptor is readable.

A pipe, as every Unix has it: Linux' own eventfd would save half a microsecond per wake.
"""

from __future__ import annotations

import os
from contextlib import suppress

#: Bytes read at once: all that a pipe holds on any system, so one read leaves it empty.
PIPE_BYTES = 65_536


class Waker:
    """A pipe that is readable from `wake()` to `drain()`. It lives as long as its process."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        for fd in (self._read_fd, self._write_fd):
            os.set_blocking(fd, False)

    def fileno(self) -> int:
        """Return the descriptor that the loop watches."""
        return self._read_fd

    def wake(self) -> None:
        """Make the loop look. From any thread, and from a signal handler; many calls before it looks wake it once."""
        with suppress(BlockingIOError):  # the pipe is full: the loop is as good as awake
            os.write(self._write_fd, b"\0")

    def drain(self) -> bool:
        """Take note of all calls so far; False when there was none. Look for work after this, never before."""
        try:
            return bool(os.read(self._read_fd, PIPE_BYTES))
        except BlockingIOError:
            return False


#: What wakes the worker's loop; None: this process has none. One for all connections it will have.
_of_loop: Waker | None = None


def waker_of_loop() -> Waker:
    """Return what wakes the worker's loop; made by the first who asks, which is the loop."""
    global _of_loop
    if _of_loop is None:
        _of_loop = Waker()
    return _of_loop


def wake_loop() -> None:
    """Let the worker's loop look again whether it may take messages. From any thread."""
    if _of_loop is not None:
        _of_loop.wake()
