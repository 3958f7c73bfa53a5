"""The keys in Redis about providers' keys. Called as `vault_keys.NAME(...)`, for the reason that `keys.py` tells."""

from __future__ import annotations

from fleet import config
from fleet.store.prefix import plain_builders, prefixed

#: Hash tag of what is here.
TAG = "{fleet}"


def revoked_keys() -> str:
    """Hash, `provider|fingerprint` -> Unix time, no TTL: keys of providers that no call may use from then on."""
    return f"{TAG}:revoked_keys"


_BUILDERS = plain_builders(globals(), besides=())


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=()))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
