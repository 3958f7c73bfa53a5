"""Flows: what waits in one list by tenant, so that takes are fair over tenants, by weight, within a priority.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with a cost of one for each task: every flow has a start
tag, the least one is served and moves on by one over its weight; who comes new starts at the least. It bounds how far
two tenants may be apart as deficit round robin does (Shreedhar and Varghese, SIGCOMM 1995), without a round through
tenants that have nothing to do. What has no tenant is a flow like others.

A list of kombu keeps its length: each message in a flow leaves a place holder there, so Flower, KEDA, exporters and
Fleet's own figures count as ever, and a worker of a release that knows no flows passes over it. Producers name the flow
in the message's header, and queue it there (`enter.lua`); a take asks for it (`next_of_flows.lua`) only where a queue
has flows: fleets without tenants pay nothing.

Weakness: a task counts as one, however long or dear it is: budgets and the shares of limits count tokens. What plain
Celery clients queue waits in order of arrival until it is met. Nothing is shared over queues or priorities.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import redis

from fleet.engine.messages.envelope import from_plain_json
from fleet.engine.messages.expiry import ISO_TIME
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.store import flow_keys
from fleet.store.client import Script

BEGIN = Script.beside(__file__, "begin_flow.lua", keys="ring beside", argv="name flag weights")
ENTER = Script.beside(
    __file__,
    "enter.lua",
    keys="epochs",
    argv="side list message flow separator fair mark_prefix",
    using=[BEGIN],
)
NEXT = Script.beside(
    __file__,
    "next_of_flows.lua",
    keys="list epochs ends",
    argv="most weighted first separator fair priorities mark_prefix queue has_quick_pops",
    using=[BEGIN, ISO_TIME],
)

#: The flow of what has no tenant.
NOBODYS = "-"
#: What stands in a list for a message in a flow, and where a message was withdrawn.
PLACE = b"withdrawn"
#: Hexadecimal digits of a flow's name: it is a digest, since tenants' names may be private.
DIGITS = 16
_NAME = re.compile(rf"[0-9a-f]{{{DIGITS}}}")


@lru_cache(maxsize=16384)
def flow_of(tenant: str) -> str:
    """Return the name of a tenant's flow."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:DIGITS]


def flow_in(fields: object) -> str:
    """Return the flow of a task, by the fields of its message; empty when it has no tenant."""
    tenant = fields.get("tenant") if isinstance(fields, Mapping) else None
    return flow_of(tenant) if isinstance(tenant, str) and tenant else ""


def flow_in_body(body: bytes) -> str:
    """Return the flow of a task by the body of its message, as `flow_in`."""
    if b'"tenant"' not in body:
        return ""
    try:
        return flow_in(from_plain_json(body)[1])
    except (ValueError, TypeError, LookupError):
        return ""


def routed(place: str, flow: object) -> str:
    """Return where `enqueue.lua` is to put a message: its list, and behind a newline its flow, if that is one."""
    return f"{place}\n{flow}" if flow and isinstance(flow, str) and _NAME.fullmatch(flow) else place


@dataclass(frozen=True, slots=True)
class TenantFlow:
    """What waits of one tenant in one list.

    Args:
        name: Of the flow; `NOBODYS`: of what has no tenant.
        place: The list.
        priority: Of the list.
        key: Where its messages lie.
    """

    name: str
    place: str
    priority: int
    key: str


def flows_of(client: redis.Redis, queues: Iterable[str]) -> dict[str, list[TenantFlow]]:
    """Return the flows of queues, the most urgent priority first, and of each the one whose turn is next; by queue.

    One round trip where there are none, else one more for each queue. Empty flows are among them; one that has an old
    part is there twice, that part first.
    """
    names = list(queues)
    having = client.mget([flow_keys.has(list_key(name, 0)) for name in names]) if names else []
    found: dict[str, list[TenantFlow]] = {}
    for name in (name for name, flag in zip(names, cast("list[Any]", having), strict=True) if flag is not None):
        with client.pipeline(transaction=False) as pipe:
            for step in PRIORITY_STEPS:
                pipe.zrange(flow_keys.ring(list_key(name, step)), 0, -1)
                pipe.smembers(flow_keys.olds(list_key(name, step)))
            told = pipe.execute()
        found[name] = [
            TenantFlow(flow.decode(), place, step, key(flow.decode(), place))
            for step, ring, olds in zip(PRIORITY_STEPS, told[::2], told[1::2], strict=True)
            for place in (list_key(name, step),)
            for flow in ring
            for key in ((flow_keys.old, flow_keys.flow) if flow in olds else (flow_keys.flow,))
        ]
    return found


def place_of(key: str) -> str | None:
    """Return the list whose flow lies under a key; None: it is no flow's."""
    parts = key.removeprefix(flow_keys.stem()).split(":", 2)
    return parts[2] if key.startswith(flow_keys.stem()) and parts[0] in ("flow", "old") else None


def parts_beside(key: str) -> tuple[str, str]:
    """Return the keys of both parts of a flow by one of them: the old part, which is served first, and the other."""
    name, place = key.removeprefix(flow_keys.stem()).split(":", 2)[1:]
    return flow_keys.old(name, place), flow_keys.flow(name, place)
