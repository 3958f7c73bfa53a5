"""Grades of answers on their way into the record: of tasks that say what is right, of people who tell later, of votes.

What a grade does there: `roster/grade.lua`. Producers tell ids of tasks and whether they were right, no more: whose
answer it was a worker reads from the result. So no producer can accuse a bot that has not worked for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import redis
from pydantic import ValidationError

from fleet.answers.marking import is_right
from fleet.config import Settings
from fleet.engine.answers.rollouts import SENT
from fleet.engine.outcomes.stored import read_result
from fleet.errors import FleetError
from fleet.frozen import Lasting
from fleet.models import Bot, BotResult, BotTask
from fleet.roster.grading import GRADE, Grade, Of, grade_call
from fleet.signals import catalogue
from fleet.store import answer_keys, keys
from fleet.store.client import Store

logger = logging.getLogger("fleet.worker")

#: Votes of others that make a vote comparable: fewer say little about who is the odd one.
LEAST_OTHERS = 2
#: Seconds between two looks at what producers have told, what is learnt at once, seconds that one process has for it.
LOOK_EVERY_S, AT_ONCE, TURN_S = 1.0, 200, 30
#: What may wait to be learnt (count): about 8 MB.
MOST_TOLD = 100_000
#: By whether it is a grade of the answer itself, and whether it is right.
_COUNTERS = {
    (True, True): catalogue.GRADED_RIGHT, (True, False): catalogue.GRADED_WRONG,
    (False, True): catalogue.VOTED_ALIKE, (False, False): catalogue.VOTED_OTHERWISE,
}  # fmt: skip


class Worth(Lasting):
    """What a producer says of a task.

    Args:
        task: Its id.
        right: Whether its answer is right; of a vote: whether it is what most others say.
        vote: Others were asked the same.
    """

    task: str
    right: bool
    vote: bool = False


class Grader:
    """Grades the answers of one process. Lives on its loop.

    Args:
        store: State Redis.
        settings: How bots are judged, and how long results stay.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def note(self, task: BotTask, bot: Bot, result: BotResult) -> None:
        """Learn from an answer that stands, if its task says what is right. Never waits, never raises.

        A grade that is lost with its process is one lesson less, nothing else.
        """
        if task.right is not None and result.answer is not None and result.status != "failed":
            grade = grade_of(result, is_right(result.answer, task.right, task.right_by))
            self._store.send(GRADE, *self._call(grade), within_s=0.05)

    async def take(self, grade: Grade) -> None:
        """Learn a grade.

        Raises:
            FleetError: When Redis does not take it.
        """
        await self._store.run(GRADE, *self._call(grade))

    async def keep(self) -> None:
        """Learn what producers have told, for ever. One process at a time; in peace one command a second."""
        me = str(os.getpid())
        while True:
            try:
                while await self._learn_some(me) == AT_ONCE:
                    pass
            except FleetError as error:
                logger.warning("grades not learnt error=%s", type(error).__name__)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _learn_some(self, me: str) -> int:
        """Learn the oldest grades, and strike them off then: who dies between has them learnt again, to no effect."""
        rows = await self._store.command("LRANGE", answer_keys.told(), -AT_ONCE, -1)
        if not rows or not await self._store.command("SET", answer_keys.told_turn(), me, "NX", "EX", TURN_S):
            return 0
        try:
            rows = await self._store.command("LRANGE", answer_keys.told(), -AT_ONCE, -1)
            told = [one for row in rows if (one := _read(row)) is not None]
            for grade in await self._grades(told):
                await self._store.run(GRADE, *self._call(grade))
            # Each by itself: should another process have had its turn meanwhile, nothing goes that nobody has learnt.
            await asyncio.gather(*(self._store.command("LREM", answer_keys.told(), -1, row) for row in rows))
        finally:
            await self._store.command("DEL", answer_keys.told_turn())
        return len(rows)

    async def _grades(self, told: Sequence[Worth]) -> list[Grade]:
        """Return the grades of tasks whose results are still there, and are a bot's answer."""
        if not told:
            return []
        raw = await self._store.command("MGET", *(keys.result(one.task) for one in told))
        results = zip(told, map(read_result, raw), strict=True)
        return [
            grade_of(result, one.right, of="votes" if one.vote else "grades")
            for one, result in results
            if result is not None and result.answer is not None and result.pool in self._settings.pools
        ]

    def _call(self, grade: Grade) -> tuple[list[Any], list[Any]]:
        counter = _COUNTERS[grade.of == "grades", grade.is_right].name
        life_s = self._settings.results.expires_s
        return grade_call(grade, self._settings.health, mark_life_s=life_s, counter=counter)


def _read(row: bytes) -> Worth | None:
    try:
        return Worth.model_validate_json(row)
    except ValidationError:  # not ours
        return None


async def tell(store: Store, told: Sequence[Worth]) -> None:
    """Tell workers what answers were worth; they learn it within seconds. One round trip.

    Raises:
        FleetError: When Redis does not take it.
    """
    if told:
        name = answer_keys.told()
        await asyncio.gather(
            store.command("LPUSH", name, *(one.model_dump_json(exclude_defaults=True) for one in told)),
            store.command("LTRIM", name, 0, MOST_TOLD - 1),
            store.command("EXPIRE", name, keys.STATE_TTL_S),
        )


def tell_here(client: redis.Redis, told: Sequence[Worth]) -> None:
    """Do what `tell` does on a plain client."""
    with client.pipeline(transaction=False) as pipe:
        pipe.lpush(answer_keys.told(), *(one.model_dump_json(exclude_defaults=True) for one in told))
        pipe.ltrim(answer_keys.told(), 0, MOST_TOLD - 1)
        pipe.expire(answer_keys.told(), keys.STATE_TTL_S)
        pipe.execute()


def grade_of(result: BotResult, right: bool, *, of: Of = "grades") -> Grade:
    """Return the grade of a result: an answer of a fallback, or under what a rollout tries, says nothing of its bot."""
    cost = result.usage.total_tokens if result.cost_usd_micros is None else result.cost_usd_micros
    bot = None if result.rung or SENT in result.sent else result.bot
    return Grade(
        result.task_id, result.kind, right, result.pool or "", bot,
        f"{result.provider}/{result.model}" if result.model else "", cost, of,
    )  # fmt: skip


def worth_of(answers: Iterable[tuple[str, str | None]], right: str | None) -> list[Worth]:
    """Return what the answers to one question were worth: right or wrong, or else compared with what most others say.

    Where nobody knows what is right, and the others are too few or divided evenly, a vote says nothing.

    Args:
        answers: Id of the task and canonical form of its answer; None: it has no vote.
        right: The right answer in canonical form; None: unknown.
    """
    votes = [(task_id, counted) for task_id, counted in answers if counted is not None]
    if right is not None:
        return [Worth(task=task_id, right=counted == right) for task_id, counted in votes]
    counts = Counter(counted for _, counted in votes)
    if (leader := _leader(counts)) is None:
        return []
    others = {counted: counts - Counter([counted]) for counted in counts}
    return [
        Worth(task=task_id, right=counted == leader, vote=True)
        for task_id, counted in votes
        if _leader(others[counted]) == leader and others[counted][leader] >= LEAST_OTHERS
    ]


def _leader(counts: Counter[str]) -> str | None:
    """Return the most frequent answer; None when there is no single one."""
    first, second = [*counts.most_common(2), ("", 0), ("", 0)][:2]
    return first[0] if first[1] > second[1] else None
