"""An event loop in a thread of its own, for programs with threads: work is posted to it until it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """One loop and its thread, which run from the start. Any thread may post; nothing runs after the end.

    Args:
        name: Of the thread, for people who look at a process.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._lock = threading.Lock()
        self.is_closed = False
        self._thread.start()

    def post(self, work: Callable[[], None]) -> None:
        """Let the loop do it; nothing when it has ended. Never waits."""
        with self._lock:
            if not self.is_closed:
                self._loop.call_soon_threadsafe(work)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T] | None:
        """Let the loop begin it; None when that has ended."""
        with self._lock:
            if self.is_closed:
                coroutine.close()
                return None
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self, end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """End the loop and its thread, once.

        Args:
            end: What is done on the loop at last; nothing that is posted comes after it.
        """
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
