"""Second opinions: an answer that may be its bot's fault is not the task's end, for another bot may do better.

That also tells whose fault it was. When another bot's answer is good, it was the bot's; when all agree, the prompt's,
and no bot is accused. All in one slot, one after the other, within the task's deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from fleet.config import Settings
from fleet.engine.admission.standing import stand
from fleet.engine.answers.choices import ModelChoices
from fleet.engine.answers.opinion import Opinion, Opinions
from fleet.engine.answers.rollouts import Arm, Rollouts
from fleet.errors import BotsQuarantined, ConfigurationError, FleetError, HeldUp, StoreError
from fleet.faults import Fault
from fleet.models import Bot, BotTask, Norms
from fleet.outcome import NOTHING_BEFORE, Before, Entered, Outcome, Parking
from fleet.roster import Checkout, Roster, WantedBot
from fleet.store.clock import CLOCK
from fleet.store.patience import patiently

#: Seconds between two looks for bots that were quarantined while they work.
WATCH_EVERY_S = 1.0
#: Bots that are asked beyond `health.opinions` when some gave no answer and others one that is too short.
MORE_IF_DIVIDED = 2

logger = logging.getLogger("fleet.worker")


class Agent(Protocol):
    """Who lets a bot work: `fleet.workers.agent.Agent`."""

    def run(
        self,
        task: BotTask,
        bot: Bot,
        *,
        task_id: str,
        deadline_s_left: float | None,
        norms: Norms | None,
        stop: asyncio.Event | None = None,
        before: Before | None = None,
        spent_picos: int = 0,
    ) -> Coroutine[Any, Any, Outcome]:
        """Work on one task; always comes back with an outcome. Without `before` it is never one to be parked."""
        ...


@dataclass(frozen=True, slots=True)
class _Turn:
    """One bot's turn at a task."""

    task: BotTask
    bot: Bot
    checkout: Checkout
    task_id: str
    left_s: float | None
    spent_picos: int
    stop: asyncio.Event
    arm: Arm | None = None
    said: Mapping[str, Any] | None = None


class Panel:
    """Asks bots, one after the other. One per process, on its loop.

    Args:
        agent: Lets a bot work.
        roster: Where other bots are found.
        settings: Pools, and how many opinions a task may have.
        bot_of: Makes a bot by its name.
        norms_of: What is usual for a pool and a task class.
        held: Checkouts that this process renews, by token.
        rollouts: What is tried in pools.
        choices: Which of a pool's models is asked.
    """

    def __init__(
        self,
        agent: Agent,
        roster: Roster,
        settings: Settings,
        *,
        bot_of: Callable[[str], Bot],
        norms_of: Callable[[str, str], Norms | None],
        held: MutableMapping[str, Checkout],
        rollouts: Rollouts | None = None,
        choices: ModelChoices | None = None,
    ) -> None:
        self._agent, self._rollouts, self._choices = agent, rollouts, choices
        self._roster = roster
        self._settings = settings
        self._bot_of = bot_of
        self._norms_of = norms_of
        self._held = held
        self._at_work: dict[str, tuple[Checkout, asyncio.Task[Outcome], asyncio.Event]] = {}
        #: What ends the work of each task, by the token of its first checkout; and the tokens of the revoked ones.
        self._stops: dict[str, asyncio.Event] = {}
        self._revoked: set[str] = set()

    async def ask(
        self, task: BotTask, first: Checkout, *, task_id: str, before: Before = NOTHING_BEFORE,
        wanted: WantedBot | None = None,
    ) -> Opinions:  # fmt: skip
        """Let bots work on a task until one does well, there is none left, or enough agree.

        The checkouts stay held; who finishes the task, or parks it, gives them back. Once a bot has given an answer the
        task is not parked any more: what the others wait for, it waits for in its slot.

        Args:
            task: What to do.
            first: The bot that begins.
            task_id: For the log.
            before: What the task has had before it was parked.
            wanted: What other bots must be like; None: any will do.
        """
        allowed_s = task.deadline_s or self._settings.pools[first.pool].deadline_s
        most = self._most(first.pool)
        given: list[Opinion] = []
        stopped: list[Opinion] = []
        checkout: Checkout | None = first
        asked, entered = [first], before.entered
        tried_ms = entered.tried_ms or 0 if entered is not None else 0
        had, left_s, spent = before, allowed_s + (tried_ms - before.ran_ms) / 1000, 0
        while checkout is not None:
            self._stops[first.token] = stop = asyncio.Event()
            turn = self._begin(
                _Turn(task, self._bot_of(checkout.bot), checkout, task_id, left_s, spent, stop),
                before, is_first=not (given or stopped),
            )  # fmt: skip
            entered = turn.arm.entered if turn.arm is not None else entered
            try:
                found = await self._turn(turn, had, may_park=not given)
            finally:
                del self._stops[first.token]
            if isinstance(found, Parking):
                parking = _entered(_since(found, before, stopped), entered)
                return Opinions((), tuple(stopped), most, parking=parking, asked=tuple(asked))
            opinion = self._heard(turn, found)
            if first.token in self._revoked:
                self._revoked.discard(first.token)
                return Opinions((*given, opinion), tuple(stopped), most, is_revoked=True)
            rescued = self._is_rescued(opinion, left_s)
            if (stop.is_set() and found.answer is None) or rescued:
                stopped.append(opinion)
            else:
                given.append(opinion)
                if found.fault is None or _is_settled(given, most):
                    break
            if rescued and entered is not None:  # no task pays for a rollout: neither time nor a bot, nor twice
                tried_ms = found.ran_ms - before.ran_ms
                entered = entered.model_copy(update={"tried_ms": tried_ms})
            outcomes = [one.outcome for one in (*given, *stopped)]
            had, left_s = NOTHING_BEFORE, allowed_s + (tried_ms - sum([one.ran_ms for one in outcomes])) / 1000
            spent = sum([one.cost_usd_picos or 0 for one in outcomes])
            if rescued:  # the same bot does it as ever
                continue
            checkout = await self._another(asked, task, task_id, wanted) if left_s > 0 else None
            if checkout is not None:
                asked.append(checkout)
        if given:
            return Opinions(tuple(given), tuple(stopped), most)
        wait = BotsQuarantined("its bot was quarantined, and there is no other").wait(about=first.pool)
        parking = _entered(_since(Parking(wait, NOTHING_BEFORE, is_alone=True), before, stopped), entered)
        return Opinions((), tuple(stopped), most, parking=parking, asked=tuple(asked))

    def _begin(self, turn: _Turn, before: Before, *, is_first: bool) -> _Turn:
        """Return a turn as it is under the rollout of its pool, if one runs, and with the model chosen for it."""
        if not is_first or self._rollouts is None or self._choices is None:
            return turn
        bot, said = self._choices.choose(turn.task, turn.bot, turn.task_id)
        bot, arm = self._rollouts.enter(bot, turn.task_id, before.entered)
        return replace(turn, bot=bot, arm=arm, said=said) if arm is not None or said else turn

    def _heard(self, turn: _Turn, found: Outcome) -> Opinion:
        """Return what a turn came to; the rollout of its pool learns it."""
        if turn.said:
            found = replace(found, sent={**found.sent, **turn.said})
        if self._rollouts is None or turn.arm is None:
            return Opinion(turn.checkout, turn.bot, found)
        if turn.stop.is_set() and found.answer is None:
            self._rollouts.left(turn.arm)
            return Opinion(turn.checkout, turn.bot, found)
        heard = self._rollouts.heard(turn.task, turn.arm, found)
        return Opinion(turn.checkout, turn.bot, heard, turn.arm.is_new)

    async def _turn(self, turn: _Turn, before: Before, *, may_park: bool) -> Outcome | Parking:
        """Let one bot work, in its slot until it has come to something unless it may be parked."""
        while True:
            try:
                outcome = await self._work(turn, before if may_park else None)
            except HeldUp as error:  # another bot has given an answer: it begins anew here
                await stand(error.wait(opens_at=CLOCK.now_s()))
            else:
                return outcome if outcome.parking is None or turn.stop.is_set() else outcome.parking

    def stop(self, token: str, job: asyncio.Future[Any]) -> bool:
        """End the work on a task that was revoked: `ask` returns what its bots have used. False when none works on it.

        Args:
            token: Of its first checkout.
            job: What runs `ask` for it.
        """
        stop = self._stops.get(token)
        if stop is None:
            return False
        self._revoked.add(token)
        stop.set()
        watched = [work for checkout, work, own in self._at_work.values() if own is stop]
        (watched[0] if watched else job).cancel()
        return True

    def _most(self, pool: str) -> int:
        """Return how many bots may be asked: a function of the user's is not called again, whatever it does."""
        return 1 if self._settings.pools[pool].own_bot else self._settings.health.opinions

    def _is_rescued(self, opinion: Opinion, left_s: float) -> bool:
        """True when a bot is to do a task once more, as ever, whatever `health.opinions` says of other bots."""
        found = opinion.outcome
        is_bad = found.answer is None or found.fault is not None
        return opinion.is_tried and is_bad and left_s > 0 and not self._settings.pools[opinion.bot.pool].own_bot

    async def _another(
        self, asked: list[Checkout], task: BotTask, task_id: str, wanted: WantedBot | None
    ) -> Checkout | None:
        """Check out a bot that has not had the task; None when there is none, or it has a result by now."""
        first, besides = asked[0], [one.bot for one in asked]
        token = other_token(first.token, len(asked))
        try:
            other = await patiently(
                lambda: self._roster.check_out(
                    first.pool,
                    task_id=task_id,
                    token=token,
                    priority=task.priority,
                    besides=besides,
                    wanted=wanted,
                )
            )
        except (BotsQuarantined, ConfigurationError, StoreError):  # what there is already must not be lost for it
            return None
        if other is not None:
            self._held[token] = other
        return other

    def _work(self, turn: _Turn, before: Before | None) -> Coroutine[Any, Any, Outcome]:
        """Let one bot work; its `stop` is set when it was quarantined meanwhile: the work is to be done elsewhere."""
        norms = self._norms_of(turn.bot.pool, turn.task.kind)
        work = self._agent.run(
            turn.task, turn.bot,
            task_id=turn.task_id, deadline_s_left=turn.left_s, norms=norms, stop=turn.stop, before=before,
            spent_picos=turn.spent_picos,
        )  # fmt: skip
        return work if self._settings.health.running == "finish" else self._watched(turn, work)

    async def _watched(self, turn: _Turn, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Let one bot work where `watch` may stop it."""
        checkout = turn.checkout
        job = asyncio.ensure_future(work)
        self._at_work[checkout.token] = checkout, job, turn.stop
        try:
            await asyncio.wait({job})
        finally:
            del self._at_work[checkout.token]
            job.cancel()
        return job.result()

    async def watch(self, read_out: Callable[[Iterable[str]], Awaitable[set[str]]]) -> None:
        """Stop the work of bots that are quarantined, where that is wanted. For ever.

        Args:
            read_out: Returns the quarantined bots of the given pools.
        """
        while self._settings.health.running == "retry":
            await asyncio.sleep(WATCH_EVERY_S)
            pools = {checkout.pool for checkout, _, _ in self._at_work.values()}
            try:
                out = await read_out(pools) if pools else set[str]()
            except FleetError as error:
                logger.warning("quarantined bots not read error=%s", error)
                continue
            for checkout, job, stop in tuple(self._at_work.values()):
                if checkout.bot in out:
                    logger.info("stopped task=%s bot=%s: it is quarantined", checkout.task_id, checkout.bot)
                    stop.set()
                    job.cancel()


def _is_settled(given: Sequence[Opinion], most: int) -> bool:
    """True when enough bots agree that there is no answer, or that a short one is right; else a few more are asked."""
    short = sum(one.outcome.fault is Fault.TOO_SHORT for one in given)
    return max(short, len(given) - short) >= most or len(given) >= most + (MORE_IF_DIVIDED if most > 1 else 0)


def _since(parking: Parking, before: Before, stopped: Sequence[Opinion]) -> Parking:
    """Return a parking with what the task has had in all: also from bots that were stopped on the way.

    The first of them has counted what was before.
    """
    if not stopped:
        return parking
    had, outcomes = parking.before, [one.outcome for one in stopped]
    costs = [cost for cost in (had.cost_usd_picos, *(one.cost_usd_picos for one in outcomes)) if cost is not None]
    return replace(parking, before=Before(
        tries=max(had.tries, before.tries),
        attempts=had.attempts + sum(one.attempts for one in outcomes),
        failed=dict(sum((Counter(one.provider_errors) for one in outcomes), Counter(had.failed))),
        usage=sum((one.usage for one in outcomes), had.usage),
        cost_usd_picos=sum(costs) if costs else None,
        limited_ms=had.limited_ms + sum(one.limited_ms for one in outcomes),
        ran_ms=had.ran_ms + sum(one.ran_ms for one in outcomes),
        parked=before.parked + 1,
        since=before.since or had.since,
    ))  # fmt: skip


def _entered(parking: Parking, entered: Entered | None) -> Parking:
    """Return a parking with the rollout that has counted its task."""
    if entered is None:
        return parking
    return replace(parking, before=parking.before.model_copy(update={"entered": entered}))


def other_token(first: str, number: int) -> str:
    """Return the token under which the `number`-th other bot is checked out for a task."""
    return f"{first}/{number}"
