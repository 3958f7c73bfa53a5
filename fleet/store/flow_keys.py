"""The keys of flows: what waits in one list by tenant, and whose turn it is (`fleet/engine/messages/fair/flows.py`).

On the broker, beside the lists. Called as `flow_keys.NAME(...)`, for the reason that `keys.py` tells. Scripts put the
same names together behind `stem`.
"""

from __future__ import annotations

from fleet import config
from fleet.store.prefix import plain_builders, prefixed


def stem() -> str:
    """No key: what the keys of flows begin with."""
    return "fleet:fair:"


def has(first: str) -> str:
    """String, lives as long as its queue has flows, by the queue's first list: whether any of them has a weight."""
    return f"fleet:fair:has:{first}"


def ring(place: str) -> str:
    """Sorted set, lives as long as its list has flows: flow -> its turn (`next_of_flows.lua`)."""
    return f"fleet:fair:ring:{place}"


def flow(name: str, place: str) -> str:
    """List: what waits of one tenant in one list; the next message is the last element. No TTL: it holds tasks."""
    return f"fleet:fair:flow:{name}:{place}"


def old(name: str, place: str) -> str:
    """List: what of a flow a take has met in the list itself: it goes before what is in `flow`. No TTL, as `flow`."""
    return f"fleet:fair:old:{name}:{place}"


def olds(place: str) -> str:
    """Set, lives as long as its list has flows: those that may have something in `old`."""
    return f"fleet:fair:olds:{place}"


def weights() -> str:
    """Hash, rewritten by each worker that starts: flow -> weight of its tenant, of those that have one."""
    return "fleet:fair:weights"


_BUILDERS = plain_builders(globals(), besides=("stem",))
_STEM = stem()


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed({**_BUILDERS, "stem": lambda: _STEM}, prefix, of_celery=()))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
