"""What an operator does to a running fleet, from the command line or the page: done, then recorded as an event.

The event is written after the deed and may be lost with the connection; the deed holds all the same.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal, cast

import redis

from fleet import diversity, roster
from fleet.config import Settings
from fleet.engine.admission.gates import Gate, open_gates, set_gates
from fleet.engine.outcomes.revocation import revoke
from fleet.engine.process.breaking import behind, lift_now
from fleet.engine.process.duties.consequences import undo
from fleet.engine.transport.held import find_held
from fleet.engine.transport.withdrawal.message_search import find_at_heads
from fleet.errors import ConfigurationError
from fleet.limiter import FRESH_S
from fleet.quoting import MOST_NAMES, quote
from fleet.signals import catalogue
from fleet.signals.events import record_deed
from fleet.signals.unusual.alarms import RESUMED, alarm_in, field_of, swap
from fleet.store import keys, vault_keys
from fleet.store.running.brokers import Anywhere
from fleet.waits import CAUSES, Cause

#: What is shown where an operator gave no reason for a quarantine.
NO_REASON = "no reason given"
#: Bots or pools that the event of a selection names (count).
NAMED = 8


def pause_pool(state: redis.Redis, broker: Anywhere, pool: str, *, lowest: int, for_s: float | None, by: str) -> Gate:
    """Let workers take only tasks of priority `lowest` and above (`CLOSED`: none) of a pool, and return its gate."""
    return pause_pools(state, broker, [pool], lowest=lowest, for_s=for_s, by=by)


def pause_pools(
    state: redis.Redis, broker: Anywhere, pools: Sequence[str], *, lowest: int, for_s: float | None, by: str
) -> Gate:
    """Do as `pause_pool` to pools. One event, however many they are."""
    set_gates(broker, map(keys.queue, pools), lowest=lowest, for_s=for_s)
    gate = Gate(lowest, for_s)
    record_deed(state, catalogue.POOL_PAUSED, by, pool=_named(pools), gate=gate)
    return gate


def resume_pool(state: redis.Redis, broker: Anywhere, pool: str, *, by: str) -> bool:
    """Let workers take all tasks of a pool; False when its gate was open."""
    return bool(resume_pools(state, broker, [pool], by=by))


def resume_pools(state: redis.Redis, broker: Anywhere, pools: Sequence[str], *, by: str) -> list[str]:
    """Let workers take all tasks of pools, and return those whose gate was closed. One event, however many they are."""
    were_closed = open_gates(broker, map(keys.queue, pools))
    opened = [pool for pool, was_closed in zip(pools, were_closed, strict=True) if was_closed]
    if opened:
        record_deed(state, catalogue.POOL_RESUMED, by, pool=_named(opened))
    return opened


def quarantine_bot(
    state: redis.Redis, settings: Settings, bot: str, *, by: str, reason: str = "", for_s: float | None = None
) -> bool:
    """Let a bot take no new task, as `quarantine_bots`; False when it was out already: the new end and reason hold."""
    return quarantine_bots(state, settings, [bot], by=by, reason=reason, for_s=for_s)[bot]


def quarantine_bots(
    state: redis.Redis,
    settings: Settings,
    bots: Sequence[str],
    *,
    by: str,
    reason: str = "",
    for_s: float | None = None,
) -> dict[str, bool]:
    """Let bots take no new task; what they run goes on. One event, however many they are.

    Returns:
        For each of them False when it was out already: the new end and reason hold.

    Raises:
        ConfigurationError: When there is no such bot; then none of them is taken out.
    """
    names, why = list(dict.fromkeys(bots)), " ".join(reason.split()) or NO_REASON
    of_pools = [(pool_of(bot, settings), bot) for bot in names]
    are_new = roster.quarantine_all(state, of_pools, by=by, reason=why, for_s=for_s)
    record_deed(state, catalogue.BOT_QUARANTINED, by, **_who(of_pools), reason=why)
    return dict(zip(names, are_new, strict=True))


def release_bot(state: redis.Redis, settings: Settings, bot: str, *, by: str) -> bool:
    """Let a bot take tasks again, as `release_bots`; False when it was not quarantined."""
    return release_bots(state, settings, [bot], by=by)[bot]


def release_bots(state: redis.Redis, settings: Settings, bots: Sequence[str], *, by: str) -> dict[str, bool]:
    """Let bots take tasks again. One event, however many they are.

    Returns:
        For each of them False when it was not quarantined.

    Raises:
        ConfigurationError: When no pool can have such a bot; then none of them is released.
    """
    names = list(dict.fromkeys(bots))
    of_pools = [(pool_of(bot, settings), bot) for bot in names]
    were_out = dict(zip(names, roster.release_all(state, of_pools), strict=True))
    released = [(pool, bot) for pool, bot in of_pools if were_out[bot]]
    if released:
        record_deed(state, catalogue.BOT_RELEASED, by, **_who(released))
    return were_out


def release_pool(state: redis.Redis, settings: Settings, pool: str, *, by: str) -> list[str]:
    """Let all bots of a pool that are quarantined take tasks again, and return them. One event.

    Raises:
        ConfigurationError: When there is no such pool.
    """
    if pool not in settings.pools:
        raise ConfigurationError(f"pool: expected one of {', '.join(settings.pools)}, got {quote(pool)}")
    out = sorted(roster.read_quarantined(state, [pool]))
    return [bot for bot, was_out in release_bots(state, settings, out, by=by).items() if was_out] if out else []


def _who(bots: Sequence[tuple[str, str]]) -> dict[str, object]:
    """Return the fields of an event that name its bots: one by its name, many by those of the first."""
    if len(bots) == 1:
        return {"bot": bots[0][1], "pool": bots[0][0]}
    return {"bots": _named([bot for _, bot in bots]), "pool": ", ".join(dict.fromkeys(pool for pool, _ in bots))}


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def relearn_class(state: redis.Redis, settings: Settings, pool: str, kind: str, *, by: str) -> None:
    """Take a class's answers of now as normal: forget earlier ones, end its alarm and remedies.

    Raises:
        ConfigurationError: When no answers of such a class are known.
    """
    known = [(one.pool, one.kind) for one, _ in diversity.read_classes(state, settings.pools)]
    if (pool, kind) not in known:
        names = ", ".join(" ".join(one) for one in known[:MOST_NAMES]) or "none yet"
        raise ConfigurationError(f"expected a pool and a kind with answers ({names}), got {quote(f'{pool} {kind}')}")
    diversity.relearn(state, pool, kind)
    record_deed(state, catalogue.DIVERSITY_RELEARNT, by, pool=pool, kind=kind)


def resume_use(
    state: redis.Redis, broker: Anywhere, settings: Settings, kind: Literal["key", "bot"], name: str, *, by: str
) -> bool:
    """End an alarm about unusual use and what was done about it: what a key or bot does from now on is its usual.

    The worker that looks hears of it within seconds, learns anew, and takes back what this could not.

    Returns:
        False when there was no alarm.
    """
    while (packed := cast("bytes | None", state.hget(vault_keys.unusual(), field_of(kind, name)))) is not None:
        if (alarm := alarm_in(packed)) is None:
            return False
        if alarm.stage == RESUMED:  # by somebody who died before all was taken back
            undo(state, settings, alarm)
            return False
        if swap(state, alarm.field_name, packed, replace(alarm, stage=RESUMED)):
            undo(state, settings, alarm)
            record_deed(state, catalogue.USE_USUAL, by, about=alarm.field_name)
            let_go(broker, settings, alarm.held, ("limit",))
            return True
    return False


def let_go(broker: Anywhere, settings: Settings, limits: Collection[str], causes: tuple[Cause, ...]) -> None:
    """Open what waits because of limits that were changed, as soon as no worker tells of the old reason any more."""
    if limits:
        time.sleep(FRESH_S)
    for limit in limits:
        for about, queues in behind(limit, settings).items():
            lift_now(broker, queues, about=about, causes=causes if about == limit else CAUSES)


def cancel_task(
    state: redis.Redis, broker: Anywhere, settings: Settings, task_id: str, *, is_running: bool, by: str
) -> str:
    """Keep a task from starting, and return one line about it; `is_running`: stop it while it runs, too.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    from fleet.engine.app import app  # Celery's own message stops what runs; only who cancels needs the app

    def find(names: Sequence[str]) -> list[str]:
        searches = {name: find_at_heads(broker, name, settings) for name in names}
        return [name for name, search in searches.items() if search.found is not None or not search.complete]

    done = revoke([task_id], broker=broker, state=state, settings=settings, find=find)
    if done.unknown:
        return f"nobody knows {quote(task_id)}: it has no message and no result; if it still comes, it does not start"
    ended = done.ended
    is_stopped = is_running and not ended and find_held(broker, task_id) is not None
    if is_running and not ended:
        app.control.revoke([task_id], terminate=True)
    if ended or is_stopped:
        record_deed(state, catalogue.TASK_CANCELLED, by, task=task_id)
    if ended:
        return "cancelled: it waited, and does not start"
    if is_stopped:
        return "its worker stops it"
    return "it has ended: no worker holds it" if is_running else "it has ended, or runs: what runs goes on"


def note_cancelled(state: redis.Redis, tasks: Sequence[str], what: Mapping[str, object], *, by: str) -> None:
    """Record that somebody has cancelled tasks, by their ids or (none) by what they are."""
    names = {"task" if len(tasks) == 1 else "tasks": _named(tasks)} if tasks else {}
    record_deed(state, catalogue.TASK_CANCELLED, by, **names, **what)


def note_dead(
    state: redis.Redis,
    verb: Literal["replay", "purge"],
    counts: Mapping[str, int],
    *,
    by: str,
    tasks: Sequence[str] = (),
    pool: str | None = None,
    reason: str | None = None,
) -> None:
    """Record that somebody has queued dead letters again, or has thrown them away; nothing when there were none.

    Args:
        state: Plain client of the state Redis.
        verb: Which of both.
        counts: What became of how many letters.
        by: Who did it.
        tasks: The letters' ids, if they were named.
        pool: Else the pool whose letters were meant; None: all.
        reason: And their error type; None: any.
    """
    done = {name.replace(" ", "_"): number for name, number in counts.items() if name != "unknown"}
    if not done:
        return
    about = {"pool": pool or "all", "reason": reason or "all"}
    what = {"task" if len(tasks) == 1 else "tasks": _named(tasks)} if tasks else about
    event = catalogue.DEAD_REPLAYED if verb == "replay" else catalogue.DEAD_PURGED
    record_deed(state, event, by, **what, **done)


def pool_of(bot: str, settings: Settings) -> str:
    """Return the pool that a bot's name tells.

    Raises:
        ConfigurationError: When it is no pool of ours.
    """
    pool = bot.rpartition("-")[0]
    if pool not in settings.pools:
        raise ConfigurationError(
            f"bot: expected POOL-NUMBER with a pool of {', '.join(settings.pools)}, got {quote(bot)}"
        )
    return pool
