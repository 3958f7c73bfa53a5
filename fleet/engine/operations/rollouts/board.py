"""Rollouts as people see and handle them: started, ended, told, and how what is tried becomes the setting."""

from __future__ import annotations

import math
import secrets
from typing import get_args

import redis

from fleet.config import Archetype, Settings
from fleet.economy.prices import PriceList
from fleet.errors import ConfigurationError
from fleet.quoting import nearest, quote, stamp
from fleet.rollouts import ENOUGH, Rollout, RolloutState, end, read_rollouts, start
from fleet.rollouts.book import Ending
from fleet.signals import catalogue
from fleet.signals.events import record_deed
from fleet.signals.rollouts.view import AspectView, RolloutView, line_of
from fleet.store.clock import CLOCK

#: Seconds for which a rollout that is over is told on pages (a day).
TOLD_S = 86_400.0
#: Share of tasks that a rollout may have: with half of them it compares soonest.
LEAST_SHARE, MOST_SHARE = 0.001, 0.5
#: Longest system prompt of a persona, in characters.
MOST_PROMPT = 100_000


def begin(client: redis.Redis, settings: Settings, wanted: Rollout, *, by: str) -> Rollout:
    """Start a rollout, and note who did.

    Args:
        client: Plain client of the state Redis.
        settings: With its pool.
        wanted: What is to be tried; its id, times and unit are set here.
        by: Who does it.

    Raises:
        ConfigurationError: When it cannot be, or another one runs in the pool.
        redis.RedisError: When Redis does not answer.
    """
    _check(settings, wanted)
    in_tokens = bool(PriceList(settings).unpriced_of([wanted.pool]))
    told = {"id": secrets.token_hex(6), "since": CLOCK.now_s(), "by": by, "in_tokens": in_tokens}
    rollout = wanted.model_copy(update=told)
    if (other := start(client, rollout)) is not None:
        raise ConfigurationError(
            f"pool {rollout.pool}: expected no rollout there, got {other.what} since {stamp(other.since)}"
            f"{f', by {other.by}' if other.by else ''}; `fleet rollout stop {rollout.pool}` ends it"
        )
    noted = {"pool": rollout.pool, "rollout": rollout.id, "what": rollout.what, "share": f"{rollout.share * 100:g}%"}
    record_deed(client, catalogue.ROLLOUT_STARTED, by, **noted)
    return rollout


def _check(settings: Settings, wanted: Rollout) -> None:
    if wanted.pool not in settings.pools:
        raise ConfigurationError(f"pool {quote(wanted.pool)}: {nearest(wanted.pool, list(settings.pools))}")
    pool = settings.pools[wanted.pool]
    if not (wanted.persona or wanted.model):
        raise ConfigurationError("expected --persona, --persona-file or --model, got none: say what is to be tried")
    if not LEAST_SHARE <= wanted.share <= MOST_SHARE:
        raise ConfigurationError(
            f"--share: expected {LEAST_SHARE:.1%} to {MOST_SHARE:.0%}, got {wanted.share:.1%}; the rest of the tasks "
            "is what it is compared with"
        )
    if not 0 <= wanted.dearer < math.inf:
        raise ConfigurationError(f"--dearer: expected 0% or more, got {wanted.dearer:.0%}")
    if len(wanted.prompt) > MOST_PROMPT:
        raise ConfigurationError(f"persona: expected at most {MOST_PROMPT:,} characters, got {len(wanted.prompt):,}")
    personas: tuple[str, ...] = get_args(Archetype)
    if wanted.persona and not wanted.prompt and wanted.persona not in personas:
        raise ConfigurationError(
            f"persona {quote(wanted.persona)}: {nearest(wanted.persona, personas)}; `--persona-file FILE` "
            "tries one of your own"
        )
    if wanted.model and wanted.model not in pool.models:
        raise ConfigurationError(
            f"model {quote(wanted.model)}: expected one that the workers of pool {wanted.pool} know "
            f"({', '.join(pool.models)}); add it to `candidates` of [pools.{wanted.pool}] and restart them"
        )
    if pool.own_bot and wanted.model:
        raise ConfigurationError(
            f"pool {wanted.pool}: expected bots that make one chat call each, got your own function or agent, which "
            "may name its models itself; try it in a pool of its own"
        )


def conclude(client: redis.Redis, settings: Settings, pool: str, how: Ending, *, by: str) -> Rollout | None:
    """End what runs in a pool, and note who did; None: nothing does.

    Raises:
        ConfigurationError: When there is no such pool.
        redis.RedisError: When Redis does not answer.
    """
    found = next(
        (one.rollout for one in read_rollouts(client, past=1) if is_live(one) and one.rollout.pool == pool), None
    )
    if found is None:
        if pool not in settings.pools:
            raise ConfigurationError(f"pool {quote(pool)}: {nearest(pool, list(settings.pools))}")
        return None
    over = found.over(how, at=CLOCK.now_s(), by=by)
    if not end(client, found, over):
        return None
    told = {"pool": pool, "rollout": found.id, "what": found.what, "how": how}
    record_deed(client, catalogue.ROLLOUT_ENDED, by, **told)
    return over


def is_live(state: RolloutState) -> bool:
    return state.rollout.ended is None


def lines_for(settings: Settings, rollout: Rollout) -> list[str]:
    """Return the lines for fleet.toml that make what was tried the setting."""
    pool, name = settings.pools[rollout.pool], rollout.pool
    lines = [f"[pools.{name}]"]
    if rollout.model:
        lines.append(f'model = "{rollout.model}"')
        if pool.persona.models:
            lines.append(f'persona.models = ["{rollout.model}"]')
        if pool.candidates:
            left = ", ".join(f'"{one}"' for one in pool.candidates if one != rollout.model)
            lines.append(f"candidates = [{left}]")
    if rollout.persona:
        archetype = "analytical" if rollout.prompt else rollout.persona
        lines.append(f'persona.archetypes = ["{archetype}"]')
        if rollout.prompt:
            lines.append(f'persona.system_prompts.{archetype} = """..."""  # the text of persona {rollout.persona}')
    return lines


def view_of(state: RolloutState) -> RolloutView:
    """Return a rollout as people see it."""
    one = state.rollout
    aspects = tuple(
        AspectView(aspect=row.aspect, new=row.new, old=row.old, evidence=min(1.0, row.evidence / ENOUGH))
        for row in state.compared
    )
    return RolloutView(
        id=one.id, pool=one.pool, what=one.what, word=one.ended or "running", share=one.share, in_tokens=one.in_tokens,
        since=one.since, by=one.by, ended_at=one.ended_at, ended_by=one.ended_by, why=one.why,
        new_tasks=state.new.tasks, new_failed=state.new.failed, old_tasks=state.old.tasks, old_failed=state.old.failed,
        aspects=aspects, line=line_of(state.new.tasks, state.old.tasks, aspects),
    )  # fmt: skip


def rollout_views(client: redis.Redis, now_s: float) -> tuple[RolloutView, ...]:
    """Return the rollouts that run, and those of each pool that went back within a day, unless a later one was there.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    shown: dict[str, RolloutView] = {}
    for state in read_rollouts(client):
        one = state.rollout
        if one.pool not in shown and (one.ended_at is None or one.ended_at > now_s - TOLD_S):
            shown[one.pool] = view_of(state)
    return tuple(one for one in shown.values() if one.word in ("running", "back"))
