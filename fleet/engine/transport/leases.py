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
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import redis

from fleet.engine.messages import weight
from fleet.engine.messages.envelope import TASK_NAME
from fleet.engine.messages.expiry import ISO_TIME
from fleet.engine.messages.fair.flows import ENTER, NEXT
from fleet.engine.messages.queues import PRIORITY_SEPARATOR
from fleet.engine.transport.parking.parked import OPEN
from fleet.store import flow_keys, keys
from fleet.store.client import Script, run_script
from fleet.store.running.brokers import MAIN

TAKE = Script.beside(
    __file__,
    "take.lua",
    keys="unacked index bell suspects ours parked openings epochs revoked over ends waiting*",
    argv="wanted guarded prefix gate_prefix separator list_prefix mark mark_prefix order_prefix waiting_prefix "
    "most_bytes kept_bytes cut_mark bot_task fair acks shut rest*",
    using=[OPEN, ISO_TIME, NEXT],
)
RENEW = Script.beside(__file__, "renew_messages.lua", keys="index", argv="tags*")
RESTORE = Script.beside(
    __file__,
    "restore.lua",
    keys="unacked index bell suspects epochs",
    argv="lapsed_s life_s mark bot_task now mark_prefix separator fair held*",
    using=[ENTER],
)

#: Seconds after which a message that its worker no longer renews goes back to its queue. With the sweep's interval
#: on top, a dead worker's messages are back within 13 s.
LEASE_S = 10
#: Seconds between two renewals, and between two sweeps: three may fail before a lease runs out.
RENEW_EVERY_S = LEASE_S / 4
#: Seconds after which a process whose machine was full tries to hold one message more.
WIDEN_EVERY_S = 2.0
#: Slots that tasks of one pool may wait in after they have begun, or whose calls hang: one in so many. Those beyond are
#: lent to others.
WAITING_SHARE = 4
#: So many times as many slots as there are may be lent for tasks whose calls hang, for several APIs may hang at once;
#: and so many more for each of their pools: probes of a breaker hang as well (86 at a time-out of two minutes).
HANGING_TIMES, HANGING_PROBES = 2, 120
#: Tasks that are held beyond few slots because others wait in them for company (count).
MOST_EXTRA = 3
#: Unreadable messages kept for a look, the newest ones (count).
UNREADABLE_KEPT = 1000
#: How the delivery tag of a message ends that is suspect: the process that had it before died while its task ran.
SUSPECT = ":suspect"
#: Stands before the id of a process that is gone when nobody noted whether its task had begun.
UNKNOWN = "?"

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


def is_suspect(tag: str | None) -> bool:
    """True for the tag of a message whose task runs apart from others."""
    return tag is not None and tag.endswith(SUSPECT)


class Hung(NamedTuple):
    """Tasks of a queue whose calls hang.

    Args:
        tasks: How many.
        telling: Those that tell what one more would meet: not those of a silence that has ended, and none where an open
            breaker lets a few try, which must get a slot.
        is_silent: Their API answers nothing.
    """

    tasks: int
    telling: int
    is_silent: bool


#: Numbers the takes of this process, whatever broker they go to: a tag is also the token of a bot's checkout.
_takes = itertools.count()


class Holdings:
    """Messages held by this process. Acks come from any thread; taking belongs to the consumer's thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may interrupt the thread that holds it
        self._acks: list[str] = []
        #: As `held.py: Tag` reads it.
        self._prefix = f"{socket.gethostname()}.{os.getpid()}.{process_id()}"
        #: Prefixes of takes whose reply was lost: Redis may have filed messages under them.
        self.lost_takes: list[str] = []
        self.held: dict[str, None] = {}
        #: Name of the broker, as `redis.brokers` has it.
        self.broker = MAIN
        #: Messages that the take under way may bring (count); and whether nothing waited at the last one.
        self.asked, self.is_idle = 0, True
        #: Any client of this broker, for the last acks of a shutdown.
        self.client: redis.Redis | None = None
        #: True when this process stops: nothing more is taken.
        self.closed = False
        #: Messages given back to their queues so far (count).
        self.handed_back = 0
        #: Most messages to hold, since the machine had no room for more, and when that was (monotonic).
        self._narrow: tuple[int, float] | None = None
        #: Queue -> tasks of it that have begun and wait in their slots, if there are any.
        self.waiting: Mapping[str, int] = {}
        #: Queue -> tasks of it whose calls hang, if there are any.
        self.hanging: Mapping[str, Hung] = {}
        #: Queue -> tasks of it that wait in their slots for others to come, and until when none are wanted (monotonic).
        self.lonely: dict[str, int] = {}
        self.left: dict[str, float] = {}
        #: When this process's own thread last renewed (monotonic).
        self.renewed_at_s = -math.inf

    @property
    def is_renewed(self) -> bool:
        """True while this process renews in a thread of its own; else kombu's timer does."""
        return time.monotonic() - self.renewed_at_s < 1.5 * RENEW_EVERY_S

    def narrow(self) -> None:
        """Hold no more than now for a while: the machine has no room for the calls of more."""
        self._narrow = max(1, len(self.held)), time.monotonic()

    def room(self) -> float:
        """Return how many more may be held (count): any number, unless the machine was full a while ago."""
        if self._narrow is None:
            return math.inf
        most, since_s = self._narrow
        return most + (time.monotonic() - since_s) / WIDEN_EVERY_S - len(self.held)

    def lent(self, slots: int) -> tuple[int, frozenset[str]]:
        """Return how many messages may be held beyond the slots, and the queues from which none of them may come.

        A pool whose tasks all began before an outage would hold all slots until its end. What waits beyond its share
        lends its slot to tasks of other pools; at most as many are lent as there are slots. So does what hangs, and
        there its own pool gets some too, unless more of those that tell anything hang than its share, or, where the API
        answers others, than there are slots.

        Args:
            slots: Of this process.
        """
        if not self.waiting and not self.hanging:
            return 0, frozenset()
        most = slots // WAITING_SHARE
        beyond = {queue: count - most for queue, count in self.waiting.items() if count > most}
        shut = {queue for queue, hung in self.hanging.items() if hung.telling > (most if hung.is_silent else slots)}
        hanging = sum(max(0, hung.tasks - most) for hung in self.hanging.values())
        lent = min(slots, sum(beyond.values())) + min(
            HANGING_TIMES * slots + HANGING_PROBES * len(self.hanging), hanging
        )
        return lent, frozenset(shut.union(beyond))

    def extra(self, slots: int) -> int:
        """Return how many messages may be held beyond the slots, because tasks in them wait for others to come."""
        return min(sum(self.lonely.values()), max(slots, MOST_EXTRA)) if self.lonely else 0

    def shunned(self) -> frozenset[str]:
        """Return the queues from which nothing is wanted now."""
        if not self.left:
            return frozenset()
        now_s = time.monotonic()
        return frozenset(queue for queue, until_s in tuple(self.left.items()) if until_s > now_s)

    def next_prefix(self) -> str:
        """Return a prefix for the tags of one take: unique over all processes and takes."""
        return f"{self._prefix}:{next(_takes)}:"

    def ack(self, tag: str) -> None:
        """Mark a message as finished; the next round trip tells Redis. Nothing happens when its lease was lost."""
        with self._lock:
            if self.held.pop(tag, tag) is None:
                self._acks.append(tag)

    @property
    def has_acks(self) -> bool:
        """True while Redis does not know of all acks."""
        return bool(self._acks)

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

    def restore_lost(self, client: redis.Redis, *, most: int) -> int:
        """Put back at once what was taken by takes whose reply was lost, and return how many messages that were.

        Args:
            client: Of this broker.
            most: Messages that one take may have taken.
        """
        count = 0
        while self.lost_takes:
            tags = [f"{self.lost_takes[0]}{n}{mark}" for n in range(1, most + 1) for mark in ("", SUSPECT)]
            count += run_script(client, RESTORE, *restore_call(tags))[0]
            del self.lost_takes[0]
        return count

    def lose(self, tags: Iterable[str]) -> None:
        """Forget messages whose lease ran out, and tell who works on them to stop."""
        lost = [tag for tag in tags if self.held.pop(tag, tag) is None]
        for slots in _watched:
            slots.lose(lost)


class Slots(Protocol):
    """Where tasks run."""

    def lose(self, tags: Sequence[str]) -> None:
        """Stop work on messages that somebody else may have by now. From any thread."""
        ...


_watched: list[Slots] = []


def watch(slots: Slots) -> None:
    """Tell these slots of lost leases."""
    _watched.append(slots)


def unwatch(slots: Slots) -> None:
    """Forget slots that are closed. Nothing happens when they were not watched."""
    if slots in _watched:
        _watched.remove(slots)


#: Holdings by broker, its name and address: a process has many connections to each over its life.
_HOLDINGS: dict[str, Holdings] = {}


def holdings_of(address: str) -> Holdings:
    """Return this process's holdings at a broker."""
    return _HOLDINGS.setdefault(address, Holdings())


def all_holdings() -> list[Holdings]:
    """Return this process's holdings, one for each broker."""
    return list(_HOLDINGS.values())


def is_lost(tag: str | None) -> bool:
    """True for the tag of a message that this process took and has no lease on any more."""
    if tag is None or not _HOLDINGS:
        return False
    for holdings in tuple(_HOLDINGS.values()):  # noqa: SIM110 - asked for every task: no generator
        if tag in holdings.held:
            return False
    return True


def let_go(tag: str) -> None:
    """Forget a message that this process has put back: it is nobody's, and there is nothing to acknowledge."""
    for holdings in all_holdings():
        holdings.held.pop(tag, None)


def narrow() -> None:
    """Let this process take no more than it holds, and slowly more again: its machine has no files, ports or memory."""
    for holdings in all_holdings():
        holdings.narrow()


def lend(waiting: Mapping[str, int], hanging: Mapping[str, Hung] = MappingProxyType({})) -> bool:
    """Note whose slots may be lent; True when that has changed. From any thread.

    Args:
        waiting: How many tasks of each queue have begun and wait in their slots.
        hanging: Those of each queue that wait for calls that hang.
    """
    changed = [one for one in all_holdings() if (one.waiting, one.hanging) != (waiting, hanging)]
    for holdings in changed:
        holdings.waiting, holdings.hanging = waiting, hanging
    return bool(changed)


def make_room(queue: str, tasks: int) -> bool:
    """Note how many tasks of a queue wait in their slots for others to come; True when that are more now."""
    grown = False
    for holdings in all_holdings():
        before = holdings.lonely.get(queue, 0)
        grown = grown or tasks > before
        holdings.lonely = {name: count for name, count in {**holdings.lonely, queue: tasks}.items() if count}
    return grown


def leave(queue: str, seconds: float) -> None:
    """Take nothing from a queue for so long; 0: take from it again."""
    until_s = time.monotonic() + seconds
    for holdings in all_holdings():
        holdings.left = {name: at for name, at in {**holdings.left, queue: until_s}.items() if name != queue or seconds}


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
    shut: Iterable[str] = (),
    queues: Iterable[str] = (),
) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `take.lua`, where each is described; with `wanted` 0 it only acknowledges."""
    return TAKE.call(
        unacked=keys.unacked(), index=keys.unacked_index(), bell=keys.bell(), suspects=keys.suspects(), ours=ours,
        parked=keys.parked(), openings=keys.openings(), epochs=keys.epochs(), revoked=keys.revoked(), over=keys.over(),
        ends=keys.ends(), waiting=waiting,
        wanted=wanted, guarded=guarded, prefix=prefix, gate_prefix=keys.gate(""), separator=PRIORITY_SEPARATOR,
        list_prefix=keys.lists(""), mark=SUSPECT, mark_prefix=keys.submitted(""), order_prefix=keys.parked_order(""),
        waiting_prefix=keys.waiting(""), most_bytes=weight.MAX_MESSAGE_BYTES, kept_bytes=weight.CUT_BYTES,
        cut_mark=weight.CUT_MARK, bot_task=f'"{TASK_NAME}"', fair=flow_keys.stem(), acks=len(acks),
        shut=len(closed := tuple(shut)),
        rest=(*steps, *served, *acks, *closed, *queues),
    )  # fmt: skip


def renew_call(tags: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `renew_messages.lua`."""
    return RENEW.call(index=keys.unacked_index(), tags=tags)


def restore_call(
    tags: Iterable[str], *, lapsed_s: float = 0, dead: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `restore.lua`.

    Args:
        tags: Of the messages to put back.
        lapsed_s: Only those that nobody has renewed for so long; 0: all, because their holder gives them back.
        dead: Tag -> id of the process that died while the task ran: it becomes a suspect; `UNKNOWN` before the id
            when only a bot's task would be known to have begun.
    """
    return RESTORE.call(
        unacked=keys.unacked(), index=keys.unacked_index(), bell=keys.bell(), suspects=keys.suspects(),
        epochs=keys.epochs(), mark_prefix=keys.submitted(""),
        lapsed_s=lapsed_s, life_s=keys.STATE_TTL_S, mark=SUSPECT, bot_task=f'"{TASK_NAME}"',
        now=datetime.now(UTC).isoformat(), separator=PRIORITY_SEPARATOR, fair=flow_keys.stem(),
        held=[part for tag in tags for part in (tag, dead.get(tag, ""))],
    )  # fmt: skip
