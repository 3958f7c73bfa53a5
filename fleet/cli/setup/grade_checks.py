"""What `fleet doctor` says of the record of right and wrong answers. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator

import redis

from fleet.cli.setup.check import Check, ok, warn
from fleet.config import Settings
from fleet.errors import FleetError
from fleet.quoting import counted
from fleet.roster.graded import GradeFacts, read_graded
from fleet.store.client import connect
from fleet.store.private.embedded import state_url

#: Grades of a class before any of its bots is tested (`roster/grade.lua`).
LEARNT = 30


def graded(settings: Settings) -> GradeFacts:
    """Return what is known of answers; nothing when Redis does not answer."""
    try:
        with connect(state_url(settings), timeout_s=settings.redis.socket_timeout_s) as client:
            return read_graded(client, settings.pools)
    except (FleetError, redis.RedisError, OSError):
        return GradeFacts()


def grade_checks(settings: Settings, facts: GradeFacts) -> Iterator[Check]:
    """Yield what to know of kinds that live by grades, of thin records, and of bots that are out for their answers."""
    for name, kind in settings.kinds.items():
        known = [one for one in facts.classes if one.kind == name]
        if kind.good_enough is not None and not any(one.of == "grades" for one in known):
            yield warn(
                f"kinds.{name}: good_enough",
                "nobody has graded an answer of this kind: bots ask their own models",
                "Give some tasks `right`, or grade them later (`fleet grade`): docs/answers.md.",
            )
        if kind.good_enough is not None and not any(len(pool.persona.models) > 1 for pool in settings.pools.values()):
            yield warn(
                f"kinds.{name}: models",
                "good_enough is set, and no pool has several persona.models to choose among",
                "Name the models in persona.models of a pool, or take good_enough out.",
            )
        if kind.shadow_votes and all(pool.bots < 3 or pool.own_bot for pool in settings.pools.values()):
            yield warn(
                f"kinds.{name}: shadow_votes",
                "no pool has three bots that make a chat call each: nobody can be compared",
                "Give a pool three bots or more, or take shadow_votes out.",
            )
    for one in facts.classes:
        label = f"grades: {one.pool}, {one.kind}{'' if one.of == 'grades' else f' ({one.of})'}"
        if one.grades < LEARNT:
            few = counted(round(one.grades), "grade")
            yield warn(label, f"{few}: too few to test a bot by, {LEARNT} are enough", "Grade more tasks of this kind.")
        else:
            yield ok(
                label, f"{one.right:.0%} of {one.grades:,.0f} are {'right' if one.of == 'grades' else 'as others say'}"
            )
    for bot, reason in facts.out:
        yield warn(
            f"grades: {bot}", f"out: {reason}", f"See `fleet bots show {bot}`; `fleet bots release {bot}` lets it work."
        )
