"""Keys that only `fleet forget` names: its own, and one of Celery's in which it looks for answers.

Called as `erasure_keys.NAME(...)`, for the reason that `keys.py` tells.
"""

from __future__ import annotations

from fleet import config
from fleet.store.keys import TAG
from fleet.store.prefix import plain_builders, prefixed


def salt() -> str:
    """String, lives a day: by it a tenant who is forgotten in several goes gets one pseudonym."""
    return f"{TAG}:erasure:salt"


def chord_parts(group_id: str) -> str:
    """Sorted set (JSON), expires by `results.expires_s`: Celery's, results of a chord's members until it is done."""
    return f"celery-taskset-meta-{group_id}.j"


_BUILDERS = plain_builders(globals(), besides=())


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=("chord_parts",)))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
