"""The choice between the models of a pool by price, for kinds that say how good is good enough.

Each process reads the record of these kinds every few seconds. Tasks of other kinds pay a look into a dict.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fleet.config import Settings
from fleet.errors import FleetError
from fleet.models import Bot, BotTask
from fleet.roster.choosing import NONE_KNOWN, ModelChoice, cheapest, is_for_learning
from fleet.roster.grading import models_of
from fleet.store import answer_keys
from fleet.store.client import Store

logger = logging.getLogger("fleet.worker")

#: Seconds between two readings of the record.
READ_EVERY_S = 5.0
#: Field of a result's `sent` that says which model was chosen, and why.
SENT = "chosen"
_LEARNS = ModelChoice(why="kept for learning")


class ModelChoices:
    """Chooses models. One per process, on its loop.

    Args:
        store: State Redis.
        settings: Pools with several models, and kinds that say how good is good enough.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._kinds = {name: one for name, one in settings.kinds.items() if one.good_enough is not None}
        self._models = {
            name: {f"{pool.provider}/{model}" for model in pool.persona.models}
            for name, pool in settings.pools.items()
            if len(pool.persona.models) > 1 and not pool.own_bot
        }
        self._chosen: dict[tuple[str, str], ModelChoice] = {}

    def choose(self, task: BotTask, bot: Bot, task_id: str) -> tuple[Bot, dict[str, Any]]:
        """Return the bot with the model that it asks for a task, and what its result says of that. Never waits."""
        kind = self._kinds.get(task.kind)
        if kind is None or bot.pool not in self._models:
            return bot, {}
        choice = self._chosen.get((bot.pool, task.kind), NONE_KNOWN)
        if choice.model and is_for_learning(task_id, kind.learning):
            choice = _LEARNS
        if choice.model:
            _, _, model = choice.model.partition("/")
            bot = bot.model_copy(update={"persona": bot.persona.model_copy(update={"model": model})})
        return bot, {SENT: choice.model_dump(mode="json", exclude_none=True)}

    async def load(self) -> None:
        """Read the record.

        Raises:
            FleetError: When Redis does not answer.
        """
        for name, kind in self._kinds.items() if self._models else ():
            flat = await self._store.command("HGETALL", answer_keys.models(name))
            grades = models_of(dict(zip(flat[::2], flat[1::2], strict=True)))
            for pool, models in self._models.items():
                self._chosen[pool, name] = cheapest(grades, models, good_enough=kind.good_enough or 0.0)

    async def keep(self) -> None:
        """Follow the record. For ever."""
        while True:
            try:
                await self.load()
            except FleetError as error:
                logger.warning("record of models not read error=%s", type(error).__name__)
            await asyncio.sleep(READ_EVERY_S)
