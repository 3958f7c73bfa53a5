"""`Ear`: a connection that hears what is published on Redis' channels, for one asyncio loop.

It connects, and connects anew, as a `Store` does; but whoever listens must then ask again what it has missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import hiredis

from fleet.store.client import Store
from fleet.store.wire import INCOMPLETE, Connection, PendingCommand


class _Line(Connection):
    """A connection on which messages come between the replies."""

    on_message: Callable[[bytes, bytes], None]

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not INCOMPLETE:
                if isinstance(reply, list) and reply[0] == b"message":
                    self.on_message(reply[1], reply[2])
                else:
                    self._on_reply(self.pending.popleft(), reply)
        except (hiredis.ProtocolError, IndexError):
            self.drop("the server does not speak the Redis protocol")


class Ear(Store):
    """Hears channels; each command (`SUBSCRIBE`, `UNSUBSCRIBE`) must name one channel.

    Args:
        url: As `Store`.
        on_message: Called with channel and payload.
        on_deaf: Called when the connection is lost: nothing is subscribed to any more.
        timeout_s: As `Store`.
    """

    def __init__(
        self,
        url: str,
        *,
        on_message: Callable[[bytes, bytes], None],
        on_deaf: Callable[[], None],
        timeout_s: float = 5.0,
    ) -> None:
        super().__init__(url, timeout_s=timeout_s)
        self._on_message = on_message
        self._on_deaf = on_deaf

    def _line(self) -> Connection:
        line = _Line(self._on_reply, self._on_lost)
        line.on_message = self._on_message
        return line

    def _on_lost(self, connection: Connection, reason: str, calls: Iterable[PendingCommand]) -> None:
        super()._on_lost(connection, reason, calls)
        self._on_deaf()

    def leave(self, channel: str) -> None:
        """Unsubscribe some time soon; nobody learns whether it came about."""
        if self._connection is not None and not self._closed:
            loop = asyncio.get_running_loop()
            self._enqueue(PendingCommand(("UNSUBSCRIBE", channel), loop.time() + self._timeout_s, None), loop)
