"""A message as Celery delivered it to a worker process, and what its headers say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleet.engine.messages.envelope import QUEUED_AT, STEP, queued_ms_of
from fleet.engine.process.request import tag_of
from fleet.models import BotTask


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as Celery delivered it.

    Args:
        task_id: The Celery task id.
        request: Celery's request dict: headers plus `args`, `kwargs` and `delivery_info`.
        tag: Its delivery tag, under which this process leases it; None on a pool that is not ours.
        queued_ms: How long it waited in its queue; None when its producer did not say when it was queued.
        queue: Where it was taken from.
        priority: The message's own property, which a plain client's steps may have put into another list.
    """

    task_id: str
    request: dict[str, Any]
    tag: str | None
    queued_ms: int | None
    queue: str | None
    priority: object

    @classmethod
    def of(cls, task_id: str, request: dict[str, Any]) -> Delivery:
        info, queued_ms = request.get("delivery_info") or {}, queued_ms_of(request.get(QUEUED_AT))
        return cls(task_id, request, tag_of(request), queued_ms, info.get("routing_key"), info.get("priority"))

    def overtakes(self, task: BotTask) -> bool:
        """True when the message was taken before its turn: its list is more urgent than its task."""
        step = self.request.get(STEP)
        return isinstance(step, int) and task.priority > step
