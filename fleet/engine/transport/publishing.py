"""The publishing side of the transport: a message goes into its list, or waits in Redis until its time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from time import monotonic
from typing import Any

import redis
from kombu.utils.json import dumps

from fleet import config
from fleet.engine.messages.broker import ENQUEUE, broker, enqueue_call
from fleet.engine.messages.envelope import EXPIRES, FLOW
from fleet.engine.messages.fair.flows import routed
from fleet.engine.transport import leases, suspicion
from fleet.engine.transport.following import put_once, refused
from fleet.engine.transport.parking import parked
from fleet.engine.transport.prefixed import PrefixedChannel
from fleet.engine.transport.purge import purge
from fleet.engine.transport.several import branches
from fleet.store import keys
from fleet.store.client import run_script
from fleet.store.clock import CLOCK
from fleet.store.running.brokers import Brokers, each

#: How the queues of remote control's replies end: each client has its own, and nobody takes from many of them.
REPLIES = ".reply.celery.pidbox"


#: Seconds for which a broker that did not answer is not asked what waits there.
SILENT_S = 5.0


def _end(queue: str, over: float) -> tuple[Any, ...]:
    return "ZADD", keys.ends(), "LT", over, queue


def _announced(queue: str, step: int, over: object) -> list[tuple[Any, ...]]:
    """Return the commands that tell of a message that is pushed without a script, as `enqueue.lua` does."""
    waits = [] if queue.endswith(REPLIES) else [("ZADD", keys.waiting(step), 0, queue)]
    ends = [_end(queue, over)] if isinstance(over, float) else []
    return [*waits, *ends, ("XADD", keys.bell(), "MAXLEN", 1, "*", "x", 1)]


class _Bindings:
    """The client that kombu binds a queue with, its pipeline too; what it sets goes into one pipeline."""

    def __init__(self, pipe: Any) -> None:
        self.sadd = pipe.sadd

    def pipeline(self) -> AbstractContextManager[_Bindings]:
        return nullcontext(self)

    def execute(self) -> None:
        """Do nothing: the pipeline that it all goes into is sent at the end."""


class Publishing(PrefixedChannel):
    """A kombu channel that publishes in one step, rings the bell, and has what this process holds at this broker."""

    #: Gathers the bindings of queues while many are declared; and takes the place of the client while one is bound.
    _bindings: _Bindings | None = None
    _binding: _Bindings | None = None

    @cached_property
    def holdings(self) -> leases.Holdings:
        """What this process holds at this broker; kept here, so that a closed channel can still acknowledge."""
        info, broker = self.connection.client, self.connection.broker
        # By its name too: brokers that the same Sentinels watch have one address, that of a Sentinel.
        found = leases.holdings_of(f"{broker} {info.hostname}:{info.port}/{info.virtual_host}")
        found.broker = broker
        return found

    @cached_property
    def resident(self) -> Any:
        """The one client for everything but taking: redis-py's constructor costs more than a command."""
        self.holdings.client = client = self._create_client()
        return client

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        yield client or self._binding or self.resident

    @contextmanager
    def declaring(self) -> Iterator[None]:
        """Send the bindings of all queues that are declared in the block in one go, and do not count what waits there:
        a worker of a thousand pools would start with three round trips for each."""
        with self.resident.pipeline(transaction=False) as pipe:
            self._bindings = _Bindings(pipe)
            try:
                yield
            finally:
                self._bindings = None
            pipe.execute()

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Bind a queue, with others in one go while many are declared; not one with `expires`: kombu has a script."""
        self._binding = self._bindings if queue not in self._expires else None
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        finally:
            self._binding = None

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        step = self.priority(self._get_message_priority(message, reverse=False))
        place, headers = self._q_for_pri(queue, step), message.get("headers") or {}
        client, where = self._home(queue)
        if put_once(client, place, message, where=where):
            return
        batch, later = kwargs.get("_publish_batch"), parked.time_of(message)
        if later is not None:
            self._put_later(client, queue, step, message, later, batch if client is self.resident else None)
            if isinstance(headers.get(EXPIRES), float):
                client.execute_command(*_end(queue, headers[EXPIRES]))
        elif client is not self.resident:
            self._put_now(client, place, message, None)
        elif batch is not None and not headers.get(FLOW):
            super()._put(queue, message, **kwargs)
            for command in _announced(queue, step, headers.get(EXPIRES)):
                batch.add("execute_command", *command)
        elif queue.endswith(REPLIES):
            super()._put(queue, message, **kwargs)
            self.resident.execute_command(*_announced(queue, step, None)[-1])
        else:
            self._put_now(client, place, message, batch)

    def _home(self, queue: str) -> tuple[Any, Brokers[redis.Redis] | None]:
        """Return the client of a queue's broker, and all brokers if there are several."""
        where = broker().client if branches.known() else None
        if not isinstance(where, Brokers):
            return self.resident, None
        client = where.of(queue)
        return (self.resident if client is where.main else client), where

    def _put_now(self, client: Any, place: str, message: dict[str, Any], batch: Any) -> None:
        """Queue a message in one step: all or nothing, for a refused publish is repeated."""
        flow = (message.get("headers") or {}).get(FLOW)
        call = enqueue_call(
            ["", routed(place, flow), dumps(message)], config.current(), has_results=client is self.resident
        )
        if batch is not None:
            batch.add("eval", ENQUEUE.text, len(call[0]), *call[0], *call[1])
            return
        with self._repeated_when_refused():
            run_script(client, ENQUEUE, *call)

    def _put_later(
        self, client: Any, queue: str, step: int, message: dict[str, Any], later: tuple[str, float], batch: Any
    ) -> None:
        """Park a message until its time: no worker holds it meanwhile, and none need ask for its time again.

        What a worker publishes is `countdown` or reckoned from its now: where its clock is off, so is that time.
        """
        task_id, at = later[0], later[1] - (CLOCK.ahead_s if CLOCK.is_off else 0.0)
        text = dumps({**message, "headers": {**message["headers"], "eta": None}})
        call = parked.publish_later_call(queue, self._q_for_pri(queue, step), step, text, task_id=task_id, at=at)
        if batch is not None:
            batch.add("eval", parked.PUBLISH_LATER.text, len(call[0]), *call[0], *call[1])
            return
        with self._repeated_when_refused():
            run_script(client, parked.PUBLISH_LATER, *call)

    @contextmanager
    def _repeated_when_refused(self) -> Iterator[None]:
        """Have Celery publish again what a Redis that is full or read-only refuses; its error may quote the message."""
        try:
            yield
        except self.ResponseError as error:
            raise refused(error) from None

    def _size(self, queue: str) -> int:
        if self._bindings is not None:
            return 0
        return sum(_waiting_at(client, queue, may_be_away=client is not self.resident) for client in self._all())

    def _purge(self, queue: str) -> int:
        """Remove what waits in a queue, also under other clients' priority steps, and suspicions of it."""
        purged = 0
        for client in self._all():
            purged += purge(client, queue, is_meant=True) + parked.purge_parked(client, queue)
            run_script(client, suspicion.ABSOLVE, *suspicion.forget_call(queue))
        return purged

    def _all(self) -> Sequence[Any]:
        return each(broker().client) if branches.known() else (self.resident,)


#: Clients of brokers beside the main one that did not answer -> until when they are left out (monotonic).
_silent: dict[int, float] = {}


def _waiting_at(client: Any, queue: str, *, may_be_away: bool) -> int:
    """Count what waits in a queue at one broker. Celery asks for each queue as a worker starts: nobody may hang it."""
    if may_be_away and _silent.get(id(client), 0.0) > monotonic():
        return 0
    try:
        waiting = purge(client, queue, is_meant=False)
        return waiting + sum(waits.count for waits in parked.read_parked(client, [queue]))
    except (redis.ConnectionError, redis.TimeoutError):
        if not may_be_away:
            raise
        _silent[id(client)] = monotonic() + SILENT_S
        return 0
