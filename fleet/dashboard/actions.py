"""What an operator does from the page: pause and resume pools, quarantine and release bots. Checked here once more.

What is done about tasks: `task_actions.py`. Each action connects anew: they are rare, and a connection that has waited
for days may be dead.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from fleet.config import Settings
from fleet.dashboard.task_actions import CancelTask, PurgeDead, ReplayDead, carry_out_on_tasks
from fleet.engine.admission.gates import CLOSED
from fleet.engine.operations import levers
from fleet.errors import ConfigurationError
from fleet.frozen import Frozen
from fleet.models import PriorityName
from fleet.quoting import quote
from fleet.store.client import connect, store_errors
from fleet.store.embedded import broker_url, state_url

#: Longest pause or quarantine with an end, in seconds (30 days).
LONGEST_S = 30 * 86_400


class PausePool(Frozen):
    """Let workers take no task of a pool, or only those at least as urgent as `lowest`."""

    do: Literal["pause"]
    pool: str
    lowest: PriorityName | None = None
    for_s: float | None = Field(None, gt=0, le=LONGEST_S)


class ResumePool(Frozen):
    """Let workers take all tasks of a pool."""

    do: Literal["resume"]
    pool: str


class QuarantineBot(Frozen):
    """Let a bot take no new task."""

    do: Literal["quarantine"]
    bot: str
    reason: str = Field("", max_length=200)
    for_s: float | None = Field(None, gt=0, le=LONGEST_S)


class ReleaseBot(Frozen):
    """Let a quarantined bot take tasks again."""

    do: Literal["release"]
    bot: str


class RelearnClass(Frozen):
    """Take a class's answers of now as normal: forget earlier ones, end its alarm and remedies."""

    do: Literal["relearn"]
    pool: str
    kind: str = Field(max_length=200)


Action = PausePool | ResumePool | QuarantineBot | ReleaseBot | RelearnClass | CancelTask | ReplayDead | PurgeDead
_ACTION: TypeAdapter[Action] = TypeAdapter(Annotated[Action, Field(discriminator="do")])


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


def carry_out(action: Action, settings: Settings, *, by: str) -> str:
    """Do it, and return one line about what was done. Blocks: call it on a thread.

    Args:
        action: What to do.
        settings: Pools and where Redis is.
        by: Who wants it.

    Raises:
        ConfigurationError: When there is no such pool or bot.
        StoreUnavailable: When Redis does not answer.
    """
    if isinstance(action, PausePool | ResumePool) and action.pool not in settings.pools:
        raise ConfigurationError(f"pool: expected one of {', '.join(settings.pools)}, got {quote(action.pool)}")
    urls = state_url(settings), broker_url(settings)
    with ExitStack() as stack:
        clients = {}
        for url in dict.fromkeys(urls):
            stack.enter_context(store_errors(url))
            clients[url] = stack.enter_context(connect(url, timeout_s=settings.redis.socket_timeout_s))
        state, broker = clients[urls[0]], clients[urls[1]]
        match action:
            case PausePool():
                lowest = CLOSED if action.lowest is None else action.lowest.value
                gate = levers.pause_pool(state, broker, action.pool, lowest=lowest, for_s=action.for_s, by=by)
                return f"{action.pool}: {gate}"
            case ResumePool():
                was_closed = levers.resume_pool(state, broker, action.pool, by=by)
                return f"{action.pool} {'is open again' if was_closed else 'was open'}"
            case QuarantineBot():
                levers.quarantine_bot(state, settings, action.bot, by=by, reason=action.reason, for_s=action.for_s)
                return f"{action.bot} is quarantined: it takes no new task"
            case CancelTask() | ReplayDead() | PurgeDead():
                return carry_out_on_tasks(action, state, broker, settings, by=by)
            case ReleaseBot():
                was_out = levers.release_bot(state, settings, action.bot, by=by)
                return f"{action.bot} {'takes tasks again' if was_out else 'was not quarantined'}"
            case RelearnClass():
                levers.relearn_class(state, settings, action.pool, action.kind, by=by)
                return f"{action.pool} {action.kind}: learning anew, its remedies end"
