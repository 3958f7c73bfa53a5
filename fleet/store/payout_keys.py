"""The keys of earnings and payouts: all share the fleet's tag, for what is earned is written as a task ends.

Called as `payout_keys.NAME(...)`, for the reason that `keys.py` tells. No row names a tenant, a prompt or an answer.
"""

from __future__ import annotations

from fleet import config
from fleet.store.keys import TAG
from fleet.store.prefix import plain_builders, prefixed


def earned_tasks(number: int) -> str:
    """Hash, expires by `payouts.revocable_days`: task id -> row that it earned on a day."""
    return f"{TAG}:earned:tasks:{number}"


def earned_taken(number: int) -> str:
    """Hash, expires by `payouts.revocable_days`: its task id -> JSON of when, who and why took it back."""
    return f"{TAG}:earned:taken:{number}"


def earned_day(number: int) -> str:
    """Hash, expires after 400 days: row, JSON of [payee, asset, bot, units, pool, kind] -> tasks of a day (UTC)."""
    return f"{TAG}:earned:day:{number}"


def earned_ever() -> str:
    """Hash, permanent: the same of all time; what is taken back has rows of its own, with negative units."""
    return f"{TAG}:earned:ever"


def netted() -> str:
    """Hash, permanent: row of `earned_ever` -> how many of its tasks a payout has taken up that has not failed."""
    return f"{TAG}:payouts:netted"


def payouts() -> str:
    """Hash, permanent: id of a payout -> JSON: its payments and where each stands."""
    return f"{TAG}:payouts:all"


def open_payouts() -> str:
    """Hash, permanent: network -> id of the payout that is under way there."""
    return f"{TAG}:payouts:open"


def latest() -> str:
    """Hash, permanent: network -> id of the payout that was prepared last there, whatever became of it."""
    return f"{TAG}:payouts:latest"


def disk_mark() -> str:
    """String, expires after a minute: written to see whether Redis brings it to its disk in time."""
    return f"{TAG}:payouts:mark"


def parts(payout: str) -> str:
    """Hash, permanent: id of a payment -> JSON of the rows and counts that it pays."""
    return f"{TAG}:payouts:parts:{payout}"


def addresses() -> str:
    """Hash, permanent: payee -> JSON of its address and network, and since when they are known; "": the terms.

    `:prices` and `:network:NAME` are what else is guarded; of a node's address only what it hashes to.
    """
    return f"{TAG}:payouts:addresses"


_BUILDERS = plain_builders(globals(), besides=())


def use_prefix(prefix: str) -> None:
    """Let every key begin with `prefix`, as `keys.use_prefix`."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=()))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
