"""kombu's poller over the channels of several brokers: turns between them, and one that is away stops no other."""

from __future__ import annotations

from typing import Any

from celery.utils.log import get_logger
from kombu.transport import redis as kombu_redis

logger = get_logger("fleet.transport")


class Poller(kombu_redis.MultiChannelPoller):
    """As kombu's, for a connection whose channels lead to more than one server.

    An error of the main broker's connection goes to Celery, which connects anew. One of another broker's ends that
    channel only (`branches.py`).
    """

    def __init__(self) -> None:
        super().__init__()
        self._turn = 0

    def on_poll_start(self) -> None:
        """Send what each channel has to send. Who is first when slots are scarce changes from turn to turn."""
        for channel in tuple(self._channels):
            if channel.branches is not None:
                channel.branches.look()
        self._update_brpop_polling()
        channels = tuple(self._channels)
        self._turn += 1
        for at in range(len(channels)):
            channel = channels[(self._turn + at) % len(channels)]
            try:
                self._start(channel)
            except channel.connection_errors as error:
                if not self._is_lost(channel, error):
                    raise

    def _start(self, channel: Any) -> None:
        if channel.active_queues and not channel.pauses() and (channel.qos.can_consume() or channel.owes_acks()):
            self._register_BRPOP(channel)
        if channel.active_fanout_queues:
            self._register_LISTEN(channel)

    def on_readable(self, fileno: int) -> Any:
        """Read what a channel is told."""
        channel, _ = self._fd_to_chan.get(fileno, (None, None))
        try:
            return super().on_readable(fileno)
        except kombu_redis.Transport.connection_errors as error:
            if channel is None or not self._is_lost(channel, error):
                raise
        return None

    def maybe_restore_messages(self) -> None:
        """Sweep at each broker; kombu would at one of them."""
        swept = set[str]()
        for channel in tuple(self._channels):
            if not channel.active_queues or channel.broker in swept:
                continue
            swept.add(channel.broker)
            try:
                channel.qos.restore_visible(
                    num=channel.unacked_restore_limit, interval=channel.unacked_restore_throttle
                )
            except channel.connection_errors as error:  # the main broker's is met again where it is polled
                self._is_lost(channel, error)

    def _is_lost(self, channel: Any, error: BaseException) -> bool:
        """Give a channel to another broker up; False: it is the main broker's."""
        if channel.trunk is None:
            return False
        channel.trunk.lost(channel, error)
        return True
