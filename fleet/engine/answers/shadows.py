"""Second answers: where nobody knows what is right, another bot is asked the same now and then, and both are compared.

Rationed over the whole fleet by `roster/shadow.lua`, the most suspicious first. They run beside the slots at low
priority, as canaries do; one that is lost with its process is no loss but its cost. Kinds that do not ask pay nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fleet.answers.marking import part_of
from fleet.config import Settings
from fleet.config.savings import KindSettings
from fleet.engine.answers.grades import Grader, grade_of
from fleet.engine.answers.opinions import Agent
from fleet.errors import FleetError
from fleet.models import Bot, BotResult, BotTask, Priority, bot_name
from fleet.outcome import Outcome
from fleet.roster.grading import SHADOW, shadow_call
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import Store

#: Second answers that a process asks for at the same time: where calls are slow, the ration waits.
MOST_AT_ONCE = 8

logger = logging.getLogger("fleet.worker")


class Shadows:
    """Asks for second answers. One per process, on its loop.

    Args:
        store: State Redis.
        settings: Pools, and of which kinds second answers are wanted.
        agent: Lets a bot work.
        grader: Learns what comes of it.
        bot_of: Makes a bot by its name.
    """

    def __init__(
        self, store: Store, settings: Settings, agent: Agent, grader: Grader, *, bot_of: Callable[[str], Bot]
    ) -> None:
        self._store = store
        self._settings = settings
        self._agent = agent
        self._grader = grader
        self._bot_of = bot_of
        self._running: set[asyncio.Task[None]] = set()

    def note(self, task: BotTask, bot: Bot, result: BotResult) -> None:
        """Have an answer that stands compared with another bot's, if the ration allows. Never waits, never raises."""
        kind = self._settings.kinds.get(task.kind)
        if kind is None or not kind.shadow_votes or not self._can_compare(task, bot, result):
            return
        if len(self._running) < MOST_AT_ONCE:
            job = asyncio.get_running_loop().create_task(self._compare(task, bot, result, kind))
            self._running.add(job)
            job.add_done_callback(self._running.discard)

    def _can_compare(self, task: BotTask, bot: Bot, result: BotResult) -> bool:
        """True for a whole answer of words that nobody has graded; a function of the user's is not called again."""
        is_plain = result.status == "ok" and result.answer is not None and not result.rung and not task.tools
        return is_plain and task.right is None and not self._settings.pools[bot.pool].own_bot

    async def _compare(self, task: BotTask, bot: Bot, result: BotResult, kind: KindSettings) -> None:
        try:
            mine = part_of(result.answer or "", kind.count_by)
            if mine is None:
                return
            size = self._settings.pools[bot.pool].bots
            call = shadow_call(bot.pool, task.kind, bot.name, size=size, share=kind.shadow_votes)
            other = int(await self._store.run(SHADOW, *call))
            if not other:
                return
            outcome = await self._agent.run(
                task.model_copy(update={"priority": Priority.LOW}), self._bot_of(bot_name(bot.pool, other)),
                task_id=f"shadow-{result.task_id}", deadline_s_left=None, norms=None,
            )  # fmt: skip
            await self._count(outcome)
            theirs = None if outcome.answer is None or outcome.rung else part_of(outcome.answer, kind.count_by)
            if theirs is not None:
                await self._grader.take(grade_of(result, mine == theirs, of="shadows"))
        except FleetError as error:
            logger.warning("second answer failed bot=%s error=%s", bot.name, type(error).__name__)

    async def _count(self, outcome: Outcome) -> None:
        """Add what a second answer has used to the fleet's totals."""
        spent = {
            catalogue.SHADOWS: 1,
            **dict(catalogue.used(outcome.usage)),
            **dict(catalogue.paid(outcome.cost_usd_picos or 0)),
            catalogue.ATTEMPTS: outcome.attempts,
            catalogue.CALLS: max(0, outcome.attempts - sum(outcome.provider_errors.values())),
        }
        counted = [(counter.name, number) for counter, number in spent.items() if number]
        await asyncio.gather(*(self._store.command("HINCRBY", keys.totals(), *pair) for pair in counted))
