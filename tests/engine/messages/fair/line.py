"""One list with flows as takes and producers see it, and a plain model of it."""

from __future__ import annotations

import base64
import json
import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import redis

from fleet.config import load
from fleet.engine.messages.broker import enqueue
from fleet.engine.messages.fair.flows import NOBODYS, flow_of, routed
from fleet.engine.messages.producer import message_of
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.engine.transport import leases
from fleet.engine.transport.parking.parked import PUBLISH_LATER, publish_later_call
from fleet.engine.transport.rota import Rota
from fleet.models import BotTask
from fleet.store import flow_keys, keys
from fleet.store.client import run_script

QUEUE = "fleet.research"
STEP = 2
PLACE = list_key(QUEUE, STEP)
SETTINGS = load()
GONE = b"withdrawn"


def parts_of(name: str, tenant: str = "", **fields: Any) -> list[Any]:
    """Return what `enqueue.lua` takes for one task, whose prompt is its name."""
    task = BotTask(prompt=name, tenant=tenant, pool="research", priority="normal", **fields)
    return message_of(task, "research", None, 1.0)[1]


def put(client: redis.Redis, *names: str, tenant: str = "") -> None:
    """Queue tasks of one tenant as `submit_many` does."""
    enqueue(client, [part for name in names for part in parts_of(name, tenant)], SETTINGS)


def put_plainly(client: redis.Redis, name: str, tenant: str = "") -> None:
    """Queue a task as a release does that knows no flows."""
    client.lpush(PLACE, parts_of(name, tenant)[2])


def take(client: redis.Redis, wanted: int = 1) -> list[tuple[str, str]]:
    """Take tasks as a worker does; return tag and name of each."""
    found: list[tuple[str, str]] = []
    while True:
        call = Rota([QUEUE], PRIORITY_STEPS).take(
            wanted=wanted - len(found), guarded=0, prefix=leases.Holdings().next_prefix(), acks=()
        )
        reply: Any = run_script(client, leases.TAKE, call[1 : 1 + call[0]], call[1 + call[0] :])
        if len(reply) == 2:
            return found
        found += [(tag.decode(), name_in(text)) for tag, text in zip(reply[::3], reply[2::3], strict=True)]
        if len(found) == wanted:
            return found


def names(taken: Iterable[tuple[str, str]]) -> list[str]:
    return [name for _, name in taken]


def name_in(message: bytes) -> str:
    return str(json.loads(base64.b64decode(json.loads(message)["body"]))[1]["prompt"])


def restore(client: redis.Redis, tags: Sequence[str]) -> None:
    """Give messages back, as a worker that stops does."""
    run_script(client, leases.RESTORE, *leases.restore_call(tags))


def park(client: redis.Redis, *names: str, tenant: str = "") -> None:
    """Publish tasks for a time that comes at once, in this order."""
    for name in names:
        call = publish_later_call(QUEUE, PLACE, STEP, parts_of(name, tenant)[2], task_id=name, at=time.time() + 3600)
        run_script(client, PUBLISH_LATER, *call)
        client.zadd(keys.parked_order(QUEUE), {name: client.zcard(keys.parked_order(QUEUE))})
    client.zadd(keys.openings(), {QUEUE: 1})


def weigh(client: redis.Redis, **weights: float) -> None:
    client.hset(flow_keys.weights(), mapping={flow_of(tenant): weight for tenant, weight in weights.items()})


class Model:
    """What the scripts do, in plain Python. A task is (flow of its header or '', name)."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights = {flow_of(tenant): weight for tenant, weight in weights.items()}
        self.line: deque[tuple[str, str] | None] = deque()
        self.flows: dict[str, deque[tuple[str, str]]] = {}
        self.olds: dict[str, deque[tuple[str, str]]] = {}
        self.turns: dict[str, float] = {}
        self.has_flows = False

    @property
    def waiting(self) -> int:
        return sum(one is not None for one in self.line) + sum(map(len, (*self.flows.values(), *self.olds.values())))

    def put(self, name: str, tenant: str) -> None:
        self.enter((flow_of(tenant) if tenant else "", name))

    def put_plainly(self, name: str, tenant: str) -> None:
        self.line.appendleft((flow_of(tenant) if tenant else "", name))

    def enter(self, task: tuple[str, str], *, is_back: bool = False) -> None:
        flow = task[0] or NOBODYS
        if not self.has_flows and not task[0]:
            (self.line.append if is_back else self.line.appendleft)(task)
            return
        self.has_flows = True
        messages = (is_back and self.olds.get(flow)) or self.flows.setdefault(flow, deque())
        (messages.append if is_back else messages.appendleft)(task)
        (self.line.append if is_back else self.line.appendleft)(None)
        now = min(self.turns.values(), default=0.0)
        if flow not in self.turns:
            self.turns[flow] = now
        elif is_back:
            self.turns[flow] = max(now, self.turns[flow] - 1 / self.weights.get(flow, 1))

    def take(self, most: int) -> list[tuple[str, str]]:
        taken: list[tuple[str, str]] = []
        while len(taken) < most:
            found = self.next_of_flows(most - len(taken)) if self.has_flows else [self.line.pop()] if self.line else []
            if not found:
                break
            taken += [one for one in found if one is not None]
        return taken

    def next_of_flows(self, most: int) -> list[tuple[str, str] | None]:
        places = [self.line.pop() for _ in range(min(most, len(self.line)))]
        if places and None not in places and len(self.turns) < 2 and not self.has_any():
            self.dissolve()
            return places
        for place in filter(None, places):
            self.olds.setdefault(place[0] or NOBODYS, deque()).appendleft(place)
            self.turns.setdefault(place[0] or NOBODYS, min(self.turns.values(), default=0.0))
        found: list[tuple[str, str] | None] = []
        share = max(1, min(4, most // 4))
        while len(found) < most:
            if not self.turns:
                self.dissolve()
                return found + [None] * (len(places) - len(found))
            asked = max(2, math.ceil((most - len(found)) / share))
            some = set(sorted(self.turns, key=self.turn)[:asked])
            if len(some) == 1:
                found += self.serve(*some, most - len(found)) or self.leave(*some)
            else:
                self.serve_in_turn(some, found, most, share, are_all=len(some) < asked)
        return found

    def turn(self, flow: str) -> tuple[float, str]:
        return self.turns[flow], flow

    def serve_in_turn(
        self, some: set[str], found: list[tuple[str, str] | None], most: int, share: int, *, are_all: bool
    ) -> None:
        for _ in range(most if are_all else len(some)):
            if len(found) == most or len(some) == are_all:
                return
            flow = min(some, key=self.turn)
            served = self.serve(flow, 1 if are_all else min(share, most - len(found)))
            self.turns[flow] += len(served) * (1 / self.weights.get(flow, 1))
            found += served
            if not served:
                some.remove(flow)
                self.leave(flow)

    def leave(self, flow: str) -> list[tuple[str, str]]:
        del self.turns[flow]
        return []

    def serve(self, flow: str, count: int) -> list[tuple[str, str]]:
        parts = [part for part in (self.olds.get(flow), self.flows.get(flow)) if part is not None]
        waiting = [part for part in parts for _ in part]
        return [part.pop() for part in waiting[:count]]

    def has_any(self) -> bool:
        return any(self.flows.get(flow) or self.olds.get(flow) for flow in self.turns)

    def dissolve(self) -> None:
        self.turns.clear()
        self.has_flows = False


__all__ = ["GONE", "PLACE", "QUEUE", "SETTINGS", "Model", "routed"]
