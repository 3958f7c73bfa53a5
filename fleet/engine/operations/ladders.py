"""Fallback ladders, for people: who serves each pool, by what was answered; and whether its next call goes anywhere.

The second goes by the rule by which workers choose a rung (`workers/rungs.py`), and by what Redis knows of all limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import redis

from fleet.config import Settings
from fleet.quoting import duration
from fleet.signals.rungs import QUIET_S, RUNGS, LadderView, ladder_view, name_of
from fleet.signals.windows import RUNGS_START
from fleet.store import keys
from fleet.waits import Wait
from fleet.workers.rungs import Route, choose, ladder_in_order, together

#: What is said of a rung that is a text.
TEXT = "text"
#: The API of a route that is only looked at.
_NOBODY: Any = None


def read_ladders(state: redis.Redis, settings: Settings, pools: Iterable[str], now_s: float) -> dict[str, LadderView]:
    """Return how the ladders of those pools stand that have one. One round trip, none without a ladder.

    Args:
        state: Plain client of the state Redis.
        settings: Pools and their ladders.
        pools: Their names.
        now_s: Unix time of Redis.
    """
    names = [name for name in pools if settings.pools[name].fallback]
    if not names:
        return {}
    with state.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.getrange(keys.sketch(name), RUNGS_START, RUNGS_START + RUNGS.struct.size - 1)
        replies = pipe.execute()
    return {
        name: ladder_view(apis_of(name, settings), raw, now_s=now_s) for name, raw in zip(names, replies, strict=True)
    }


def apis_of(pool: str, settings: Settings) -> tuple[str, ...]:
    """Return `provider/model` of each rung of a pool's ladder, or that it is a text; of its models the first."""
    calls = iter(settings.calls_of(pool))
    texts = [False, *(rung.answer is not None for rung in settings.pools[pool].fallback)]
    return tuple(TEXT if is_text else "/".join(next(calls)) for is_text in texts)


def next_limit(pool: str, settings: Settings, wait_of: Callable[[str], Wait | None]) -> str | Wait | None:
    """Return the limit under which the next call of a pool goes, as its workers choose.

    Args:
        pool: Its name.
        settings: Its ladder.
        wait_of: Returns why calls under a limit wait; None: they go.

    Returns:
        The limit; None: a text is the answer, and nobody is called; a `Wait`: all rungs wait.
    """
    routes = [_route(call, settings.limit_names(*call, pool)) for call in settings.calls_of(pool)]
    ladder = ladder_in_order(settings.pools[pool], routes, settings.limits_by_key)
    open_at: dict[int, str] = {}
    waits: dict[int, Wait] = {}
    for rung in ladder:
        if rung.route is None:
            continue
        told = {limit: wait_of(limit) for limit in rung.route.limits}
        shut = [wait for wait in told.values() if wait is not None]
        if len(shut) == len(told):
            waits[rung.number] = together(shut)
        else:
            open_at[rung.number] = next(limit for limit, wait in told.items() if wait is None)
    found = choose(ladder, waits)
    return found if isinstance(found, Wait) else open_at.get(found.number)


def told_rung(ladder: LadderView, now_s: float) -> str:
    """Return who serves a pool and for how long: `own`, `fallback 1, 12 min`; `.`: nobody has yet."""
    if ladder.rung is None or ladder.since is None or ladder.last_at is None:
        return "."
    age_s = now_s - ladder.last_at
    if age_s > QUIET_S:
        return f"{name_of(ladder.rung)}, {duration(age_s)} ago"
    return f"{name_of(ladder.rung)}, {duration(now_s - ladder.since)}" if ladder.rung else name_of(0)


def told_ladder(ladder: LadderView, now_s: float) -> str:
    """Return in one line who has served a pool, and the shares of the last hour; empty: only its own API has."""
    if ladder.rung is None or not (ladder.rung or any(ladder.served[1:])):
        return ""
    assert ladder.since is not None and ladder.last_at is not None
    who, age_s = f"{name_of(ladder.rung)} ({ladder.apis[ladder.rung]})", now_s - ladder.last_at
    serves = f"{who} has served it for {duration(now_s - ladder.since)}"
    if age_s > QUIET_S:
        serves = f"{who} served it last, {duration(age_s)} ago"
    shares = told_shares(ladder)
    return f"{serves}; of the last hour's answers {shares}" if shares else serves


def told_shares(ladder: LadderView) -> str:
    """Return which share each rung had of the last hour's answers: `own 88%, fallback 1 12%`; empty: there are none."""
    total = sum(ladder.served)
    return ", ".join(f"{name_of(rung)} {count / total:.0%}" for rung, count in enumerate(ladder.served) if count)


def _route(call: tuple[str, str], limits: Sequence[str]) -> Route:
    """Return a route as far as the choice goes by it: nobody calls by it."""
    name, model = call
    first, *others = [Route(_NOBODY, name, model, limit, "", 0.0) for limit in limits]
    return replace(first, keys=(first, *others)) if others else first
