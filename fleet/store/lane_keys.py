"""The keys of batches: tasks that wait for one or are in one, and jobs. All share the fleet's tag, for scripts.

Called as `lane_keys.NAME(...)`, for the reason that `keys.py` tells.
"""

from __future__ import annotations

from fleet import config
from fleet.store.keys import TAG
from fleet.store.prefix import plain_builders, prefixed


def batched(task_id: str) -> str:
    """Hash, expires: a task in a batch, or on its way there: `asked` (JSON), `body`, `job`, `answer` or `freed`."""
    return f"{TAG}:lanes:task:{task_id}"


def gathering(limit: str) -> str:
    """Sorted set, expires: task id -> Unix time by which it is needed: tasks of one key that no job has yet."""
    return f"{TAG}:lanes:gathering:{limit}"


def gathered_limits() -> str:
    """Hash, expires: `provider/model/key` -> Unix time since which tasks gather there."""
    return f"{TAG}:lanes:limits"


def jobs() -> str:
    """Sorted set, expires: job id -> Unix time at which it is looked at next."""
    return f"{TAG}:lanes:jobs"


def job(job_id: str) -> str:
    """Hash, expires: one job: what was sent, what was meant to be, and until when (`economy/lanes/jobs.py`)."""
    return f"{TAG}:lanes:job:{job_id}"


def job_tasks(job_id: str) -> str:
    """List, expires: ids of a job's tasks, in the order of its requests."""
    return f"{TAG}:lanes:job:{job_id}:tasks"


def lane_turn(limit: str) -> str:
    """String, expires within a minute: the process that sends the batches of a `provider/model/key`."""
    return f"{TAG}:lanes:turn:{limit}"


def lane_shut() -> str:
    """Hash, expires: `provider/model/key` -> JSON of until when it takes no batches, and why."""
    return f"{TAG}:lanes:shut"


def lane_times(api: str) -> str:
    """List, expires: seconds that the last batches of a `provider/model` have taken, and what came of their tasks."""
    return f"{TAG}:lanes:times:{api}"


def lane_reads(step: int) -> str:
    """Hash, lives three hours: of one hour, what calls of a beginning read from caches, by model and lane."""
    return f"{TAG}:lanes:reads:{step}"


_BUILDERS = plain_builders(globals(), besides=())


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=()))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
