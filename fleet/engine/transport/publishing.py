"""The publishing side of the transport: a message goes into its list, or waits in Redis until its time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any

from kombu.utils.json import dumps

from fleet import config
from fleet.engine.messages.broker import ENQUEUE, enqueue_call
from fleet.engine.messages.envelope import EXPIRES, FLOW
from fleet.engine.messages.fair.flows import routed
from fleet.engine.transport import leases, suspicion
from fleet.engine.transport.following import put_once, refused
from fleet.engine.transport.parking import parked
from fleet.engine.transport.prefixed import PrefixedChannel
from fleet.engine.transport.purge import purge
from fleet.store import keys
from fleet.store.client import run_script
from fleet.store.clock import CLOCK

#: How the queues of remote control's replies end: each client has its own, and nobody takes from many of them.
REPLIES = ".reply.celery.pidbox"


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
        info = self.connection.client
        return leases.holdings_of(f"{info.hostname}:{info.port}/{info.virtual_host}")

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
        if put_once(self.resident, place, message):
            return
        batch, later = kwargs.get("_publish_batch"), parked.time_of(message)
        if later is not None:
            self._put_later(queue, step, message, later, batch)
            if isinstance(headers.get(EXPIRES), float):
                self.resident.execute_command(*_end(queue, headers[EXPIRES]))
        elif batch is not None and not headers.get(FLOW):
            super()._put(queue, message, **kwargs)
            for command in _announced(queue, step, headers.get(EXPIRES)):
                batch.add("execute_command", *command)
        elif queue.endswith(REPLIES):
            super()._put(queue, message, **kwargs)
            self.resident.execute_command(*_announced(queue, step, None)[-1])
        else:
            self._put_now(place, message, batch)

    def _put_now(self, place: str, message: dict[str, Any], batch: Any) -> None:
        """Queue a message in one step: all or nothing, for a refused publish is repeated."""
        flow = (message.get("headers") or {}).get(FLOW)
        call = enqueue_call(["", routed(place, flow), dumps(message)], config.current())
        if batch is not None:
            batch.add("eval", ENQUEUE.text, len(call[0]), *call[0], *call[1])
            return
        with self._repeated_when_refused():
            run_script(self.resident, ENQUEUE, *call)

    def _put_later(self, queue: str, step: int, message: dict[str, Any], later: tuple[str, float], batch: Any) -> None:
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
            run_script(self.resident, parked.PUBLISH_LATER, *call)

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
        return purge(self.resident, queue, is_meant=False) + sum(
            waits.count for waits in parked.read_parked(self.resident, [queue])
        )

    def _purge(self, queue: str) -> int:
        """Remove what waits in a queue, also under other clients' priority steps, and suspicions of it."""
        purged = purge(self.resident, queue, is_meant=True) + parked.purge_parked(self.resident, queue)
        run_script(self.resident, suspicion.ABSOLVE, *suspicion.forget_call(queue))
        return purged
