"""Rollouts at work: which tasks of a pool get what is new, what came of them, and back when it is worse.

Each process reads once a second which rollouts run, and looks at their sums; whoever first finds one worse ends it. So
it goes back whichever process dies. A pool without a rollout costs its tasks a look into an empty dict.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

from fleet.answers.marking import is_right
from fleet.diversity import bins_of
from fleet.errors import FleetError
from fleet.models import Bot, BotTask
from fleet.money import PICOS_PER_MICRO
from fleet.outcome import Entered, Outcome
from fleet.rollouts import (
    COUNT,
    FINISH,
    Rollout,
    added,
    cohort_of,
    count_call,
    counted,
    finish_call,
    read_running,
    state_of,
    worse,
)
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.store import answer_keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK

logger = logging.getLogger("fleet.worker")

#: Seconds between two readings: so long a rollout goes on after it was ended.
READ_EVERY_S = 1.0
#: Field of a result's `sent` that names the rollout under which its answer was made.
SENT = "rollout"
#: Kinds of tasks whose last answer is remembered (count): with more, likeness is compared for the first ones.
MOST_KINDS = 1000


@dataclass(frozen=True, slots=True)
class Arm:
    """Under which setting a task is done, while a rollout runs in its pool."""

    rollout: Rollout
    is_new: bool
    cohort: int

    @property
    def entered(self) -> Entered:
        """What a task takes along when it is parked."""
        return Entered(rollout=self.rollout.id, cohort=self.cohort)

    @property
    def name(self) -> str:
        return "new" if self.is_new else "old"


class Rollouts:
    """The rollouts of one process. Lives on its loop.

    Args:
        store: State Redis.
        change: Returns a bot under what is new; None: this process does not know that model or persona.
    """

    def __init__(self, store: Store, change: Callable[[Bot, Rollout], Bot | None]) -> None:
        self._store = store
        self._change = change
        self._running: dict[str, Rollout] = {}
        self._last: dict[tuple[str, bool, str], array[int]] = {}

    def enter(self, bot: Bot, task_id: str, entered: Entered | None = None) -> tuple[Bot, Arm | None]:
        """Return the bot as it works on a task, and under which setting; None: no rollout runs in its pool.

        What was tried and came to nothing is not tried again. A task counts as begun once, however often it is parked;
        one that is repeated after a death counts twice, and the first of these never ends.

        Args:
            bot: As it is else.
            task_id: Its id.
            entered: What it has taken along.
        """
        rollout = self._running.get(bot.pool)
        if rollout is None:
            return bot, None
        changed = self._change(bot, rollout)
        if changed is None:  # of a fleet.toml that other workers have: those compare
            return bot, None
        is_known = entered is not None and entered.rollout == rollout.id
        if entered is not None and is_known and entered.tried_ms is not None:
            return bot, None
        cohort = entered.cohort if entered is not None and is_known else cohort_of(CLOCK.now_s() - rollout.since)
        arm = Arm(rollout, rollout.takes(task_id), cohort)
        if not is_known:
            self._count(arm, counted(arm.name, cohort, "begun"))
        return (changed if arm.is_new else bot), arm

    def heard(self, task: BotTask, arm: Arm, outcome: Outcome) -> Outcome:
        """Count what the first bot made of a task, and return that with a note of what is new. Never waits or raises.

        What is lost with its process is one task less of either setting.
        """
        fields = added(
            arm.name, arm.cohort, is_good=_is_good(task, arm, outcome), cost=_cost(arm, outcome),
            likeness=self._likeness(task, arm, outcome),
        )  # fmt: skip
        self._count(arm, fields)
        if not arm.is_new:
            return outcome
        return replace(outcome, sent={**outcome.sent, SENT: f"{arm.rollout.id}: {arm.rollout.what}"})

    def left(self, arm: Arm) -> None:
        """Count a task whose first bot was stopped before it came to anything. Never waits or raises."""
        self._count(arm, counted(arm.name, arm.cohort, "left"))

    def _count(self, arm: Arm, fields: dict[str, float]) -> None:
        self._store.send(COUNT, *count_call(arm.rollout, fields), within_s=0.05)

    async def load(self) -> None:
        """Learn which rollouts run.

        Raises:
            FleetError: When Redis does not answer.
        """
        running = read_running(await self._store.command("HGETALL", answer_keys.rollouts()))
        if running.keys() != self._running.keys():
            self._last.clear()
        self._running = running

    async def keep(self) -> None:
        """Follow what runs, and send back what is worse. For ever."""
        while True:
            try:
                await self.load()
                for rollout in tuple(self._running.values()):
                    await self._look(rollout)
            except FleetError as error:
                logger.warning("rollouts not read error=%s", type(error).__name__)
            await asyncio.sleep(READ_EVERY_S)

    async def _look(self, rollout: Rollout) -> None:
        flat = await self._store.command("HGETALL", answer_keys.rollout(rollout.id))
        why = worse(state_of(rollout, dict(zip(flat[::2], flat[1::2], strict=True))))
        if not why:
            return
        self._running.pop(rollout.pool, None)
        over = rollout.over("back", at=CLOCK.now_s(), why=why)
        if await self._store.run(FINISH, *finish_call(rollout, over)):
            logger.warning("rollout_back pool=%s rollout=%s: %s", rollout.pool, rollout.id, why)
            record_event(
                self._store, catalogue.ROLLOUT_BACK, pool=rollout.pool, rollout=rollout.id, what=rollout.what, why=why
            )

    def _likeness(self, task: BotTask, arm: Arm, outcome: Outcome) -> float | None:
        """Return how alike an answer is to the last one of its kind made so here; each is in one pair."""
        bins = bins_of(outcome.answer or "")
        if bins is None:
            return None
        place = arm.rollout.id, arm.is_new, task.kind
        before = self._last.pop(place, None)
        if before is None:
            if len(self._last) < MOST_KINDS:
                self._last[place] = bins
            return None
        mine, others = set(bins), set(before)
        return len(mine & others) / sqrt(len(mine) * len(others))


def _is_good(task: BotTask, arm: Arm, outcome: Outcome) -> bool:
    """True for a whole answer at which nothing is wrong, by the model that was to give it."""
    if outcome.status != "ok" or outcome.answer is None or outcome.fault is not None or outcome.rung:
        return False
    if arm.is_new and arm.rollout.model and outcome.model != arm.rollout.model:
        return False
    return task.right is None or is_right(outcome.answer, task.right, task.right_by)


def _cost(arm: Arm, outcome: Outcome) -> float | None:
    """Return what an answer has cost, in the unit of both settings: micro-dollars, or tokens; None: nobody knows."""
    if outcome.answer is None:
        return None
    if arm.rollout.in_tokens:
        return outcome.usage.total_tokens
    return None if outcome.cost_usd_picos is None else outcome.cost_usd_picos / PICOS_PER_MICRO
