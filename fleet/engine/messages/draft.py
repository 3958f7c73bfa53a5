"""A message that Celery has made and that somebody else sends: what stands in for kombu's producer."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from kombu import serialization

from fleet.engine.messages import queues
from fleet.engine.messages.envelope import FLOW, envelope
from fleet.engine.messages.fair.flows import routed


class Draft:
    """Takes what `apply_async(producer=...)` publishes; `parts` are for `enqueue.lua`.

    Weakness: Celery's `task-sent` event (`task_send_sent_event`) is not sent.
    """

    def __init__(self) -> None:
        self.parts: list[Any] = []

    @property
    def connection(self) -> Draft:
        return self

    def _reraise_as_library_errors(self) -> AbstractContextManager[None]:
        return nullcontext()

    def publish(
        self,
        body: Any,
        *,
        routing_key: str,
        headers: dict[str, Any],
        correlation_id: str = "",
        priority: int = 0,
        **_: Any,
    ) -> None:
        """Keep a message for the queue that it is for."""
        if not correlation_id:  # an event
            return
        _, _, encoded = serialization.dumps(body, serializer="json")
        message = envelope(
            task_id=correlation_id, queue=routing_key, priority=priority, headers=headers, body=encoded.encode()
        )
        self.parts += ["", routed(queues.list_key(routing_key, priority), headers.get(FLOW)), message]
