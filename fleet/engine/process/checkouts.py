"""Which bot a task gets: the one whose turn it is, or the one whose answer to it has come in a batch."""

from __future__ import annotations

import uuid

from fleet.engine.process.delivery import Delivery
from fleet.engine.process.lanes import LaneChooser
from fleet.models import BotTask
from fleet.outcome import Before
from fleet.roster import Checkout, Roster, WantedBot
from fleet.store.patience import patiently


class Checkouts:
    """Gives tasks their bots. One per process.

    Args:
        roster: Where bots are.
        lanes: Knows whose answers have come.
    """

    def __init__(self, roster: Roster, lanes: LaneChooser) -> None:
        self._roster, self._lanes = roster, lanes

    async def check_out(
        self, pool: str, task: BotTask, delivery: Delivery, before: Before, wanted: WantedBot | None = None
    ) -> Checkout | None:
        """Check a bot out; None when the task has a result already. Patient while Redis is away.

        Args:
            pool: The task's.
            task: What is to be done.
            delivery: Its message.
            before: What it has had before it was parked.
            wanted: What the bot must be like; None: anyone will do.

        Raises:
            BotsQuarantined: When all bots of the pool are.
            ConfigurationError: When the pool has none.
            StoreError: When Redis refuses it.
        """
        token, task_id = delivery.tag or uuid.uuid4().hex, delivery.task_id
        if task.by_s is not None and before.parked:
            claimed = await patiently(lambda: self._claim(pool, task_id, token))
            if claimed is not None:
                return claimed
        return await patiently(
            lambda: self._roster.check_out(
                pool, task_id=task_id, token=token, kind=task.kind, priority=task.priority, wanted=wanted
            )
        )

    async def _claim(self, pool: str, task_id: str, token: str) -> Checkout | None:
        whose = await self._lanes.bot_of(task_id)
        if whose is None or whose[0] != pool:
            return None
        return await self._roster.claim(pool, whose[1], task_id=task_id, token=token)

    async def next_release(self, pool: str) -> float | None:
        """Return when the next quarantined bot of a pool is back (Unix time, s): as `Roster.next_release`."""
        return await self._roster.next_release(pool)

    def over(self, pool: str, task: BotTask, task_id: str) -> None:
        """Hear that the result of a pool's task is stored. Never waits."""
        if task.by_s is not None:
            self._lanes.over(pool, task_id)
