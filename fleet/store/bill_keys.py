"""The keys of the bill and of budgets: all share one hash tag, so that one script may touch them together.

Called as `bill_keys.NAME(...)`, for the reason that `keys.py` tells.
"""

from __future__ import annotations

from fleet import config
from fleet.store.prefix import plain_builders, prefixed

#: Hash tag of everything about money.
TAG = "{fleet:bill}"


def writer(process: str) -> str:
    """String, expires: number of a process's last batch, a line of its ids, one of calls taken for lost, not listed."""
    return f"{TAG}:writer:{process}"


def unknown() -> str:
    """Hash, id of a call -> JSON of its entry of which nobody knows what was counted; `-` and a time: resolved then."""
    return f"{TAG}:unknown"


def limits() -> str:
    """Set, expires: `provider/model/key` of the calls of all workers: where notes of calls may lie."""
    return f"{TAG}:limits"


def turn() -> str:
    """String, expires within seconds: a process looks for calls that were left behind; its value: who lives."""
    return f"{TAG}:turn"


def check_turn() -> str:
    """String, expires within seconds: a check against a provider's export resolves calls."""
    return f"{TAG}:check_turn"


def hour(number: int) -> str:
    """Hash, expires: sums of an hour (since 1970), JSON of [pool, tenant, kind, limit, tier] -> packed row."""
    return f"{TAG}:hour:{number}"


def day(number: int) -> str:
    """Hash, expires: the same of a day (UTC, since 1970)."""
    return f"{TAG}:day:{number}"


def bots(number: int) -> str:
    """Hash, expires: sums of a day by bot, JSON of [pool, bot, limit, tier] -> packed row."""
    return f"{TAG}:bots:{number}"


def spent(scope: str) -> str:
    """String (packed numbers), lives 400 days beyond its last call: what one scope has spent and reserved."""
    return f"{TAG}:budget:{scope}"


def budgets_live() -> str:
    """Hash, scope -> "hour day month all mode" (micro-dollars) that an operator or a run has set; "": its version."""
    return f"{TAG}:budgets:live"


def reservations() -> str:
    """Hash, id -> JSON: whose process has reserved how much in which scopes, and when."""
    return f"{TAG}:budgets:reserved"


def lapsed() -> str:
    """Hash, id -> JSON, lives a day: reservations that were charged because their process was gone."""
    return f"{TAG}:budgets:lapsed"


def budget_shares(kind: str) -> str:
    """Sorted set, scope of a kind -> used share of its fullest budget, by its last call or by who read it since."""
    return f"{TAG}:budgets:shares:{kind}"


def ever() -> str:
    """Hash, expires 400 days after the last call: sums of all time, JSON of [pool, provider/model] -> packed row."""
    return f"{TAG}:ever"


_BUILDERS = plain_builders(globals(), besides=())


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=()))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
