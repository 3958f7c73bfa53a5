"""Celery's consumer, made safe against malformed messages: each becomes a typed failed result, none stops a worker.

Celery logs such messages with their whole body; here one line names the task and the error, never a prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer as CeleryConsumer

from fleet import bounds
from fleet.engine.messages.envelope import HIDDEN, TASK_NAME, is_usable
from fleet.engine.messages.eta import SHORT_CHARS, eta_s
from fleet.engine.process.remote_control import hear_neighbours, replace_commands
from fleet.engine.process.request import OWN_REQUEST, STOCK_REQUEST
from fleet.engine.process.wiring import PROCESS
from fleet.engine.transport.message import REFUSED
from fleet.errors import InvalidTask
from fleet.models import check_names
from fleet.quoting import quote

logger = get_logger("fleet.consumer")


def is_time(headers: dict[str, Any]) -> bool:
    """True for no ETA, and for one that a clock can show: Celery stores its own kind of failure for the others."""
    try:
        eta_s(headers)
    except ValueError:
        return False
    return True


def is_printable(text: object) -> bool:
    """True for what Celery may write into its log: a short text on one line without control characters."""
    return isinstance(text, str) and len(text) <= SHORT_CHARS and text.isprintable()


def check_headers(headers: dict[str, Any]) -> None:
    """Refuse a message that was not read, or whose headers Celery would choke on or write into its log as they are.

    Raises:
        InvalidTask: Naming the header.
    """
    if REFUSED in headers:
        raise InvalidTask(str(headers[REFUSED]))
    task_id = headers.get("id", "")
    if not isinstance(task_id, str) or len(task_id) > bounds.MAX_ID_CHARS or not task_id.isprintable():
        raise InvalidTask(
            f"id: expected printable text of at most {bounds.MAX_ID_CHARS} characters, got {quote(headers.get('id'))}"
        )
    if headers.get("shadow") is not None and not is_printable(headers["shadow"]):
        raise InvalidTask(f"shadow: expected short printable text, got {quote(headers['shadow'])}")
    if headers.get("eta") is not None and not is_time(headers):
        raise InvalidTask(f"eta: expected an ISO 8601 time before 2200, got {quote(headers['eta'])}")
    if isinstance(expires := headers.get("expires"), str) and len(expires) > SHORT_CHARS:
        raise InvalidTask(f"expires: expected an ISO 8601 time, got {quote(expires)}")


def check_body(message: Any) -> None:
    """Refuse a bot task of Celery's message protocol 1 (arguments and headers share one dict), or of too many fields.

    Raises:
        InvalidTask: Naming the protocol and the remedy, or a few of the fields.
    """
    payload = message.payload
    if isinstance(payload, dict) and payload.get("task", TASK_NAME) == TASK_NAME:
        raise InvalidTask(
            "expected a message of Celery's protocol 2, got one of protocol 1; set task_protocol = 2 in the client "
            "that sends it (Celery's default)"
        )
    if isinstance(payload, list):
        for part in payload[:2]:
            fields = part[0] if isinstance(part, list) and part else part
            if isinstance(fields, dict):
                check_names(fields)


def hide_arguments(headers: dict[str, Any]) -> None:
    """Replace the printed arguments of a bot task, which a plain client sends along: they go into events and logs."""
    if headers.get("task") == TASK_NAME:
        headers["argsrepr"], headers["kwargsrepr"] = "()", HIDDEN


class Consumer(CeleryConsumer):
    """`worker_consumer` of the Celery app."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        hear_neighbours(self.steps)
        if self.controller.max_concurrency:  # Celery would take as many tasks as it may ever have slots
            self.initial_prefetch_count = self.pool.slots * self.prefetch_multiplier

    def update_strategies(self) -> None:
        """Put what we know better into Celery's panel and into the users' own tasks, then do as Celery does."""
        replace_commands()
        for task in self.app.tasks.values():
            if task.Request == STOCK_REQUEST:
                task.Request = OWN_REQUEST
        super().update_strategies()

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return what is called with each message: Celery's strategy for its task, without the detours.

        Celery wraps each ack into promises, for transports whose acks may fail or must wait for the loop. With ours an
        ack is a note in memory, which also outlives the connection.
        """
        handle, strategies, callbacks = (
            super().create_task_handler(*args, **kwargs),
            self.strategies,
            self.on_task_message,
        )

        def on_task_received(message: Any) -> None:
            try:
                headers = message.headers
                check_headers(headers)
                if headers.get("task", TASK_NAME) == TASK_NAME:  # protocol 1 has no headers
                    check_body(message)
                    hide_arguments(headers)
                strategy = strategies.get(headers.get("task"))
                if strategy is None:
                    handle(message)
                else:
                    strategy(message, None, message.ack_log_error, message.reject_log_error, callbacks)
            except InvalidTask as error:
                self._refuse(message, str(error))
            except Exception as error:  # noqa: BLE001 - the task boundary: a foreign message must not stop the worker
                self._refuse(message, f"expected a Celery message (protocol 2, JSON), got {type(error).__name__}")

        return on_task_received

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledge at once: with our transport that is a note in memory, also when no loop runs any more."""
        return p(*args, **kwargs)

    def cancel_active_requests(self) -> None:
        """Hand back what runs. Celery's own way stores a RETRY state, which would pass for a result."""
        self.pool.cut_short()

    def ensure_connected(self, conn: Any) -> Any:
        """Reconnect as Celery does, but look every two seconds at most: leases wait for nobody."""
        ensure = partial(conn.ensure_connection, interval_start=0.2, interval_step=0.2, interval_max=2)

        def ensure_and_beat(*args: Any, callback: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
            def turn() -> None:
                self.pool.beat()  # the main thread waits here as long as Redis is away: it does not hang
                if callback is not None:
                    callback()

            return ensure(*args, callback=turn, **kwargs)

        conn.ensure_connection = ensure_and_beat
        return super().ensure_connected(conn)

    def add_task_queue(self, queue: str, *args: Any, **options: Any) -> None:
        """Take from a queue too; a pool's name means its queue, as with `-Q`."""
        super().add_task_queue(self._spelled_out(queue), *args, **options)

    def cancel_task_queue(self, queue: str) -> None:
        """Take from a queue no longer."""
        super().cancel_task_queue(self._spelled_out(queue))

    def _spelled_out(self, queue: str) -> str:
        aliased = self.app.amqp.queues.aliases.get(queue)
        return queue if aliased is None else str(aliased.name)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._refuse(message, "expected a Celery message with a `task` header, got none")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        known = ", ".join(sorted(name for name in self.app.tasks if not name.startswith("celery.")))
        name = message.headers.get("task") if isinstance(message.headers, dict) else None
        self._refuse(message, f"expected one of the tasks {known}, got {quote(name)}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._refuse(message, f"expected a Celery message (protocol 2, JSON), got {type(exc).__name__}")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        told = str(exc) if isinstance(exc, InvalidTask) else f"expected a JSON body, got {type(exc).__name__}"
        self._refuse(message, told)

    def _refuse(self, message: Any, reason: str) -> None:
        """Give the message's task a failed result and acknowledge it once that is stored."""
        headers = message.headers if isinstance(message.headers, dict) else {}
        task_id = headers.get("id")
        if not isinstance(task_id, str):  # protocol 1 has it in the body, which is decoded by then
            task_id = (message._decoded_cache or {}).get("id") if headers == {} else None
        if not isinstance(task_id, str):
            task_id = message.properties.get("correlation_id")
        logger.warning("refused task=%s reason=%s", quote(task_id), reason)
        for request in tuple(worker_state.reserved_requests):
            if request._message is message:
                worker_state.task_ready(request)
        if isinstance(task_id, str) and len(task_id) > bounds.MAX_ID_CHARS:
            message.channel.put_aside(message.delivery_tag, InvalidTask(reason))
        elif is_usable(task_id):
            body = message.body if isinstance(message.body, bytes) else str(message.body).encode("utf-8", "replace")
            refusal = PROCESS.refuse(task_id, InvalidTask(reason), headers, body)
            put_aside = partial(message.channel.put_aside, message.delivery_tag)
            self.pool.run_soon(refusal, then=message.ack, otherwise=put_aside)
        else:
            message.ack()
