"""kombu's Redis transport, made safe and quicker: the lists keep kombu's layout, the rest is one script per step.

Stock kombu pops a message and records it as unacked in two steps and builds a new client for every ack. Here one
script acknowledges what is finished and takes what waits (`take.lua`), a stream replaces BRPOP as the wake-up, and
leases are renewed for everything this process holds, so that a task may run for hours while a dead worker's
messages are back after one lease.

What it does not do: Redis Cluster (kombu has none), and a producer without this transport does not ring the bell:
its message is found within `brpop_timeout` (one second).
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty
from time import monotonic
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state as worker_state
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from kombu.utils.objects import cached_property

from fleet.engine.queues import BELL, PRIORITY_SEPARATOR
from fleet.store import keys
from fleet.store.client import Script

logger = get_logger("fleet.transport")

TAKE = Script.beside(__file__, "take.lua")
RENEW = Script.beside(__file__, "renew_messages.lua")
RESTORE = Script.beside(__file__, "restore.lua")

#: Most messages taken in one round trip: bounds the time the script holds Redis and the size of a reply.
TAKE_AT_MOST = 64
#: Most messages put back in one sweep (count): the rest follows with the next one, a third of a lease later.
RESTORE_AT_MOST = 5000
#: Unreadable messages kept for a look, the newest ones (count).
UNREADABLE_KEPT = 1000


class Holdings:
    """What this process has taken from one broker and not acknowledged: outlives any connection to it.

    Acks come from any thread; taking, renewing and restoring belong to the consumer's thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._acks: list[str] = []
        self._counter = itertools.count()
        self._prefix = uuid.uuid4().hex
        self.held: dict[str, None] = {}
        self.client: Any = None

    def next_prefix(self) -> str:
        """Return a prefix for the tags of one take: unique over all processes and takes."""
        return f"{self._prefix}:{next(self._counter)}:"

    def ack(self, tag: str) -> None:
        """Mark a message as finished; the next round trip tells Redis."""
        with self._lock:
            if self.held.pop(tag, tag) is None:
                self._acks.append(tag)

    def take_acks(self) -> list[str]:
        """Hand out the acks that Redis does not know yet. Give them back with `return_acks` if it did not hear."""
        with self._lock:
            acks, self._acks = self._acks, []
        return acks

    def return_acks(self, acks: list[str]) -> None:
        with self._lock:
            self._acks[:0] = acks

    def flush(self, client: Any) -> None:
        """Tell Redis about all acks, through any client of this broker."""
        acks = self.take_acks()
        if not acks:
            return
        try:
            run_script(client, TAKE, [Channel.unacked_key, Channel.unacked_index_key, Channel.bell_key], [0, "", *acks])
        except BaseException:
            self.return_acks(acks)
            raise


def flush_all_acks() -> None:
    """Tell every broker of this process what is acknowledged: the last step of a shutdown, when no loop runs."""
    for holdings in _HOLDINGS.values():
        if holdings.client is not None:
            holdings.flush(holdings.client)


#: Holdings by broker address. A process has one broker, but many connections to it over its life.
_HOLDINGS: dict[str, Holdings] = {}


class QoS(kombu_redis.QoS):
    """Counts what the process holds, over reconnects; the take script has already recorded each message."""

    restore_at_shutdown = True

    def append(self, message: Any, delivery_tag: str) -> None:
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        self.channel.holdings.ack(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if requeue and delivery_tag in self.channel.holdings.held:
            self.channel.restore([delivery_tag])
            virtual.QoS.ack(self, delivery_tag)
        else:
            self.ack(delivery_tag)

    def can_consume(self) -> bool:
        return not self.prefetch_count or len(self.channel.holdings.held) < self.prefetch_count

    def free(self) -> int:
        """Number of messages that may be taken now."""
        if not self.prefetch_count:
            return TAKE_AT_MOST
        return max(0, min(TAKE_AT_MOST, self.prefetch_count - len(self.channel.holdings.held)))

    def restore_unacked(self, client: Any = None) -> None:
        """Hand back what was taken and has not started; what runs stays leased and is acknowledged later."""
        running = {r._message.delivery_tag for r in tuple(worker_state.active_requests)}
        waiting = [tag for tag in self._delivered if tag in self.channel.holdings.held and tag not in running]
        self._delivered.clear()
        try:
            self.channel.flush_acks()
            if waiting:
                self.channel.restore(waiting)
        except self.channel.connection_errors:
            for tag in waiting:  # Redis is away: their leases run out and the sweep brings them back
                self.channel.holdings.held.pop(tag, None)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Put back messages whose worker stopped renewing. Called by kombu every `unacked_restore_interval`."""
        self.channel.sweep()


class Channel(kombu_redis.Channel):
    """A kombu channel whose consuming side is `take.lua`."""

    QoS = QoS
    unacked_key = "fleet:unacked"
    unacked_index_key = "fleet:unacked_index"
    bell_key = BELL
    swept_key = "fleet:unacked_swept"
    unreadable_key = "fleet:unreadable"

    _bell_id: str | None = None
    _sent_acks: list[str] | None = None

    @property
    def holdings(self) -> Holdings:
        found: Holdings | None = self.__dict__.get("_holdings")
        if found is None:
            info = self.connection.client
            address = f"{info.hostname}:{info.port}/{info.virtual_host}"
            found = self.__dict__["_holdings"] = _HOLDINGS.setdefault(address, Holdings())
        return found

    @cached_property
    def resident(self) -> Any:
        """The one client for everything but taking: redis-py's constructor costs more than a command."""
        self.holdings.client = client = self._create_client()
        return client

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        yield client or self.resident

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        if no_ack:  # replies of remote control: nobody will acknowledge them
            self._no_ack_queues.add(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    @cached_property
    def _no_ack_queues(self) -> set[str]:
        return set()

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        batch = kwargs.get("_publish_batch")
        if batch is not None:
            super()._put(queue, message, **kwargs)
            batch.add("execute_command", "XADD", self.bell_key, "MAXLEN", 1, "*", "x", 1)
            return
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        with self.resident.pipeline(transaction=False) as pipe:
            pipe.lpush(key, kombu_redis.dumps(message))
            pipe.execute_command("XADD", self.bell_key, "MAXLEN", 1, "*", "x", 1)
            pipe.execute()

    # -- taking: one command in flight on the consuming connection, TAKE or (when nothing waits) a blocking XREAD

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        if self._bell_id is not None:
            bell_id, self._bell_id = self._bell_id, None
            self._sent_acks = None
            wait_ms = int((timeout or self.brpop_timeout) * 1000)
            connection.send_command("XREAD", "BLOCK", wait_ms, "STREAMS", self.bell_key, bell_id)
            return
        self._send_take(connection, queues)

    def _send_take(self, connection: Any, queues: list[str]) -> None:
        lists = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
        script_keys = [self.unacked_key, self.unacked_index_key, self.bell_key, *lists]
        self._sent_acks = self.holdings.take_acks()
        arguments = [self.qos.free(), self.holdings.next_prefix(), *self._sent_acks]
        connection.send_command("EVALSHA", TAKE.sha, len(script_keys), *script_keys, *arguments)

    def _brpop_read(self, **options: Any) -> bool:
        sent_acks, self._sent_acks = self._sent_acks, None
        command = "XREAD" if sent_acks is None else "EVALSHA"
        try:
            reply = self.client.parse_response(self.client.connection, command, **options)
        except self.connection_errors:
            self.holdings.return_acks(sent_acks or [])
            self.client.connection.disconnect()
            raise
        except kombu_redis.exceptions.NoScriptError:
            self.holdings.return_acks(sent_acks or [])
            self.resident.script_load(TAKE.text)
            raise Empty from None
        except self.ResponseError:
            self.holdings.return_acks(sent_acks or [])
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if sent_acks is None:
            raise Empty
        if len(reply) < 3:
            self._bell_id = bytes_to_str(reply[0]) if reply else None
            raise Empty
        self._hand_out(reply)
        return True

    def _hand_out(self, reply: list[bytes]) -> None:
        """Give each taken message to its consumer; one that cannot be read is put aside, never raised."""
        parts = iter(reply)
        taken = [(bytes_to_str(tag), bytes_to_str(key), raw) for tag, key, raw in zip(parts, parts, parts, strict=True)]
        self.holdings.held.update(dict.fromkeys(tag for tag, _, _ in taken))
        for tag, key, raw in taken:
            queue = key.split(PRIORITY_SEPARATOR, 1)[0]
            self._queue_cycle.rotate(queue)
            try:
                message = loads(bytes_to_str(raw))
                message["properties"]["delivery_tag"] = tag
                self.connection._deliver(message, queue)
                if queue in self._no_ack_queues:
                    self.holdings.ack(tag)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                self._put_aside(tag, raw, error)

    def _put_aside(self, tag: str, raw: bytes, error: Exception) -> None:
        """Keep what is no Celery message for an operator to look at; nobody can be told, it names no task."""
        logger.error("unreadable message=%s error=%s kept_in=%s", tag, type(error).__name__, self.unreadable_key)
        with self.resident.pipeline(transaction=False) as pipe:
            pipe.lpush(self.unreadable_key, raw)
            pipe.ltrim(self.unreadable_key, 0, UNREADABLE_KEPT - 1)
            pipe.expire(self.unreadable_key, keys.STATE_TTL_S)
            pipe.execute()
        self.holdings.ack(tag)

    # -- leases

    def flush_acks(self) -> None:
        """Tell Redis now about everything acknowledged, without taking anything."""
        self.holdings.flush(self.resident)

    def renew(self) -> None:
        """Renew the lease of every message this process holds. Called every third of a lease."""
        tags = list(self.holdings.held)
        if not tags:
            return
        for tag in run_script(self.resident, RENEW, [self.unacked_index_key], tags):
            logger.warning("lease lost message=%s", bytes_to_str(tag))
            self.holdings.held.pop(bytes_to_str(tag), None)

    def restore(self, tags: list[str]) -> None:
        """Put messages that this process holds back at the head of their queues, in their old order."""
        for tag in tags:
            self.holdings.held.pop(tag, None)
        run_script(self.resident, RESTORE, self._restore_keys, [self.visibility_timeout, len(tags), *tags])

    def sweep(self) -> None:
        """Put back the messages of workers that stopped renewing."""
        count = run_script(self.resident, RESTORE, self._restore_keys, [self.visibility_timeout, RESTORE_AT_MOST])
        if count:
            logger.warning("restored messages=%d of workers that stopped renewing their leases", count)

    @property
    def _restore_keys(self) -> list[str]:
        return [self.unacked_key, self.unacked_index_key, self.bell_key, self.swept_key]


class Transport(kombu_redis.Transport):
    """`broker_transport` of the Celery app."""

    Channel = Channel

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)
        old = getattr(self.cycle, "_renew_tref", None)
        if old is not None:
            old.cancel()
        lease_s = connection.client.transport_options.get("visibility_timeout", Channel.visibility_timeout)
        self.cycle._renew_tref = loop.call_repeatedly(lease_s / 3, self._renew)

    def _renew(self) -> None:
        for channel in tuple(self.cycle._channels):
            if channel.active_queues:
                try:
                    channel.renew()
                except channel.connection_errors as error:
                    logger.warning("lease renewal failed error=%s", type(error).__name__)
                return


def run_script(client: Any, script: Script, script_keys: list[str], arguments: list[Any]) -> Any:
    """Run a script on a synchronous client, loading it when Redis does not know it."""
    try:
        return client.evalsha(script.sha, len(script_keys), *script_keys, *arguments)
    except kombu_redis.exceptions.NoScriptError:
        return client.eval(script.text, len(script_keys), *script_keys, *arguments)
