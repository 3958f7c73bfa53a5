"""Which queues a consumer takes from, and whose turn it is: the part of a take that is the same from call to call.

Few queues are named in each call. Of many, a take asks only for those that are known to have messages: producers
with Fleet's transport say so when they publish, and one look at all lists a second finds the messages of others. The
same look brings home what plain Celery clients queued under priority steps of their own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import Any

from fleet.engine.messages.queues import FOREIGN_LISTS, PRIORITY_SEPARATOR, queue_of
from fleet.engine.transport import leases
from fleet.store import flow_keys, keys
from fleet.store.client import Script

LOOK = Script.beside(
    __file__,
    "look.lua",
    keys="ours looked bell waiting*",
    argv="pause_ms life_s separator most again_ms binding list_prefix is_indexed fair foreign rest*",
)

#: Most queues that every take names and looks at (count): up to here that is cheaper than to keep an index.
NAMED_AT_MOST = 16
#: Seconds between two looks at all lists, of all consumers of the same queues together; and while a look finds more
#: than it may bring home.
LOOK_EVERY_S, LOOK_AGAIN_S = 1.0, 0.05
#: Queues that one look goes through (count): some milliseconds of Redis. Of more, looks follow each other.
LOOKED_AT_ONCE = 100
#: Reply of a look that leaves more to bring home.
MORE = 2
#: Messages that one look brings home (count): half a millisecond of Redis.
BRING_AT_MOST = 512
#: Life of what a look has found, in seconds; each look renews it.
FOUND_LIFE_S = 3600
#: Endings of foreign lists and the steps of what lies there, as the script takes them.
_FOREIGN = [part for ending, priority in FOREIGN_LISTS.items() for part in (ending, priority.value)]


class Rota:
    """The queues of one consumer and the turn of each priority. Belongs to the consumer's thread.

    Args:
        queues: Names of the queues.
        steps: Priority steps, the most urgent first.
        now_s: Monotonic time, s: of few queues the first look is due a while later, of many at once.
    """

    def __init__(self, queues: Iterable[str], steps: Sequence[int], *, now_s: float = -math.inf) -> None:
        self._queues = tuple(queues)
        self._steps = [str(step) for step in steps]
        self._served = dict.fromkeys(self._steps, "")
        self._at = 0  # the first queue of the next look
        self._places: dict[str, tuple[str, int, str]] = {}  # key of a list -> its queue, its step, and that as text
        #: True when takes go by what is known to wait, so that a look has to find it out.
        self.is_large = len(self._queues) > NAMED_AT_MOST
        self._waiting = [keys.waiting(step) for step in self._steps]
        #: Monotonic time at which the next round of looks is due, s.
        self.look_at_s = -math.inf if self.is_large else now_s + LOOK_EVERY_S
        self._has_more = False  # some look of this round leaves more to bring home

    def __bool__(self) -> bool:
        return bool(self._queues)

    @property
    def is_looking(self) -> bool:
        """True until all queues have been looked at in turn."""
        return self._at > 0

    def is_due(self, now_s: float) -> bool:
        """True when the next look is to be sent."""
        return self.is_looking or now_s >= self.look_at_s

    # Worked out with the first take: kombu makes a rota anew for each queue that a consumer is given.

    @cached_property
    def _names(self) -> list[str]:
        return sorted(self._queues)

    @cached_property
    def _digest(self) -> str:
        names = "\n".join(self._names).encode("utf-8", "replace")
        return hashlib.sha1(names, usedforsecurity=False).hexdigest()

    def take(
        self, *, wanted: int, guarded: int, prefix: str, acks: Sequence[str], shut: Collection[str] = ()
    ) -> list[Any]:
        """Return what follows the sha in a call of `take.lua`: number of keys, keys, arguments."""
        take_keys, arguments = leases.take_call(
            keys.consumed(self._digest), self._waiting, wanted=wanted, guarded=guarded, prefix=prefix,
            steps=self._steps, served=self._served.values(), acks=acks, shut=shut,
            queues=() if self.is_large else self._names,
        )  # fmt: skip
        return [len(take_keys), *take_keys, *arguments]

    def look(self, now_s: float = 0.0) -> list[Any]:
        """Return what follows the sha in a call of `look.lua`, for the next queues."""
        if not self.is_looking:
            self.look_at_s, self._has_more = now_s + LOOK_EVERY_S, False
        begin, names = self._at, self._names[self._at : self._at + LOOKED_AT_ONCE]
        self._at = begin + len(names) if begin + len(names) < len(self._names) else 0
        look_keys, arguments = LOOK.call(
            ours=keys.consumed(self._digest),
            looked=keys.consumed_looked(f"{self._digest}:{begin}" if begin else self._digest),
            bell=keys.bell(),
            waiting=self._waiting,
            pause_ms=round(LOOK_EVERY_S * 900),  # a little less, so that each look of a single consumer counts
            life_s=FOUND_LIFE_S,
            separator=PRIORITY_SEPARATOR,
            most=BRING_AT_MOST,
            again_ms=round(LOOK_AGAIN_S * 900),
            binding=keys.binding(""),
            list_prefix=keys.lists(""),
            is_indexed=int(self.is_large),
            fair=flow_keys.stem(),
            foreign=len(FOREIGN_LISTS),
            rest=(*self._steps, *_FOREIGN, *names),
        )
        return [len(look_keys), *look_keys, *arguments]

    def note_look(self, reply: int, now_s: float) -> None:
        """Note a look's reply. A round that leaves more is followed by another soon after its end.

        Not sooner: each look of that one then finds that the last look at the same queues was long enough ago.
        """
        self._has_more = self._has_more or reply == MORE
        if self._has_more and not self.is_looking:
            self.look_at_s, self._has_more = now_s + LOOK_AGAIN_S, False

    def was_served(self, place: str) -> tuple[str, int]:
        """Note that a message of this list came; return its queue and step: the next turn is another queue's."""
        found = self._places.get(place)
        if found is None:
            queue, step = queue_of(place)
            found = self._places[place] = (queue, step, str(step))
        queue, step, text = found
        self._served[text] = queue
        return queue, step
