"""How many messages the process may take: kombu's count of what is unacknowledged, over reconnects and brokers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery.worker import state as worker_state
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from fleet.engine.transport.several import sharing
from fleet.engine.transport.waker import wake_loop

#: Most messages taken in one round trip: bounds the time the script holds Redis and the size of a reply.
TAKE_AT_MOST = 64


@dataclass(slots=True)
class _Hunger:
    """Whether nothing may be taken before the next ack, at whichever broker."""

    is_starved: bool = False


_hunger = _Hunger()


class QoS(kombu_redis.QoS):
    """Counts what the process holds, over reconnects; the take script has already recorded each message."""

    restore_at_shutdown = True

    def append(self, message: Any, delivery_tag: str) -> None:
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        self.channel.holdings.ack(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)
        if _hunger.is_starved:  # the loop may sleep, and acks come from any thread
            _hunger.is_starved = False
            wake_loop()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if requeue and delivery_tag in self.channel.holdings.held:
            self.channel.restore([delivery_tag])
            virtual.QoS.ack(self, delivery_tag)
        else:
            self.ack(delivery_tag)

    def can_consume(self) -> bool:
        if self.channel.holdings.closed:
            return False
        if self.free():
            return True
        _hunger.is_starved = True
        return bool(self.free())  # once more: an ack right before that line did not wake the loop

    def free(self) -> int:
        """Number of messages that may be taken now."""
        return self.room()[0]

    def room(self) -> tuple[int, frozenset[str]]:
        """Return how many messages may be taken now, and the queues from which none of them may come."""
        if not self.prefetch_count:
            return TAKE_AT_MOST, frozenset()
        holdings, shut = self.channel.holdings, frozenset[str]()
        own = self.prefetch_count + holdings.extra(self.prefetch_count) - sharing.in_hand(holdings)
        if own <= 0:
            lent, shut = holdings.lent(self.prefetch_count)
            own += lent
        return max(0, int(min(TAKE_AT_MOST, own, holdings.room()))), shut | holdings.shunned()

    def restore_unacked(self, client: Any = None) -> None:
        """Hand back what was taken and has not started; what runs stays leased and is acknowledged later."""
        channel = self.channel
        running = {r._message.delivery_tag for r in tuple(worker_state.active_requests)}
        waiting = [tag for tag in self._delivered if tag in channel.holdings.held and tag not in running]
        self._delivered.clear()
        try:
            channel.flush_acks()
            if waiting:
                channel.restore(waiting)
        except channel.connection_errors:
            for tag in waiting:  # Redis is away: their leases run out and the sweep brings them back
                channel.holdings.held.pop(tag, None)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Put back messages whose worker stopped renewing. Called by kombu every `unacked_restore_interval`."""
        self.channel.sweep()
