"""How the bots of pools stand, for people: who works, who is out, who is on probation. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from fleet.roster.quarantine import LOAD_UNIT, OUT
from fleet.store import keys
from fleet.store.client import Script, run_script_each

SHOW = Script.beside(__file__, "show.lua", keys="sets*", argv="unit")

#: Pools that are read in one step (count): half a millisecond of Redis, unless thousands of their bots are at work.
POOLS_A_STEP = 50


@dataclass(frozen=True, slots=True)
class PoolBots:
    """The bots of one pool, just now.

    Args:
        loads: Tasks in hand, of bots that have any, or are out; those whose worker has died are in no hand.
        running: Checkouts that run.
        out: Quarantined bots -> the end of that, Unix time in seconds; None: until they are released.
        probation: Bots that are tried.
    """

    loads: Mapping[str, int]
    running: int
    out: Mapping[str, float | None]
    probation: tuple[str, ...]

    def back_at(self, bots: int, now_s: float) -> tuple[bool, float | None]:
        """Return whether all of so many bots are out, and when the first of them comes back by itself."""
        ends = [end for end in self.out.values() if end is None or end >= now_s]
        is_out = len(ends) >= bots
        return is_out, min((end for end in ends if end is not None), default=None) if is_out else None


def read_bots(client: redis.Redis, pools: Sequence[str]) -> dict[str, PoolBots]:
    """Return how the bots of pools stand. One round trip, in steps that hold Redis up for a moment only.

    Args:
        client: Plain client of the state Redis.
        pools: Their names.
    """
    steps = [pools[start : start + POOLS_A_STEP] for start in range(0, len(pools), POOLS_A_STEP)]
    replies = run_script_each(
        client, SHOW, [SHOW.call(sets=[key for pool in step for key in _sets(pool)], unit=LOAD_UNIT) for step in steps]
    )
    return dict(zip(pools, (_pool_bots(*row) for rows in replies for row in rows), strict=True))


def load_of(score: float) -> int:
    """Return the tasks that a place in the order of checkouts says."""
    return int((score - OUT if score >= OUT / 2 else score) // LOAD_UNIT)


def _sets(pool: str) -> tuple[str, str, str, str]:
    return keys.bots(pool), keys.bot_leases(pool), keys.quarantined(pool), keys.probation(pool)


def _pool_bots(
    loads: Sequence[Any], running: int, out: Sequence[Any], probation: Sequence[bytes], dead: Sequence[bytes]
) -> PoolBots:
    ends = {bot.decode(): float(end) / 1e6 for bot, end in zip(out[::2], out[1::2], strict=True)}
    lost = Counter(member.decode().rpartition("|")[0] for member in dead)
    in_hand = {
        (name := bot.decode()): max(0, load_of(float(score)) - lost[name])
        for bot, score in zip(loads[::2], loads[1::2], strict=True)
    }
    return PoolBots(
        loads={bot: load for bot, load in in_hand.items() if load or bot in ends},
        running=running,
        out={bot: None if end == float("inf") else end for bot, end in ends.items()},
        probation=tuple(bot.decode() for bot in probation),
    )
