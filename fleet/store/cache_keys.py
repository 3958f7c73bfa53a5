"""The keys of kept answers. All share the fleet's tag, for scripts.

Called as `cache_keys.NAME(...)`, for the reason that `keys.py` tells.
"""

from __future__ import annotations

from fleet import config
from fleet.store.keys import TAG
from fleet.store.prefix import plain_builders, prefixed


def kept_answers(kind: str) -> str:
    """Hash, expires: digest of what was asked -> the bot and the result; of one task class (`economy/cache/`)."""
    return f"{TAG}:cache:answers:{kind}"


def kept_until(kind: str) -> str:
    """Sorted set, expires: digest -> Unix time until which its answer is kept."""
    return f"{TAG}:cache:until:{kind}"


def kept_bytes(kind: str) -> str:
    """String, expires: bytes of the kept answers of a task class."""
    return f"{TAG}:cache:bytes:{kind}"


def asking(digest: str) -> str:
    """String, lives a lease: which of equal tasks is asked, and how."""
    return f"{TAG}:cache:asking:{digest}"


def twins(digest: str) -> str:
    """Sorted set, expires: task that waits for an equal one -> Unix time at which it looks again."""
    return f"{TAG}:cache:twins:{digest}"


_BUILDERS = plain_builders(globals(), besides=())


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=()))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
