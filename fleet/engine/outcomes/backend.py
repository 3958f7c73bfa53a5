"""Celery's Redis result backends with three differences: typed results, chords that survive their workers, cancels.

- A bot's result comes back as a `BotResult` on every road that asks the app's backend.
- The claim of who sends a chord's body lasts seconds, not the ten minutes that publishing could take; a member that
  finds it taken is not done before it is free or the body is sent (celery/celery#2952).
- A task that was cancelled fails the rest of its chain and calls its errbacks, as one that failed does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import cached_property
from typing import Any

from celery import states
from celery.exceptions import TaskRevokedError

from fleet.engine.messages.backend import RedisBackend, SentinelBackend
from fleet.engine.outcomes.stored import failure_of, typed_result
from fleet.engine.transport.following import following
from fleet.jobs import END_MEMBER, end_call, membership_of
from fleet.store.client import run_script

#: Seconds between two looks at a chord whose body another worker was about to send.
CLAIM_LOOK_S = 0.5
#: Attribute of a request whose own result is stored already, by `finish.lua`.
STORED = "fleet_stored"

_may_wait: ContextVar[bool] = ContextVar("fleet_may_wait", default=True)
_joining: ContextVar[bool] = ContextVar("fleet_joining", default=False)


class ChordClaimed(Exception):
    """All members of a chord are done, and another worker was about to send its body: look again."""


def never_wait() -> None:
    """Let chords of this thread raise `ChordClaimed` instead of waiting."""
    _may_wait.set(False)


class BotResults(RedisBackend):
    """For redis://, rediss:// and redis+socket://."""

    def meta_from_decoded(self, meta: dict[str, Any]) -> dict[str, Any]:
        meta = super().meta_from_decoded(meta)
        if meta.get("status") != states.SUCCESS or (result := typed_result(meta)) is None:
            return meta
        if _joining.get() and result.status == "failed":
            return {**meta, "status": states.FAILURE, "result": failure_of(result)}
        return {**meta, "result": result}

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if getattr(request, STORED, False) and request.id == task_id:
            return result
        stored = super().store_result(task_id, result, state, traceback=traceback, request=request, **kwargs)
        if state == states.REVOKED and (member := membership_of(task_id)) is not None:
            run_script(self.client, END_MEMBER, *end_call(member, "cancelled"))
        return stored

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        error = TaskRevokedError(reason)
        self.mark_as_failure(task_id, error, request=request, store_result=store_result, state=state)

    # -- chords

    def on_chord_part_return(self, request: Any, state: str, result: Any, *args: Any, **kwargs: Any) -> None:
        """Note a member's end, and send the body after the last one.

        Raises:
            ChordClaimed: In a thread that never waits: another worker was about to send it, and may be dead.
        """
        while True:
            self._is_claimed = False
            self._join(request, state, result, *args, **kwargs)
            if not self._is_claimed:
                return
            if not _may_wait.get():
                raise ChordClaimed(request.group)
            if threading.current_thread() is threading.main_thread():  # a cancel: nothing else may wait for it
                return
            time.sleep(CLAIM_LOOK_S)

    def _join(self, *args: Any, **kwargs: Any) -> None:
        token = _joining.set(True)
        try:
            with following():
                super().on_chord_part_return(*args, **kwargs)
        finally:
            _joining.reset(token)

    _is_claimed = False

    @cached_property
    def _chord_part_return_script(self) -> Callable[..., Any]:
        script = super()._chord_part_return_script

        def note_part(**kwargs: Any) -> Any:
            reply = script(**kwargs)
            count, more, size, claimed = reply
            self._is_claimed = bool(size) and not claimed and count == int(size) + int(more or 0)
            return reply

        return note_part

    @cached_property
    def _chord_claim_extend_script(self) -> Callable[..., Any]:
        script = super()._chord_claim_extend_script

        def extend(**kwargs: Any) -> Any:
            is_ours = script(**kwargs)
            self._is_claimed = not is_ours
            return is_ours

        return extend

    def _chord_publish_claim_expires(self, initial_expires: int, callback: Any) -> int:
        """Return the life of a claim (s): a bot task is queued once, so that sending it twice is harmless."""
        return initial_expires


class SentinelBotResults(BotResults, SentinelBackend):
    """For sentinel://."""


#: Where Celery finds these, by the scheme of `result_backend`.
BACKENDS = {
    **dict.fromkeys(("redis", "rediss"), f"{__name__}:{BotResults.__name__}"),
    "sentinel": f"{__name__}:{SentinelBotResults.__name__}",
}
