"""What an operator does about tasks from the page: cancel and stop them, queue dead ones again, throw them away.

In bulk a request works for some seconds and says how many letters are left, and what goes on with those: letters that
stay are not walked through again. Repeating it queues nothing twice.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Literal

import redis
from pydantic import Field

from fleet.config import Settings
from fleet.engine.operations import levers
from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice
from fleet.errors import ConfigurationError
from fleet.frozen import Frozen
from fleet.quoting import counted
from fleet.store.running.brokers import Anywhere

#: Seconds that one request works on letters at most: the page waits for 15.
BULK_S = 8.0
#: Characters of a task's id, of a pool's name and of an error's type at most.
MOST_ID, MOST_NAME = 512, 64

#: How outcomes are told that need more than their name.
_SAID = {
    "expired": "stay, for their end has passed (`fleet dead replay --expires-in` gives them a new one)",
    "not kept": "stay, for their message was too large to be kept",
    "unknown": "gone before",
}


class CancelTask(Frozen):
    """Keep a task from starting; `running`: also stop it while it runs, what it has used is counted."""

    do: Literal["cancel"]
    task: str = Field(min_length=1, max_length=MOST_ID)
    running: bool = False


class _Dead(Frozen):
    """Dead letters: one task's, or all of a pool and reason."""

    task: str | None = Field(None, min_length=1, max_length=MOST_ID)
    pool: str | None = Field(None, min_length=1, max_length=MOST_NAME)
    reason: str | None = Field(None, min_length=1, max_length=MOST_NAME)
    everything: bool = False
    #: Of many: only those older than this place, as an earlier request has handed it out.
    before: str | None = Field(None, min_length=1, max_length=MOST_ID + MOST_NAME)


class ReplayDead(_Dead):
    """Queue dead tasks again."""

    do: Literal["replay"]


class PurgeDead(_Dead):
    """Throw dead letters away."""

    do: Literal["purge"]


TaskAction = CancelTask | ReplayDead | PurgeDead


def carry_out_on_tasks(
    action: TaskAction, state: redis.Redis, broker: Anywhere, settings: Settings, *, by: str
) -> tuple[str, TaskAction | None]:
    """Do it, and return one line about what was done, and what goes on with the rest. Blocks: call it on a thread.

    Raises:
        ConfigurationError: When it does not say which letters are meant.
        StoreUnavailable: When Redis does not answer.
    """
    if isinstance(action, CancelTask):
        return levers.cancel_task(state, broker, settings, action.task, is_running=action.running, by=by), None
    if not (action.task or action.pool or action.reason or action.everything):
        raise ConfigurationError(f"{action.do}: expected a task, a pool, a reason or everything, got none of them")
    office = DeadLetterOffice(state, broker, settings)
    done, place = (_one(office, action, action.task), None) if action.task else _in_bulk(office, action)
    levers.note_dead(
        state, action.do, done, by=by, tasks=[action.task] if action.task else (), pool=action.pool,
        reason=action.reason,
    )  # fmt: skip
    said = ", ".join(f"{number:,} {_SAID.get(name, name)}" for name, number in done.items()) or "no dead letters"
    if place is None:
        return said, None
    left = office.count(pool=action.pool, reason=action.reason, before=place or None)
    more = action.model_copy(update={"before": place or None})
    return f"{said}; {counted(left, 'dead letter')} left: once more goes on with them", more


def _one(office: DeadLetterOffice, action: ReplayDead | PurgeDead, task_id: str) -> Counter[str]:
    if isinstance(action, PurgeDead):
        return Counter(["purged" if office.purge(task_id) else "unknown"])
    return Counter([office.replay(task_id)])


def _in_bulk(office: DeadLetterOffice, action: ReplayDead | PurgeDead) -> tuple[Counter[str], str | None]:
    """Return what became of letters, and the place where time was up (empty: before the first); None: all are done."""
    counts, until_s, place = Counter[str](), time.monotonic() + BULK_S, action.before or ""
    for filed in office.walk(pool=action.pool, reason=action.reason, before=action.before):
        if time.monotonic() > until_s:
            return counts, place
        place = filed.place
        if isinstance(action, PurgeDead):
            done = office.purge(filed.letter.task_id, died_us=filed.died_us)
            counts["purged" if done else "unknown"] += 1
        else:
            counts[office.replay(filed.letter.task_id)] += 1
    return counts, None
