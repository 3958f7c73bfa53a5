"""kombu's Redis transport, made safe and faster: the lists keep kombu's layout, the rest is one script per step.

Stock kombu pops a message and records it as unacked in two steps and builds a new client for every ack. Here one
script acknowledges what is finished and takes what waits (`take.lua`), a stream replaces BRPOP as the wake-up, and
leases are renewed for everything this process holds (`leases.py`), so that a task may run for hours while a dead
worker's messages are back after one lease.

What it does not do: Redis Cluster (kombu has none). A producer without this transport does not ring the bell: its
message is found within `brpop_timeout` (one second).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from queue import Empty
from time import monotonic, sleep
from typing import Any

import hiredis
from celery.utils.log import get_logger
from celery.worker import state as worker_state
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import NoScriptError

from fleet.engine.messages import weight
from fleet.engine.messages.envelope import note_place
from fleet.engine.transport import leases, revoked, suspicion
from fleet.engine.transport.message import LazyMessage, decoded, plainly
from fleet.engine.transport.parking import parked
from fleet.engine.transport.publishing import Publishing
from fleet.engine.transport.rota import LOOK, Rota
from fleet.engine.transport.several import branches, sharing
from fleet.engine.transport.several.branches import Branches
from fleet.engine.transport.several.poller import Poller
from fleet.engine.transport.several.qos import TAKE_AT_MOST, QoS
from fleet.engine.transport.waker import waker_of_loop
from fleet.errors import FleetError
from fleet.store import keys
from fleet.store.client import Script, run_script
from fleet.store.running.brokers import MAIN

logger = get_logger("fleet.transport")

#: Seconds between two tries, and between two log lines, while Redis answers a script with an error.
REFUSAL_PAUSE_S, REFUSAL_LOG_EVERY_S = 0.2, 5.0


class Channel(Publishing):
    """A kombu channel whose consuming side is `take.lua`."""

    QoS = QoS
    Message = LazyMessage
    #: One message in so many is taken from the least urgent class that waits, so that none starves; 0: strict order.
    lowest_first_every = 32

    from_transport_options = (*Publishing.from_transport_options, "lowest_first_every")

    _rota = Rota((), ())
    #: What the consuming connection will answer next.
    _asked: Any = None
    _bell_id: str | None = None
    #: Milliseconds until something that is parked opens; -1: nothing will.
    _opens_in_ms = -1
    _sent_acks: list[str] | None = None
    #: Prefix of the take whose reply is awaited.
    _sent_prefix: str | None = None
    _taken = 0
    _turns = 0
    _refused_at_s = -math.inf

    #: Of a main channel that takes tasks: its channels to other brokers, if there are any.
    branches: Branches | None = None
    _pauses_until_s = -math.inf

    @property
    def broker(self) -> str:
        """Name of the broker that this leads to."""
        return str(self.connection.broker)

    @property
    def trunk(self) -> Branches | None:
        """What this is one of; None: it leads to the main broker."""
        found: Branches | None = self.connection.trunk
        return found

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> Any:
        if no_ack:  # replies of remote control: nobody will acknowledge them
            self._no_ack_queues.add(queue)
        elif branches.known() and self.trunk is None and queue not in self._fanout_queues:
            self.branches = self.branches or Branches(self)
            self.branches.consume(queue, no_ack, callback, consumer_tag)
        return super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)

    def basic_cancel(self, consumer_tag: str) -> Any:
        if self.branches is not None:
            self.branches.cancel(consumer_tag)
        return super().basic_cancel(consumer_tag)

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        if self.branches is not None:
            self.branches.limit(prefetch_count)

    def close(self) -> None:
        if self.branches is not None:
            self.branches.close()
        super().close()

    def abandon(self) -> None:
        """Leave a broker that does not answer, without a word to it: acknowledgements and lost takes are kept."""
        self.holdings.return_acks(self._sent_acks or [])
        self._sent_acks, self.holdings.is_idle = None, True
        self._reply_lost()
        self._in_poll = None
        self.connection.cycle.discard(self)
        self._disconnect_pools()
        self._close_clients()

    def pauses(self) -> bool:
        """True for a moment after another broker than the main one has refused its scripts."""
        return monotonic() < self._pauses_until_s

    def owes_acks(self) -> bool:
        """True when one of several brokers is to hear of acks, though another one has got the slots that they freed."""
        if self._in_poll or not branches.known() or not self.holdings.has_acks:
            return False
        self._bell_id = None  # a take that wants nothing, instead of a wait for something to take
        return True

    @cached_property
    def _no_ack_queues(self) -> set[str]:
        return set()

    # -- taking: one command in flight on the consuming connection: TAKE, or a blocking XREAD when nothing waits, or
    # once a second LOOK

    def _update_queue_cycle(self) -> None:
        super()._update_queue_cycle()
        self._rota = Rota(self.active_queues, self.priority_steps, now_s=monotonic())

    def _brpop_start(self, timeout: float | None = None) -> None:
        if not self._rota:
            return
        self._reply_lost()
        self._restore_lost_takes()
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = now_s = monotonic()
        self.holdings.return_acks(self._sent_acks or [])  # those of a call whose connection was dropped meanwhile
        self._sent_acks = None
        if self._rota.is_due(now_s):
            self._bell_id = None  # then take, whatever the bell says
            self._send(connection, LOOK, self._rota.look(now_s))
        elif self._bell_id is not None:
            bell_id, self._bell_id = self._bell_id, None
            wait_ms = int((timeout or self.brpop_timeout) * 1000)
            if self._opens_in_ms >= 0:
                wait_ms = max(1, min(wait_ms, self._opens_in_ms))  # 0 would be for ever
            self._asked = "XREAD"
            connection.send_command("XREAD", "BLOCK", wait_ms, "STREAMS", keys.bell(), bell_id)
        else:
            self._sent_acks = acks = self.holdings.take_acks()
            wanted, shut = self.qos.room()
            self.holdings.asked = wanted = sharing.share_of(self.holdings, wanted)
            self._sent_prefix = prefix = self.holdings.next_prefix()
            take = self._rota.take(wanted=wanted, guarded=self._guarded(wanted), prefix=prefix, acks=acks, shut=shut)
            self._send(connection, leases.TAKE, take)

    def _send(self, connection: Any, script: Script, arguments: list[Any]) -> None:
        self._asked = script
        # Packed here: redis-py looks at each of some fifty arguments before it does the same.
        connection.send_packed_command([hiredis.pack_command(("EVALSHA", script.sha, *arguments))])

    def _guarded(self, wanted: int) -> int:
        """Return how many of the next `wanted` messages are the turn of the least urgent class."""
        if not self.lowest_first_every:
            return 0
        turns = self._taken // self.lowest_first_every
        owed, self._turns = min(wanted, turns - self._turns), turns
        return owed

    def _brpop_read(self, **options: Any) -> bool:
        asked, acks, self._sent_acks, wanted = self._asked, self._sent_acks or [], None, self.holdings.asked
        command = asked if isinstance(asked, str) else "EVALSHA"
        try:
            reply = self.client.parse_response(self.client.connection, command, **options)
        except self.connection_errors:
            self.holdings.return_acks(acks)
            self._reply_lost()
            self.client.connection.disconnect()
            raise
        except NoScriptError:
            self.holdings.return_acks(acks)
            self._rota.look_at_s = -math.inf
            self.resident.script_load(asked.text)
            raise Empty from None
        except self.ResponseError as error:  # full, read-only, short of replicas: it answers, but takes no writes
            self.holdings.return_acks(acks)
            self._refused(error)
            raise Empty from None
        finally:
            self.holdings.asked = 0
            self._in_poll = self._sent_prefix = None
            self._flush_brpop_reauth()
        if asked is LOOK:
            self._rota.note_look(reply, monotonic())
        if asked is not leases.TAKE:
            raise Empty
        self.holdings.is_idle = len(reply) < 3 and (wanted > 0 or self.holdings.is_idle)
        if len(reply) < 3:
            self._bell_id, self._opens_in_ms = (bytes_to_str(reply[0]), reply[1]) if reply else (None, -1)
            raise Empty
        self._hand_out(reply)
        return True

    def _reply_lost(self) -> None:
        """Note a take whose reply will not come: Redis may have run it, and nobody knows its messages."""
        self.holdings.asked = 0
        if self._sent_prefix is not None:
            self.holdings.lost_takes.append(self._sent_prefix)
            self._sent_prefix = None

    def _restore_lost_takes(self) -> None:
        """Put back at once what this process has taken without knowing; a take that was not run took nothing."""
        if self.holdings.lost_takes:
            restored = self.holdings.restore_lost(self.resident, most=TAKE_AT_MOST)
            logger.warning("restored=%d: the reply to a take was lost", restored)

    def _refused(self, error: Exception) -> None:
        """Wait a little while Redis refuses our scripts, and say so now and then: nothing is lost meanwhile."""
        if self._is_time_to_say():
            logger.error("Redis refuses to serve the queues, trying again broker=%s: %s", self.broker, error)
        if self.trunk is None:
            sleep(REFUSAL_PAUSE_S)
        else:
            self._pauses_until_s = monotonic() + REFUSAL_PAUSE_S

    def _is_time_to_say(self) -> bool:
        """True now and then: what Redis refuses is refused every second."""
        is_time = monotonic() - self._refused_at_s >= REFUSAL_LOG_EVERY_S
        if is_time:
            self._refused_at_s = monotonic()
        return is_time

    def _hand_out(self, reply: list[bytes]) -> None:
        """Give each taken message to its consumer; one that cannot be read is put aside, never raised."""
        flagged = bytes_to_str(reply.pop()).split() if len(reply) % 3 else []
        parts = iter(reply)
        taken = [(bytes_to_str(tag), bytes_to_str(key), raw) for tag, key, raw in zip(parts, parts, parts, strict=True)]
        self._taken += len(taken)
        self.holdings.held.update(dict.fromkeys(tag for tag, _, _ in taken))
        if self.holdings.closed or worker_state.should_stop is not None or worker_state.should_terminate is not None:
            self.restore([tag for tag, _, _ in taken])  # the worker was told to stop while this reply was on its way
            return
        answered = False
        for tag, queue, raw, message in self._startable(taken, flagged):
            try:
                message["properties"]["delivery_tag"] = tag
                self.connection._deliver(message, queue)
                if queue in self._no_ack_queues:
                    self.holdings.ack(tag)
                    answered = True
            except Exception as error:  # noqa: BLE001 - the task boundary: no message may stop a worker, however odd
                self._put_aside(tag, raw, error)
        if answered:  # who reads replies (`celery inspect`) may be gone before its next take
            self.flush_acks()

    def _startable(
        self, taken: Sequence[tuple[str, str, bytes]], flagged: Sequence[str]
    ) -> list[tuple[str, str, bytes, Any]]:
        """Return tag, queue, text and content of what may start now; park what has to wait for its time."""
        messages: dict[str, Any] = {}
        read: list[tuple[str, str, bytes, Any]] = []
        for tag, place, raw in taken:
            queue, step = self._rota.was_served(place)
            try:
                message = plainly(raw) if queue in self._no_ack_queues else decoded(raw)
                note_place(message, queue, step)
                messages[tag] = message
                read.append((tag, queue, raw, message))
            except Exception as error:  # noqa: BLE001 - as above
                self._put_aside(tag, raw, error)
        waits = {tag: later for tag, message in messages.items() if (later := parked.time_of(message)) is not None}
        if not (waits or flagged or worker_state.revoked):
            return read
        try:
            revoked.tell_celery(self.resident, messages, flagged)
            early = {tag: later for tag, later in waits.items() if later[0] not in worker_state.revoked}
            gone = parked.park_held(self.resident, early) if early else set()
        except (*self.connection_errors, self.ResponseError) as error:  # their leases run out, and they are taken again
            logger.warning("not known whether they may start count=%d error=%s", len(messages), type(error).__name__)
            gone = set(messages) if flagged else set(waits)
        for tag in gone:
            self.holdings.held.pop(tag, None)
        for tag in waits:  # its time has come by the clock of Redis: Celery is not to ask its own
            messages[tag]["headers"]["eta"] = None
        return [one for one in read if one[0] not in gone]

    def put_aside(self, tag: str, error: BaseException) -> None:
        """Keep a message that this process holds, and cannot even refuse, for an operator to look at."""
        entry = self.resident.hget(keys.unacked(), tag)
        if entry is not None:
            self._put_aside(tag, entry.partition(b"\n")[2], error)

    def _put_aside(self, tag: str, raw: bytes, error: BaseException) -> None:
        """Keep a message that Celery cannot read for an operator to look at; it names no task to fail."""
        logger.error("unreadable message=%s error=%s kept_in=%s", tag, type(error).__name__, keys.unreadable())
        with self.resident.pipeline(transaction=False) as pipe:
            pipe.lpush(keys.unreadable(), weight.cut(raw))
            pipe.ltrim(keys.unreadable(), 0, leases.UNREADABLE_KEPT - 1)
            pipe.expire(keys.unreadable(), keys.STATE_TTL_S)
            pipe.execute()
        self.holdings.ack(tag)

    def _handle_message(self, client: Any, r: Any) -> Any:
        """Read a broadcast (remote control, events); one that would take too long to decode is left out."""
        payload = super()._handle_message(client, r)
        if isinstance(payload["data"], bytes) and weight.weight(payload["data"]) > weight.MAX_WEIGHT:
            logger.warning("left out a broadcast of %d bytes: it would take too long to be read", len(payload["data"]))
            payload["data"] = b""
        return payload

    # -- leases

    def flush_acks(self) -> None:
        """Tell Redis now about everything acknowledged, without taking anything."""
        self.holdings.flush(self.resident)

    def renew(self) -> None:
        """Renew the leases of what this process holds when no thread of its own does: on a pool that is not ours."""
        if self.holdings.is_renewed:
            return
        tags = list(self.holdings.held)
        if tags:
            lost = run_script(self.resident, leases.RENEW, *leases.renew_call(tags))
            self.holdings.lose(map(bytes_to_str, lost))

    def restore(self, tags: list[str]) -> None:
        """Put messages that this process holds back at the head of their queues, in their old order."""
        for tag in tags:
            self.holdings.held.pop(tag, None)
        run_script(self.resident, leases.RESTORE, *leases.restore_call(tags))
        self.holdings.handed_back += len(tags)

    def sweep(self) -> None:
        """Put back the messages of workers that stopped renewing; tasks that a worker died with are suspects."""
        try:
            restored, suspected = suspicion.sweep(self.resident, self.visibility_timeout)
        except (self.ResponseError, FleetError) as error:  # the state Redis may not tell who died: nothing runs then
            if self._is_time_to_say():
                logger.warning("sweep waits error=%s: %s", type(error).__name__, error)
            return
        if restored:
            logger.warning("swept restored=%d suspects=%d: their workers stopped renewing", restored, suspected)


class Transport(kombu_redis.Transport):
    """`broker_transport` of the Celery app."""

    Channel = Channel
    #: Name of the broker that it leads to; and what its channels are of, unless that is the main one.
    broker = MAIN
    trunk: Branches | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)
        waker = waker_of_loop()
        loop.add_reader(waker.fileno(), waker.drain)
        old = getattr(self.cycle, "_renew_tref", None)
        if old is not None:
            old.cancel()
        self.cycle._renew_tref = loop.call_repeatedly(leases.RENEW_EVERY_S, self._renew)

    def _renew(self) -> None:
        for channel in tuple(self.cycle._channels):
            if channel.active_queues:
                try:
                    channel.renew()
                except (*channel.connection_errors, channel.ResponseError) as error:
                    logger.warning("lease renewal failed broker=%s error=%s", channel.broker, type(error).__name__)
