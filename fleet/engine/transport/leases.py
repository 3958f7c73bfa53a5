"""What this process has taken from the broker and not acknowledged, and the leases on it.

kombu's channels come and go with their connections; a `Holdings` stays. Taking and delivering: `channel.py`.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import redis

from fleet.engine.messages.queues import PRIORITY_SEPARATOR
from fleet.store import keys
from fleet.store.client import Script, run_script

TAKE = Script.beside(
    __file__,
    "take.lua",
    keys="unacked index bell ours waiting*",
    argv="wanted guarded prefix gate_prefix separator acks rest*",
)
RENEW = Script.beside(__file__, "renew_messages.lua", keys="index", argv="tags*")
RESTORE = Script.beside(
    __file__,
    "restore.lua",
    keys="unacked index bell swept poison",
    argv="lease_s most deaths deaths_prefix deaths_life_s quiet_s tags*",
)

#: Seconds after which a message that its worker no longer renews goes back to its queue. With the sweep's interval
#: on top, a dead worker's messages are back within 13 s.
LEASE_S = 10
#: Seconds between two renewals, and between two sweeps: three may fail before a lease runs out.
RENEW_EVERY_S = LEASE_S / 4
#: Leases for which nothing is swept after a time without sweeps. A worker that lives renews within 2.5 s plus at most
#: 1.25 s to connect again; a longer period would hold up tasks whose workers all died, past 15 s in all.
QUIET_LEASES = 0.6
#: Deaths of workers that make the message they held poison (count). Two would bury innocent tasks whenever workers
#: are killed at random: with 60 tasks in each, some are caught twice.
POISON_AFTER = 3

#: Seconds for which a death is counted, from the last one on. What waits for its ETA dies with its worker as well,
#: though it harmed nobody: deaths that lie further apart are no sign of poison.
DEATHS_LIFE_S = 3600


#: This process's id, and the pid that it was drawn for: a fork draws its own.
_drawn: tuple[int, str] = (0, "")


def process_id() -> str:
    """Return the random id of this process, drawn when it is first asked for: what a death is known by.

    Node names, hosts and pids come again; this does not.
    """
    global _drawn
    if _drawn[0] != os.getpid():
        _drawn = os.getpid(), uuid.uuid4().hex
    return _drawn[1]


@dataclass(frozen=True, slots=True)
class Tag:
    """What a delivery tag tells of the process that took the message: whoever looks at the unacked ones sees its host.

    Written by `Holdings.next_prefix`: `host.pid.random:take:place`; a host name may have dots of its own.
    """

    host: str
    pid: int

    @classmethod
    def parse(cls, tag: str) -> Tag | None:
        """Return what a tag tells; None for one that isn't Fleet's."""
        host, _, pid = tag.partition(":")[0].rpartition(".")[0].rpartition(".")
        return cls(host, int(pid)) if host and pid.isdigit() else None


class Holdings:
    """Messages held by this process. Acks come from any thread; taking belongs to the consumer's thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may interrupt the thread that holds it
        self._acks: list[str] = []
        self._counter = itertools.count()
        #: As `Tag` reads it.
        self._prefix = f"{socket.gethostname()}.{os.getpid()}.{process_id()}"
        self.held: dict[str, None] = {}
        #: Any client of this broker, for the last acks of a shutdown.
        self.client: redis.Redis | None = None
        #: True when this process stops: nothing more is taken.
        self.closed = False
        #: Messages given back to their queues so far (count).
        self.handed_back = 0
        #: When the data plane's loop last renewed (monotonic).
        self.renewed_at_s = -math.inf

    @property
    def is_renewed_by_loop(self) -> bool:
        """True while the data plane's loop renews; else kombu's timer does."""
        return time.monotonic() - self.renewed_at_s < 1.5 * RENEW_EVERY_S

    def next_prefix(self) -> str:
        """Return a prefix for the tags of one take: unique over all processes and takes."""
        return f"{self._prefix}:{next(self._counter)}:"

    def ack(self, tag: str) -> None:
        """Mark a message as finished; the next round trip tells Redis. Nothing happens when its lease was lost."""
        with self._lock:
            if self.held.pop(tag, tag) is None:
                self._acks.append(tag)

    def take_acks(self) -> list[str]:
        """Hand out the acks that Redis does not know yet. Give them back with `return_acks` if it did not hear."""
        with self._lock:
            acks, self._acks = self._acks, []
        return acks

    def return_acks(self, acks: list[str]) -> None:
        with self._lock:
            self._acks[:0] = acks

    def flush(self, client: redis.Redis) -> None:
        """Tell Redis about all acks, without taking anything."""
        acks = self.take_acks()
        if not acks:
            return
        try:
            run_script(client, TAKE, *take_call("", (), wanted=0, acks=acks))
        except BaseException:
            self.return_acks(acks)
            raise

    def lose(self, tags: Iterable[str]) -> None:
        """Forget messages whose lease ran out, and tell who works on them to stop."""
        lost = [tag for tag in tags if self.held.pop(tag, tag) is None]
        for slots in _watched:
            slots.lose(lost)


class Slots(Protocol):
    """Where tasks run on the data plane's loop, which alone renews their messages."""

    def has(self, tag: str) -> bool:
        """True while the task of the message with this tag runs."""
        ...

    def lose(self, tags: Sequence[str]) -> None:
        """Stop work on messages that somebody else may have by now."""
        ...


_watched: list[Slots] = []


def watch(slots: Slots) -> None:
    """Leave what runs in these slots to the loop, and tell them of lost leases."""
    _watched.append(slots)


def unwatch(slots: Slots) -> None:
    """Forget slots that are closed. Nothing happens when they were not watched."""
    if slots in _watched:
        _watched.remove(slots)


def is_in_slot(tag: str) -> bool:
    """True for a message whose task runs on the data plane's loop."""
    return any(slots.has(tag) for slots in _watched)


#: Holdings by broker address. A process has one broker, but many connections to it over its life.
_HOLDINGS: dict[str, Holdings] = {}


def holdings_of(address: str) -> Holdings:
    """Return this process's holdings at a broker."""
    return _HOLDINGS.setdefault(address, Holdings())


def all_holdings() -> list[Holdings]:
    """Return this process's holdings at all brokers: one in a worker."""
    return list(_HOLDINGS.values())


def is_lost(tag: str | None) -> bool:
    """True for the tag of a message that this process took and has no lease on any more."""
    return tag is not None and bool(_HOLDINGS) and not any(tag in holdings.held for holdings in all_holdings())


def flush_all_acks() -> None:
    """Tell the broker what is acknowledged, during a shutdown: nothing is taken any more, which would tell it."""
    for holdings in all_holdings():
        if holdings.client is not None:
            holdings.flush(holdings.client)


def take_call(
    ours: str,
    waiting: Sequence[str],
    *,
    wanted: int,
    guarded: int = 0,
    prefix: str = "",
    steps: Sequence[str] = (),
    served: Iterable[str] = (),
    acks: Sequence[str] = (),
    queues: Iterable[str] = (),
) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `take.lua`, where each is described; with `wanted` 0 it only acknowledges."""
    return TAKE.call(
        unacked=keys.unacked(), index=keys.unacked_index(), bell=keys.bell(), ours=ours, waiting=waiting,
        wanted=wanted, guarded=guarded, prefix=prefix, gate_prefix=keys.gate(""), separator=PRIORITY_SEPARATOR,
        acks=len(acks), rest=(*steps, *served, *acks, *queues),
    )  # fmt: skip


def renew_call(tags: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `renew_messages.lua`."""
    return RENEW.call(index=keys.unacked_index(), tags=tags)


def restore_call(
    tags: Sequence[str] = (), *, lease_s: float = LEASE_S, most: int = 5000
) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `restore.lua`: a sweep, or (with tags) a handing back."""
    return RESTORE.call(
        unacked=keys.unacked(), index=keys.unacked_index(), bell=keys.bell(), swept=keys.swept(), poison=keys.poison(),
        lease_s=lease_s, most=most, deaths=POISON_AFTER, deaths_prefix=keys.deaths(""), deaths_life_s=DEATHS_LIFE_S,
        quiet_s=lease_s * QUIET_LEASES, tags=tags,
    )  # fmt: skip
