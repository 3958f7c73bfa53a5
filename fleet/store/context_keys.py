"""The keys of shared documents. Called as `context_keys.NAME(...)`, for the reason that `keys.py` tells."""

from __future__ import annotations

from fleet import config
from fleet.store.prefix import plain_builders, prefixed

#: Hash tag of what is here.
TAG = "{fleet}"


def documents() -> str:
    """Hash, id of a document -> JSON: its name, size, tenant and time; no TTL. What it says: `text`."""
    return f"{TAG}:contexts"


def text(context_id: str) -> str:
    """String, no TTL: what a shared document says; stored once, whoever names it."""
    return f"{TAG}:context:{context_id}"


def warmth(prefix: str) -> str:
    """Hash, expires: which keys' caches have a beginning of prompts, who goes first, how often it is asked for."""
    return f"{TAG}:warmth:{prefix}"


def reads(step: int) -> str:
    """Hash, lives two hours: of ten minutes, calls that have read documents from caches or not, by both."""
    return f"{TAG}:context_reads:{step}"


def read_totals() -> str:
    """Hash, expires after a month without a call: the sums of all documents' reads since counting began."""
    return f"{TAG}:context_totals"


_BUILDERS = plain_builders(globals(), besides=())


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=()))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
