"""Keys of what answers were worth: who agreed with whom, who was right, what is tried. No words of a task.

Called as `answer_keys.NAME(...)`, for the reason that `keys.py` tells.
"""

from __future__ import annotations

from fleet import config
from fleet.store.keys import TAG
from fleet.store.prefix import plain_builders, prefixed


def asks(kind: str) -> str:
    """List, expires: the newest asks of a kind of tasks, newest first (`engine/asking/record.py`)."""
    return f"{TAG}:asks:{kind}"


def grades(pool: str, class_: str) -> str:
    """String (packed): what is usual in a class of graded tasks, then each bot of a pool (`roster/grade.lua`)."""
    return f"{{fleet:{pool}}}:grades:{class_}"


def classes(pool: str) -> str:
    """Sorted set, class of graded tasks -> time (s) of its last grade: those that a pool's record has."""
    return f"{{fleet:{pool}}}:graded-classes"


def doubted() -> str:
    """Sorted set of all pools, `class|bot` -> evidence that it is wrong more often than others, where there is any."""
    return f"{TAG}:doubted"


def models(kind: str) -> str:
    """Hash, `provider/model` -> packed: how often it was right in a kind of tasks, and at what cost."""
    return f"{TAG}:graded-models:{kind}"


def graded(task_id: str) -> str:
    """String, expires with the results: the grade that a task was given, so that it counts once."""
    return f"{TAG}:graded:{task_id}"


def ration(pool: str, kind: str) -> str:
    """String, expires: calls for second answers that the tasks of a kind have earned (`roster/shadow.lua`)."""
    return f"{{fleet:{pool}}}:shadow-ration:{kind}"


def told() -> str:
    """List (JSON): grades that producers have told, oldest last, until a worker learns them; ids of tasks, no words."""
    return f"{TAG}:grades-told"


def told_turn() -> str:
    """String, lives seconds: which process learns what was told."""
    return f"{TAG}:grades-told-turn"


def recent_asks() -> str:
    """List, expires: the newest asks of all, newest first (`engine/asking/recent.py`)."""
    return f"{TAG}:asks-recent"


def rollouts() -> str:
    """Hash, pool -> JSON: what is tried there; a persona's own words may be in it, never a task's."""
    return f"{TAG}:rollouts"


def rollout(rollout_id: str) -> str:
    """Hash, expires: tasks, failures, costs and likeness under what is tried, and under what was there."""
    return f"{TAG}:rollout:{rollout_id}"


def past_rollouts() -> str:
    """List (JSON), expires: the newest rollouts that are over, newest first."""
    return f"{TAG}:rollouts-past"


_BUILDERS = plain_builders(globals(), besides=())


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=()))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
