"""Keys of one pool: its bots, their health, and what is counted. All have the hash tag `{fleet:POOL}`.

So a script that finishes or checks out a task touches one slot, and pools spread over the nodes of a cluster. Tasks of
no pool count under `-`. Called as `keys.NAME(...)`, as all of this package.
"""

from __future__ import annotations


def bots(pool: str) -> str:
    """Sorted set, bot name -> load and time of the last checkout: the order in which bots are checked out."""
    return f"{{fleet:{pool}}}:bots"


def bot_leases(pool: str) -> str:
    """Sorted set, `bot|token` -> expiry in microseconds of Redis time: bots that are checked out."""
    return f"{{fleet:{pool}}}:leases"


def bot_claims(pool: str) -> str:
    """Hash, token -> bot name: what each live lease holds, so that a repeated checkout answers the same bot."""
    return f"{{fleet:{pool}}}:claims"


def quarantined(pool: str) -> str:
    """Sorted set, bot name -> end of its quarantine in microseconds of Redis time (inf: until it is released)."""
    return f"{{fleet:{pool}}}:quarantined"


def quarantine_reasons(pool: str) -> str:
    """Hash, bot name -> `microseconds|who|why` of its quarantine."""
    return f"{{fleet:{pool}}}:quarantine-reasons"


def put_out_before(pool: str) -> str:
    """Hash, bot name -> `end|since` (us): quarantines by workers of releases up to 0.2 that were taken over."""
    return f"{{fleet:{pool}}}:put-out-before"


def probation(pool: str) -> str:
    """Sorted set, bot name -> tasks that it still has to do well until it gets all of its turns again."""
    return f"{{fleet:{pool}}}:probation"


def health(pool: str) -> str:
    """String (packed): evidence against each bot of a pool, and what is usual (`roster/health.lua`)."""
    return f"{{fleet:{pool}}}:health"


def norms(pool: str) -> str:
    """Hash, task class -> six numbers: what is usual for its answers, and how many are good (`roster/health.lua`)."""
    return f"{{fleet:{pool}}}:norms"


def skills(pool: str, kind: str) -> str:
    """String (packed): how well and at what cost each bot of a pool does one class of tasks (`roster/skill.lua`)."""
    return f"{{fleet:{pool}}}:skills:{kind}"


def specialists(pool: str, kind: str) -> str:
    """Sorted set, bot name -> how much better than its pool it is at one class of tasks, at least."""
    return f"{{fleet:{pool}}}:specialists:{kind}"


def pool_reaped(pool: str) -> str:
    """Sorted set, token -> time (s): leases of bots that ran out, so that a task whose claim is gone had begun."""
    return f"{{fleet:{pool}}}:reaped"


def pool_totals(pool: str) -> str:
    """Hash, counter name -> integer: completions, errors, tokens, cost of a pool. All: `signals/counted/sums.py`.

    It has no TTL: a pool that rests for a week would take its share out of the fleet's counters, and who reckons rates
    of them takes a fall for a start from nothing. One small hash for each of `pools`.
    """
    return f"{{fleet:{pool}}}:signals:totals"


def pool_recent(pool: str) -> str:
    """String (packed): the last completions of a pool, 1,000 at most."""
    return f"{{fleet:{pool}}}:signals:recent"


def pool_failures(pool: str) -> str:
    """List, newest first: the last failed tasks of a pool, 1,000 at most, `seconds|JSON`."""
    return f"{{fleet:{pool}}}:signals:failures"


def bot_rows(pool: str) -> str:
    """String (packed): what is counted per bot of a pool; layouts of this and what follows: `signals/windows.py`."""
    return f"{{fleet:{pool}}}:signals:bots"


def bot_tasks(pool: str) -> str:
    """String (packed): the last tasks of each bot of a pool."""
    return f"{{fleet:{pool}}}:signals:tasks"


def series(pool: str) -> str:
    """String (packed): sums of a pool's last minutes and hours."""
    return f"{{fleet:{pool}}}:signals:series"


def sketch(pool: str) -> str:
    """String (packed counters): durations of a pool's tasks of the last hour; then who of its ladder serves."""
    return f"{{fleet:{pool}}}:signals:sketch"


def errors(pool: str) -> str:
    """Hash, `bot|provider/model|error type` -> count."""
    return f"{{fleet:{pool}}}:signals:errors"


def answers(pool: str, kind: str) -> str:
    """List, newest first: fingerprints of the last answers of one task class (`diversity/fingerprint.py`)."""
    return f"{{fleet:{pool}}}:diversity:answers:{kind}"
