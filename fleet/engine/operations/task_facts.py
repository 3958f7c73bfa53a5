"""What Redis knows of one task: its message, its result, its letter, and what stands in its way. Reads only.

Told to people by `story.py`; found in the queues by `message_search.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, cast

import redis
from celery import states

from fleet.config import KEY_LABEL, TOOLS, Settings, tool_of
from fleet.economy.bill.unknown import read_unknown
from fleet.economy.lanes.board import job_of_task
from fleet.engine.admission.gates import OPEN_GATE, Gate
from fleet.engine.messages import queues
from fleet.engine.operations.obstacles import PoolStanding, explained, line_of, lines_of, wait_of
from fleet.engine.operations.scaling.published import scaling_view
from fleet.engine.operations.task_money import NO_MONEY, TaskMoney, read_task_money, tools_of
from fleet.engine.operations.waits import (
    NO_APIS,
    Crew,
    crew_of,
    doubted,
    read_apis,
    read_standings,
    standing_of_queue,
    wait_in,
)
from fleet.engine.outcomes.dead_letter_office import Filed, filed_in
from fleet.engine.outcomes.stored import celery_state, read_result
from fleet.engine.transport.held import Held, find_held
from fleet.engine.transport.leases import is_suspect
from fleet.engine.transport.parking.parked import Parked, find_parked
from fleet.engine.transport.withdrawal.message_search import (
    HEADS_MOST,
    NOT_SEARCHED,
    SEARCH_MOST,
    Search,
    find_at_heads,
    find_over,
    find_poison,
    find_queued,
)
from fleet.entries import Entry
from fleet.limiter import LimitSnapshot
from fleet.models import BotResult
from fleet.quoting import stamp
from fleet.roster.grading import ENDS
from fleet.signals.ahead.scaling_view import ScalingView
from fleet.signals.crew import Trouble, stray, troubles_of
from fleet.signals.recorder import WorkerReport
from fleet.signals.view import WaitLine
from fleet.store import answer_keys, keys
from fleet.store.running.brokers import Anywhere, at_each, total
from fleet.waits import Wait

if TYPE_CHECKING:
    from fleet.earnings.ledger import Earned
    from fleet.earnings.paid import Paid

#: Calls of which nobody knows the cost that are looked through for those of a task, and for a page (count).
LOST, LOST_QUICKLY = 20_000, 2_000


@dataclass(frozen=True, slots=True)
class BotLease:
    """The bot that works on a task, and the seconds until its lease runs out."""

    bot: str
    left_s: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What Redis knows of one task. Times are Unix seconds by the clock of the broker's Redis."""

    task_id: str
    now_s: float
    result: BotResult | None = None
    foreign_result: str | None = None
    filed: Filed | None = None
    held: Held | None = None
    bot: BotLease | None = None
    parked: Parked | None = None
    is_revoked: bool = False
    search: Search = NOT_SEARCHED
    more_urgent: int = 0
    is_poison: bool = False
    is_over: bool = False
    passed_on: bool = False
    has_key: bool = False
    is_suspect: bool = False
    gate: Gate = OPEN_GATE
    limit: LimitSnapshot | None = None
    workers: tuple[WorkerReport, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    wait: WaitLine | None = None
    money: TaskMoney = NO_MONEY
    scaling: ScalingView | None = None
    tool_waits: tuple[WaitLine, ...] = ()
    lost: tuple[Entry, ...] = ()
    earned: Earned | None = None
    paid: Paid | None = None
    graded: str = ""

    @property
    def message(self) -> bytes | None:
        """The task's message as it lies in the broker."""
        where = self.held or self.parked or self.search.found
        return where.message if where else None

    @property
    def queue(self) -> str | None:
        where = self.held or self.parked or self.search.found
        return where.queue if where else None

    @property
    def pool(self) -> str | None:
        """The pool whose queue the message comes from; that of the result or the letter when there is none."""
        if self.queue is not None:
            return queues.pool_of(self.queue)
        if self.result is not None and self.result.pool:
            return self.result.pool
        return self.filed.letter.pool if self.filed else None


class _Marks(NamedTuple):
    """What the broker says of a task at once, wherever its message lies."""

    now_s: float
    is_revoked: bool
    passed_on: bool
    has_key: bool
    poison: int
    over: int


def _any_marks(parts: Sequence[_Marks]) -> _Marks:
    """Put together what several brokers say; the time is that of the first."""
    return _Marks(
        parts[0].now_s,
        any(one.is_revoked for one in parts),
        any(one.passed_on for one in parts),
        any(one.has_key for one in parts),
        sum(one.poison for one in parts),
        sum(one.over for one in parts),
    )


def gather(
    task_id: str,
    *,
    state: redis.Redis,
    broker: Anywhere,
    settings: Settings,
    limit_of: Callable[[str], LimitSnapshot | None] = lambda pool: None,
    search_most: int = SEARCH_MOST,
    is_quick: bool = False,
) -> Facts:
    """Look a task up, cheap places first; its queue is searched only when it is nowhere else.

    Args:
        task_id: The task.
        state: Plain client of the state Redis.
        broker: Plain client of the broker.
        settings: Pools and the inbox.
        limit_of: Reads how the limit of a pool stands.
        search_most: Waiting messages looked at in the queues (count).
        is_quick: Look at the heads of the queues only, in one round trip however much waits.
    """
    marks = _read_marks(broker, task_id)
    raw, filed, crew, graded = _read_state(state, task_id)
    result, ended_as = read_result(raw), celery_state(raw)
    is_withdrawn = ended_as is not None and ended_as.startswith(states.REVOKED)
    held = find_held(broker, task_id)
    parked = find_parked(broker, task_id)
    if held or parked or raw:
        search = NOT_SEARCHED
    elif is_quick:
        search = find_at_heads(broker, task_id, settings)
    else:
        search = find_queued(broker, task_id, settings, most=search_most)
    if parked is not None and (wait := wait_in(parked.reason)) is not None and wait.cause == "batch":
        parked = replace(parked, reason=replace(wait, told=_told_batch(state, task_id)).to_json())
    where = held or parked or search.found
    pool = queues.pool_of(where.queue) if where else None
    limit = limit_of(pool) if pool in settings.pools and pool else None
    living = crew.living
    standing = _standing(where.queue, state, broker, settings, crew, limit) if where else None
    money = NO_MONEY
    if where and result is None:
        money = read_task_money(
            where.message, pool, task_id, is_held=held is not None, state=state, settings=settings, now_s=crew.now_s
        )
    earned, paid = (None, None) if result is None else _earned(state, result, settings, crew.now_s)
    return Facts(
        task_id=task_id,
        now_s=marks.now_s,
        result=result,
        foreign_result=None if result or is_withdrawn else ended_as,
        filed=filed,
        held=held,
        bot=_bot_lease(state, pool, held.tag, crew.now_s) if held and pool else None,
        parked=parked,
        is_revoked=marks.is_revoked or is_withdrawn,
        search=search,
        more_urgent=_more_urgent(broker, search),
        is_poison=bool(not where and marks.poison) and find_poison(broker, task_id),
        is_over=bool(not (where or raw) and marks.over)
        and find_over(broker, task_id, most=HEADS_MOST if is_quick else search_most),
        passed_on=marks.passed_on,
        has_key=marks.has_key,
        is_suspect=_is_suspect(broker, held, where.message) if where else False,
        gate=standing.gate if standing else OPEN_GATE,
        limit=limit,
        workers=tuple(living),
        troubles=_troubles(where.queue if where else "", living, settings, marks.now_s),
        wait=_wait(standing, held, parked, search, crew.now_s) if standing else None,
        money=money,
        graded=graded,
        lost=tuple(one.entry for one in read_unknown(state, of_task=task_id, most=LOST_QUICKLY if is_quick else LOST)),
        earned=earned,
        paid=paid,
        scaling=scaling_view(state, crew.now_s) if search.found else None,
        tool_waits=tuple(_tool_waits(state, settings, pool or "", crew)) if held and result is None else (),
    )


def _earned(
    state: redis.Redis, result: BotResult, settings: Settings, now_s: float
) -> tuple[Earned | None, Paid | None]:
    """Return what the task has earned the payee of its bot, and what pays it; nothing is asked where none earns."""
    if not settings.payouts.earn:
        return None, None
    from fleet.earnings.ledger import earned_by
    from fleet.earnings.paid import paid_by

    earned = earned_by(state, result.task_id, settings, now_s)
    return earned, None if earned is None else paid_by(state, earned.row, result.finished_at)


def _told_batch(state: redis.Redis, task_id: str) -> str:
    """Return in which batch a task is, and since when."""
    job = job_of_task(state, task_id)
    if job is None:
        return "it waits for others to go with"
    if job.lane != "batch":
        return f"answered in the background since {stamp(job.made_at)}, as {job.batch}"
    return f"in a batch of {job.count:,} since {stamp(job.made_at)}, {job.done:,} of them answered"


@at_each(_any_marks)
def _read_marks(broker: redis.Redis, task_id: str) -> _Marks:
    with broker.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zscore(keys.revoked(), task_id)
        pipe.exists(keys.passed_on(task_id), keys.submitted(task_id))
        pipe.exists(keys.submitted(task_id))
        pipe.llen(keys.poison())
        pipe.llen(keys.over())
        (seconds, micros), revoked, either, has_key, poison, over = pipe.execute()
    return _Marks(seconds + micros / 1e6, revoked is not None, either > has_key, bool(has_key), poison, over)


def _read_state(state: redis.Redis, task_id: str) -> tuple[bytes | None, Filed | None, Crew, str]:
    """Return the stored result, the dead letter, the living workers, and what its answer was worth. One round trip."""
    with state.pipeline(transaction=False) as pipe:
        pipe.get(keys.result(task_id))
        pipe.hget(keys.dead_letters(), task_id)
        pipe.time()
        pipe.hgetall(keys.workers())
        pipe.mget([answer_keys.graded(task_id + end) for end in ENDS.values()])
        raw, letter, now, rows, grades = pipe.execute()
    return raw, None if letter is None else filed_in(letter), crew_of(now, rows), _told_grades(grades)


def _told_grades(grades: Sequence[bytes | None]) -> str:
    """Return what an answer was found to be, in words; empty: nobody has compared it."""
    said = (
        ("right", "wrong"),
        ("what most others say", "not what most others say"),
        ("what another bot says", "not what another bot says"),
    )
    return ", ".join(pair[grade == b"0"] for pair, grade in zip(said, grades, strict=True) if grade is not None)


def _standing(
    queue: str, state: redis.Redis, broker: Anywhere, settings: Settings, crew: Crew, limit: LimitSnapshot | None
) -> PoolStanding:
    """Return how a queue stands: a pool's, the inbox, or one that is nobody's."""
    pool = queues.pool_of(queue)
    if pool is not None and pool in settings.pools:
        apis = NO_APIS if limit is None else read_apis(state, settings, [pool])
        return read_standings(state, broker, settings, [pool], crew=crew, apis=apis)[0]
    astray = stray(queue, crew.living, settings)
    return standing_of_queue(broker, queue, crew, unserved=astray.line if astray else "")


def _wait(
    standing: PoolStanding, held: Held | None, parked: Parked | None, search: Search, now_s: float
) -> WaitLine | None:
    """Return what the task waits for; one that a worker holds: why its next call does."""
    if held is not None:
        wait = standing.gate.hold
    elif parked is not None:
        due = wait_of(standing, parked.priority, now_s) if parked.opens_at <= now_s else None
        wait = due or replace(wait_in(parked.reason) or Wait("retry"), opens_at=parked.opens_at)
    else:
        wait = wait_of(standing, search.found.priority, now_s) if search.found else None
    if wait is None:
        return None
    alike = (line for line in lines_of(standing, now_s) if (line.cause, line.about) == (wait.cause, wait.about))
    first = next(alike, None)
    tasks, among = (first.tasks, first.parked) if first else (0, 0)
    return line_of(standing.pool, explained(wait, standing), now_s, tasks=tasks, parked=among)


def _tool_waits(state: redis.Redis, settings: Settings, pool: str, crew: Crew) -> Iterator[WaitLine]:
    """Yield why what a running task may ask for waits in its slot. Two round trips, if it may ask tools."""
    tools, now_s = tools_of(pool, settings), crew.now_s
    apis = read_apis(state, settings, ()) if tools else NO_APIS
    for name in tools:
        if (wait := apis.wait_of(f"{TOOLS}/{name}/{KEY_LABEL}", now_s)) is not None:
            yield line_of(pool, wait, now_s)
    for limit in sorted({limit for worker in crew.living for limit in worker.tool_waits.get(pool, ())}):
        if not tool_of(limit):
            yield line_of(pool, doubted(limit), now_s)


def _troubles(queue: str, living: Sequence[WorkerReport], settings: Settings, now_s: float) -> tuple[Trouble, ...]:
    astray = stray(queue, living, settings)
    return (*([astray] if astray else ()), *troubles_of(living, settings, now_s=now_s))


def _bot_lease(state: redis.Redis, pool: str, tag: str, now_s: float) -> BotLease | None:
    """A worker checks a bot out under the tag of the task's message."""
    bot = cast("bytes | None", state.hget(keys.bot_claims(pool), tag))
    if bot is None:
        return None
    until_us = state.zscore(keys.bot_leases(pool), f"{bot.decode()}|{tag}")
    return None if until_us is None else BotLease(bot.decode(), until_us / 1e6 - now_s)


@at_each(total)
def _more_urgent(broker: redis.Redis, search: Search) -> int:
    if search.found is None:
        return 0
    with broker.pipeline(transaction=False) as pipe:
        for step in queues.PRIORITY_STEPS:
            if step < search.found.priority:
                pipe.llen(queues.list_key(search.found.queue, step))
        return sum(map(int, pipe.execute()))


@at_each(any)
def _is_suspect(broker: redis.Redis, held: Held | None, message: bytes) -> bool:
    """While it waits a mark tells; while it is held, its tag."""
    if held is not None:
        return is_suspect(held.tag)
    return bool(broker.hexists(keys.suspects(), hashlib.sha1(message, usedforsecurity=False).hexdigest()))
