"""How healthy all bots of a pool are, in columns, and why some are out: what the page shows of them. Reads only."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import redis

from fleet.faults import Fault
from fleet.roster.health import HEAD_BYTES, ROW, TESTS, YOUNG_TASKS, fault_of, share_of
from fleet.roster.pool_bots import PoolBots
from fleet.roster.quarantine import Quarantine, quarantine_of
from fleet.store import keys

#: Bots whose reason is read, of all pools (count): 10,000 with a third of them out would bring 350 kB each second.
MOST_REASONS = 500

#: A byte of a row -> percent.
_PERCENT = tuple(round(share / 2.55) for share in range(256))
#: A row as 32-bit words: evidence of the tests first, then their rates of a byte each.
_ROW_WORDS = ROW.struct.size // 4
#: Word with the tasks of a row, and byte with the fault of its bad answers.
_TASKS_WORD, _FAULT_BYTE = 4, 22


class HealthRows(NamedTuple):
    """A pool's bots in columns, the first bot first.

    Args:
        evidence: The most that a test has against each, 0 or more.
        test: Which test that is, from 1; 0: none has any.
        percents: By test, the share of the last tasks.
        faults: By place, what most bad answers of those had that gave any.
    """

    evidence: tuple[float, ...]
    test: tuple[int, ...]
    percents: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    faults: Mapping[int, Fault]


def health_rows_of(raw: bytes, bots: int) -> HealthRows:
    """Return how bots 1 to `bots` stand from `keys.health`; one that was never judged stands well. O(bots)."""
    size = ROW.struct.size
    rows = raw[HEAD_BYTES + size : HEAD_BYTES + (bots + 1) * size].ljust(bots * size, b"\0")[: bots * size]
    words = array("f", rows)
    if sys.byteorder == "big":
        words.byteswap()
    by_test = [words[place::_ROW_WORDS] for place in range(len(TESTS))]
    most = tuple(map(max, *by_test))
    first = 4 * len(TESTS)
    tasks = array("I", words.tobytes())[_TASKS_WORD::_ROW_WORDS]
    young = [at for at, count in enumerate(tasks) if 0 < count < YOUNG_TASKS]
    bad, avoids, slow = (_percents(rows[first + place :: size], tasks, young) for place in range(len(TESTS)))
    return HealthRows(
        evidence=tuple(round(evidence, 1) if evidence else 0.0 for evidence in most),
        test=tuple(
            0 if not top else 1 if top == a else 2 if top == b else 3
            for top, a, b in zip(most, *by_test[:2], strict=True)
        ),
        percents=(bad, avoids, slow),
        faults={at: fault for at, code in enumerate(rows[_FAULT_BYTE::size]) if code and (fault := fault_of(code))},
    )


def _percents(rates: bytes, tasks: Sequence[int], young: Iterable[int]) -> tuple[int, ...]:
    """Return rates as percent; those of bots that have done little are put right one by one."""
    percents = list(map(_PERCENT.__getitem__, rates))
    for at in young:
        percents[at] = round(100 * share_of(rates[at], tasks[at]))
    return tuple(percents)


def read_reasons(client: redis.Redis, pools: Mapping[str, PoolBots]) -> dict[str, Quarantine]:
    """Return why bots are out, of the first `MOST_REASONS`. No round trip when none is, else one."""
    left = iter(range(MOST_REASONS))
    asked = {pool: list(_some(one.out, left)) for pool, one in pools.items()}
    wanted = {pool: bots for pool, bots in asked.items() if bots}
    if not wanted:
        return {}
    with client.pipeline(transaction=False) as pipe:
        for pool, bots in wanted.items():
            pipe.hmget(keys.quarantine_reasons(pool), bots)
        replies = pipe.execute()
    return {
        bot: quarantine_of(bot, pools[pool].out[bot], why or b"0||")
        for (pool, bots), reply in zip(wanted.items(), replies, strict=True)
        for bot, why in zip(bots, reply, strict=True)
    }


def _some(bots: Iterable[str], left: Iterable[int]) -> Iterable[str]:
    """Return bots as long as some are left to be asked for."""
    return (bot for bot, _ in zip(bots, left, strict=False))
