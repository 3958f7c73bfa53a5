"""Who waits: what is in flows, by queue and tenant. For people and pages; tasks pay nothing for it.

There may be any number of tenants, and messages may be long: flows are looked at in steps, up to a number in all, and
of a message only its end is read.
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import redis

from fleet.engine.messages.envelope import QUEUED_AT
from fleet.engine.messages.fair.flows import NOBODYS, flow_of
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.store import flow_keys
from fleet.store.client import Script, run_script

COUNT = Script.beside(__file__, "count_flows.lua", keys="lists*", argv="fair turns*")
TAILS = Script.beside(__file__, "tails.lua", keys="lists*", argv="most enough")

#: Flows that are looked at in all, and in one step (count): a step holds Redis up for a millisecond or two.
FLOWS_MOST, FLOWS_AT_ONCE = 2000, 200
#: Lists of which one round trip asks how much there is of them (count).
LISTS_AT_ONCE = 500
#: Lists whose next messages are read in one step (count), and the bytes of whole messages that end it: 2 ms of Redis.
TAILS_AT_ONCE, BYTES_AT_ONCE = 50, 4_000_000
#: Bytes of a message that are read, the last ones: its headers, and of its body the part in which the tenant stands.
TAIL_BYTES = 16_384
#: What a tenant may be called (`BotTask`), where a body's end tells it; the last ones of those are tried (count).
_TENANT, _TENANTS_TRIED = re.compile(rb'"tenant": ?"([A-Za-z0-9_.-]{1,64})"'), 16
_QUEUED_AT = re.compile(rb'"%b": ?(\d{1,12}(?:\.\d{1,9})?)' % QUEUED_AT.encode())
#: Characters of a text that may be a body, in base64, at least.
_BODY_CHARS = 16


@dataclass(frozen=True, slots=True)
class WaitingFlow:
    """What waits of one tenant in one queue.

    Args:
        queue: Where.
        flow: Digest of the tenant's name; `NOBODYS`: of what has no tenant.
        count: Tasks of all priorities.
        keys: Where its next ones are, one list for each priority, the most urgent first.
    """

    queue: str
    flow: str
    count: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WhoWaits:
    """What waits of tenants in some queues.

    Args:
        flows: Those with the most tasks first.
        unseen: By queue, how many flows have not been looked at (one in two priorities counts twice, an empty one too).
        unseen_tasks: Tasks of those.
    """

    flows: Sequence[WaitingFlow] = ()
    unseen: Mapping[str, int] = field(default_factory=dict)
    unseen_tasks: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """What the next task of a flow says.

    Args:
        tenant: Its name; empty: nothing tells it.
        queued_at: Unix time, s; None: nothing tells it.
        bytes_read: Of messages, to know it.
    """

    tenant: str = ""
    queued_at: float | None = None
    bytes_read: int = 0


def read_waiting(broker: redis.Redis, queues: Iterable[str], *, most: int = FLOWS_MOST) -> WhoWaits:
    """Return who waits in which queue. One round trip where no queue has flows, else one more for each step.

    Args:
        broker: Plain client of the broker.
        queues: Their names.
        most: Flows to look at (count), shared among the lists evenly; of each those whose turns are next.
    """
    names = list(queues)
    flags: Any = broker.mget([flow_keys.has(list_key(name, 0)) for name in names]) if names else []
    lists = {
        list_key(name, step): name
        for name, flag in zip(names, flags, strict=True)
        if flag is not None
        for step in PRIORITY_STEPS
    }
    sizes = _sizes_of(broker, list(lists))
    shares = shared_out({place: size.flows for place, size in sizes.items()}, most)
    counts, places = defaultdict[tuple[str, str], int](int), defaultdict[tuple[str, str], list[str]](list)
    seen, unseen, unseen_tasks = dict.fromkeys(lists, 0), defaultdict[str, int](int), 0
    for (place, flow), (count, key) in _count(broker, shares).items():
        counts[lists[place], flow] += count
        places[lists[place], flow].append(key)
        seen[place] += count
    for place, share in shares.items():
        if share < sizes[place].flows:
            unseen[lists[place]] += sizes[place].flows - share
            unseen_tasks += max(0, sizes[place].tasks - seen[place])
    found = [WaitingFlow(queue, flow, count, tuple(places[queue, flow])) for (queue, flow), count in counts.items()]
    return WhoWaits(sorted(found, key=lambda one: (-one.count, one.queue, one.flow)), unseen, unseen_tasks)


def shared_out(wanted: Mapping[str, int], most: int) -> dict[str, int]:
    """Return what each gets of `most`: as much as it wants, or else as much as every other that wants more."""
    found, left = dict.fromkeys(wanted, 0), most
    for turn, name in enumerate(sorted(wanted, key=lambda name: wanted[name])):
        found[name] = min(wanted[name], left // (len(wanted) - turn))
        left -= found[name]
    return found


def read_heads(broker: redis.Redis, waiting: Sequence[WaitingFlow]) -> list[Head]:
    """Return what the next task of each says; of several priorities the one that was queued first."""
    keys, tails = [key for one in waiting for key in one.keys], list[tuple[bytes, float]]()
    while len(tails) < len(keys):
        some = keys[len(tails) : len(tails) + TAILS_AT_ONCE]
        told: Any = run_script(broker, TAILS, *TAILS.call(lists=some, most=TAIL_BYTES, enough=BYTES_AT_ONCE))
        tails += [(tail, told[0] / (len(told) - 1)) for tail in told[1:]]
    left = iter(tails)
    return [_oldest([_head(one.flow, *next(left)) for _ in one.keys]) for one in waiting]


def takes_for_one(broker: redis.Redis, key: str) -> float:
    """Return how many takes from a list there are for each one of a flow, by its key, while all that wait now do so."""
    name, place = key.removeprefix(flow_keys.stem()).split(":", 2)[1:]
    size = _sizes_of(broker, [place])[place]
    share = min(size.flows, FLOWS_MOST)
    flows = {flow for _, flow in _count(broker, {place: share})}
    weights = read_weights(broker) if size.flows > 1 else {}
    own = weights.get(name, 1.0)
    return (own + sum(weights.get(flow, 1.0) for flow in flows if flow != name) + size.flows - share) / own


def read_weights(broker: redis.Redis) -> dict[str, float]:
    """Return the weights of tenants by flow; all others weigh 1."""
    told = cast("dict[bytes, bytes]", broker.hgetall(flow_keys.weights()))
    return {flow.decode(): float(weight) for flow, weight in told.items()}


def names_of(waiting: Iterable[WaitingFlow], heads: Iterable[Head], known: Iterable[str]) -> dict[str, str]:
    """Return the names of tenants by flow: those that are known, and those that their tasks say."""
    told = {one.flow: head.tenant for one, head in zip(waiting, heads, strict=True) if head.tenant}
    return told | {flow_of(one): one for one in known}


def is_nobodys(flow: str) -> bool:
    """True for the flow of what has no tenant."""
    return flow == NOBODYS


@dataclass(frozen=True, slots=True)
class _Size:
    """How much there is of a list: flows, empty ones among them, and tasks."""

    flows: int
    tasks: int


def _sizes_of(broker: redis.Redis, places: Sequence[str]) -> dict[str, _Size]:
    found: dict[str, _Size] = {}
    for at in range(0, len(places), LISTS_AT_ONCE):
        some = places[at : at + LISTS_AT_ONCE]
        with broker.pipeline(transaction=False) as pipe:
            for place in some:
                pipe.zcard(flow_keys.ring(place))
                pipe.llen(place)
            told = pipe.execute()
        found |= {place: _Size(*size) for place, *size in zip(some, told[::2], told[1::2], strict=True)}
    return found


def _count(broker: redis.Redis, shares: Mapping[str, int]) -> dict[tuple[str, str], tuple[int, str]]:
    """Return what waits in so many flows of lists: list and flow -> tasks, and the key of the next one.

    Turns move while steps follow each other: a flow may be met twice, or missed.
    """
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for step in _steps(shares):
        lists, turns = [place for place, *_ in step], [turn for _, *both in step for turn in both]
        told: Any = run_script(broker, COUNT, *COUNT.call(lists=lists, fair=flow_keys.stem(), turns=turns))
        for place, rows in zip(lists, told, strict=True):
            for flow, count, key in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
                found[place, flow.decode()] = count, key.decode()
    return found


def _steps(shares: Mapping[str, int]) -> Iterator[list[tuple[str, int, int]]]:
    """Yield lists with the first and the last turn to look at, `FLOWS_AT_ONCE` of them in a step."""
    step, room = list[tuple[str, int, int]](), FLOWS_AT_ONCE
    for place, share in shares.items():
        at = 0
        while at < share:
            count = min(share - at, room)
            step.append((place, at, at + count - 1))
            at, room = at + count, room - count
            if room == 0:
                yield step
                step, room = [], FLOWS_AT_ONCE
    if step:
        yield step


def _oldest(heads: list[Head]) -> Head:
    times = [head.queued_at for head in heads if head.queued_at is not None]
    tenant = next((head.tenant for head in heads if head.tenant), "")
    return Head(tenant, min(times, default=None), sum(head.bytes_read for head in heads))


def _head(flow: str, tail: bytes, bytes_read: float) -> Head:
    """Return what a message says by its end, which nobody decodes: somebody else may have queued it, or sealed it."""
    times = _QUEUED_AT.findall(tail)
    return Head(_tenant_in(tail, flow), float(times[-1]) if times else None, round(bytes_read))


def _tenant_in(tail: bytes, flow: str) -> str:
    """Return the tenant whose flow it is, if the end of a message's body tells it: its digest proves it."""
    for text in (part for part in tail.split(b'"') if len(part) >= _BODY_CHARS):
        try:
            body = base64.b64decode(text[len(text) % 4 :], validate=True)  # in fours from its end: it may be cut
        except ValueError:
            continue
        for name in _TENANT.findall(body)[-_TENANTS_TRIED:]:
            if flow_of(name.decode()) == flow:
                return str(name.decode())
    return ""
