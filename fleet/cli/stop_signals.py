"""Ctrl-C, SIGTERM and SIGHUP as a count that loops look at, so that nothing is cut off between two steps."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

#: What asks a foreground stack to stop: Ctrl-C, `fleet down` or an init system, a closed terminal.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Counts the signals that ask to stop. Use it as a context manager in the main thread."""

    def __init__(self) -> None:
        self.count = 0
        #: True when Ctrl-C was among them: the exit code is then 130.
        self.interrupted = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        """True once somebody asked to stop."""
        return self.count > 0

    @property
    def insisted(self) -> bool:
        """True once somebody asked twice: stop at once."""
        return self.count > 1

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.interrupted |= number == signal.SIGINT
