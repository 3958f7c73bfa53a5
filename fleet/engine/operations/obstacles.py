"""What stands between the waiting tasks of a pool and their turn, out of what `waits.py` has read of it.

Pure: no Redis, no clock. What each cause means is said in `fleet/waits.py`; what to do about it is said here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from fleet.config import tool_of
from fleet.economy.budgets import capped_by, raises, scope_in
from fleet.engine.admission.gates import OPEN_GATE, Gate, Waiting
from fleet.limiter import LimitSnapshot
from fleet.models import Priority
from fleet.quoting import counted, duration
from fleet.signals.ahead.outlook import FLOWING, Drain, drain_of
from fleet.signals.crew import unserved_line
from fleet.signals.view import WaitLine
from fleet.vault.book import account_of
from fleet.waits import LASTING, SENTENCES, TRIED, UNUSUAL, Cause, Wait, provider_without_key

#: What to do about each cause. `{pool}` and `{about}` are filled in.
ADVICE: dict[Cause, str] = {
    "time": "",
    "retry": "",
    "limit": 'raise [limits."{limit}"] if the account allows more: `fleet limits set`',
    "hold": 'if it comes back often, set [limits."{limit}"] below what the account allows',
    "requests": 'it opens with the new day (UTC); or raise requests_per_day of [limits."{limit}"]',
    "money": 'it opens with the new day (UTC); or raise usd_per_day of [limits."{limit}"]',
    "budget": "raise it, and what waits goes on: {raises}",
    "outage": "see the provider's status page; [[pools.{pool}.fallback]] gives the pool another way",
    "key": "give the provider a key that works: `fleet keys rotate {key}`, or where it comes from (`fleet keys` says); "
    "workers that have one from there use it within seconds. Those that began without any, or have it from a variable: "
    "start them again",
    "credit": "fill the account up, or raise its spending limit at the provider",
    "configuration": "correct what it names in fleet.toml or where the workers run, and start them again: "
    "`fleet doctor` says more",
    "bots": "`fleet bots --pool {pool} --state quarantined` says which, `fleet bots show BOT` why; "
    "`fleet bots release --pool {pool}` lets all back",
    "worker": "start one: `fleet up`, or `celery -A fleet worker`",
    "machine": "raise `ulimit -n` where the workers start, or lower worker.slots",
    "redis": "see that Redis answers the workers",
    "operator": "`fleet pools resume {pool}` opens it",
    "document": "`fleet context add FILE` stores it again: the same text has the same id",
    "warming": "",
    "twin": "",
    "function": "await in the bot function that `fleet doctor` names, or drop its `async`",
    "batch": "`fleet lanes` shows the batch; nothing is to be done",
}
#: Waits that are as they are meant to be, and keep nobody from going on.
PLANNED: frozenset[Cause] = frozenset({"time", "batch"})
#: What to do where a tool is waited for, and that is something else.
OF_TOOLS: dict[Cause, str] = {
    "outage": "see the status page of its API; what needs it waits in its slot, and the rest goes on",
    "key": "give [tools.{tool}] a key that works where it comes from (`fleet keys` says); workers that run use it "
    "within seconds, one from a variable when they start again",
}
#: A day of UTC, in seconds.
DAY_S = 86_400.0
#: Seconds that the next call under a limit must be away for its pool's tasks to count as waiting for it.
SOON_S = 1.0


@dataclass(frozen=True, slots=True)
class ParkedSample:
    """What is parked beside a queue: how much, when the first of it opens, and why a few of them wait."""

    count: int = 0
    next_at: float | None = None
    waits: tuple[Wait, ...] = ()

    def shares(self) -> Iterator[tuple[Wait, int]]:
        """Yield each cause's wait that opens first, and its tasks: exact while all were looked at."""
        seen: dict[tuple[Cause, str], list[Wait]] = {}
        for wait in self.waits:
            seen.setdefault((wait.cause, wait.about), []).append(wait)
        for waits in seen.values():
            first = min(waits, key=lambda wait: wait.opens_at or 0.0)
            if first.opens_at is None and len(seen) == 1 and first.cause != "budget":
                first = replace(first, opens_at=self.next_at)
            yield first, max(1, round(self.count * len(waits) / len(self.waits)))


@dataclass(frozen=True, slots=True)
class PoolStanding:
    """One pool just now, as far as its waiting tasks are concerned.

    Args:
        pool: Its name; the inbox's, which has no limit and no bots.
        gate: The operator's, and Fleet's own hold beside it.
        backlog: What waits in its lists.
        parked: What is parked beside them.
        workers: Living workers that take from its queue.
        shut: Why one that ought to does not, when there are none.
        unserved: What to say when there are none; else what the crew says of such a pool.
        running: Bots at work.
        bots_out: True when all of its bots are quarantined.
        bots_back_at: When the first of them comes back by itself.
        limit: How the limit stands under which its next call goes; None: nobody has looked, or a text is its answer.
        breaker: Why no call goes, if the breaker of all that it may call is open.
        tools: What requests to tools wait for that tasks at work have made, and how many tasks wait so.
    """

    pool: str
    gate: Gate = OPEN_GATE
    backlog: Waiting = field(default_factory=lambda: Waiting((0,) * len(Priority), None))
    parked: ParkedSample = ParkedSample()
    workers: int = 1
    shut: Wait | None = None
    unserved: str = ""
    running: int = 0
    bots_out: bool = False
    bots_back_at: float | None = None
    limit: LimitSnapshot | None = None
    breaker: Wait | None = None
    tools: tuple[tuple[Wait, int], ...] = ()


def obstacles(pool: PoolStanding, now_s: float) -> Iterator[Wait]:
    """Yield what tasks in the pool's lists wait for, what must go first before the others; `lowest` says who passes."""
    if not pool.workers:
        told, _, advice = (pool.unserved or unserved_line([pool.pool])).partition("; ")
        yield pool.shut or Wait("worker", about=pool.pool, told=told, advice=advice)
    if not pool.gate.is_open:
        left_s = pool.gate.left_s
        opens_at = None if left_s is None else now_s + left_s
        yield Wait("operator", opens_at, pool.pool, str(Gate(pool.gate.lowest)), lowest=pool.gate.lowest)
    hold = pool.gate.hold
    if hold is not None and not (hold.cause == "bots" and pool.bots_out):  # whose time is that of its next look
        yield hold
    elif hold is None and pool.breaker is not None:  # the first task that meets it will put the hold
        yield pool.breaker
    if pool.bots_out:
        yield Wait("bots", pool.bots_back_at, pool.pool)
    if pool.limit is not None:
        yield from _of_limit(pool.limit, pool.gate.room, now_s)


def waits_of_limit(limit: LimitSnapshot, now_s: float) -> Iterator[Wait]:
    """Yield why calls under a limit go nowhere, but for its rates: a 429, the day."""
    if limit.held_until is not None:
        yield Wait("hold", limit.held_until, limit.limit, limit.held_by)
    yield from _of_day(limit, now_s)


def _of_limit(limit: LimitSnapshot, room: tuple[int, ...] | None, now_s: float) -> Iterator[Wait]:
    yield from waits_of_limit(limit, now_s)
    lowest = max((priority for priority, left in enumerate(room or ()) if left > 0), default=-1)
    if lowest == Priority.BULK.value:  # a room has just been made anew: that is used up in a moment
        lowest = -1
    if room is not None or (limit.queue_s > SOON_S and limit.waiting > 0):
        yield Wait("limit", now_s + limit.queue_s, limit.limit, allowed(limit), lowest=lowest)


def _of_day(limit: LimitSnapshot, now_s: float) -> Iterator[Wait]:
    """Yield what of the day is used up, until midnight UTC."""
    midnight = (now_s // DAY_S + 1) * DAY_S
    if limit.requests_per_day is not None and limit.used_requests >= limit.requests_per_day:
        told = f"requests_per_day: {limit.used_requests:,} of {limit.requests_per_day:,} used"
        yield Wait("requests", midnight, limit.limit, told)
    if limit.usd_micros_per_day is not None and limit.used_usd_micros >= limit.usd_micros_per_day:
        told = f"usd_per_day: ${limit.used_usd_micros / 1e6:,.4f} of ${limit.usd_micros_per_day / 1e6:,.2f} used"
        yield Wait("money", midnight, limit.limit, told)


def explained(wait: Wait, pool: PoolStanding) -> Wait:
    """Return a wait for a limit with the reason for which that is held low, if it is."""
    limit = pool.limit
    if wait.cause != "limit" or limit is None or not limit.resumed_by or wait.about != limit.limit:
        return wait
    return replace(wait, told=f"{allowed(limit)}, for {UNUSUAL}", advice=f"run `{limit.resumed_by}`")


def allowed(limit: LimitSnapshot) -> str:
    """Return what a limit allows, as fleet.toml says it."""
    parts = [
        f"{name} = {number:,}"
        for name, number in (("rpm", limit.rpm), ("tpm", limit.tpm), ("in_flight", limit.most_in_flight))
        if number is not None
    ]
    return ", ".join(parts)


def wait_of(pool: PoolStanding, priority: int, now_s: float) -> Wait | None:
    """Return what a task of this priority in the pool's lists waits for; None: only for its turn."""
    return next((wait for wait in obstacles(pool, now_s) if priority > wait.lowest), None)


def lines_of(pool: PoolStanding, now_s: float) -> Iterator[WaitLine]:
    """Yield the reasons for which tasks of a pool wait; holds and gates also when nothing waits behind them."""
    found, left = list(obstacles(pool, now_s)), Counter(dict(enumerate(pool.backlog.counts)))
    tasks: dict[tuple[Cause, str], int] = {}
    parked: Counter[tuple[Cause, str]] = Counter()
    waits: dict[tuple[Cause, str], Wait] = {}
    for wait in (explained(wait, pool) for wait in found):
        key = (wait.cause, wait.about)
        behind = [priority for priority in left if priority > wait.lowest]
        waits.setdefault(key, wait)
        tasks[key] = tasks.get(key, 0) + sum(left.pop(priority) for priority in behind)
    for wait, count in pool.parked.shares():
        key = (wait.cause, wait.about)
        waits.setdefault(key, explained(wait, pool))
        parked[key] += count
    closed = {"operator"} | {wait.cause for wait in (pool.gate.hold, pool.shut) if wait is not None}
    for key, wait in waits.items():
        count = tasks.get(key, 0) + parked[key]
        if count or wait.cause in closed:
            yield line_of(pool.pool, wait, now_s, tasks=count, parked=parked[key])
    for wait, in_slots in pool.tools:
        yield line_of(pool.pool, wait, now_s, in_slots=in_slots)


def line_of(pool: str, wait: Wait, now_s: float, *, tasks: int = 0, parked: int = 0, in_slots: int = 0) -> WaitLine:
    """Return one reason as it is shown everywhere."""
    bare = replace(wait, advice="")
    line, advice = (
        str(replace(bare, about="") if wait.about == pool else bare),
        wait.advice
        or ADVICE[wait.cause].format(
            pool=pool,
            limit=wait.about.rpartition("/")[0] or wait.about,
            raises=raises(scope_in(wait.about)),
            key=_key_in(wait.about),
        ),
    )
    if wait.cause == "key" and (provider := provider_without_key(wait.about)):
        line = f"no key of {provider} serves the tasks that wait: {wait.told or SENTENCES['key']}"
    if wait.cause == "money" and (scope := scope_in(wait.about)):
        advice = f"it opens with its new hour, day or month (UTC); or raise it: `fleet budgets set {scope}`"
        if (name := capped_by(scope)) is not None:
            more = f"`fleet keys scope {name}` shows it, and fleet.toml may allow more" if name else "hand out another"
            advice = f"it opens with the new day (UTC); {more}"
    if wait.cause in {"configuration", "function"} and wait.about.startswith("validator "):
        advice = "see that it has what it needs; or correct it, and restart the workers"
    if wait.cause == "worker" and wait.advice:  # the crew's own words
        line = wait.told
    if tool := tool_of(wait.about):
        line = f"the tool {tool}: {replace(bare, about='')}"
        advice = wait.advice or OF_TOOLS.get(wait.cause, advice).format(tool=tool)
    return WaitLine(
        pool=pool,
        cause=wait.cause,
        about=wait.about,
        told=wait.told,
        opens_at=wait.opens_at,
        probe_every_s=wait.probe_every_s,
        tasks=tasks,
        parked=parked,
        in_slots=in_slots,
        is_lasting=is_lasting(wait),
        line=line,
        advice=advice,
    )


def _key_in(about: str) -> str:
    """Return the key that something waits for, as `fleet keys` names it."""
    if without := provider_without_key(about):
        return without
    provider, _, rest = about.partition("/")
    return account_of(provider, rest.rpartition("/")[2]) if rest else "PROVIDER"


def drain_of_pool(pool: PoolStanding, lines: Iterable[WaitLine], per_s: float, now_s: float) -> Drain:
    """Return when what waits in a pool will be gone.

    Args:
        pool: How it stands.
        lines: Why its tasks wait.
        per_s: Tasks that it finishes a second.
        now_s: Unix time.
    """
    mine = list(lines)
    tasks = pool.backlog.total + sum(line.parked for line in mine if line.cause not in PLANNED)
    stops = (line for line in mine if line.cause not in (*FLOWING, *PLANNED) and line.tasks)
    worst = max(stops, key=lambda line: line.tasks, default=None)
    if worst is None:
        return drain_of(tasks, per_s, now_s=now_s)
    return drain_of(tasks, per_s, now_s=now_s, stopped=worst.tasks, cause=worst.cause, opens_at=worst.opens_at)


def is_lasting(wait: Wait) -> bool:
    """True when somebody must do something, and need not wait for the time that is told; a pause with an end ends."""
    return wait.opens_at is None if wait.cause == "operator" else wait.cause in LASTING


def when(opens_at: float | None, now_s: float, *, cause: Cause, probe_every_s: float = 0.0) -> str:
    """Return until when something waits, or when it is tried again, as people say it; empty: nobody knows."""
    if opens_at is None:
        return ""
    left_s = opens_at - now_s
    if cause == "limit":
        return f"the next in {duration(left_s)}" if left_s > 0 else ""
    if left_s <= 0:
        return f"one is tried every {duration(probe_every_s)}" if probe_every_s else "they go on now"
    at = datetime.fromtimestamp(opens_at, UTC)
    is_today = at.date() == datetime.fromtimestamp(now_s, UTC).date()
    clock = f"{at:%H:%M:%S}" if left_s < 120 else f"{at:%H:%M}"
    verb = "tried again at" if cause in TRIED else "until"
    return f"{verb} {clock if is_today else f'{at:%Y-%m-%d %H:%M}'} UTC, in {duration(left_s)}"


def told_line(line: WaitLine, now_s: float, *, with_advice: bool = False) -> str:
    """Return one reason with its time, and what to do."""
    until = when(line.opens_at, now_s, cause=line.cause, probe_every_s=line.probe_every_s)
    advice = f"; {line.advice}" if with_advice and line.advice else ""
    return f"{line.line}{f', {until}' if until else ''}{advice}"


def headline(lines: Sequence[WaitLine], now_s: float, *, are_others: bool = False) -> str:
    """Return in one line how many tasks wait, and what most of them wait for; empty: none does.

    Tasks that wait for the time that their producer gave them don't count, nor those in a batch beside others.

    Args:
        lines: Why tasks wait.
        now_s: Unix time.
        are_others: More tasks wait than these, which is told elsewhere.
    """
    waiting = [line for line in lines if line.tasks and line.cause not in PLANNED]
    waiting = waiting or [line for line in lines if line.tasks and line.cause == "batch"]
    if not waiting:
        return ""
    total, worst = sum(line.tasks for line in waiting), max(waiting, key=lambda line: line.tasks)
    same = [line for line in waiting if (line.cause, line.about) == (worst.cause, worst.about)]
    rest = total - sum(line.tasks for line in same)
    verb = "waits" if total == 1 else "wait"
    more = f"; {rest:,} of them for other reasons" if rest else ""
    whose = f"{worst.pool}: " if worst.about == worst.pool and worst.pool not in worst.line else ""
    tasks = counted(total, "other task" if are_others else "task")
    return f"{tasks} {verb}: {whose}{told_line(worst, now_s)}{more}"
