"""The ledger of earnings in Redis: entered as a task ends, taken back by counter-entries, summed for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import redis

from fleet.config import Settings
from fleet.earnings.rows import DAY_S, EarningRow, EarningTerms, day_of
from fleet.errors import InvalidTask
from fleet.models import BotResult
from fleet.quoting import quote
from fleet.store import payout_keys
from fleet.store.client import Script, run_script

#: Days for which sums of a day are kept; those of all time stay.
DAYS_KEPT = 400

ACCRUE = Script.beside(__file__, "accrue.lua", keys="tasks day ever", argv="task row tasks_life_s day_life_s")
TAKE_BACK = Script.beside(
    __file__, "take_back.lua", keys="tasks taken day ever", argv="task row counter mark tasks_life_s day_life_s"
)


class Accrual:
    """Tells what to enter as a task ends.

    Args:
        settings: Prices, payees, networks.
    """

    def __init__(self, settings: Settings) -> None:
        self._terms = EarningTerms(settings)
        self._tasks_life_s = _tasks_life_s(settings)

    def call_of(self, result: BotResult, kind: str) -> tuple[list[Any], list[Any]] | None:
        """Return KEYS and ARGV of `accrue.lua`; None: the task earns nothing. The same each time it is asked."""
        row = self._terms.row_of(result, kind)
        if row is None:
            return None
        day = day_of(result.finished_at)
        return ACCRUE.call(
            tasks=payout_keys.earned_tasks(day),
            day=payout_keys.earned_day(day),
            ever=payout_keys.earned_ever(),
            task=result.task_id,
            row=row.spelt,
            tasks_life_s=self._tasks_life_s,
            day_life_s=(DAYS_KEPT + 1) * DAY_S,
        )


class Earned(NamedTuple):
    """What one task has earned.

    Args:
        day: On which it was entered, since 1970.
        row: Who earned what.
        taken_back: JSON of when, who and why; None: it stands.
    """

    day: int
    row: EarningRow
    taken_back: dict[str, Any] | None


def earned_by(client: redis.Redis, task_id: str, settings: Settings, now_s: float) -> Earned | None:
    """Return what a task has earned; None: nothing, or longer ago than `payouts.revocable_days`."""
    days = range(day_of(now_s) + 1, day_of(now_s) - settings.payouts.revocable_days - 2, -1)
    with client.pipeline(transaction=False) as pipe:
        for day in days:
            pipe.hget(payout_keys.earned_tasks(day), task_id)
            pipe.hget(payout_keys.earned_taken(day), task_id)
        found = pipe.execute()
    for day, row, mark in zip(days, found[::2], found[1::2], strict=True):
        if row is not None:
            return Earned(day, EarningRow.of(row), None if mark is None else json.loads(mark))
    return None


def take_back(
    client: redis.Redis, task_id: str, settings: Settings, *, by: str, why: str
) -> tuple[Literal["taken back", "was taken back"], EarningRow]:
    """Take back what a task has earned, by a counter-entry of today; what was paid already is due less next time.

    Raises:
        InvalidTask: When it has earned nothing that is still known.
    """
    now_s = float(client.time()[0])
    earned = earned_by(client, task_id, settings, now_s)
    if earned is None:
        raise InvalidTask(
            f"expected a task that has earned something within {settings.payouts.revocable_days} days "
            f"(payouts.revocable_days), got {quote(task_id)}"
        )
    keys, arguments = TAKE_BACK.call(
        tasks=payout_keys.earned_tasks(earned.day),
        taken=payout_keys.earned_taken(earned.day),
        day=payout_keys.earned_day(day_of(now_s)),
        ever=payout_keys.earned_ever(),
        task=task_id,
        row=earned.row.spelt,
        counter=earned.row.taken_back.spelt,
        mark=json.dumps({"at": now_s, "by": by, "why": why}),
        tasks_life_s=_tasks_life_s(settings),
        day_life_s=(DAYS_KEPT + 1) * DAY_S,
    )
    code = int(run_script(client, TAKE_BACK, keys, arguments))
    return "taken back" if code == 1 else "was taken back", earned.row


def rows_ever(client: redis.Redis) -> dict[EarningRow, int]:
    """Return the whole ledger: row -> tasks. O(bots that have earned)."""
    return _read(client.hgetall(payout_keys.earned_ever()))


def rows_between(client: redis.Redis, since_s: float, until_s: float) -> Iterator[tuple[int, dict[EarningRow, int]]]:
    """Yield each day (since 1970) of a time with its rows; whole days, of the last 400."""
    for day in range(day_of(since_s), day_of(until_s - 1) + 1):
        yield day, _read(client.hgetall(payout_keys.earned_day(day)))


def _tasks_life_s(settings: Settings) -> int:
    return (settings.payouts.revocable_days + 1) * DAY_S


def _read(found: Any) -> dict[EarningRow, int]:
    return {EarningRow.of(name): int(count) for name, count in found.items()}
