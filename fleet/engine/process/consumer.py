"""Celery's consumer, made safe against malformed messages: each becomes a typed failed result, none stops a worker.

Celery logs such messages with their whole body; here one line names the task and the error, never a prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer as CeleryConsumer

from fleet.engine.messages.envelope import is_usable
from fleet.engine.process.wiring import PROCESS
from fleet.errors import InvalidTask
from fleet.quoting import quote

logger = get_logger("fleet.consumer")

#: Latest ETA that a message may have, in seconds of Unix time: the year 2200.
LATEST_ETA_S = 7_258_118_400


def is_soon(eta: object) -> bool:
    """True for no ETA, and for one that a clock can show: Celery stores its own kind of failure for the others."""
    if eta is None:
        return True
    try:
        return 0 < datetime.fromisoformat(str(eta)).timestamp() < LATEST_ETA_S
    except (ValueError, OverflowError):
        return False


def is_printable(text: object) -> bool:
    """True for what Celery may write into its log: nothing, or text without line breaks and control characters."""
    return text is None or (isinstance(text, str) and text.isprintable())


def check_headers(headers: dict[str, Any]) -> None:
    """Refuse a message whose headers Celery would choke on, or write into its log as they are.

    Raises:
        InvalidTask: Naming the header.
    """
    if not is_usable(headers.get("id", "")) or not is_printable(headers.get("id")):
        raise InvalidTask(f"id: expected printable text, got {quote(headers.get('id'))}")
    if not is_printable(headers.get("shadow")):
        raise InvalidTask(f"shadow: expected printable text, got {quote(headers['shadow'])}")
    if not is_soon(headers.get("eta")):
        raise InvalidTask(f"eta: expected an ISO 8601 time before 2200, got {quote(headers['eta'])}")


class Consumer(CeleryConsumer):
    """`worker_consumer` of the Celery app."""

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
        conn.ensure_connection = partial(conn.ensure_connection, interval_start=0.2, interval_step=0.2, interval_max=2)
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
        self._refuse(message, f"expected a JSON body, got {type(exc).__name__}")

    def _refuse(self, message: Any, reason: str) -> None:
        """Give the message's task a failed result and acknowledge it once that is stored."""
        headers = message.headers if isinstance(message.headers, dict) else {}
        task_id = headers.get("id")
        if not isinstance(task_id, str):
            task_id = message.properties.get("correlation_id")
        logger.warning("refused task=%s reason=%s", quote(task_id), reason)
        for request in tuple(worker_state.reserved_requests):
            if request._message is message:
                worker_state.task_ready(request)
        if is_usable(task_id):
            body = message.body if isinstance(message.body, bytes) else str(message.body).encode("utf-8", "replace")
            refusal = PROCESS.refuse(task_id, InvalidTask(reason), headers, body)
            put_aside = partial(message.channel.put_aside, message.delivery_tag)
            self.pool.run_soon(refusal, then=message.ack, otherwise=put_aside)
        else:
            message.ack()
