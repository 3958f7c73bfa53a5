"""Quarantine: a bot that takes no new task, because an operator (or its health) says so. For people, not the hot path.

A quarantined bot stays in the sorted set of its pool, with `OUT` added to its place; `check_out.lua` never goes that
far. Its running tasks finish. A quarantine with an end is ended by the first checkout after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import redis

from fleet.errors import ConfigurationError
from fleet.quoting import quote
from fleet.store import keys
from fleet.store.client import Script, run_script

#: Added to the score of a quarantined bot, 2^60: beyond any load. Its milliseconds become multiples of 256 there.
OUT = 2**60
#: Score of one task in hand, 2^40. The 40 bits below it hold the time of the last checkout, the 13 above it the load:
#: a double is exact to 53. Beyond 8,191 tasks on one bot only the time gets coarser (2 ms, 4 ms, ...), never the load.
LOAD_UNIT = 2**40
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
_NO_SUCH_BOT = -1


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
    length_us = "" if for_s is None else str(round(for_s * 1_000_000))
    why = f"{by.replace('|', '/')}|{' '.join(reason.split())[:REASON_CHARS]}"
    call = QUARANTINE.call(**_keys(pool), bot=bot, length_us=length_us, life_s=keys.STATE_TTL_S, why=why)
    reply = run_script(client, QUARANTINE, *call)
    if reply == _NO_SUCH_BOT:
        raise ConfigurationError(f"bot: expected one that the workers of pool {pool} know, got {quote(bot)}")
    return bool(reply)


def release(client: redis.Redis, pool: str, bot: str) -> bool:
    """Let a bot take tasks again, with all of its turns; False when it was not quarantined, nor on probation."""
    was_tried = client.zrem(keys.probation(pool), bot)
    return bool(run_script(client, RELEASE, *RELEASE.call(**_keys(pool), bot=bot))) or bool(was_tried)


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


def _keys(pool: str) -> dict[str, str]:
    return {
        "bots": keys.bots(pool),
        "quarantined": keys.quarantined(pool),
        "reasons": keys.quarantine_reasons(pool),
    }
