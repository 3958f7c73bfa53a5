"""Erasing messages: what waits is cancelled, what workers hold is stopped or waited for, what was put aside goes.

All of it is in the broker. A message that its worker has left behind is taken away once its lease has run out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import redis

from fleet.config import Settings
from fleet.engine.outcomes.cancelling import Canceller, Selection, asked_in
from fleet.engine.outcomes.revocation import store_revoked
from fleet.engine.transport.held import STRETCH
from fleet.engine.transport.leases import LEASE_S
from fleet.engine.transport.withdrawal.reading import read_list
from fleet.store import keys
from fleet.store.client import Script, run_script
from fleet.store.running.brokers import Anywhere, each

RELEASE_HELD = Script.beside(__file__, "release_held.lua", keys="unacked index", argv="tag lease_s")

#: Seconds between two looks at what workers hold.
LOOK_S = 0.25
#: Leases after which a message is taken to be left behind (count): by then a living worker's sweep has put it back.
LEFT_LEASES = 2


@dataclass(frozen=True, slots=True)
class Messages:
    """What became of messages.

    Args:
        waiting: Tasks that waited or were parked, and never start.
        aside: Messages that were put aside: over, or poison of an earlier release.
        left: Messages whose workers are gone.
        held: Ids of tasks that workers held.
        running: Those of them that they hold still.
    """

    waiting: int
    aside: int
    left: int
    held: tuple[str, ...]
    running: tuple[str, ...]


class MessageEraser:
    """Erases messages. Blocks.

    Args:
        broker: Client of the Redis with the messages.
        state: Client of the Redis with the results.
        settings: Pools, and how long results live.
        canceller: Ends what waits.
    """

    def __init__(self, broker: Anywhere, state: redis.Redis, settings: Settings, canceller: Canceller) -> None:
        self._broker = broker
        self._state = state
        self._settings = settings
        self._canceller = canceller

    def count(self, chosen: Selection) -> Messages:
        """Return what `erase` would meet, and change nothing."""
        tally = self._canceller.count(chosen)
        aside = sum(1 for _ in self._aside(chosen))
        return Messages(tally.waiting, aside, 0, tally.held, tally.held)

    def erase(self, chosen: Selection, *, stop: Callable[[Sequence[str]], None] | None, wait_s: float) -> Messages:
        """Erase messages until none is left, or `wait_s` is over.

        Args:
            chosen: Which tasks.
            stop: Has workers stop tasks by their ids; None: what runs goes on to its end.
            wait_s: Seconds for which what workers hold is waited for.
        """
        until = time.monotonic() + wait_s
        waiting, aside, left, held = 0, 0, 0, dict[str, None]()
        while True:
            tally = self._canceller.cancel(chosen)
            waiting, aside = waiting + tally.waiting, aside + self._erase_aside(chosen)
            new = [task_id for task_id in tally.held if task_id not in held]
            held.update(dict.fromkeys(new))
            if stop is not None and new:
                stop(new)
            left += self._release(chosen)
            running = tuple(dict.fromkeys(task_id for _, task_id in self._held(chosen)))
            if not running or time.monotonic() > until:
                return Messages(waiting, aside, left, tuple(held), running)
            time.sleep(LOOK_S)

    def _held(self, chosen: Selection) -> Iterator[tuple[str, str]]:
        """Yield tag and task of the messages that are meant and that workers hold."""
        found = (client.hscan_iter(keys.unacked(), count=STRETCH) for client in each(self._broker))
        for tag, entry in chain.from_iterable(found):
            place, _, message = bytes(entry).partition(b"\n")
            asked = asked_in(message)
            queue = place.decode().removeprefix(keys.lists("")).partition("\x06\x16")[0]
            if asked is not None and chosen.applies(asked, queue.removeprefix(keys.queue(""))):
                yield tag.decode(), str(asked.task_id)

    def _release(self, chosen: Selection) -> int:
        released = list[str]()
        for tag, task_id in list(self._held(chosen)):
            call = RELEASE_HELD.call(
                unacked=keys.unacked(), index=keys.unacked_index(), tag=tag, lease_s=LEFT_LEASES * LEASE_S
            )
            if any(run_script(client, RELEASE_HELD, *call) for client in each(self._broker)):
                released.append(task_id)
        store_revoked(self._state, released, self._settings)
        return len(released)

    def _aside(self, chosen: Selection) -> Iterator[tuple[str, bytes, str]]:
        """Yield list, message and task of what is meant among the messages that were put aside."""
        for place in (keys.over(), keys.poison()):
            for messages in chain.from_iterable(read_list(client, place) for client in each(self._broker)):
                for message in messages:
                    asked = asked_in(message)
                    if asked is not None and chosen.applies(asked, ""):
                        yield place, message, str(asked.task_id)

    def _erase_aside(self, chosen: Selection) -> int:
        erased = list[str]()
        for place, message, task_id in list(self._aside(chosen)):
            if any(client.lrem(place, 1, cast("str", message)) for client in each(self._broker)):
                erased.append(task_id)
        store_revoked(self._state, erased, self._settings)
        return len(erased)
