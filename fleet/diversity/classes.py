"""What people read of the classes, and the one thing they change: by a plain client, without the leader's loop."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache

import redis

from fleet.diversity.state import ClassState
from fleet.diversity.window import MAX_CLASSES, alarm_field, fields_of, read_state
from fleet.store import keys

#: A state of 3 to 10 kB takes 0.1 ms to parse, and most are the same at the next look a second later.
_state_of = lru_cache(maxsize=2 * MAX_CLASSES)(read_state)


def read_classes(client: redis.Redis, pools: Collection[str]) -> list[tuple[ClassState, int]]:
    """Return each class of these pools with its number of answers. One round trip."""
    with client.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.answer_counts())
        pipe.hgetall(keys.diversity_states())
        counts, states = pipe.execute()
    return classes_of(counts, states, pools)


def classes_of(
    counts: Mapping[bytes, bytes], states: Mapping[bytes, bytes], pools: Collection[str]
) -> list[tuple[ClassState, int]]:
    """Return each class of these pools with its number of answers; one that nobody has looked at has an empty state.

    Args:
        counts: `keys.answer_counts()`.
        states: `keys.diversity_states()`.
        pools: Those that are configured.
    """
    classes = []
    for field, count in sorted(counts.items()):
        pool, _, kind = field.decode().partition("|")
        if pool in pools:
            alarm_at = states.get(alarm_field(field), b"")
            classes.append((_state_of(pool, kind, states.get(field, b""), alarm_at), int(count)))
    return classes


def relearn(client: redis.Redis, pool: str, kind: str) -> None:
    """Forget what is normal for a class: it is learnt anew, and its remedies end.

    Safe to repeat. A leader that looks at the class meanwhile does not bring its state back: it only replaces the one
    that it has read.
    """
    client.hdel(keys.diversity_states(), *fields_of(pool, kind))
