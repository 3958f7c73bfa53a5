"""Moves what releases up to 0.2 kept of a pool to the keys of this one, while workers of both run.

Those named all keys of a pool `{fleet}:WHAT:POOL` (`keys.former`). What is there is renamed, or added to what is here
already, a script at a time: whoever dies in between leaves the rest to the next, and nothing counts twice. It is done
as a worker starts, before it takes a task, and by one worker of the fleet each minute, as long as old workers write.

Not moved: the order of bots, quarantines and the leases of workers that still run, who know them by their old names:
quarantines are taken over, each once, and leases that ran out are reaped there. The fleet's own counters and lists keep
their names, and readers add them (`signals/counted/sums.py`): these counters are only kept from expiring.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

from fleet.config import Settings
from fleet.errors import FleetError, StoreError, StoreUnavailable
from fleet.roster import grading, health
from fleet.roster.quarantine import LOAD_UNIT, OUT
from fleet.roster.roster import REAPED_KEPT
from fleet.signals import windows
from fleet.signals.catalogue import NOBODY
from fleet.signals.counted.sums import register
from fleet.signals.rungs import RUNGS, RUNGS_COUNTED
from fleet.store import answer_keys, keys
from fleet.store.client import Script, Store
from fleet.store.running.turns import has_turn

logger = logging.getLogger("fleet.worker")

#: Seconds between two looks for keys of old workers, and for which a worker has the turn.
EVERY_S, TURN_S = 60.0, 150
#: Bots of which rows are added up in one step (count).
BOTS_A_STEP = 200
_RENAME = Script.beside(__file__, "rename.lua", keys="old new", argv="life_s")
_SERIES = Script.beside(
    __file__, "move_series.lua", keys="old_series series old_sketch sketch old_errors errors", argv="life_s",
    tables={"period there more": windows.PERIODS, "rungs old": RUNGS},
    constants={
        "MINUTES": windows.MINUTES, "HOURS": windows.HOURS, "SKETCHES": windows.SKETCH_SLOTS,
        "SKETCH_BYTES": windows.SKETCH_BYTES, "RUNGS_COUNTED": RUNGS_COUNTED,
    },
    using=[_RENAME],
)  # fmt: skip
_ROWS = Script.beside(
    __file__, "move_rows.lua", keys="old_rows rows old_tasks tasks", argv="life_s first",
    tables={"row old": windows.ROWS, "last": windows.LAST_TASKS},
    constants={"TASKS_EACH": windows.BOT_TASKS, "BOTS_A_STEP": BOTS_A_STEP},
    using=[_RENAME],
)  # fmt: skip
_HEALTH = Script.beside(
    __file__, "move_health.lua", keys="old_health health old_norms norms", argv="life_s first",
    tables={"row old": health.ROW, "norm before": health.NORM},
    constants={"HEAD_BYTES": health.HEAD_BYTES, "TESTS": len(health.TESTS), "BOTS_A_STEP": BOTS_A_STEP},
    using=[_RENAME],
)  # fmt: skip
_SKILLS = Script.beside(
    __file__, "move_skills.lua",
    keys="old_skills skills old_specialists specialists old_answers answers old_ration ration", argv="life_s",
    tables={"skill": health.SKILL},
    using=[_RENAME],
)  # fmt: skip
_GRADES = Script.beside(
    __file__, "move_grades.lua", keys="old_grades grades", argv="life_s",
    tables={"usual": grading.USUAL, "row old": grading.ROW},
    constants={"HEAD_BYTES": grading.GRADES_HEAD_BYTES},
    using=[_RENAME],
)  # fmt: skip
_ROSTER = Script.beside(
    __file__, "move_roster.lua",
    keys="old_quarantined quarantined old_reasons reasons old_probation probation old_classes classes old_bots bots "
    "old_leases old_claims reaped taken_over",
    argv="life_s",
    constants={"OUT": OUT, "UNIT": LOAD_UNIT, "REAPED_KEPT": REAPED_KEPT},
)  # fmt: skip
_LOOK = Script.beside(__file__, "look.lua", keys="places*", argv="sizes*")
#: What stands in the names of a pool's old keys that are moved whole: who finishes a task writes one of them.
_WHOLE = (
    "probation", "health", "norms", "graded-classes", "signals:bots", "signals:tasks", "signals:series",
    "signals:sketch", "signals:errors",
)  # fmt: skip
#: Pools that are looked at in one step (count): 0.5 ms of Redis.
POOLS_A_STEP = 50
#: What `look.lua` says of a pool.
_NOTHING, _ROSTER_ONLY = 0, 1
_OF_KIND = ("skills", "specialists", "diversity:answers", "shadow-ration")

_Call = tuple[Script, tuple[list[Any], list[Any]]]


class KeysOfBefore:
    """Those of one fleet. One per worker process.

    Args:
        settings: Pools and kinds of tasks.
        state: State Redis.
    """

    def __init__(self, settings: Settings, state: Store) -> None:
        self._settings, self._state = settings, state
        self._me = uuid.uuid4().hex

    async def attend(self) -> None:
        """Move what old workers have written, each minute by one worker of the fleet, for ever."""
        while True:
            await asyncio.sleep(EVERY_S * random.uniform(0.9, 1.1))
            try:
                if await has_turn(self._state, keys.turn("keys-of-before"), self._me, life_s=TURN_S):
                    await self.move()
            except FleetError as error:
                logger.warning("keys of before not moved error=%s", error)

    async def move(self) -> int:
        """Move all there is, pool by pool; return how many keys and leases. Four round trips where there is nothing.

        Raises:
            StoreUnavailable: When Redis does not answer. What was moved is moved; the rest is when it is called again.
        """
        await register(self._state, self._settings.pools)
        await self._state.command("PERSIST", keys.totals())  # old workers let the fleet's counters expire
        answered = await self._answered()
        moved = 0
        for pool, found in await self._look(answered):
            try:
                moved += await (
                    self._run(_roster_call(pool)) if found == _ROSTER_ONLY else self._move_pool(pool, answered)
                )
            except StoreUnavailable:
                raise
            except StoreError as error:  # somebody else wrote one of its keys: the other pools go on
                logger.error("keys of before not moved pool=%s: Redis refused: %s", pool, error)
        if moved:
            logger.info("moved keys=%d: a release before this one has written them", moved)
        return moved

    async def _answered(self) -> dict[str, set[str]]:
        """Return the kinds of tasks of which answers are kept, by pool."""
        kinds = defaultdict[str, set[str]](set)
        for name in await self._state.command("HKEYS", keys.answer_counts()):
            pool, _, kind = name.decode().partition("|")
            kinds[pool].add(kind)
        return kinds

    async def _look(self, answered: Mapping[str, Iterable[str]]) -> list[tuple[str, int]]:
        """Return the pools of which there is anything to move, each with what. Answers are kept apart from all else."""
        pools = (*self._settings.pools, NOBODY)
        places = [
            [
                *(keys.former(what, pool) for what in ("leases", "quarantined", *_WHOLE)),
                *(keys.former("diversity:answers", f"{pool}:{kind}") for kind in answered.get(pool, ())),
            ]
            for pool in pools
        ]
        steps = [places[start : start + POOLS_A_STEP] for start in range(0, len(places), POOLS_A_STEP)]
        calls = (_LOOK.call(places=[*chain.from_iterable(step)], sizes=[*map(len, step)]) for step in steps)
        found = chain.from_iterable(await asyncio.gather(*(self._state.run(_LOOK, *call) for call in calls)))
        return [(pool, what) for pool, what in zip(pools, found, strict=True) if what != _NOTHING]

    async def _move_pool(self, pool: str, answered: Mapping[str, Iterable[str]]) -> int:
        """Move one pool: first what is known of kinds, which the keys moved last tell of, and what came meanwhile."""
        kinds = {*await self._kinds(pool), *answered.get(pool, ())}
        moved = await self._move_those_there([*self._of_kinds(pool, kinds), *await self._of_classes(pool)])
        moved += await self._run(_series_call(pool)) + await self._run_in_steps(partial(_rows_call, pool))
        moved += await self._run(_roster_call(pool)) + await self._run_in_steps(partial(_health_call, pool))
        return moved + await self._move_those_there([*self._of_kinds(pool, {*kinds, *await self._kinds(pool)})])

    async def _move_those_there(self, all_: list[tuple[list[str], _Call]]) -> int:
        are_there = await asyncio.gather(*(self._state.command("EXISTS", *names) for names, _ in all_))
        return sum([await self._run(call) for is_there, (_, call) in zip(are_there, all_, strict=True) if is_there])

    async def _run(self, call: _Call) -> int:
        script, (names, arguments) = call
        return int(await self._state.run(script, names, arguments))

    async def _run_in_steps(self, call_from: Callable[[int], _Call]) -> int:
        moved = first = 0
        while True:
            script, (names, arguments) = call_from(first)
            more, first = await self._state.run(script, names, arguments)
            moved += more
            if not first:
                return moved

    async def _kinds(self, pool: str) -> set[str]:
        """Return the kinds of tasks that a pool may know anything of, besides those of its answers."""
        places = (keys.former("norms", pool), keys.norms(pool))
        norms = await asyncio.gather(*(self._state.command("HKEYS", place) for place in places))
        return {*(kind.decode() for names in norms for kind in names), *self._settings.kinds, "default"}

    def _of_kinds(self, pool: str, kinds: Iterable[str]) -> Iterator[tuple[list[str], _Call]]:
        for kind in kinds:
            old = {what: keys.former(what, f"{pool}:{kind}") for what in _OF_KIND}
            call = _SKILLS.call(
                old_skills=old["skills"], skills=keys.skills(pool, kind),
                old_specialists=old["specialists"], specialists=keys.specialists(pool, kind),
                old_answers=old["diversity:answers"], answers=keys.answers(pool, kind),
                old_ration=old["shadow-ration"], ration=answer_keys.ration(pool, kind), life_s=keys.STATE_TTL_S,
            )  # fmt: skip
            yield list(old.values()), (_SKILLS, call)

    async def _of_classes(self, pool: str) -> list[tuple[list[str], _Call]]:
        places = (keys.former("graded-classes", pool), answer_keys.classes(pool))
        listed = await asyncio.gather(*(self._state.command("ZRANGE", place, 0, -1) for place in places))
        found = list[tuple[list[str], _Call]]()
        for class_ in {name.decode() for names in listed for name in names}:
            old, new = keys.former("grades", f"{pool}:{class_}"), answer_keys.grades(pool, class_)
            found.append(([old], (_GRADES, _GRADES.call(old_grades=old, grades=new, life_s=keys.STATE_TTL_S))))
        return found


def _series_call(pool: str) -> _Call:
    return _SERIES, _SERIES.call(
        old_series=keys.former("signals:series", pool), series=keys.series(pool),
        old_sketch=keys.former("signals:sketch", pool), sketch=keys.sketch(pool),
        old_errors=keys.former("signals:errors", pool), errors=keys.errors(pool), life_s=keys.STATE_TTL_S,
    )  # fmt: skip


def _rows_call(pool: str, first: int) -> _Call:
    return _ROWS, _ROWS.call(
        old_rows=keys.former("signals:bots", pool), rows=keys.bot_rows(pool),
        old_tasks=keys.former("signals:tasks", pool), tasks=keys.bot_tasks(pool), life_s=keys.STATE_TTL_S,
        first=first,
    )  # fmt: skip


def _health_call(pool: str, first: int) -> _Call:
    return _HEALTH, _HEALTH.call(
        old_health=keys.former("health", pool), health=keys.health(pool),
        old_norms=keys.former("norms", pool), norms=keys.norms(pool), life_s=keys.STATE_TTL_S,
        first=first,
    )  # fmt: skip


def _roster_call(pool: str) -> _Call:
    return _ROSTER, _ROSTER.call(
        old_quarantined=keys.former("quarantined", pool), quarantined=keys.quarantined(pool),
        old_reasons=keys.former("quarantine-reasons", pool), reasons=keys.quarantine_reasons(pool),
        old_probation=keys.former("probation", pool), probation=keys.probation(pool),
        old_classes=keys.former("graded-classes", pool), classes=answer_keys.classes(pool),
        old_bots=keys.former("bots", pool), bots=keys.bots(pool),
        old_leases=keys.former("leases", pool), old_claims=keys.former("claims", pool),
        reaped=keys.pool_reaped(pool), taken_over=keys.put_out_before(pool), life_s=keys.STATE_TTL_S,
    )  # fmt: skip
