"""One task in a slot of the pool, and how its work is ended before its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleet.engine.process.wiring import PROCESS


@dataclass(slots=True, weakref_slot=True)
class Slot:
    """One task in a slot, and the calls back into Celery that end it."""

    task: Any
    task_id: str
    tag: str
    request: dict[str, Any]
    started: float
    callback: Callable[..., Any]
    error_callback: Callable[..., Any]
    job: asyncio.Future[Any] | None = None
    #: What Celery is told when the coroutine was cancelled; None: it knows already.
    if_cancelled: Exception | None = None
    #: True when it was cancelled, perhaps before it began: a signal may come between the two.
    is_cancelled: bool = False
    is_revoked: bool = False

    def cancel(self, then: Exception | None) -> None:
        """Cancel the coroutine and tell Celery `then`. From any thread; a slot that has ended stays as it is."""
        self.if_cancelled = then
        self.is_cancelled = True
        PROCESS.runtime.call_soon(self._cancel_job)

    def terminate(self, signal: Any) -> None:
        """What `revoke(terminate=True)` calls after it stored REVOKED: the work ends, and what it used is counted."""
        self.is_revoked = True
        PROCESS.runtime.call_soon(self._stop_job)

    def _stop_job(self) -> None:
        if not PROCESS.plane.stop(self.tag, self.job):  # no bot works on it: it has cost what it had before
            PROCESS.runtime.spawn(PROCESS.plane.count_before(self.task_id, self.request))
            self.is_cancelled = True
            self._cancel_job()

    def _cancel_job(self) -> None:
        if self.job is not None:
            self.job.cancel()
