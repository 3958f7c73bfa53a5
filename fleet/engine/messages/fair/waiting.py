"""Who waits: what is in flows, by queue and tenant. For people and pages; tasks pay nothing for it."""

from __future__ import annotations

import base64
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, cast

import redis

from fleet.engine.messages.envelope import QUEUED_AT, from_plain_json
from fleet.engine.messages.fair.flows import NOBODYS, flow_of
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.store import flow_keys
from fleet.store.client import Script, run_script

COUNT = Script.beside(__file__, "count_flows.lua", keys="lists*", argv="fair most")

#: Flows of one list that are looked at, those whose turns are next (count).
FLOWS_MOST = 2000
#: What a tenant may be called (`BotTask`): whoever queues by hand may write anything, and people print it.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


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
class Head:
    """What the next task of a flow says: its tenant (empty: nothing tells it), and when it was queued."""

    tenant: str = ""
    queued_at: float | None = None


def read_waiting(broker: redis.Redis, queues: Iterable[str]) -> list[WaitingFlow]:
    """Return who waits in which queue, the most tasks first. One round trip where no queue has flows, else two."""
    names = list(queues)
    flags: Any = broker.mget([flow_keys.has(list_key(name, 0)) for name in names]) if names else []
    lists = {
        list_key(name, step): name
        for name, flag in zip(names, flags, strict=True)
        if flag is not None
        for step in PRIORITY_STEPS
    }
    if not lists:
        return []
    told: Any = run_script(broker, COUNT, *_count_call(lists))
    counts, places = defaultdict[tuple[str, str], int](int), defaultdict[tuple[str, str], list[str]](list)
    for queue, (_, *rows) in zip(lists.values(), told, strict=True):
        for flow, count, key in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
            counts[queue, flow.decode()] += int(count)
            places[queue, flow.decode()].append(key.decode())
    found = [WaitingFlow(queue, flow, count, tuple(places[queue, flow])) for (queue, flow), count in counts.items()]
    return sorted(found, key=lambda one: (-one.count, one.queue, one.flow))


def read_heads(broker: redis.Redis, waiting: Collection[WaitingFlow]) -> list[Head]:
    """Return what the next task of each says; of several priorities the one that was queued first. One round trip."""
    with broker.pipeline(transaction=False) as pipe:
        for key in (key for one in waiting for key in one.keys):
            pipe.lindex(key, -1)
        messages = iter(pipe.execute())
    return [_oldest([_head(next(messages)) for _ in one.keys]) for one in waiting]


def takes_for_one(broker: redis.Redis, key: str) -> float:
    """Return how many takes from a list there are for each one of a flow, by its key, while all that wait now do so."""
    name, place = key.removeprefix(flow_keys.stem()).split(":", 2)[1:]
    (told,) = cast("list[Any]", run_script(broker, COUNT, *_count_call([place])))
    flows = [flow.decode() for flow in told[1::3]]
    weights = read_weights(broker) if len(flows) > 1 else {}
    own = weights.get(name, 1.0)
    return (own + sum(weights.get(flow, 1.0) for flow in flows if flow != name)) / own


def read_weights(broker: redis.Redis) -> dict[str, float]:
    """Return the weights of tenants by flow; all others weigh 1."""
    told = cast("dict[bytes, bytes]", broker.hgetall(flow_keys.weights()))
    return {flow.decode(): float(weight) for flow, weight in told.items()}


def names_of(waiting: Iterable[WaitingFlow], heads: Iterable[Head], known: Iterable[str]) -> dict[str, str]:
    """Return the names of tenants by flow: those that are known, and those that their tasks say."""
    told = {one.flow: head.tenant for one, head in zip(waiting, heads, strict=True) if head.tenant}
    return {flow: name for flow, name in told.items() if flow_of(name) == flow} | {flow_of(one): one for one in known}


def is_nobodys(flow: str) -> bool:
    """True for the flow of what has no tenant."""
    return flow == NOBODYS


def _count_call(lists: Iterable[str]) -> tuple[list[Any], list[Any]]:
    return COUNT.call(lists=lists, fair=flow_keys.stem(), most=FLOWS_MOST)


def _oldest(heads: list[Head]) -> Head:
    times = [head.queued_at for head in heads if head.queued_at is not None]
    return Head(next((head.tenant for head in heads if head.tenant), ""), min(times, default=None))


def _head(message: bytes | None) -> Head:
    """Return what a message says; nothing where it cannot be read: it was queued by somebody else, or is sealed."""
    try:
        told = json.loads(message or b"")
        at = told["headers"].get(QUEUED_AT)
        fields = from_plain_json(base64.b64decode(told["body"]))[1]
        tenant = fields.get("tenant")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return Head()
    is_time = isinstance(at, int | float) and not isinstance(at, bool)
    return Head(tenant if isinstance(tenant, str) and _NAME.fullmatch(tenant) else "", float(at) if is_time else None)
