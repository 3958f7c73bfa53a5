"""`ask_fleet`: one question to several bots, one outcome. Members are ordinary tasks; whoever asks counts them.

Nothing of an ask is kept in Redis but its members, which expire with it. So when the asking process dies, they end by
themselves; when a worker dies, its member goes to another bot of its seat.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Sequence
from typing import Any

import redis
from kombu.exceptions import OperationalError

from fleet.answers import Hearing, Majority, Rule, Stop, Weighted, leader, would_have
from fleet.answers.kinship import Kinship
from fleet.engine.answers.grades import tell, worth_of
from fleet.engine.app import app
from fleet.engine.asking import record
from fleet.engine.asking.judging import JUDGES_SHARE, chosen, judges_task
from fleet.engine.asking.outcome import AskOutcome, Side, WhyOver, cost_of, sides_of, source_of, told_members
from fleet.engine.asking.own_function import own_answer
from fleet.engine.asking.question import Aggregate, AskTerms, Member, key_of, members_of
from fleet.engine.asking.quorum import no_quorum
from fleet.engine.asking.recent import note_recent, recent_of
from fleet.engine.asking.replacing import Replacements
from fleet.engine.messages.desk import Desk, desk_here
from fleet.engine.outcomes.stored import typed_result
from fleet.errors import BotFunctionFailed, FleetError, StoreUnavailable
from fleet.models import BotResult, BotTask, TaskError
from fleet.signals import catalogue

logger = logging.getLogger("fleet.asking")

#: Share of an ask's time after which all members are asked that are left.
HURRY_SHARE = 0.5
#: Seconds between two looks whether members wait for bots that are in quarantine.
LOOK_EVERY_S = 1.0
#: Seconds that an ask waits at its end until members are cancelled and the record is written.
TIDY_S = 5.0
#: Seconds that the user's own function has at least, also when members took all of the time.
LEAST_OWN_S = 1.0


def ask_fleet(
    prompt: Any, *, n: int = 7, aggregate: str | Aggregate = "majority", quorum: int | None = None,
    deadline_s: float = 60.0, pools: Sequence[str] = (), stop: Stop = "fixed", at_once: int | None = None,
    count_by: str | None = None, judge: str | None = None, right: str | None = None, **options: Any,
) -> AskOutcome:  # fmt: skip
    """Ask several bots, none of them twice, and make one answer of theirs. Blocks for `deadline_s` at most.

    Args:
        prompt: A prompt, a dict or a `BotTask`.
        n: Members: bots that are asked at most.
        aggregate: `majority`; `weighted`, by who errs together; `judge`, the best by one more bot; or your own
            function, or its dotted path: it is given the results with an answer and returns the answer.
        quorum: Votes behind every outcome: others may fail, be late or be left out. Default: more than half of n where
            members failed or were late, and as few as decide it where the rest is left out.
        deadline_s: Seconds until there is an outcome, or it is said that there is none.
        pools: Where members are asked, in turn. Default: the task's `pool`, or the least loaded.
        stop: `fixed`: the rest is not asked when the outcome can no longer change; `adaptive`: also when it is sure
            enough; `shadow`: all are asked, and it is counted what `adaptive` would have saved.
        at_once: Members asked at the same time. Default: as few as could decide it together, and all that are left
            after half of the time.
        count_by: What of an answer counts: a regular expression (the first group of its last match), or `.field` of a
            JSON answer. Default: all of it.
        judge: Pool of the judge. Default: the first of the members'.
        right: The right answer, where it is known: the record learns from it.
        options: Fields of `BotTask`, for all members.

    Raises:
        InvalidTask: When these aren't a task or the options of an ask; nothing is queued then.
        RuntimeError: In a running loop, which it would block: use `ask_fleet_async` there.
    """
    question = AskTerms(
        BotTask.parse(prompt, **options), n=n, aggregate=aggregate, quorum=quorum, deadline_s=deadline_s, pools=pools,
        stop=stop, at_once=at_once, count_by=count_by, judge=judge, right=right,
    )  # fmt: skip
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(ask(question))
    raise RuntimeError("ask_fleet: expected no running event loop, which it would block; await ask_fleet_async")


async def ask_fleet_async(prompt: Any, **options: Any) -> AskOutcome:
    """Ask several bots and make one answer of theirs, without blocking the loop; takes what `ask_fleet` does.

    Cancelling it cancels the members.

    Raises:
        InvalidTask: When these aren't a task or the options of an ask; nothing is queued then.
    """
    own = {name: options.pop(name) for name in _OPTIONS if name in options}
    return await ask(AskTerms(BotTask.parse(prompt, **options), **own))


_OPTIONS = frozenset(inspect.signature(ask_fleet).parameters) - {"prompt", "options"}


async def ask(question: AskTerms) -> AskOutcome:
    """Ask what was checked."""
    desk = await desk_here()
    pools = list(question.pools) or [question.task.pool or await _least_loaded(question, desk)]
    return await _Ask(question, desk, pools).run()


async def _least_loaded(question: AskTerms, desk: Desk) -> str:
    try:
        async with asyncio.timeout(question.deadline_s):
            return await desk.choose(question.task)
    except TimeoutError:
        raise StoreUnavailable(
            f"expected Redis to tell the pools' backlogs within {question.deadline_s:g} s, got none; nothing was asked"
        ) from None


class _Ask:
    """One ask under way."""

    def __init__(self, question: AskTerms, desk: Desk, pools: list[str]) -> None:
        self._question = question
        self._desk = desk
        self._pools = pools
        self._started = time.monotonic()
        self._ends = self._started + question.deadline_s
        share = 1 - JUDGES_SHARE if question.aggregate == "judge" else 1.0
        self._members_end = self._started + question.deadline_s * share
        self._expires_at = time.time() + question.deadline_s
        self._members = self._deal()
        self._waiting: dict[asyncio.Future[dict[str, Any]], tuple[int, str]] = {}
        #: Those with a result, in the order in which they came, and their answers as they are counted.
        self._results: list[tuple[BotResult, str | None]] = []
        self._cancelled: list[tuple[int, str]] = []
        self._judge: BotResult | None = None
        #: Bots of the pools for members that fail, and the places of members that are to be asked of them.
        self._replacements = Replacements(question, pools, desk.settings)
        self._again: list[int] = []
        self._dropped: list[asyncio.Future[None]] = []

    def _deal(self) -> list[Member]:
        expires_at = time.time() + (self._members_end - self._started)
        return members_of(self._question, self._pools, self._desk.settings, expires_at=expires_at)

    async def run(self) -> AskOutcome:
        rule = await self._rule()
        asked = self._question
        sources = [one.source for one in self._members]
        hearing = Hearing(sources, rule, asked.stop, at_once=asked.at_once, least=asked.quorum or 0)
        try:
            why = await self._hear(hearing)
        finally:
            self._cancelled += self._waiting.values()
            await self._withdraw()
        outcome = await self._conclude(hearing, rule, why)
        await self._note(hearing, outcome)
        return outcome

    async def _rule(self) -> Rule | None:
        """Return how votes are counted, and put the members into the order in which they are asked."""
        named = self._question.aggregate
        if named == "majority":
            return Majority()
        if named != "weighted":
            return None
        try:
            async with asyncio.timeout(self._left() / 2):
                kinship = await record.kinship(self._desk.state, self._question.task.kind)
        except (TimeoutError, FleetError) as error:
            logger.warning("record of asks not read error=%s: all models are taken to be alike", type(error).__name__)
            kinship = Kinship()
        self._members.sort(key=lambda member: -kinship.odds(member.source))
        return Weighted(kinship)

    def _left(self) -> float:
        return max(0.0, self._members_end - time.monotonic())

    async def _hear(self, hearing: Hearing) -> WhyOver:
        """Ask members and hear them until it is over; return why it is."""
        hurry_at = self._started + self._question.deadline_s * HURRY_SHARE
        while True:
            if why := hearing.why_over():
                return why  # type: ignore[return-value]
            hurry = time.monotonic() >= hurry_at
            try:
                async with asyncio.timeout(self._left()):
                    again, self._again = self._again, []
                    await self._send([*again, *hearing.ask(hurry=hurry)])
            except TimeoutError:  # Redis is away
                return "deadline"
            wait_s = min(LOOK_EVERY_S, self._left() if hurry else max(0.0, hurry_at - time.monotonic()))
            done, _ = await asyncio.wait(
                self._waiting, timeout=min(wait_s, self._left()), return_when="FIRST_COMPLETED"
            )
            for one in done:
                self._take(hearing, one)
            if not done and self._left() <= 0:
                return "deadline"
            if not done:
                await self._free_stuck()

    async def _send(self, places: Sequence[int]) -> None:
        if not places:
            return
        # Under keys: while Redis is away a batch is sent until it is confirmed, and nobody may be asked twice.
        tasks = [(place, self._members[place].task, key_of(self._members[place].task)) for place in places]
        ids = await self._desk.submit_many(tasks)
        for place, task_id in zip(places, ids, strict=True):
            self._waiting[asyncio.ensure_future(self._desk.result(task_id))] = (place, task_id)

    def _take(self, hearing: Hearing, done: asyncio.Future[dict[str, Any]]) -> None:
        """Take what a member has come to; one that somebody has cancelled, or whose result is odd, has no vote."""
        place, task_id = self._waiting.pop(done)
        result = typed_result(done.result())
        counted = None
        if result is None:
            self._cancelled.append((place, task_id))
            hearing.hear(place, None)
            return
        if result.status != "failed" and result.answer is not None:
            counted = self._question.counted(result.answer)
        self._results.append((result, counted))
        if (instead := self._replacements.instead_of(self._members[place].task, result)) is not None:
            self._members[place] = instead
            self._again.append(place)
            return
        hearing.hear(place, counted, source_of(result))

    async def _free_stuck(self) -> None:
        """Have other bots asked in the place of members that wait for bots in quarantine; what has come stays."""
        waiting = {place: (self._members[place].task, task_id) for place, task_id in self._waiting.values()}
        try:
            async with asyncio.timeout(self._left()):
                stuck = await self._replacements.stuck(waiting, self._desk)
        except (TimeoutError, FleetError) as error:
            logger.warning("quarantined bots not read error=%s: members wait", type(error).__name__)
            return
        for one, (place, task_id) in list(self._waiting.items()):
            if place not in stuck or one.done():
                continue
            instead = self._replacements.instead_of_stuck(self._members[place].task, stuck[place])
            if instead is not None:
                one.cancel()
                del self._waiting[one]
                self._dropped.append(asyncio.ensure_future(asyncio.to_thread(_revoke, [task_id])))
                self._members[place] = instead
                self._again.append(place)

    async def _withdraw(self) -> None:
        """Keep members that are not needed any more from starting, and stop those that run."""
        for one in self._waiting:
            one.cancel()
        jobs = self._dropped
        if ids := [task_id for _, task_id in self._waiting.values()]:
            jobs.append(asyncio.ensure_future(asyncio.to_thread(_revoke, ids)))
        if jobs:
            await asyncio.wait(jobs, timeout=TIDY_S)

    async def _conclude(self, hearing: Hearing, rule: Rule | None, why: WhyOver) -> AskOutcome:
        votes = hearing.votes
        scores = rule.scores(votes) if rule is not None else {}
        chances = rule.chances(votes) if isinstance(rule, Weighted) else {}
        sides = sides_of(self._results, chances)
        enough = len(votes) >= self._question.least or (why in ("fixed", "sure"))
        answer: str | None = None
        counted: str | None = None
        error: TaskError | None = None
        if not enough or not votes:
            error = TaskError.of(no_quorum(self._question, self._results, len(votes), len(self._cancelled), why))
        elif rule is not None:
            counted = leader(scores)
        elif self._question.aggregate == "judge":
            counted = (await self._judged(sides)).counted
        else:
            answer, error = await self._own()
            counted = None if answer is None else self._question.counted(answer)
        if answer is None and counted is not None:
            answer = next(side.answer for side in sides if side.counted == counted)
        return self._outcome(hearing, rule, why, sides, answer, counted, error, chances)

    def _outcome(
        self, hearing: Hearing, rule: Rule | None, why: WhyOver, sides: tuple[Side, ...], answer: str | None,
        counted: str | None, error: TaskError | None, chances: dict[str, float],
    ) -> AskOutcome:  # fmt: skip
        votes, results = hearing.votes, [result for result, _ in self._results]
        replaced = self._replacements.count - len(self._again)
        failed = sum(counted is None for _, counted in self._results) - replaced + self._replacements.stuck_count
        early = would_have(rule, votes) if rule is not None and why == "heard" and votes else None
        is_less = failed or why == "deadline" or self._is_unjudged(counted, sides)
        is_less = is_less or (why == "heard" and bool(self._cancelled))  # by somebody else
        return AskOutcome(
            ask_id=self._question.ask_id,
            status="failed" if answer is None else "degraded" if is_less else "ok",
            answer=answer,
            counted=counted,
            error=error,
            aggregate=self._question.named,
            why_over=why,
            agreement=sum(vote.key == counted for vote in votes) / len(votes) if counted and votes else None,
            chance=chances.get(counted) if counted else None,
            sides=sides,
            members=told_members(self._results, [(self._members[at].task.pool, one) for at, one in self._cancelled]),
            n=self._question.n,
            asked=hearing.asked,
            replaced=replaced,
            answered=len(votes),
            failed=failed,
            cancelled=len(self._cancelled),
            judge=self._judge.bot if self._judge else None,
            adaptive=(early.heard, early.same) if early else None,
            cost_usd_picos=cost_of([*results, *([self._judge] if self._judge else [])]),
            took_ms=round((time.monotonic() - self._started) * 1000),
        )

    def _is_unjudged(self, counted: str | None, sides: tuple[Side, ...]) -> bool:
        """True when a judge was wanted among several answers, and gave no word: then the majority stands."""
        wanted = self._question.aggregate == "judge" and counted is not None and len(sides) > 1
        return wanted and (self._judge is None or chosen(self._judge.answer, sides) is None)

    async def _judged(self, sides: tuple[Side, ...]) -> Side:
        """Return the answer that the judge has chosen; without its word in time the one with most votes."""
        if len(sides) == 1:
            return sides[0]
        pool = self._question.judge or self._pools[0]
        task = judges_task(self._question, pool, self._pools, sides, self._desk.settings, self._expires_at)
        ids: list[str] = []
        try:
            async with asyncio.timeout(max(0.0, self._ends - time.monotonic())):
                ids = await self._desk.submit_many([(0, task, key_of(task))])
                self._judge = typed_result(await self._desk.result(ids[0]))
        except (TimeoutError, asyncio.CancelledError) as end:
            if ids:
                await asyncio.wait({asyncio.ensure_future(asyncio.to_thread(_revoke, ids))}, timeout=TIDY_S)
            if isinstance(end, asyncio.CancelledError):
                raise
        word = chosen(self._judge.answer, sides) if self._judge is not None else None
        return word or sides[0]

    async def _own(self) -> tuple[str | None, TaskError | None]:
        """Return what the user's own function makes of the answers, or why there is none."""
        function, left_s = self._question.own_function, max(LEAST_OWN_S, self._ends - time.monotonic())
        assert function is not None
        given = [result for result, counted in self._results if counted is not None]
        try:
            return await own_answer(function, self._question.named, given, within_s=left_s), None
        except BotFunctionFailed as error:
            return None, TaskError.of(error)

    async def _note(self, hearing: Hearing, outcome: AskOutcome) -> None:
        """Count the ask and write it into the record; without that the outcome stands all the same."""
        is_decided = outcome.why_over in ("fixed", "sure")
        counts = {
            catalogue.ASKS: 1,
            catalogue.ASKS_FAILED: int(outcome.status == "failed"),
            catalogue.MEMBERS_ASKED: outcome.asked + outcome.replaced,
            catalogue.MEMBERS_SPARED: outcome.n - outcome.asked + outcome.cancelled if is_decided else 0,
        }
        right = None if self._question.right is None else self._question.counted(self._question.right)
        labels, right_label = record.labelled(hearing.votes, right)
        entry = record.PastAsk(
            sources=tuple(vote.source for vote in hearing.votes), labels=labels, right=right_label,
            n=outcome.n, asked=outcome.asked, adaptive=outcome.adaptive,
            cost_usd_picos=outcome.cost_usd_picos, took_ms=outcome.took_ms, at=round(time.time(), 3),
        )  # fmt: skip
        try:
            async with asyncio.timeout(TIDY_S):
                await record.count(self._desk.state, counts)
                if hearing.votes:
                    await record.note(self._desk.state, self._question.task.kind, entry)
                    answers = [(result.task_id, counted) for result, counted in self._results]
                    await tell(self._desk.state, worth_of(answers, right))
                if right is not None:
                    record.forget(self._desk.state, self._question.task.kind)
                if outcome.members:
                    await note_recent(self._desk.state, recent_of(outcome, self._question.task.kind, time.time()))
        except (TimeoutError, FleetError) as error:
            logger.warning("ask not recorded ask=%s error=%s", self._question.ask_id, type(error).__name__)


def _revoke(ids: list[str]) -> None:
    """Cancel tasks, and stop those that run. Blocks. Where that is not allowed or fails, they end by themselves."""
    try:
        app.control.revoke(ids, terminate=True)
    except (FleetError, redis.RedisError, OperationalError) as error:
        logger.warning("members not cancelled count=%d error=%s: they expire", len(ids), type(error).__name__)
