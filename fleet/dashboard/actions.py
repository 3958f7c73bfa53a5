"""What an operator does from the page: pause and resume pools, quarantine and release bots. Checked here once more.

What is done about tasks: `task_actions.py`. Each action connects anew: they are rare, and a connection that has waited
for days may be dead.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import redis
from pydantic import Field, TypeAdapter, ValidationError

from fleet.config import Settings
from fleet.dashboard.job_actions import CancelJob, ReplayJob, SealJob, carry_out_on_job
from fleet.dashboard.task_actions import CancelTask, PurgeDead, ReplayDead, carry_out_on_tasks
from fleet.engine.admission.gates import CLOSED, Gate, read_gates
from fleet.engine.operations import levers
from fleet.errors import ConfigurationError
from fleet.frozen import Frozen
from fleet.models import Priority, PriorityName
from fleet.quoting import counted, quote
from fleet.roster import Quarantine, read_quarantined
from fleet.signals import catalogue
from fleet.signals.events import record_deed
from fleet.store import keys
from fleet.store.private.two_redis import two_redis
from fleet.store.running.brokers import Anywhere

#: Longest pause or quarantine with an end, in seconds (30 days).
LONGEST_S = 30 * 86_400
#: Bots and pools of one action at most (count).
MOST_BOTS, MOST_POOLS = 10_000, 1_000
#: Names that an answer lists (count).
NAMED = 4
#: Actions that bring back what was before at most (count): the page posts them one by one.
MOST_UNDO = 20
#: Seconds to which ends are rounded up where several are brought back, so that one action brings many.
UNDO_STEP_S = 60
#: Characters of a reason (count), as many as are kept.
REASON_CHARS = 200


class _OfPools(Frozen):
    """One pool, or several."""

    pool: str = ""
    pools: tuple[str, ...] = Field((), max_length=MOST_POOLS)

    @property
    def names(self) -> tuple[str, ...]:
        """Those meant, each once."""
        return tuple(dict.fromkeys((self.pool, *self.pools) if self.pool else self.pools))


class _OfBots(Frozen):
    """One bot, or a selection of them."""

    bot: str = ""
    bots: tuple[str, ...] = Field((), max_length=MOST_BOTS)

    @property
    def names(self) -> tuple[str, ...]:
        """Those meant, each once."""
        return tuple(dict.fromkeys((self.bot, *self.bots) if self.bot else self.bots))


class PausePool(_OfPools):
    """Let workers take no task of a pool, or only those at least as urgent as `lowest`."""

    do: Literal["pause"]
    lowest: PriorityName | None = None
    for_s: float | None = Field(None, gt=0, le=LONGEST_S)


class ResumePool(_OfPools):
    """Let workers take all tasks of a pool."""

    do: Literal["resume"]


class QuarantineBot(_OfBots):
    """Let a bot take no new task."""

    do: Literal["quarantine"]
    reason: str = Field("", max_length=REASON_CHARS)
    for_s: float | None = Field(None, gt=0, le=LONGEST_S)


class ReleaseBot(_OfBots):
    """Let quarantined bots take tasks again: these, or all of a pool."""

    do: Literal["release"]
    pool: str = ""


class RelearnClass(Frozen):
    """Take a class's answers of now as normal: forget earlier ones, end its alarm and remedies."""

    do: Literal["relearn"]
    pool: str
    kind: str = Field(max_length=200)


class ResumeUse(Frozen):
    """End an alarm about unusual use, and what was done about it."""

    do: Literal["resume_use"]
    kind: Literal["key", "bot"]
    name: str = Field(max_length=200)


Action = (
    PausePool
    | ResumePool
    | QuarantineBot
    | ReleaseBot
    | RelearnClass
    | ResumeUse
    | CancelTask
    | ReplayDead
    | PurgeDead
    | SealJob
    | CancelJob
    | ReplayJob
)
_ACTION: TypeAdapter[Action] = TypeAdapter(Annotated[Action, Field(discriminator="do")])


@dataclass(frozen=True, slots=True)
class CarriedOut:
    """What was done.

    Args:
        said: In one line.
        undo: Actions that bring back what was before.
        more: What goes on with what was left; None: nothing was.
    """

    said: str
    undo: tuple[Action, ...] = ()
    more: Action | None = None

    def json(self) -> str:
        """Return it as the page gets it."""
        undo = [one.model_dump(mode="json", exclude_defaults=True) for one in self.undo]
        more = {"more": self.more.model_dump(mode="json", exclude_defaults=True)} if self.more else {}
        return json.dumps({"done": self.said, "undo": undo, **more})


def parse(body: bytes) -> Action:
    """Read an action from JSON.

    Raises:
        ConfigurationError: When it is none.
    """
    try:
        return _ACTION.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "action"
        raise ConfigurationError(f"{where}: {first['msg']}") from error


def carry_out(action: Action, settings: Settings, *, by: str) -> CarriedOut:
    """Do it, and return what was done and what undoes it. Blocks: call it on a thread.

    What was before is read first, in a step of its own: what somebody else does in between is not brought back.

    Args:
        action: What to do.
        settings: Pools and where Redis is.
        by: Who wants it.

    Raises:
        ConfigurationError: When there is no such pool or bot; then nothing is done.
        StoreUnavailable: When Redis does not answer.
    """
    is_of_all = isinstance(action, ReleaseBot) and action.pool
    if isinstance(action, _OfPools | _OfBots) and not action.names and not is_of_all:
        raise ConfigurationError(f"{action.do}: expected at least one name, got none")
    if isinstance(action, PausePool | ResumePool):
        for pool in action.names:
            if pool not in settings.pools:
                raise ConfigurationError(f"pool: expected one of {', '.join(settings.pools)}, got {quote(pool)}")
    if isinstance(action, SealJob | CancelJob | ReplayJob):
        said, more_of_job = carry_out_on_job(action, by=by)
        return CarriedOut(said, more=more_of_job)
    with two_redis(settings) as (state, broker, _):
        match action:
            case PausePool():
                return _pause(action, state, broker, by)
            case ResumePool():
                return _resume(action, state, broker, by)
            case QuarantineBot():
                return _quarantine(action, settings, state, by)
            case ReleaseBot():
                return _release(action, settings, state, by)
            case CancelTask() | ReplayDead() | PurgeDead():
                said, more = carry_out_on_tasks(action, state, broker, settings, by=by)
                return CarriedOut(said, more=more)
            case ResumeUse():
                was_told = levers.resume_use(state, broker, settings, action.kind, action.name, by=by)
                said = "resumed; what it does from now on is its usual" if was_told else "there was no alarm about it"
                return CarriedOut(f"{action.name}: {said}")
            case RelearnClass():
                levers.relearn_class(state, settings, action.pool, action.kind, by=by)
                return CarriedOut(f"{action.pool} {action.kind}: learning anew, its remedies end")


def tell(settings: Settings, event: catalogue.Event, by: str, /, **fields: object) -> None:
    """Record what somebody did over a connection of its own. Raises `StoreUnavailable`."""
    with two_redis(settings) as (state, *_):
        record_deed(state, event, by, **fields)


def _pause(action: PausePool, state: redis.Redis, broker: Anywhere, by: str) -> CarriedOut:
    lowest = CLOSED if action.lowest is None else action.lowest.value
    before = _gates(broker, action.names)
    gate = levers.pause_pools(state, broker, action.names, lowest=lowest, for_s=action.for_s, by=by)
    verb = "is" if len(action.names) == 1 else "are"
    said = f"paused{str(gate).removeprefix('closed')}" if action.lowest is None else f"paused but for {gate}"
    return _done(f"{_listed(action.names)} {verb} {said}", _as_before(before))


def _resume(action: ResumePool, state: redis.Redis, broker: Anywhere, by: str) -> CarriedOut:
    before = _gates(broker, action.names)
    opened = levers.resume_pools(state, broker, action.names, by=by)
    if not opened:
        return CarriedOut(f"{_listed(action.names)} {'was' if len(action.names) == 1 else 'were'} open")
    closed = {pool: gate for pool, gate in before.items() if _still_stops(gate)}
    return _done(f"{_listed(opened)} {'is' if len(opened) == 1 else 'are'} open again", _as_before(closed))


def _gates(broker: Anywhere, pools: Sequence[str]) -> dict[str, Gate]:
    return dict(zip(pools, read_gates(broker, map(keys.queue, pools)), strict=True))


def _still_stops(gate: Gate) -> bool:
    return not gate.is_open and (gate.left_s is None or gate.left_s > 0)


def _as_before(gates: Mapping[str, Gate]) -> tuple[Action, ...]:
    """Return what gives pools the operator's gates that they had: one action for those with the same gate."""
    were_open = tuple(pool for pool, gate in gates.items() if not _still_stops(gate))
    alike: dict[tuple[int, float | None], list[str]] = {}
    for pool, gate in gates.items():
        if _still_stops(gate):
            alike.setdefault((gate.lowest, _left_s(gate.left_s, len(gates))), []).append(pool)
    resume: list[Action] = [ResumePool(do="resume", pools=were_open)] if were_open else []
    return (
        *resume,
        *(
            PausePool(do="pause", pools=tuple(pools), for_s=left_s, lowest=None if lowest < 0 else Priority(lowest))
            for (lowest, left_s), pools in alike.items()
        ),
    )


def _left_s(left_s: float | None, among: int) -> float | None:
    """Return an end as an action takes it: a command line may have set a later one; to the minute among several."""
    if left_s is None:
        return None
    return min(left_s if among == 1 else math.ceil(left_s / UNDO_STEP_S) * UNDO_STEP_S, LONGEST_S)


def _done(said: str, undo: tuple[Action, ...]) -> CarriedOut:
    if len(undo) <= MOST_UNDO:
        return CarriedOut(said, undo)
    return CarriedOut(f"{said}; no undo: what was before has {len(undo):,} different ends and reasons")


def _quarantine(action: QuarantineBot, settings: Settings, state: redis.Redis, by: str) -> CarriedOut:
    before = _out(state, settings, action.names)
    are_new = levers.quarantine_bots(state, settings, action.names, by=by, reason=action.reason, for_s=action.for_s)
    new = tuple(bot for bot, is_new in are_new.items() if is_new)
    undo: tuple[Action, ...] = (ReleaseBot(do="release", bots=new),) if new else ()
    now = "is quarantined: it takes" if len(are_new) == 1 else "are quarantined: they take"
    return _done(f"{_listed(action.names)} {now} no new task", (*undo, *_out_as_before(before)))


def _release(action: ReleaseBot, settings: Settings, state: redis.Redis, by: str) -> CarriedOut:
    if action.pool:
        return _release_all(action.pool, settings, state, by)
    before = _out(state, settings, action.names)
    were_out = [bot for bot, was_out in levers.release_bots(state, settings, action.names, by=by).items() if was_out]
    if not were_out:
        return CarriedOut(f"{_listed(action.names)} {'was' if len(action.names) == 1 else 'were'} not quarantined")
    said = f"{_listed(were_out)} {'takes' if len(were_out) == 1 else 'take'} tasks again"
    return _done(said, _out_as_before(before))


def _release_all(pool: str, settings: Settings, state: redis.Redis, by: str) -> CarriedOut:
    before = list(read_quarantined(state, [pool]).values())
    were_out = set(levers.release_pool(state, settings, pool, by=by))
    if not were_out:
        return CarriedOut(f"no bot of {pool} was quarantined")
    said = f"{counted(len(were_out), 'bot')} of {pool} {'takes' if len(were_out) == 1 else 'take'} tasks again"
    return _done(said, _out_as_before([one for one in before if one.bot in were_out]))


def _out(state: redis.Redis, settings: Settings, bots: Sequence[str]) -> list[Quarantine]:
    pools = dict.fromkeys(levers.pool_of(bot, settings) for bot in bots)
    wanted = set(bots)
    return [one for name, one in read_quarantined(state, pools).items() if name in wanted]


def _out_as_before(before: Sequence[Quarantine]) -> tuple[Action, ...]:
    """Return what gives bots the quarantines that they had: one action for those that share reason and end."""
    alike: dict[tuple[str, float | None], list[str]] = {}
    now_s = time.time()
    for one in before:
        left_s = None if one.until is None else round(one.until - now_s, 1)
        if left_s is None or left_s > 0:
            alike.setdefault((one.reason[:REASON_CHARS], _left_s(left_s, len(before))), []).append(one.bot)
    return tuple(
        QuarantineBot(do="quarantine", bots=tuple(bots), reason=reason, for_s=left_s)
        for (reason, left_s), bots in alike.items()
    )


def _listed(names: Sequence[str]) -> str:
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED:,} more"
