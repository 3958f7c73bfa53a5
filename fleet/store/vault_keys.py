"""The keys in Redis about providers' keys. Called as `vault_keys.NAME(...)`, for the reason that `keys.py` tells."""

from __future__ import annotations

from fleet import config
from fleet.store.prefix import plain_builders, prefixed

#: Hash tag of what is here.
TAG = "{fleet}"


def revoked_keys() -> str:
    """Hash, `provider|fingerprint` -> Unix time, no TTL: keys of providers that no call may use from then on."""
    return f"{TAG}:revoked_keys"


def scopes() -> str:
    """Hash, provider -> JSON, no TTL: what its key serves, set while the fleet runs; narrower than in fleet.toml."""
    return f"{TAG}:key_scopes"


def delegations() -> str:
    """Hash, id -> JSON, no TTL: delegations that were handed out, for who lists them. Nobody checks by it."""
    return f"{TAG}:delegations"


def revoked_delegations() -> str:
    """Hash, id -> Unix time, no TTL: delegations that hold no more from then on, nor do those made of them."""
    return f"{TAG}:revoked_delegations"


def unusual() -> str:
    """Hash, `key NAME` or `bot NAME` -> JSON of an alarm about its use, no TTL: until it is over, or resumed."""
    return f"{TAG}:unusual"


def usual() -> str:
    """Hash, `key NAME` or `bots POOL` -> packed, expires in 7 days: what is usual (`signals/unusual/watch.py`)."""
    return f"{TAG}:usual"


_BUILDERS = plain_builders(globals(), besides=())


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=()))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
