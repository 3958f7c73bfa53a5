"""Quarantine: a bot that takes no new task, because an operator (or its health) says so. For people, not the hot path.

A quarantined bot stays in the sorted set of its pool, with `OUT` added to its place; `check_out.lua` never goes that
far. Its running tasks finish. A quarantine with an end is ended by the first checkout after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from fleet.errors import ConfigurationError, StoreUnavailable
from fleet.quoting import quote
from fleet.store import keys
from fleet.store.client import Script

#: Added to the score of a quarantined bot, 2^60: beyond any load. Its milliseconds become multiples of 256 there.
OUT = 2**60
#: Score of one task in hand, 2^40. The 40 bits below it hold the time of the last checkout, the 13 above it the load:
#: a double is exact to 53. Beyond 8,191 tasks on one bot only the time gets coarser (2 ms, 4 ms, ...), never the load.
LOAD_UNIT = 2**40
#: Bots that are taken out or released in one step, all or none (count): it holds Redis up for some milliseconds.
AT_ONCE = 500
#: Characters of a reason that are kept.
REASON_CHARS = 200

RELEASE = Script.beside(
    __file__,
    "release.lua",
    keys="bots quarantined reasons",
    argv="bot",
    constants={"OUT": OUT, "UNIT": LOAD_UNIT},
)
QUARANTINE = Script.beside(
    __file__,
    "quarantine.lua",
    keys="bots quarantined reasons",
    argv="bot length_us life_s why",
    constants={"OUT": OUT},
)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """One bot that is out.

    Args:
        bot: Its name.
        since: Unix time in seconds.
        until: Unix time of its end; None: until released.
        by: Who quarantined it.
        reason: Why.
    """

    bot: str
    since: float
    until: float | None
    by: str
    reason: str


def quarantine(
    client: redis.Redis, pool: str, bot: str, *, by: str, reason: str = "", for_s: float | None = None
) -> bool:
    """Let a bot take no new task; what it runs goes on.

    Args:
        client: Redis of the fleet's state.
        pool: The bot's pool.
        bot: Its name.
        by: Who says so.
        reason: Why; shown to operators.
        for_s: Seconds until it comes back by itself; None: when it is released.

    Returns:
        False when it was out already; the new end and reason hold.

    Raises:
        ConfigurationError: When the pool has no such bot.
    """
    return quarantine_all(client, [(pool, bot)], by=by, reason=reason, for_s=for_s)[0]


def quarantine_all(
    client: redis.Redis, bots: Sequence[tuple[str, str]], *, by: str, reason: str = "", for_s: float | None = None
) -> list[bool]:
    """Let each of some bots, given as pool and name, take no new task: all of them or none, up to `AT_ONCE`.

    More are taken out in several steps, and an error says which have been; why and by whom stands beside each.

    Returns:
        For each of them False when it was out already; the new end and reason hold.

    Raises:
        ConfigurationError: When a pool has no such bot; then none of them is taken out.
        redis.RedisError: When Redis does not answer: none was, or all were and the reply was lost.
        StoreUnavailable: When it did not answer after some of the steps.
    """
    with client.pipeline(transaction=False) as pipe:
        for pool, bot in bots:
            pipe.zscore(keys.bots(pool), bot)
        known = pipe.execute()
    for (pool, bot), place in zip(bots, known, strict=True):
        if place is None:
            raise ConfigurationError(f"bot: expected one that the workers of pool {pool} know, got {quote(bot)}")

    def step(some: Sequence[tuple[str, str]]) -> list[bool]:
        calls = [_quarantine_call(pool, bot, by=by, reason=reason, for_s=for_s) for pool, bot in some]
        with client.pipeline(transaction=True) as pipe:
            for names, arguments in calls:
                pipe.evalsha(QUARANTINE.sha, len(names), *names, *arguments)
            return [reply == 1 for reply in pipe.execute()]

    client.script_load(QUARANTINE.text)
    return _in_steps(bots, step, "are quarantined")


def release_all(client: redis.Redis, bots: Sequence[tuple[str, str]]) -> list[bool]:
    """Let each of some bots, given as pool and name, take tasks again, as `release`; in steps as `quarantine_all`."""

    def step(some: Sequence[tuple[str, str]]) -> list[bool]:
        with client.pipeline(transaction=True) as pipe:
            for pool, bot in some:
                pipe.zrem(keys.probation(pool), bot)
            for pool, bot in some:
                names, arguments = RELEASE.call(**_keys(pool), bot=bot)
                pipe.evalsha(RELEASE.sha, len(names), *names, *arguments)
            replies = pipe.execute()
        return [bool(tried) or bool(out) for tried, out in zip(replies[: len(some)], replies[len(some) :], strict=True)]

    client.script_load(RELEASE.text)
    return _in_steps(bots, step, "are released")


def _in_steps(
    bots: Sequence[tuple[str, str]], step: Callable[[Sequence[tuple[str, str]]], list[bool]], done: str
) -> list[bool]:
    """Take all steps, each of them whole or not at all, and return what they returned."""
    replies: list[bool] = []
    for start in range(0, len(bots), AT_ONCE):
        try:
            replies += step(bots[start : start + AT_ONCE])
        except redis.RedisError as error:
            if len(bots) <= AT_ONCE:
                raise
            raise StoreUnavailable(_after_some(bots, start, done, error)) from error
    return replies


def _after_some(bots: Sequence[tuple[str, str]], start: int, done: str, error: redis.RedisError) -> str:
    last = min(start + AT_ONCE, len(bots))
    before = f"the first {start:,} {done} (up to {bots[start - 1][1]}), " if start else ""
    after = f", and the {len(bots) - last:,} after them not" if last < len(bots) else ""
    return (
        f"expected an answer for {len(bots):,} bots, got {quote(str(error))}: {before}"
        f"the next {last - start:,} may be, all or none{after}; to repeat it is safe"
    )


def release(client: redis.Redis, pool: str, bot: str) -> bool:
    """Let a bot take tasks again, with all of its turns; False when it was not quarantined, nor on probation."""
    return release_all(client, [(pool, bot)])[0]


def read_quarantined(client: redis.Redis, pools: Iterable[str]) -> dict[str, Quarantine]:
    """Return the bots that are out, by name. One round trip, O(quarantined bots)."""
    with client.pipeline(transaction=False) as pipe:
        for pool in pools:
            pipe.zrange(keys.quarantined(pool), 0, -1, withscores=True)
            pipe.hgetall(keys.quarantine_reasons(pool))
        replies = pipe.execute()
    found = {}
    for ends, reasons in zip(replies[::2], replies[1::2], strict=True):
        for name, end_us in ends:
            until = None if end_us == float("inf") else end_us / 1e6
            found[name.decode()] = quarantine_of(name.decode(), until, reasons.get(name, b"0||"))
    return found


def quarantine_of(bot: str, until: float | None, why: bytes) -> Quarantine:
    """Read what `quarantine.lua` wrote about a bot: `microseconds|who|why`."""
    since_us, by, reason = why.decode(errors="replace").split("|", 2)
    return Quarantine(bot, int(since_us) / 1e6, until, by, reason)


def _quarantine_call(pool: str, bot: str, *, by: str, reason: str, for_s: float | None) -> tuple[list[Any], list[Any]]:
    length_us = "" if for_s is None else str(round(for_s * 1_000_000))
    why = f"{by.replace('|', '/')}|{' '.join(reason.split())[:REASON_CHARS]}"
    return QUARANTINE.call(**_keys(pool), bot=bot, length_us=length_us, life_s=keys.STATE_TTL_S, why=why)


def _keys(pool: str) -> dict[str, str]:
    return {
        "bots": keys.bots(pool),
        "quarantined": keys.quarantined(pool),
        "reasons": keys.quarantine_reasons(pool),
    }
