"""How much is known of the answers of each kind, and which bots are out for theirs. Reads only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import redis

from fleet.roster.grading import USUAL, Of, kind_of, read_usual
from fleet.roster.quarantine import read_quarantined
from fleet.store import answer_keys

#: Who takes bots out, and what the reason begins with when grades have ended in it (`grade.lua`).
BY_HEALTH, REASONS = "health", ("wrong answers", "answers otherwise")


@dataclass(frozen=True, slots=True)
class GradedClass:
    """What is known of a class of graded tasks.

    Args:
        pool: Whose bots.
        kind: Of the tasks.
        of: What was graded.
        grades: How many that are remembered; they fade.
        right: Share of them that were right, or as others said.
    """

    pool: str
    kind: str
    of: Of
    grades: float
    right: float


@dataclass(frozen=True, slots=True)
class GradeFacts:
    """What doctor looks at.

    Args:
        classes: That were graded within a week.
        out: Bots that are out for their answers, with why.
    """

    classes: tuple[GradedClass, ...] = ()
    out: tuple[tuple[str, str], ...] = ()


def read_graded(client: redis.Redis, pools: Iterable[str]) -> GradeFacts:
    """Return what is known of the answers of pools. Three round trips.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    names = list(pools)
    with client.pipeline(transaction=False) as pipe:
        for pool in names:
            pipe.zrange(answer_keys.classes(pool), 0, -1)
        listed: Any = pipe.execute()
    places = [(pool, one.decode()) for pool, classes in zip(names, listed, strict=True) for one in classes]
    with client.pipeline(transaction=False) as pipe:
        for place in places:
            pipe.getrange(answer_keys.grades(*place), 0, USUAL.struct.size - 1)
        heads: Any = pipe.execute() if places else []
    found = []
    for (pool, class_), raw in zip(places, heads, strict=True):
        kind, of = kind_of(class_)
        good, bad = read_usual(raw)
        found.append(GradedClass(pool, kind, of, good + bad, good / (good + bad) if good + bad else 0.0))
    out = [
        (bot, one.reason)
        for bot, one in read_quarantined(client, names).items()
        if one.by == BY_HEALTH and one.reason.startswith(REASONS)
    ]
    return GradeFacts(tuple(found), tuple(sorted(out)))
