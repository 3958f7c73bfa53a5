"""A task's story: where it waits and behind what, who holds it, what it came to, out of what `task_facts.py` gathered.

No Redis here, and no prompt and no answer in what is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from celery import states

from fleet.config import tool_of
from fleet.engine.messages.envelope import QUEUED_AT
from fleet.engine.messages.expiry import end_in
from fleet.engine.operations.asks.board import ask_of
from fleet.engine.operations.obstacles import told_line
from fleet.engine.operations.rollouts.told import told_setting
from fleet.engine.operations.task_facts import Facts
from fleet.engine.operations.task_money import CallUnderWay, micros_left
from fleet.engine.operations.timeline import StoryStep, timeline
from fleet.engine.operations.told_money import told_earned, told_lost, told_money
from fleet.engine.outcomes.dead_letter_office import Filed
from fleet.engine.outcomes.dead_letters import parts_of
from fleet.engine.outcomes.results import before_of
from fleet.engine.transport import leases
from fleet.engine.transport.held import Tag
from fleet.engine.transport.parking.parked import Parked
from fleet.errors import Blame
from fleet.frozen import Frozen
from fleet.jobs import membership_of
from fleet.limiter import LimitSnapshot
from fleet.models import CACHE, BotResult, Priority, TaskError
from fleet.money import dollars_of, micros_of
from fleet.outcome import Before
from fleet.quoting import clock, counted, duration, noun_for, stamp
from fleet.signals.ahead.budget_view import BudgetScopeView
from fleet.signals.view import WaitLine
from fleet.usage import told
from fleet.waits import Cause

State = Literal["finished", "failed", "revoked", "running", "held", "parked", "queued", "poison", "unknown"]


class Story(Frozen):
    """What became of one task so far, and why it is not further."""

    task_id: str
    state: State
    pool: str | None = None
    queue: str | None = None
    priority: str | None = None
    ahead: int | None = None
    worker: str | None = None
    bot: str | None = None
    lease_left_s: float | None = None
    gate: str | None = None
    cause: Cause | None = None
    about: str | None = None
    told: str | None = None
    opens_at: float | None = None
    is_lasting: bool = False
    suspect: bool = False
    attempts: int | None = None
    cut_tokens: int = 0
    left_out: tuple[str, ...] = ()
    error: str | None = None
    blame: Blame | None = None
    passes_at: float | None = None
    is_dead_letter: bool = False
    parked: int = 0
    tokens: int = 0
    cost_usd_micros: int | None = None
    cost_left_usd_micros: int | None = None
    under_way: tuple[CallUnderWay, ...] = ()
    unknown_calls: int = 0
    budgets: tuple[BudgetScopeView, ...] = ()
    looked_at: int = 0
    is_search_complete: bool = True
    job: str | None = None
    ask: str | None = None
    steps: tuple[StoryStep, ...] = ()
    lines: tuple[str, ...] = ()


def tell(facts: Facts) -> Story:
    """Turn facts into a story."""
    where = facts.held or facts.parked or facts.search.found
    error = facts.result.error if facts.result else None
    place, wait, spent = facts.search.found, facts.wait, _spent(facts)
    member = membership_of(facts.task_id)
    return Story(
        task_id=facts.task_id,
        state=state_of(facts),
        pool=facts.pool,
        queue=facts.queue,
        priority=Priority(where.priority).name.lower() if where else None,
        ahead=place.place + facts.more_urgent if place else None,
        worker=_worker(facts),
        bot=facts.bot.bot if facts.bot else facts.result.bot if facts.result else None,
        lease_left_s=_lease_left_s(facts),
        gate=str(facts.gate) if where else None,
        cause=wait.cause if wait else None,
        about=wait.about or None if wait else None,
        told=wait.told or None if wait else None,
        opens_at=wait.opens_at if wait else None,
        is_lasting=wait.is_lasting if wait else False,
        suspect=facts.is_suspect,
        attempts=_attempts(facts, spent),
        cut_tokens=facts.result.cut_tokens if facts.result else 0,
        left_out=facts.result.left_out if facts.result else (),
        error=error.type if error else None,
        blame=error.blame if error else None,
        passes_at=error.passes_at if error else None,
        is_dead_letter=facts.filed is not None,
        parked=spent.parked,
        tokens=spent.usage.total_tokens,
        cost_usd_micros=None if spent.cost_usd_picos is None else micros_of(spent.cost_usd_picos),
        cost_left_usd_micros=micros_left(facts.money, spent.cost_usd_picos),
        under_way=facts.money.under_way,
        unknown_calls=len(facts.lost),
        budgets=facts.money.budgets,
        looked_at=facts.search.looked_at,
        is_search_complete=facts.search.complete,
        job=member.job if member else None,
        ask=ask_of(facts.result, facts.message),
        steps=tuple(timeline(facts)),
        lines=tuple(_lines(facts)),
    )


def _spent(facts: Facts) -> Before:
    """Return what the task has had: of its result, else what its message says of the lives before this one."""
    result = facts.result
    if result is None:
        return before_of(_headers(facts))
    return Before(parked=result.parked, usage=result.usage, cost_usd_picos=_picos(result))


def _attempts(facts: Facts, spent: Before) -> int | None:
    if facts.result is not None:
        return facts.result.attempts
    return facts.filed.letter.attempts if facts.filed else spent.attempts or None


def _picos(result: BotResult) -> int | None:
    return None if result.cost_usd_micros is None else result.spent_usd_picos


def state_of(facts: Facts) -> State:
    """Return the one word for where the task stands."""
    if facts.result is not None or facts.foreign_result:
        is_bad = facts.result.status == "failed" if facts.result else facts.foreign_result != states.SUCCESS
        return "failed" if is_bad else "finished"
    if facts.held is not None:
        return "running" if facts.bot else "held"
    if facts.is_revoked:
        return "revoked"
    if facts.parked is not None:
        return "parked"
    if facts.search.found is not None or facts.is_over:
        return "queued"
    if facts.is_poison:
        return "poison"
    return "failed" if facts.filed is not None else "unknown"


def _lines(facts: Facts) -> Iterator[str]:
    if (member := membership_of(facts.task_id)) is not None:
        yield f"task {member.position:,} of job {member.job}: `fleet job show {member.job}`"
    if (ask := ask_of(facts.result, facts.message)) is not None:
        yield f"a member of ask {ask}: `fleet asks show {ask}` when that is over"
    if facts.passed_on:
        yield "it came through the inbox and was passed on to its pool's queue"
    if facts.result is not None or facts.foreign_result:
        yield _told_result(facts)
    if facts.result is not None:
        yield from _told_missing(facts.result)
        yield from told_setting(facts.result)
        if facts.graded:
            yield f"its answer is {facts.graded}, by the record of grades"
    if facts.is_revoked:
        yield _told_revoked(facts)
    if facts.held is not None:
        yield from _told_held(facts)
    elif facts.parked is not None:
        yield _told_parked(facts.parked, facts.now_s)
    elif facts.search.found is not None:
        yield from _told_queued(facts)
    elif facts.is_poison:
        yield "an earlier release found it to be poison: it fails within a few seconds"
    elif facts.is_over:
        yield "its end had passed before its turn came: its result `Expired` is on its way"
    yield from told_lost(facts)
    yield from told_earned(facts)
    if facts.message is not None:
        if facts.result is None:
            yield from told_money(facts)
        yield from _told_obstacles(facts)
    if facts.filed is not None:
        yield _told_letter(facts.filed)
    if facts.wait is not None:
        yield from _told_wait(facts.wait, facts.now_s)
    if state_of(facts) == "unknown":
        yield from _told_unknown(facts)


def _told_use(result: BotResult) -> str:
    """Say what the task used and cost; nothing of one that has used nothing."""
    if not result.usage.total_tokens:
        return ""
    cost = "" if result.cost_usd_micros is None else f", ${dollars_of(result.spent_usd_picos):.6f}"
    return f", {told(result.usage.model_dump())}{cost}"


def _told_result(facts: Facts) -> str:
    result = facts.result
    if result is None:
        if facts.foreign_result == states.SUCCESS:
            return "it has a result, but not one of Fleet's: it is another Celery task"
        return (
            f"Celery ended it, state {facts.foreign_result}: it was cancelled, a task before it in its canvas failed, "
            "or it is another Celery task"
        )
    who = f", by {result.bot}" if result.bot else ""
    fallback = f" of {result.served_by} ({result.model or 'a text'})" if result.rung else ""
    if result.served_by == CACHE:
        fallback = f", the kept answer of an equal task ({result.model})"
    ago = duration(facts.now_s - result.finished_at)
    calls = f"{result.attempts} provider call{'' if result.attempts == 1 else 's'}"
    limited = f", {duration(result.limited_ms / 1000)} of it under the limit" if result.limited_ms else ""
    queued = f"; it had waited {duration(result.queued_ms / 1000)}" if result.queued_ms is not None else ""
    head = (
        f"it ended {ago} ago, {result.status}{who}{fallback}: {calls} in {duration(result.ran_ms / 1000)}{limited}"
        f"{_told_use(result)}{queued}"
    )
    return (
        f"{head}; {result.error.type}: {result.error.message} ({_told_fault(result.error)})" if result.error else head
    )


def _told_fault(error: TaskError) -> str:
    """Say whose fault a failure was, and whether it passes by itself."""
    fault = "nobody can tell whose fault it was" if error.blame == "unknown" else f"charged to: {error.blame}"
    if error.passes_at is not None:
        return f"{fault}; it passes at {stamp(error.passes_at)}"
    return f"{fault}; it passes by itself" if error.passes else fault


def _told_missing(result: BotResult) -> Iterator[str]:
    """What the model was not sent of what was asked."""
    if result.cut_tokens:
        yield (
            f"{result.cut_tokens:,} tokens were cut from its prompt, so that it fits the bot's or the model's context "
            "window: shorten it, or raise persona.context_windows_tokens where the model takes more"
        )
    if result.left_out:
        yield f"it was asked without {', '.join(result.left_out)}: {result.model} refuses that, and drop_params is set"


def _told_held(facts: Facts) -> Iterator[str]:
    assert facts.held is not None
    left_s, who = _lease_left_s(facts), _worker(facts) or "a worker"
    if left_s is None:
        yield f"{who} holds its message, without a lease"
    elif left_s < 0:
        yield f"{who} held it and stopped renewing: the lease ran out {duration(-left_s)} ago, the next sweep frees it"
    else:
        yield f"{who} holds it, under a lease that runs {duration(left_s)} more unless it is renewed"
    if facts.bot is not None:
        yield f"bot {facts.bot.bot} works on it"
    elif facts.result is None:
        yield "no bot is known to work on it: it waits for a slot"
    asked = {call.api for call in facts.money.under_way}
    for wait in facts.tool_waits:
        if (
            tool_of(wait.about) or wait.about.rpartition("/")[0] not in asked
        ):  # else it is one of those without an answer
            yield f"what it asks waits in its slot for {told_line(wait, facts.now_s)}"


def _told_revoked(facts: Facts) -> str:
    if facts.held is not None:
        return "it was revoked while a worker held it: what runs goes on, unless it was revoked with terminate"
    if facts.search.found is not None:
        return "it was revoked: it does not start, and the worker that meets its message drops it"
    return "it was revoked: it does not start, or was stopped; submit it again if it is wanted after all"


def _told_parked(parked: Parked, now_s: float) -> str:
    at = clock(parked.opens_at, now_s)
    left_s = parked.opens_at - now_s
    until = f"in {duration(left_s)}" if left_s > 0 else f"{duration(-left_s)} ago: the next worker with a free slot"
    urgency = Priority(parked.priority).name.lower()
    return f"it is parked beside {parked.queue}, priority {urgency}, until {at}, {until}; no worker holds it"


def _told_queued(facts: Facts) -> Iterator[str]:
    place = facts.search.found
    assert place is not None
    urgency = Priority(place.priority).name.lower()
    queued_at = _headers(facts).get(QUEUED_AT)
    since = f" for {duration(facts.now_s - queued_at)}" if isinstance(queued_at, int | float) else ""
    more = f", and {facts.more_urgent:,} more urgent {noun_for(facts.more_urgent, 'one')}" if facts.more_urgent else ""
    end = end_in(_headers(facts))
    if end is not None and end < facts.now_s:
        yield f"it has expired {duration(facts.now_s - end)} ago: it costs nothing, a worker ends it within a minute"
    ahead = f"{place.place:,} ahead of it"
    if place.others is not None:
        ahead = f"behind {place.place:,} of its tenant, in turns with {place.others:,} of others"
        if place.others and place.every is not None:
            ahead += f": its tenant has one of about {place.every:.3g} takes"
    yield f"it waits in {place.queue}, priority {urgency}{since}: {ahead}{more}"


def _told_obstacles(facts: Facts) -> Iterator[str]:
    """What stands between the task and its turn, beside what it waits for."""
    place, limit = facts.search.found or facts.parked, facts.limit
    if facts.is_suspect:
        yield "suspect: its worker died while it ran; it runs apart"
    is_told = facts.wait is not None and facts.wait.cause == "operator"
    if place is not None and place.priority > facts.gate.lowest and not is_told:
        yield f"the gate of {place.queue} is {facts.gate}; `fleet pools resume` opens it"
    elif place is not None and facts.gate.waits_for_limit(place.priority):
        yield "it waits on the limit: enough calls wait there; in the queue an urgent task can still overtake it"
    if facts.scaling is not None and facts.scaling.slots > facts.scaling.there and facts.wait is None:
        yield f"{facts.scaling.line}; the fleet grows as far as it may (`fleet scaling`)"
    if place is not None and not facts.workers:
        yield "no worker is reporting: start one with `fleet up` or `celery -A fleet worker`"
    if place is not None:
        yield from filter(None, (trouble.told_of(facts.pool) for trouble in facts.troubles))
    if limit is not None and (limit.queue_s > 0 or limit.held_until or limit.is_full):
        yield _told_limit(limit, facts.now_s)


def _told_wait(wait: WaitLine, now_s: float) -> Iterator[str]:
    """Say what to do, and last what the task waits for, with how many others, until when: it is what counts."""
    if wait.advice:
        yield f"what to do: {wait.advice}"
    others = f" with {counted(wait.tasks - 1, 'other')}" if wait.tasks > 1 else ""
    yield f"it waits{others} because {told_line(wait, now_s)}"


def _told_limit(limit: LimitSnapshot, now_s: float) -> str:
    rates = [
        f"{used:,.0f} of {rate:,} {unit} a minute"
        for used, rate, unit in ((limit.used_rpm, limit.rpm, "requests"), (limit.used_tpm, limit.tpm, "tokens"))
        if rate is not None
    ]
    if limit.most_in_flight is not None:
        learnt = ", learnt from a refusal" if limit.in_flight_is_learnt else ""
        rates.append(f"{limit.in_flight:,} of {limit.most_in_flight:,} calls at once{learnt}")
    if limit.paced_rpm is not None:
        left = [f"{long.left:,} of {long.limit:,} {long.label} left" for long in limit.long if long.left is not None]
        rates.append(f"{', '.join(left)}, so {limit.paced_rpm:,.1f} calls a minute")
    hold = f", held for {duration(limit.held_until - now_s)} after a 429" if limit.held_until else ""
    return f"the limit {limit.limit} ({', '.join(rates)}){hold}: its next call goes in {duration(limit.queue_s)}"


def _told_letter(filed: Filed) -> str:
    letter = filed.letter
    lives = f", after {len(letter.history)} lives" if len(letter.history) > 1 else ""
    return f"it is a dead letter ({letter.reason}{lives}): `fleet dead show {letter.task_id}`, then replay or purge"


def _told_unknown(facts: Facts) -> Iterator[str]:
    if not facts.search.complete:
        yield f"not found among the first {facts.search.looked_at:,} waiting tasks; it may wait further behind"
    if facts.has_key:
        yield "its idempotency key is taken: it was queued, and is on its way, or is gone"
        yield "submit the key again: a task that is gone is then queued"
    yield "no result, no message, no dead letter: it was never submitted, its result has expired, or it is elsewhere"
    yield "compare redis.url and redis.state_url here with those of its producer (`fleet doctor` shows them)"


def _headers(facts: Facts) -> Mapping[str, Any]:
    return parts_of(facts.message or b"")[0]


def _lease_left_s(facts: Facts) -> float | None:
    if facts.held is None or facts.held.renewed_at is None:
        return None
    return facts.held.renewed_at + leases.LEASE_S - facts.now_s


def _worker(facts: Facts) -> str | None:
    """Return who holds the message."""
    tag = Tag.parse(facts.held.tag) if facts.held else None
    if tag is None:
        return None
    names = [row.name for row in facts.workers if row.pid == tag.pid and row.name.endswith(f"@{tag.host}")]
    return f"{names[0]} (pid {tag.pid})" if names else f"pid {tag.pid} on {tag.host}"
