"""What a task that is not done has cost so far, what it may still cost, and its calls that are under way. Reads only.

Of a run that goes on only the calls that leave and wait for their answer are known; what it has paid for is counted
when it ends, or goes back to wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import redis

from fleet.config import TOOLS, Settings, ToolSettings
from fleet.economy.bill.notes import read_note
from fleet.economy.budgets import Payer, read_budgets
from fleet.engine.operations.budgets import budget_views
from fleet.engine.outcomes.cancelling import fields_in
from fleet.engine.outcomes.dead_letters import parts_of
from fleet.frozen import Frozen
from fleet.money import PICOS, PICOS_PER_MICRO
from fleet.signals.ahead.budget_view import BudgetScopeView
from fleet.store import keys

#: Notes of calls read in one round trip (count).
NOTES_AT_ONCE = 1000


class CallUnderWay(Frozen):
    """A call of the task that has left, or is about to, and has no answer yet."""

    api: str
    since: float
    reserved_usd_micros: int | None = None
    timeout_s: float


class TaskMoney(NamedTuple):
    """What is known of a task's money.

    Args:
        most_picos: Its `max_cost_usd`, else its pool's, in 10^-12 dollars; None: neither has one.
        under_way: Its calls that have no answer yet.
        budgets: How those stand that count its calls.
    """

    most_picos: int | None = None
    under_way: tuple[CallUnderWay, ...] = ()
    budgets: tuple[BudgetScopeView, ...] = ()


#: Of a task that has no message any more: its result says what it has cost.
NO_MONEY = TaskMoney()


def read_task_money(
    message: bytes, pool: str | None, task_id: str, *, is_held: bool, state: redis.Redis, settings: Settings,
    now_s: float,
) -> TaskMoney:  # fmt: skip
    """Return what is known of the money of a task with a message. O(calls under way on its pool's APIs).

    Args:
        message: As it lies in the broker.
        pool: Whose tasks its queue has; None: nobody's.
        task_id: Its id.
        is_held: A worker has it: it may have calls under way.
        state: Plain client of the state Redis.
        settings: Pools and budgets.
        now_s: Unix time.
    """
    fields = _fields_of(message)
    pool = pool if pool in settings.pools else None
    most = fields.get("max_cost_usd") or (settings.pools[pool].max_cost_usd if pool else None)
    calls = _under_way(state, settings, pool, task_id) if pool and is_held else ()
    payer = Payer(pool or "", tenant=_text(fields.get("tenant")), run=_text(fields.get("run")))
    return TaskMoney(
        most_picos=round(most * PICOS) if isinstance(most, int | float) else None,
        under_way=tuple(sorted(calls, key=lambda call: call.since)),
        budgets=budget_views(read_budgets(state, settings.budgets, scopes=payer.scopes), {}, now_s) if pool else (),
    )


def tools_of(pool: str, settings: Settings) -> Mapping[str, ToolSettings]:
    """Return the tool APIs that a pool's tasks may use: only a user's own bot asks any."""
    found = settings.pools.get(pool)
    return settings.tools if found is not None and (found.function or found.agent) else {}


def _fields_of(message: bytes) -> Mapping[str, Any]:
    try:
        return fields_in(parts_of(message)[1])
    except (ValueError, TypeError, KeyError):
        return {}


def _text(given: object) -> str:
    return given if isinstance(given, str) else ""


def _under_way(state: redis.Redis, settings: Settings, pool: str, task_id: str) -> Iterator[CallUnderWay]:
    """Yield the calls of a task whose notes the limiter keeps until they are in the bill."""
    calls = dict.fromkeys(settings.calls_of(pool))
    timeouts = {f"{provider}/{model}": settings.provider_named(provider).timeout_s for provider, model in calls}
    timeouts |= {f"{TOOLS}/{name}": tool.timeout_s for name, tool in tools_of(pool, settings).items()}
    for name, timeout_s in timeouts.items():
        for text in _notes_of_keys(state, settings.limit_names(*name.split("/", 1)), task_id.encode()):
            noted = read_note(text)
            if noted is not None and noted[0].task == task_id and noted[0].came is None:
                note, sent_us, micros = noted
                yield CallUnderWay(
                    api=name,
                    since=sent_us / 1e6,
                    reserved_usd_micros=round(micros) if note.is_priced else None,
                    timeout_s=timeout_s,
                )


def _notes_of_keys(state: redis.Redis, limits: Iterable[str], part: bytes) -> Iterator[bytes]:
    for limit in limits:
        yield from _notes(state, limit, part)


def _notes(state: redis.Redis, limit: str, part: bytes) -> Iterable[bytes]:
    """Yield the notes under a limit in which something stands."""
    for _, text in state.hscan_iter(keys.limit_keys(limit).open, count=NOTES_AT_ONCE):
        if part in text:
            yield text


def micros_left(money: TaskMoney, spent_picos: int | None) -> int | None:
    """Return what is left of a task's own `max_cost_usd`, in micro-dollars; None: it has none."""
    if money.most_picos is None:
        return None
    reserved = sum(call.reserved_usd_micros or 0 for call in money.under_way)
    return max(0, (money.most_picos - (spent_picos or 0)) // PICOS_PER_MICRO - reserved)
