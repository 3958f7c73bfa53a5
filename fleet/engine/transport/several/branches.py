"""The channels of a worker's connection that lead to the brokers beside the main one.

Each takes from all the queues that the main channel takes from: a pool's tasks may still be where it was before the
rule changed. They share the slots (`qos.py`) and the poller, and nothing else: a broker that does not answer is left
alone, looked for in a thread, and taken from again once it is back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from celery.utils.log import get_logger
from kombu import Connection

from fleet.errors import FleetError
from fleet.store.client import connect

logger = get_logger("fleet.transport")

#: Seconds between two looks for a broker that is away, and for one answer to such a look.
LOOK_AGAIN_S, LOOK_S = 1.0, 2.0


@dataclass(frozen=True, slots=True)
class BranchPlace:
    """Where one more broker is.

    Args:
        url: As Fleet's own clients take it.
        connection: Arguments of kombu's connection to it.
    """

    url: str = field(repr=False)
    connection: Mapping[str, Any] = field(repr=False)


_places: dict[str, BranchPlace] = {}


def know(places: Mapping[str, BranchPlace]) -> None:
    """Note where the brokers beside the main one are, by name. Celery's settings would show their passwords."""
    _places.clear()
    _places.update(places)


def known() -> bool:
    """True when there are brokers beside the main one."""
    return bool(_places)


class Branches:
    """The other brokers' channels beside one main channel. Belongs to the consumer's thread.

    Args:
        trunk: The main channel.
    """

    def __init__(self, trunk: Any) -> None:
        self._trunk = trunk
        #: Arguments of `basic_consume`, by consumer tag.
        self._consumers: dict[str, tuple[Any, ...]] = {}
        self._open: dict[str, Any] = {}
        #: Those that are looked for: whether one answers, None while nobody knows; and when to look again.
        self._answers: dict[str, bool | None] = {}
        self._next_look_s: dict[str, float] = dict.fromkeys(_places, 0.0)
        self._is_closed = False

    def consume(self, queue: str, no_ack: bool, callback: Callable[..., Any], tag: str) -> None:
        """Take from a queue at each broker."""
        self._consumers[tag] = (queue, no_ack, callback, tag)
        for channel in self._open.values():
            channel.basic_consume(*self._consumers[tag])

    def cancel(self, tag: str) -> None:
        """Take from a queue no longer."""
        if self._consumers.pop(tag, None) is not None:
            for channel in self._open.values():
                channel.basic_cancel(tag)

    def limit(self, prefetch_count: int) -> None:
        """Share the count of messages that the process may hold."""
        for channel in self._open.values():
            channel.qos.prefetch_count = prefetch_count

    def look(self) -> None:
        """Open what has answered, and look for what is away; never waits for one that does not answer."""
        for name, place in _places.items() if not self._is_closed else ():
            if name in self._open:
                continue
            if self._answers.get(name):
                self._answers.pop(name)
                self._begin(name, place)
            elif name not in self._answers and monotonic() >= self._next_look_s.get(name, 0.0):
                self._answers[name] = None
                threading.Thread(target=self._ask, args=(name, place), name="fleet-look", daemon=True).start()

    def lost(self, channel: Any, error: BaseException) -> None:
        """Give up a channel whose broker does not answer; what this process holds there runs on."""
        name = channel.broker
        if self._open.pop(name, None) is None:
            return
        logger.error(
            "broker away broker=%s error=%s: its tasks wait, those of other brokers go on", name, type(error).__name__
        )
        channel.abandon()
        self._next_look_s[name] = monotonic() + LOOK_AGAIN_S

    def close(self) -> None:
        """Hand back what has not started, and leave."""
        self._is_closed = True
        for channel in self._open.values():
            with suppress(*channel.connection_errors, channel.ResponseError):
                channel.close()
            channel.abandon()
        self._open.clear()

    def _ask(self, name: str, place: BranchPlace) -> None:
        """Look whether a broker answers; in a thread of its own."""
        try:
            connect(place.url, timeout_s=LOOK_S).close()
        except FleetError:
            self._next_look_s[name] = monotonic() + LOOK_AGAIN_S
            self._answers.pop(name, None)
        else:
            self._answers[name] = True

    def _begin(self, name: str, place: BranchPlace) -> None:
        transport: Any = Connection(**place.connection).transport
        transport.broker, transport.trunk = name, self
        transport.cycle = self._trunk.connection.cycle
        try:
            channel = transport.create_channel(transport)
        except transport.connection_errors as error:
            logger.warning("broker away broker=%s error=%s", name, type(error).__name__)
            self._next_look_s[name] = monotonic() + LOOK_AGAIN_S
            return
        self._open[name] = channel
        channel.qos.prefetch_count = self._trunk.qos.prefetch_count
        for consumer in self._consumers.values():
            channel.basic_consume(*consumer)
        logger.info("broker joined broker=%s", name)
