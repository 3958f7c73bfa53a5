"""What pools count, added up: the fleet's counters, its last completions and failures. All readers go by this.

Each pool counts for itself (`keys.pool_totals`), so that no key is written by all tasks. What no pool counts, and what
releases up to 0.2 counted of all, stands beside (`keys.totals`). Pools that are gone from fleet.toml still count.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

import redis

from fleet.signals.catalogue import NOBODY
from fleet.signals.windows import RECENT, RECENT_ENTRY, RecentEntry, recent_of
from fleet.store import keys
from fleet.store.client import Script, Store

#: Pools that are read in one step (count): 0.5 ms of Redis.
POOLS_A_STEP = 50
_READ = Script.beside(__file__, "read.lua", keys="places*", argv="")
#: Doubles in one entry of `keys.pool_recent`; its time is the first of them.
_STRIDE = RECENT_ENTRY.size // 8
#: Stands for what releases up to 0.2 remember of all pools: no pool has this name.
FORMER = ""
#: The last completions that a pool remembers, packed; and how many it keeps: behind these there may be stale ones.
Ring = tuple[bytes | None, int]


def counting(known: Iterable[bytes], configured: Iterable[str]) -> tuple[str, ...]:
    """Return the pools that count: those of fleet.toml, and those that ever did (`keys.counted_pools`)."""
    return tuple(dict.fromkeys((*configured, NOBODY, *sorted(name.decode() for name in known))))


async def register(store: Store, pools: Iterable[str]) -> None:
    """Note that these pools count: their sums stay the fleet's when fleet.toml names them no more. One round trip."""
    await store.command("SADD", keys.counted_pools(), *pools, NOBODY)


def totals_of(pools: Iterable[str]) -> tuple[str, ...]:
    """Return the keys of the counters that make the fleet's, added up."""
    return keys.totals(), *map(keys.pool_totals, pools)


def added(hashes: Iterable[Mapping[bytes, bytes]]) -> dict[bytes, int]:
    """Return the sums of counters, by name."""
    sums: Counter[bytes] = Counter()
    for one in hashes:
        for name, number in one.items():
            sums[name] += int(number)
    return dict(sums)


@dataclass(frozen=True, slots=True)
class FleetSums:
    """What all pools have counted, and what ended last.

    Args:
        totals: Counter -> sum.
        recent: The last completions, `RECENT` at most, in no order: all there were since the first of them. A busy
            pool's ring forgets sooner than others; what is older in those is left out, it would be the fleet's no more.
        rings: What each pool remembers of them, by its name; and `FORMER`.
        failures: The last failed tasks as they were written, `RECENT` at most, the newest first.
        failures_since: Unix time from which on `failures` has all there were; 0: it has all of them.
    """

    totals: Mapping[bytes, int]
    recent: Sequence[RecentEntry]
    rings: Mapping[str, Ring]
    failures: Sequence[bytes]
    failures_since: float


def ask(pipe: redis.client.Pipeline, pools: Sequence[str]) -> int:
    """Put the commands into a pipeline whose replies `read` takes; return how many there are."""
    places = [
        (keys.totals(), keys.recent(), keys.failures()),
        *((keys.pool_totals(pool), keys.pool_recent(pool), keys.pool_failures(pool)) for pool in pools),
    ]
    steps = range(0, len(places), POOLS_A_STEP)
    for start in steps:
        names, _ = _READ.call(places=[name for place in places[start : start + POOLS_A_STEP] for name in place])
        pipe.eval(_READ.text, len(names), *names)
    return len(steps)


def read(replies: Sequence[Any], pools: Sequence[str], kept: int) -> FleetSums:
    """Return the sums from the replies to what `ask` asked.

    Args:
        replies: In its order.
        pools: Those that it asked for.
        kept: Completions and failures that a pool remembers.
    """
    hashes, rings, lists = zip(*(place for step in replies for place in step), strict=True)
    by_pool = {pool: (ring, kept if pool else RECENT) for pool, ring in zip((FORMER, *pools), rings, strict=True)}
    recent, since = newest_recent(by_pool.values())
    totals = added(dict(zip(flat[::2], flat[1::2], strict=True)) for flat in hashes)
    return FleetSums(totals, [one for one in recent if one.at >= since], by_pool, *newest_failures(lists, kept))


def newest_recent(rings: Iterable[Ring]) -> tuple[list[RecentEntry], float]:
    """Return the newest entries of several rings, `RECENT` at most, in no order, and since when they are all."""
    size, since, kept = RECENT_ENTRY.size, 0.0, list[bytes]()
    for raw, most in rings:
        if raw:
            kept.append(raw[: min(most, len(raw) // size) * size])
            if len(kept[-1]) == most * size:
                since = max(since, min(array("d", kept[-1])[::_STRIDE]))
    whole = b"".join(kept)
    times = array("d", whole)[::_STRIDE]
    if len(times) <= RECENT:
        return recent_of(whole), since
    newest = nlargest(RECENT, range(len(times)), key=times.__getitem__)
    return recent_of(b"".join(whole[n * size : (n + 1) * size] for n in newest)), max(since, times[newest[-1]])


def newest_failures(lists: Sequence[Sequence[bytes]], kept: int) -> tuple[list[bytes], float]:
    """Return the newest lines of several lists, `RECENT` at most, and since when these are all there were.

    A list that is full has forgotten what was before its last line.
    """
    sorted_lists = [one for one in lists if one]
    since = max((_at(one[-1]) for one in sorted_lists if len(one) >= kept), default=0.0)
    lines = sorted((line for one in sorted_lists for line in one), key=_at, reverse=True)
    if len(lines) > RECENT:
        lines = lines[:RECENT]
        since = max(since, _at(lines[-1]))
    return lines, since


def _at(line: bytes) -> float:
    return float(line.partition(b"|")[0])


def read_totals(client: redis.Redis, configured: Iterable[str]) -> dict[bytes, int]:
    """Return the fleet's counters. Two round trips."""
    known: Any = client.smembers(keys.counted_pools())
    with client.pipeline(transaction=False) as pipe:
        for name in totals_of(counting(known, configured)):
            pipe.hgetall(name)
        return added(pipe.execute())


async def read_counters(store: Store, pools: Iterable[str], names: Sequence[str]) -> list[int]:
    """Return a few of the fleet's counters, in the order of their names. One round trip.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    rows = await asyncio.gather(*(store.command("HMGET", name, *names) for name in totals_of(pools)))
    return [sum(int(number or 0) for number in column) for column in zip(*rows, strict=True)]
