"""The keys of what is to come: what is submitted by the clock, how many slots are wanted. All share the fleet's tag.

Called as `schedule_keys.NAME(...)`, for the reason that `keys.py` tells.
"""

from __future__ import annotations

from fleet import config
from fleet.store.keys import TAG
from fleet.store.prefix import plain_builders, prefixed


def schedule(name: str) -> str:
    """Hash, expires after 400 days: a schedule's last submission, what went wrong, and whether it is paused."""
    return f"{TAG}:schedule:{name}"


def done(name: str, rule: str) -> str:
    """String, expires after 400 days: Unix time up to which a schedule's times are dealt with; `rule` is a digest."""
    return f"{TAG}:schedule:{name}:done:{rule}"


def beats() -> str:
    """Sorted set, expires within a day: `host:pid` of a beat -> Unix time at which it looked last."""
    return f"{TAG}:beats"


def wanted() -> str:
    """String (JSON), expires within an hour: how many slots and workers are wanted, since when and why."""
    return f"{TAG}:wanted"


_BUILDERS = plain_builders(globals(), besides=())


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=()))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
