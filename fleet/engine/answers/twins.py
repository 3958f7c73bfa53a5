"""Tasks that are equal and have equal answers, by their kind: one is asked, and its answer is kept for the others.

What is equal: `economy/cache/digest.py`. Tasks of other kinds never come here, and cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from functools import lru_cache, partial
from typing import Any

from fleet.config import Settings
from fleet.config.savings import KindSettings
from fleet.economy.cache.answers import EACH_S, LEASE_S, MB, OTHER_KINDS, RENEW_EVERY_S, AnswerCache, How, Sight, Twin
from fleet.economy.cache.digest import digest_of, digest_of_pool, reads_metadata
from fleet.engine.answers.rollouts import SENT
from fleet.engine.outcomes.results import Done, spent_before
from fleet.engine.outcomes.stored import read_result, result_meta
from fleet.engine.transport.parking.opening import open_these
from fleet.errors import FleetError, NotSoon
from fleet.models import CACHE, Bot, BotResult, BotTask
from fleet.outcome import Before
from fleet.store import keys
from fleet.store.clock import CLOCK
from fleet.store.patience import patiently
from fleet.store.running.brokers import AnyStore
from fleet.waits import Wait

logger = logging.getLogger("fleet.worker")

#: Rules of a kind that fleet.toml does not name, for tasks that say themselves that equal ones have equal answers.
ANY_KIND = KindSettings(deterministic=True, by_persona=False)
#: Longest time (s) that a task waits for an equal one that has no end of its own.
LONGEST_S = 1e8
#: What of a kept result is its task's own, and not the answer's.
_OWN = ("task_id", "tenant", "parked", "usage", "cost_usd_micros", "cost_usd_picos", "attempts", "queued_ms",
        "limited_ms", "ran_ms", "finished_at")  # fmt: skip


class Twins:
    """Gives equal tasks one answer. One per process, on its loop.

    Args:
        settings: Which kinds are deterministic, and what pools say of their calls.
        cache: Keeps answers, and knows which of equal tasks is asked.
        broker: Where tasks wait.
        bot_of: Makes a bot by its name.
        has_come: True for a task whose own answer has come in a batch.
    """

    def __init__(
        self,
        settings: Settings,
        cache: AnswerCache,
        broker: AnyStore,
        *,
        bot_of: Callable[[str], Bot],
        has_come: Callable[[str], Coroutine[Any, Any, object | None]],
    ) -> None:
        self._settings, self._cache, self._broker = settings, cache, broker
        self._bot_of, self._has_come = bot_of, has_come
        self._kinds = {name: kind for name, kind in settings.kinds.items() if kind.deterministic}
        self._of_pool = lru_cache(maxsize=None)(lambda pool: digest_of_pool(settings, pool))
        #: Tasks that are asked here for all that are equal, and what tells the fleet so.
        self._asked: dict[str, tuple[Twin, asyncio.Future[None]]] = {}
        #: Tasks that were told to wait, until they are parked.
        self._waiting: dict[str, Twin] = {}
        self._jobs: set[asyncio.Future[None]] = set()

    def has(self, task: BotTask) -> bool:
        """True when equal tasks of its kind have equal answers, or it says so itself. Never waits.

        Members of an ask are asked each: their answers are compared, and may be outvoted.
        """
        return (task.kind in self._kinds or task.reuse is True) and task.seat is None

    def _rules(self, task: BotTask) -> KindSettings:
        if task.reuse:
            return self._settings.kinds.get(task.kind, ANY_KIND).model_copy(update={"by_persona": False})
        return self._kinds[task.kind]

    async def enter(self, task: BotTask, pool: str, task_id: str, before: Before) -> BotResult | None:
        """Return the result that an equal task had, before it has a bot; None: it is asked, and `leave` must follow.

        Where its bot's persona counts, nobody knows yet what is equal: `of_bot`.

        Raises:
            NotSoon: An equal task is being asked: it waits for that.
        """
        if self._rules(task).by_persona or task.reuse is False:
            return None
        return await self._seek(task, self._twin(task, pool, task_id), before)

    async def of_bot(self, task: BotTask, pool: str, task_id: str, before: Before, *, bot: str) -> BotResult | None:
        """Return the result that an equal task had from a bot of this persona, where that counts; as `enter`.

        Raises:
            NotSoon: One is being asked by a bot of this persona.
        """
        if not self._rules(task).by_persona or task.reuse is False:
            return None
        return await self._seek(task, self._twin(task, pool, task_id, bot), before)

    async def _seek(self, task: BotTask, twin: Twin, before: Before) -> BotResult | None:
        self._waiting.pop(twin.task, None)
        if before.parked and task.by_s is not None and await patiently(partial(self._has_come, twin.task)) is not None:
            self._ask(twin)
            return None
        sight = await self._look(twin)
        if sight.waits_for:
            self._waiting[twin.task] = twin
            raise NotSoon(Wait("twin", sight.looks_at, about=sight.waits_for, is_everyones=False))
        if sight.is_for_all:
            self._ask(twin)
        return read_result(sight.answer)

    def _ask(self, twin: Twin) -> None:
        self._asked[twin.task] = twin, asyncio.ensure_future(self._renew(twin))

    async def _look(self, twin: Twin) -> Sight:
        try:
            return await patiently(lambda: self._cache.look(twin))
        except FleetError as error:
            logger.warning("kept answers not read kind=%s error=%s: it is asked", twin.kind, error)
            return Sight()

    def parked(self, task_id: str) -> None:
        """Hear that a task is parked that was told to wait. Never waits.

        Had it been let go just before, nobody would have found it.
        """
        twin = self._waiting.pop(task_id, None)
        if twin is not None:
            self._do(self._look_back(twin))

    async def _look_back(self, twin: Twin) -> None:
        try:
            if not await patiently(lambda: self._cache.is_waiting(twin)):
                await open_these(self._broker, keys.queue(twin.pool), [twin.task])
        except FleetError as error:
            logger.warning("it waits longer task=%s error=%s", twin.task, error)

    def leave(self, task: BotTask, pool: str, task_id: str, done: object, wait: Wait | None) -> None:
        """Keep what came of a task that was asked, if equal ones may have it; or let those go on. Never waits.

        Args:
            task: That was entered.
            pool: Where.
            task_id: Its id.
            done: What came of it: a `Done` when it has ended.
            wait: Why it waits, if it does.
        """
        asked = self._asked.pop(task_id, None)
        if asked is not None:
            asked[1].cancel()
        ended = done if isinstance(done, Done) else None
        result = None if ended is None else ended.result
        how, lease_s = _how(result, wait)
        if ended is not None and result is not None and may_be_kept(result) and not ended.is_doubtful:
            rules = self._rules(task)
            twin = self._twin(task, pool, task_id, (result.bot or "") if rules.by_persona else "")
            self._do(self._keep(twin, result, rules))
            if asked is None or asked[0].digest == twin.digest:
                return
            how, lease_s = "over", LEASE_S  # another persona has answered in the end
        if asked is not None:
            self._do(self._let_go(asked[0], how, lease_s))

    async def _keep(self, twin: Twin, result: BotResult, rules: KindSettings) -> None:
        answer = result_meta(result)
        if len(answer) > rules.keep_mb * MB:
            return await self._let_go(twin, "each", EACH_S)
        try:
            waiting = await patiently(lambda: self._cache.keep(twin, bot=result.bot or "", answer=answer, rules=rules))
            await open_these(self._broker, keys.queue(twin.pool), waiting)
        except FleetError as error:
            logger.warning("answer not kept task=%s error=%s", twin.task, error)

    async def _let_go(self, twin: Twin, how: How, lease_s: int) -> None:
        try:
            waiting = await patiently(lambda: self._cache.hold(twin, how, lease_s))
            await open_these(self._broker, keys.queue(twin.pool), waiting)
        except FleetError as error:
            logger.warning("equal tasks wait longer task=%s error=%s", twin.task, error)

    async def _renew(self, twin: Twin) -> None:
        """Tell that a task is being asked while it is."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                await self._cache.hold(twin, "now")
            except FleetError:
                continue  # it is told again; should another one go meanwhile, both answers are good

    def _twin(self, task: BotTask, pool: str, task_id: str, bot: str = "") -> Twin:
        digest = digest_of(
            task, of_pool=self._of_pool(pool), bot=self._bot_of(bot) if bot else None,
            with_metadata=reads_metadata(self._settings, pool),
        )  # fmt: skip
        now_s = CLOCK.now_s()
        left_s = LONGEST_S if task.expires_at is None else (task.expires_at - now_s) / 2
        latest = now_s + min(left_s, (task.by_s or LONGEST_S) / 2)
        later = 0.0 if task.by_s is None else now_s + min(left_s, task.by_s * 3 / 4)
        kind = task.kind if task.kind in self._settings.kinds else OTHER_KINDS
        return Twin(kind, digest, pool, task_id, task.priority.value, latest, later)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        job = asyncio.ensure_future(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)


def _how(result: BotResult | None, wait: Wait | None) -> tuple[How, int]:
    """Return what becomes of those that wait for a task that has no answer for them, and for how many seconds."""
    if wait is not None and wait.cause == "batch" and wait.opens_at is not None:
        return "later", math.ceil(max(0.0, wait.opens_at - CLOCK.now_s())) + LEASE_S
    if result is not None and (result.error is None or result.error.blame == "prompt"):
        return "each", EACH_S
    return "over", LEASE_S


def may_be_kept(result: BotResult) -> bool:
    """True for a whole answer of a bot, by its pool's own model, to the whole prompt; none that a rollout tries."""
    is_usual = not (result.rung or result.cut_tokens or result.left_out) and SENT not in result.sent
    return result.status == "ok" and bool(result.bot) and is_usual


def served(kept: BotResult, task: BotTask, task_id: str, *, queued_ms: int | None, before: Before) -> BotResult:
    """Return a task's result with the answer of an equal one: nobody worked for it, and it cost nothing.

    Args:
        kept: The other's result.
        task: What was asked.
        task_id: Its id.
        queued_ms: From its submission to its last delivery.
        before: What it has had before: calls that failed, say.
    """
    own = spent_before(task_id, before)
    had = {name: getattr(own, name) for name in _OWN}
    cost = own.cost_usd_picos or 0
    return kept.model_copy(update=had | {
        "served_by": CACHE, "bot": None, "persona": None, "tenant": task.tenant, "metadata": task.metadata,
        "cost_usd_picos": cost, "cost_usd_micros": own.cost_usd_micros or 0,
        "queued_ms": None if queued_ms is None else max(0, queued_ms - before.ran_ms - before.limited_ms),
        "limited_ms": before.limited_ms, "ran_ms": before.ran_ms + before.limited_ms, "finished_at": time.time(),
    })  # fmt: skip
