"""Who is at work in a process's slots, who waits there, and when they may go on: their slots may have been lent.

Lending itself is the engine's. Here is seen to it that no more tasks run at once than there are slots.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping

from fleet.workers.bot.asker import Asker
from fleet.workers.silence.under_way import Hanging

#: Seconds after which a task that has begun and stands still counts as waiting in its slot.
WAITS_AFTER_S = 1.0
#: Seconds between two looks whether there is room for a task that has waited in its slot.
LOOK_S = 0.1


class Occupants:
    """The tasks in a process's slots. Used on its event loop.

    Weakness: a task that waits for a grant goes on with it, room or not; the limiter paces those. So does one whose
    call has hung, and is answered after all: it has its answer, and little is left to do.

    Args:
        slots: Tells how many may run at once: an operator grows and shrinks a worker while it works.
        hanging: Tells whose calls hang, by pool: they keep nobody from going on.

    Attributes:
        slots: As it was given.
        moved: Set when `waiting` may have changed while more tasks are held than there are slots.
    """

    def __init__(self, slots: Callable[[], int], hanging: Callable[[], Mapping[str, Hanging]] = dict) -> None:
        self.slots = slots
        self._hanging = hanging
        self._all = set[Asker]()
        #: Those that have waited: who stands in line to go on, and who has gone on and not waited since.
        self._in_line, self._gone_on, self._line = set[Asker](), set[Asker](), asyncio.Lock()
        self.moved = asyncio.Event()

    def enter(self, asker: Asker) -> None:
        """A task is at work from now on."""
        self._all.add(asker)

    def leave(self, asker: Asker) -> None:
        """It is no longer."""
        self._all.discard(asker)
        self._gone_on.discard(asker)

    def waiting(self) -> Counter[str]:
        """Return how many tasks of each pool have begun, and wait in their slots for what is not their own."""
        return Counter(
            asker.pool for asker in self._all if asker.is_begun and self._waits(asker) and asker not in self._in_line
        )

    async def rest(self, asker: Asker, seconds: float) -> None:
        """Wait in the slot, and then until fewer others than there are slots are at work.

        Those to whom slots were lent end first. Slots of who stands in line are lent no more, so this comes to an end.
        """
        self._moves(self._gone_on.discard, asker)
        await asyncio.sleep(seconds)
        if self._are_lent:
            self._moves(self._in_line.add, asker)
            try:
                async with self._line:  # one of them looks
                    while self._are_lent and not self._has_room(asker):
                        await asyncio.sleep(LOOK_S)
            finally:
                self._in_line.discard(asker)
        self._moves(self._gone_on.add, asker)

    @property
    def _are_lent(self) -> bool:
        return len(self._all) > self.slots()

    def _moves(self, note: Callable[[Asker], None], asker: Asker) -> None:
        note(asker)
        if self._are_lent:
            self.moved.set()

    def _has_room(self, asker: Asker) -> bool:
        hanging = sum(pool.tasks for pool in self._hanging().values())
        return sum(not self._waits(other) for other in self._all if other is not asker) - hanging < self.slots()

    def _waits(self, asker: Asker) -> bool:
        return asker.deadline.standing_s >= WAITS_AFTER_S and asker not in self._gone_on
