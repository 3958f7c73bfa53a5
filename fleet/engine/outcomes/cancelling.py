"""Cancelling tasks that wait, by what they are: of a pool, of a tenant, with some metadata, or by their ids.

What waits is taken back from its list or parked set (`transport/withdrawal/`), so nothing is left for a worker to do,
closed gate or not. What a worker holds is marked as revoked: it does not begin, or begin again; stopping it while it
runs is its worker's work. By ids alone, and without a walk through queues: `revocation.py`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple, cast

import pydantic_core
import redis

from fleet.config import Settings
from fleet.engine.messages.envelope import TASK_NAME, is_usable
from fleet.engine.outcomes.backend import CLAIM_LOOK_S, ChordClaimed, never_wait
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.engine.outcomes.dead_letters import parts_of
from fleet.engine.outcomes.follow_ups import FollowUps, has_canvas, request_of
from fleet.engine.outcomes.results import before_of, life_of, spent_before
from fleet.engine.outcomes.revocation import store_revoked
from fleet.engine.outcomes.stored import Cancelled, read_result
from fleet.engine.transport.held import STRETCH
from fleet.engine.transport.leases import LEASE_S
from fleet.engine.transport.revoked import mark_revoked
from fleet.engine.transport.withdrawal.message_search import waiting_queues
from fleet.engine.transport.withdrawal.withdrawn import Withdrawn, acknowledge, withdraw, withdraw_matching
from fleet.errors import FleetError
from fleet.jobs import membership_of
from fleet.outcome import NOTHING_BEFORE
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.private.embedded import state_url
from fleet.store.running.brokers import Anywhere, each

logger = logging.getLogger("fleet.cancel")

#: Walks through the queues at most (count): what moves while one goes on is met by the next.
WALKS_MOST = 5
#: Seconds that the end of a canvas' task waits for another worker's claim on its chord.
CLAIM_S = LEASE_S / 2


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tasks: those to which all that is given applies.

    Args:
        pool: Of this pool.
        tenant: Of this tenant.
        metadata: With these values under these names; a value that is no text is compared as JSON.
        task_ids: With one of these ids; empty: any.
        job: Members of the job with this id.
    """

    pool: str | None = None
    tenant: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    task_ids: frozenset[str] = frozenset()
    job: str | None = None

    def is_whole(self, queue: str) -> bool:
        """True when every bot task of a queue is meant."""
        return self.pool is not None and queue == keys.queue(self.pool) and not self.looks_inside

    @property
    def looks_inside(self) -> bool:
        """True when a message must be read to tell whether its task is meant."""
        return bool(self.tenant is not None or self.metadata or self.task_ids or self.job)

    def matches(self, message: bytes, queue: str) -> bool:
        """True for a message, as it lies in that queue, of a bot task that is meant."""
        asked = asked_in(message)
        return asked is not None and self.applies(asked, queue.removeprefix(keys.queue("")))

    def applies(self, asked: AskedFor, pool: str) -> bool:
        """True for a task that is meant; it is of `pool`, unless it names one itself."""
        if self.task_ids and asked.task_id not in self.task_ids:
            return False
        if self.job is not None and not self._has_member(asked.task_id):
            return False
        fields = asked.fields
        if self.pool is not None and self.pool != (fields.get("pool") or pool):
            return False
        if self.tenant is not None and fields.get("tenant", "") != self.tenant:
            return False
        return self.has_metadata(fields.get("metadata") or {})

    def _has_member(self, task_id: object) -> bool:
        member = membership_of(task_id) if isinstance(task_id, str) else None
        return member is not None and member.job == self.job

    def has_metadata(self, given: Mapping[str, Any]) -> bool:
        """True for a task with this metadata."""
        return all(name in given and _is_value(given[name], value) for name, value in self.metadata.items())


class AskedFor(NamedTuple):
    """What a message of a bot task asks, as far as tasks are chosen by it: its headers and the task's own fields."""

    headers: Mapping[str, Any]
    fields: Mapping[str, Any]

    @property
    def task_id(self) -> object:
        return self.headers.get("id")


def asked_in(message: bytes) -> AskedFor | None:
    """Return what a message asks, as it lies in a queue; None: it is no bot task's, whoever takes it says so."""
    try:
        envelope = pydantic_core.from_json(message)
        headers = envelope["headers"]
        if headers["task"] != TASK_NAME or "id" not in headers:
            return None
        body = envelope["body"]
        raw = base64.b64decode(body) if envelope["properties"].get("body_encoding") == "base64" else body
        return AskedFor(headers, fields_in(raw))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def fields_in(body: bytes | str) -> dict[str, Any]:
    """Return a task's own fields, from the body of its message: [args, kwargs, canvas].

    Raises:
        ValueError, TypeError, KeyError: When it is none.
    """
    args, kwargs = json.loads(body)[:2]
    return {**(args[0] if args and isinstance(args[0], dict) else {}), **kwargs}


def _is_value(given: object, wanted: str) -> bool:
    return given == wanted or (not isinstance(given, str) and json.dumps(given) == wanted)


@dataclass(frozen=True, slots=True)
class Tally:
    """What a cancel met: how many waited and never start, and which were held by workers."""

    waiting: int
    held: tuple[str, ...]


class Canceller:
    """Ends tasks that wait. Blocks.

    Args:
        broker: Client of the Redis with the messages.
        state: Client of the Redis with the results.
        settings: Pools, and how long results live.
        follow_ups: Tells canvases.
    """

    def __init__(self, broker: Anywhere, state: redis.Redis, settings: Settings, follow_ups: FollowUps) -> None:
        self._broker = broker
        self._state = state
        self._settings = settings
        self._follow_ups = follow_ups

    def cancel(self, selection: Selection) -> Tally:
        """Keep what is meant from starting, wherever it waits. Safe to repeat. O(tasks that wait), in small steps.

        Raises:
            redis.RedisError: When Redis does not answer; what has ended by then stays so.
        """
        waiting, held = 0, dict[str, None]()
        for _ in range(WALKS_MOST):
            # Marked before the queues are walked through: what its worker gives back meanwhile is met there, or later.
            new = [task_id for task_id in self._held(selection) if task_id not in held]
            mark_revoked(self._broker, new)
            held.update(dict.fromkeys(new))
            found = sum(self.end(some) for some in self._withdrawn(selection))
            waiting += found
            if not found and not new:
                break
        return Tally(waiting, tuple(held))

    def count(self, selection: Selection) -> Tally:
        """Return what `cancel` would meet, and change nothing."""
        waiting = 0
        for queue in self._queues(selection):
            walk = withdraw_matching(self._broker, queue, lambda m, q=queue: selection.matches(m, q), is_meant=False)  # type: ignore[misc]
            waiting += sum(len(stretch.found) for stretch in walk)
        return Tally(waiting, tuple(dict.fromkeys(self._held(selection))))

    def end(self, found: Sequence[Withdrawn], *, reason: str = "revoked") -> int:
        """Give withdrawn tasks the result REVOKED, count what they have cost, tell who follows; return their number.

        Args:
            found: Their messages.
            reason: What `get()` says: `revoked`, or `expired`.
        """
        parts = [(one, *parts_of(one.message)) for one in found]
        named = [(one, headers, body) for one, headers, body in parts if is_usable(headers.get("id"))]
        # With its key a task may be submitted again, and its result then goes: that is known by its mark.
        mark_revoked(self._broker, [headers["id"] for one, headers, _ in named if one.message.startswith(b'{"mark":"')])
        ids = list(dict.fromkeys(headers["id"] for _, headers, _ in named if not headers.get("ignore_result")))
        ended = store_revoked(self._state, ids, self._settings, reason=reason)
        self._count({headers["id"]: headers for _, headers, _ in named})
        untold = {one.tag for one, headers, body in named if not self._is_told(headers, body, reason)}
        acknowledge(self._broker, [one for one in found if one.tag not in untold])
        return len(ended)

    def _withdrawn(self, selection: Selection) -> Iterator[Sequence[Withdrawn]]:
        for queue in self._queues(selection):
            if selection.is_whole(queue):
                walk = withdraw(self._broker, queue, "all")
            else:
                walk = withdraw_matching(self._broker, queue, lambda m, q=queue: selection.matches(m, q))  # type: ignore[misc]
            yield from (stretch.found for stretch in walk if stretch.found)

    def _queues(self, selection: Selection) -> list[str]:
        return waiting_queues(self._broker, self._settings, selection.pool)

    def _held(self, selection: Selection) -> Iterator[str]:
        """Yield the ids of the tasks that are meant and whose messages workers hold."""
        found = (client.hscan_iter(keys.unacked(), count=STRETCH) for client in each(self._broker))
        for _, entry in chain.from_iterable(found):
            place, _, message = bytes(entry).partition(b"\n")
            queue = place.decode().removeprefix(keys.lists("")).partition("\x06\x16")[0]
            if selection.matches(message, queue):
                yield str(parts_of(message)[0]["id"])

    def _count(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Count what revoked tasks, by their headers, have cost before they were parked; once, whoever else does.

        So whoever dies right here is made up for by who ends them next: their messages come back. One that has a typed
        result was counted with that.
        """
        spent = {
            task_id: before for task_id, headers in found.items() if (before := before_of(headers)) != NOTHING_BEFORE
        }
        if not spent:
            return
        stored = cast("list[bytes | None]", self._state.mget([keys.result(task_id) for task_id in spent]))
        ends = [
            Finish(spent_before(task_id, before), provider_errors=before.failed, revoked=life_of(found[task_id]))
            for (task_id, before), raw in zip(spent.items(), stored, strict=True)
            if read_result(raw) is None
        ]
        asyncio.run(self._finish(ends))

    async def _finish(self, spent: Sequence[Finish]) -> None:
        store = Store(state_url(self._settings), timeout_s=self._settings.redis.socket_timeout_s)
        try:
            finisher = Finisher(store, self._settings)
            await asyncio.gather(*(finisher.finish(end) for end in spent))
        finally:
            await store.close()

    def _is_told(self, headers: Mapping[str, Any], body: bytes, reason: str) -> bool:
        """True once what follows a task has heard of its end; else its message comes back, and a worker tells."""
        request, task_id = request_of(headers, body), headers["id"]
        if not has_canvas(request):
            return True
        never_wait()  # for another worker's claim: it is waited for here
        until = time.monotonic() + CLAIM_S
        while True:
            try:
                self._follow_ups.send_once(task_id, request, Cancelled(reason), is_repeat=False)
                return True
            except ChordClaimed:
                if time.monotonic() > until:
                    return False
                time.sleep(CLAIM_LOOK_S)
            except FleetError as error:
                logger.warning("canvas not told task=%s error=%s: a worker tells it", task_id, error)
                return False
