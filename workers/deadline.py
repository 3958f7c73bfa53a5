"""When a task's time at work is over. Its clock runs in calls that are answered and in the user's code.

It stands still while the task waits: for grants, in pauses before retries, for a neighbour that holds it up. Failed
calls give their seconds back. How late a task may be done at all, `expires_at` says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType

#: Seconds between two looks at a call that goes on past the deadline, and may be the provider's fault.
LOOK_S = 0.1


class CallOut:
    """A call of the task's that is with its provider.

    Args:
        began: Loop time (s).
        stood_s: As the deadline's was then.
        is_its_own: True once its slowness is its own, for others were answered meanwhile.
    """

    __slots__ = ("began", "is_its_own", "stood_s")

    def __init__(self, began: float, stood_s: float, is_its_own: Callable[[], bool]) -> None:
        self.began = began
        self.stood_s = stood_s
        self.is_its_own = is_its_own


class Deadline:
    """The deadline of one task, on its event loop's clock; used on that loop only.

    It strikes between calls and in the user's code at once. A running call is cut only once another call under the same
    limit was answered since it began; else its provider may be silent to all, and the HTTP timeout ends it.

    Weakness: while one of several chats of a function waits and none of them is with the provider, the function's own
    work beside it does not count.

    Args:
        at: Loop time (s).

    Attributes:
        at: When it is now.
        stood_s: Seconds by which it was moved.
    """

    def __init__(self, at: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self.at = at
        self.stood_s = 0.0
        self._scope: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._out: list[CallOut] = []
        self._waits = 0
        self._stands_from: float | None = None
        self._waits_from: float | None = None

    @property
    def left_s(self) -> float:
        """Seconds until then; 0 or less when it has passed."""
        return self.at - (self._now() if self._stands_from is None else self._stands_from)

    @property
    def standing_s(self) -> float:
        """Seconds since the task began to wait, failed calls in between included; 0: it does not wait now."""
        return 0.0 if self._stands_from is None or self._waits_from is None else self._now() - self._waits_from

    def scope(self) -> asyncio.Timeout:
        """Return a block (`async with`) that cancels what runs in it at the deadline; call `end()` behind it."""
        self._scope = asyncio.timeout(None)
        self._look_at(self.at)
        return self._scope

    def end(self) -> None:
        """The task is over: it strikes no more."""
        self._scope = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def standing(self) -> Deadline:
        """Return a block (`with`) in which the task waits for something that is not its own; blocks may nest."""
        return self

    def __enter__(self) -> None:
        self._waits += 1
        self._turn()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._waits -= 1
        self._turn()

    def sends(self, is_its_own: Callable[[], bool]) -> CallOut:
        """Note that a call leaves; to be ended by `came`.

        Args:
            is_its_own: True once another call under the same limit was answered since.
        """
        call = CallOut(self._now(), self.stood_s, is_its_own)
        self._out.append(call)
        self._turn()
        return call

    def came(self, call: CallOut, *, counts: bool) -> None:
        """Note that a call has ended; when it does not count, its seconds are given back."""
        self._out.remove(call)
        if counts:
            self._waits_from = None
        else:
            self.stand(self._now() - call.began - (self.stood_s - call.stood_s))
        self._turn()

    def stand(self, seconds: float) -> None:
        """Move it: so long others have held the task up. One that has struck, or stands anyway, stays as it is."""
        scope = self._scope
        if self._stands_from is not None or (scope is not None and scope.expired()):
            return
        self.at += seconds
        self.stood_s += seconds

    def _turn(self) -> None:
        """Let the clock stand while the task only waits, and go on when it works again."""
        stands = self._waits > 0 and not self._out
        if stands == (self._stands_from is not None):
            return
        now = self._now()
        if stands:
            self._stands_from = now
            self._waits_from = now if self._waits_from is None else self._waits_from
            return
        assert self._stands_from is not None
        seconds, self._stands_from = now - self._stands_from, None
        self.stand(seconds)
        if self._timer is None and self._scope is not None:
            self._look_at(self.at)

    def _look_at(self, at: float) -> None:
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        """Strike, unless the deadline has moved, stands, or may only be the provider's."""
        self._timer = None
        if self._scope is None or self._stands_from is not None:
            return
        if self.left_s > 0:
            self._look_at(self.at)
        elif self._out and not any(call.is_its_own() for call in self._out):
            self._look_at(self._now() + LOOK_S)
        else:
            with contextlib.suppress(RuntimeError):  # the block has been left, or is being left
                self._scope.reschedule(self._now())
