"""The task that follows a job, as it is kept until then, and its message. It is queued once, under an id of the job's.

Kept with its producer's signature: whoever queues it then has no delegation.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from fleet import config
from fleet.engine.messages.delegated import warrant_of
from fleet.engine.messages.producer import parts_of_message, task_id_of
from fleet.models import BotTask

#: Field of the metadata of a task that follows a job: the job's id.
METADATA = "job"


@dataclass(frozen=True, slots=True)
class Follower:
    """A task that follows a job.

    Args:
        task: The task, with its pool.
        signed: Its header by a delegation; None: none.
    """

    task: BotTask
    signed: str | None = None

    @classmethod
    def of(cls, job_id: str, task: BotTask, pool: str) -> Follower:
        """Return what follows a job; it finds the job by its own metadata."""
        update: dict[str, object] = {"pool": pool, "metadata": {**task.metadata, METADATA: job_id}}
        task = task.model_copy(update=update)
        return cls(task, warrant_of(follower_id(job_id), task, pool, config.current()))

    @classmethod
    def from_json(cls, text: bytes) -> Follower:
        data = json.loads(text)
        return cls(BotTask.model_validate(data["task"]), data["signed"])

    def to_json(self) -> bytes:
        return json.dumps(
            {"task": self.task.model_dump(mode="json", exclude_defaults=True), "signed": self.signed}
        ).encode()

    def parts(self, job_id: str) -> list[Any]:
        """Return its mark, list and message, as `enqueue.lua` takes them."""
        assert self.task.pool is not None, "`of` names one"
        return parts_of_message(
            follower_id(job_id), self.task, self.task.pool, time.time(), signed=self.signed, is_marked=True
        )


def follower_id(job_id: str) -> str:
    """Return the task id of what follows a job."""
    return task_id_of(f"job:{job_id}:then")


def fields_of(text: bytes | None) -> dict[str, Any]:
    """Return the fields of a task that follows a job, as it is kept."""
    return dict(json.loads(text)["task"]) if text else {}
