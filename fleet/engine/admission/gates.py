"""Gates and backlogs of queues, for people: what waits, what may be taken, pausing and resuming a pool.

A gate is one key of the broker that `take.lua` reads with every take; tasks behind a closed gate wait in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis

from fleet.engine.messages import queues
from fleet.errors import StoreError
from fleet.models import Priority
from fleet.quoting import duration, quote
from fleet.store import flow_keys, keys
from fleet.store.client import Script, run_script_each
from fleet.store.running.brokers import MAIN, Anywhere, Brokers, at_each, by_home, each
from fleet.waits import Wait

BACKLOG = Script.beside(__file__, "backlog.lua", keys="lists*", argv="fair endings*")

#: Queues that are read in one step (count): half a millisecond of Redis.
QUEUES_A_STEP = 50
#: Lists of the queue without a name, and the priorities of what waits in them.
_LISTS = queues.lists_of("")
#: Value of a gate that lets nothing through.
CLOSED = -1


@dataclass(frozen=True, slots=True)
class Gate:
    """What may be taken from a queue.

    Args:
        lowest: The least urgent priority that may be taken, or `CLOSED`.
        left_s: Seconds until the gate opens by itself; None: it stays.
        room: How many more tasks of each priority may be taken before more calls wait under the limit than it answers
            soon, the most urgent first; None: nothing is known to wait (`late_binding.py`).
        hold: Fleet's own gate beside the operator's (`holds.py`); None: there is none.
    """

    lowest: int = Priority.BULK.value
    left_s: float | None = None
    room: tuple[int, ...] | None = None
    hold: Wait | None = None

    @property
    def is_open(self) -> bool:
        """True when the operator lets everything be taken."""
        return self.lowest >= Priority.BULK.value

    def stops(self, priority: int) -> bool:
        """True when tasks of this priority wait, for the operator or behind a hold."""
        return priority > self.lowest or (self.hold is not None and priority > self.hold.lowest)

    def waits_for_limit(self, priority: int) -> bool:
        """True when tasks of this priority wait because enough calls wait under the limit already."""
        return self.room is not None and self.room[priority] <= 0

    def __str__(self) -> str:
        if self.is_open and self.hold is not None:
            return f"held, {self.hold}"
        if self.is_open:
            return "open" if self.room is None else "waiting on limit"
        name = "closed" if self.lowest < 0 else f"{Priority(self.lowest).name.lower()} and above"
        return name if self.left_s is None else f"{name}, for {duration(round(self.left_s))}"


#: The gate of a queue that has none.
OPEN_GATE = Gate()


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in one queue.

    Args:
        counts: Number of tasks by priority, the most urgent first.
        oldest_at: Unix time in seconds at which the oldest of the next tasks was queued; None: nothing waits, or no
            producer said so.
    """

    counts: tuple[int, ...]
    oldest_at: float | None

    @property
    def total(self) -> int:
        return sum(self.counts)


#: Of a queue in which nothing waits.
NOTHING_WAITS = Waiting((0,) * len(Priority), None)


def set_gate(broker: Anywhere, queue: str, *, lowest: int, for_s: float | None = None) -> None:
    """Let only tasks of priority `lowest` and above be taken from a queue; at most for `for_s` seconds."""
    set_gates(broker, [queue], lowest=lowest, for_s=for_s)


def set_gates(broker: Anywhere, names: Iterable[str], *, lowest: int, for_s: float | None = None) -> None:
    """Do as `set_gate` to queues, in one step: all of them or none.

    Of several brokers each gets all gates, for any of them may still have tasks of a pool; in one step each.
    """
    shut = list(names)
    for client in _with_homes(broker, shut):
        with client.pipeline(transaction=True) as pipe:
            for queue in shut:
                pipe.set(keys.gate(queue), str(lowest), px=None if for_s is None else max(1, round(for_s * 1000)))
            _announce(pipe, shut)
            pipe.execute()


def _with_homes(broker: Anywhere, names: Iterable[str]) -> Sequence[redis.Redis]:
    """Return all brokers' clients; those of the queues must be among them."""
    by_home(broker, names)
    return each(broker)


def open_gate(broker: Anywhere, queue: str) -> bool:
    """Let everything be taken again, at once; False when the gate was open."""
    return open_gates(broker, [queue])[0]


def open_gates(broker: Anywhere, names: Iterable[str]) -> list[bool]:
    """Do as `open_gate` to queues, in one step: all or none; for each of them False when its gate was open."""
    shut, were_closed = list(names), set[str]()
    for client in _with_homes(broker, shut):
        with client.pipeline(transaction=True) as pipe:
            for queue in shut:
                pipe.delete(keys.gate(queue))
            _announce(pipe, shut)
            pipe.xadd(keys.bell(), {"x": 1}, maxlen=1, approximate=False)
            were_closed.update(queue for queue, count in zip(shut, pipe.execute(), strict=False) if count)
    return [queue in were_closed for queue in shut]


def _announce(pipe: redis.client.Pipeline, names: Sequence[str]) -> None:
    """Have takes look at the queues' lists: they have struck them off while their gates were closed."""
    for step in queues.PRIORITY_STEPS if names else ():
        pipe.zadd(keys.waiting(step), dict.fromkeys(names, 0))


def read_gates(broker: Anywhere, names: Iterable[str]) -> list[Gate]:
    """Return the gates of queues. One round trip, and another one for those that an operator has set.

    Raises:
        StoreError: When a gate holds something that isn't a number.
    """
    queues_of = list(names)
    if isinstance(broker, Brokers):
        found = {
            queue: gate
            for one, some in _reachable(broker, queues_of)
            for queue, gate in zip(some, read_gates(one, some), strict=True)
        }
        return [found[queue] for queue in queues_of]
    with broker.pipeline(transaction=False) as pipe:
        for some in batched(queues_of, QUEUES_A_STEP):
            pipe.mget([key for name in some for key in (keys.gate(name), keys.room(name), keys.hold(name))])
        values = [value for of_some in pipe.execute() for value in of_some]
        gates = values[::3]
        for name, gate in zip(queues_of, gates, strict=True):
            if gate is not None:
                pipe.pttl(keys.gate(name))
        left_ms = iter(pipe.execute())
    return [
        _gate(gate, next(left_ms) if gate is not None else -1, room, hold)
        for gate, room, hold in zip(gates, values[1::3], values[2::3], strict=True)
    ]


def _added(parts: Sequence[list[Waiting]]) -> list[Waiting]:
    """Add up what waits in the same queues at several brokers."""
    return [
        Waiting(
            tuple(map(sum, zip(*(one.counts for one in of_queue), strict=True))),
            min((one.oldest_at for one in of_queue if one.oldest_at is not None), default=None),
        )
        for of_queue in zip(*parts, strict=True)
    ]


@at_each(_added)
def read_waiting(broker: redis.Redis, names: Iterable[str]) -> list[Waiting]:
    """Return what waits in queues. One round trip, O(queues), in steps that hold Redis up for a moment only."""
    return waiting_in(run_script_each(broker, BACKLOG, waiting_calls(names)))


def waiting_calls(names: Iterable[str]) -> list[tuple[list[str], list[str]]]:
    """Return KEYS and ARGV of `BACKLOG` for these queues, step by step."""
    endings = [key.removeprefix(keys.lists("")) for key, _ in _LISTS]
    return [
        BACKLOG.call(lists=map(keys.lists, some), fair=flow_keys.stem(), endings=endings)
        for some in batched(names, QUEUES_A_STEP)
    ]


def waiting_in(replies: Iterable[Any]) -> list[Waiting]:
    """Return what waits in each queue, from what `BACKLOG` replied step by step."""
    return [_waiting(row) if row else NOTHING_WAITS for rows in replies for row in rows]


def _reachable(broker: Brokers[redis.Redis], names: Iterable[str]) -> Iterator[tuple[redis.Redis, list[str]]]:
    """Yield the brokers that answer with the queues of which they tell: their own, the main one those of others too."""
    own: dict[str, list[str]] = {}
    for queue in names:
        name = broker.homes.get(queue, MAIN)
        own.setdefault(name if name in broker.clients else MAIN, []).append(queue)
    for name, some in own.items():
        yield broker.clients[name], some


def _gate(value: bytes | None, left_ms: int, room: bytes | None, held: bytes | None) -> Gate:
    rooms = tuple(max(0, int(number)) for number in room.split()[:-1]) if room else None
    hold = _hold(held) if held else None
    if value is None:
        return Gate(room=rooms, hold=hold)
    try:
        return Gate(int(value), left_ms / 1000 if left_ms >= 0 else None, rooms, hold)
    except ValueError as error:
        raise StoreError(f"gate: expected a priority number or -1, got {quote(value)}; `fleet pools resume`") from error


def _hold(text: bytes) -> Wait:
    """Return what a hold says; one that cannot be read stops the queue all the same."""
    try:
        return Wait.from_json(text)
    except (ValueError, TypeError):
        return Wait("configuration", told=f"a hold that this release cannot read: {quote(text)}")


def _waiting(row: Sequence[int | bytes]) -> Waiting:
    counts = dict.fromkeys(queues.PRIORITY_STEPS, 0)
    for place, length in zip(row[::3], row[1::3], strict=True):
        counts[_LISTS[int(place) - 1][1]] += int(length)
    return Waiting(tuple(counts.values()), min((float(at) for at in row[2::3] if at), default=None))


def batched(names: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    """Yield the names in parts of `size`, as itertools does from Python 3.12 on."""
    left = iter(names)
    while some := tuple(islice(left, size)):
        yield some
