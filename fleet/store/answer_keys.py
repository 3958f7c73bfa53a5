"""The key of what asks came to. It holds no answer: who agreed with whom, and who was right where that was known.

Called as `answer_keys.NAME(...)`, for the reason that `keys.py` tells.
"""

from __future__ import annotations

from fleet import config
from fleet.store.keys import TAG
from fleet.store.prefix import plain_builders, prefixed


def asks(kind: str) -> str:
    """List, expires: the newest asks of a kind of tasks, newest first (`engine/asking/record.py`)."""
    return f"{TAG}:asks:{kind}"


_BUILDERS = plain_builders(globals(), besides=())


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=()))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
