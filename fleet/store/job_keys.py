"""The keys of jobs: many tasks with one end. All share the fleet's tag, for scripts.

Called as `job_keys.NAME(...)`, for the reason that `keys.py` tells.
"""

from __future__ import annotations

from fleet import config
from fleet.store.keys import TAG
from fleet.store.prefix import plain_builders, prefixed


def job(job_id: str) -> str:
    """Hash, expires: what a job is and how it stands (`fleet/jobs/book.py`)."""
    return f"{TAG}:job:{job_id}"


def members(job_id: str) -> str:
    """String, expires with the job: a byte per member in order: how it ended, 0 while it has not."""
    return f"{TAG}:job:{job_id}:members"


def order(job_id: str) -> str:
    """Stream, expires with the job: an entry per member that ended, in this order; field `m`: its position."""
    return f"{TAG}:job:{job_id}:order"


def then(job_id: str) -> str:
    """String (JSON), expires with the job: the task that follows its last member, until that is queued."""
    return f"{TAG}:job-then:{job_id}"


def due() -> str:
    """Sorted set, expires: job id -> Unix time: jobs that are over and whose task that follows is not queued yet."""
    return f"{TAG}:jobs:due"


def live() -> str:
    """Sorted set, expires: job id -> Unix time at which it was made: jobs that are not over."""
    return f"{TAG}:jobs:live"


def lost() -> str:
    """Sorted set, expires: task id -> Unix time since when a member without a result is in no queue."""
    return f"{TAG}:jobs:lost"


def listed() -> str:
    """Sorted set, expires: job id -> Unix time at which it was made."""
    return f"{TAG}:jobs:listed"


_BUILDERS = plain_builders(globals(), besides=())


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=()))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
