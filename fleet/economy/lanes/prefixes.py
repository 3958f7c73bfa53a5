"""What calls of one beginning have read from the cache on each lane: one document may be warm, the next cold.

Counted by workers for calls that name how they begin (documents, a `prompt_cache_key`) or say by when they are needed;
others cost nothing. A beginning is known by a digest. Its first call in a process is told with its second, so that
beginnings that come once are not kept.

Weakness: kept by the hour, so a cache that has gone cold is believed for a while to be warm.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import redis

from fleet.economy.lanes.choice import LANES, Lane, LaneFacts
from fleet.store import lane_keys
from fleet.store.client import Script, Store
from fleet.usage import Usage

#: Seconds of one step, and the life of its counts: the step under way and the one before are read.
STEP_S, LIFE_S = 3600, 3 * 3600
#: Rows of a step at most (count), about 100 bytes each; other beginnings are known by their kind alone.
MOST_ROWS = 2000
#: Rows that a process keeps until it tells them (count).
MOST_HELD = 10_000
#: Seconds for which a process keeps its counts before they go to Redis.
KEEP_S = 5.0
#: Calls of a beginning below which its kind tells more (count): the first ones are cold.
LEAST_CALLS = 5

COUNT = Script.beside(__file__, "count.lua", keys="reads", argv="life_s most rows*")

#: `provider/model`, lane and name of a beginning.
Begun = tuple[str, Lane, str]


@dataclass(slots=True)
class _Counts:
    """Calls, and their tokens of input: all, read from the cache, written to it."""

    calls: int = 0
    input: int = 0
    cached: int = 0
    written: int = 0

    @property
    def facts(self) -> LaneFacts:
        return LaneFacts(hit=self.cached / self.input, written=self.written / self.input, calls=self.calls)


class PrefixCounter:
    """Counts for one process, on its loop; what it has not sent yet is lost with it.

    Args:
        state: Where the counts go.
    """

    def __init__(self, state: Store) -> None:
        self._state = state
        self._rows: OrderedDict[Begun, _Counts] = OrderedDict()
        self._is_due = False

    def count(self, begun: Begun, usage: Usage) -> None:
        """Count an answered call. Never waits."""
        row = self._rows.setdefault(begun, _Counts())
        row.calls += 1
        row.input += usage.input_tokens
        row.cached += usage.cached_tokens
        row.written += usage.cache_write_tokens
        if len(self._rows) > MOST_HELD:
            self._rows.popitem(last=False)
        if row.calls > 1 and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(KEEP_S, self._send)

    def _send(self) -> None:
        self._is_due = False
        told = {begun: row for begun, row in self._rows.items() if row.calls > 1}
        for begun in told:
            del self._rows[begun]
        call = COUNT.call(
            reads=lane_keys.lane_reads(step_of(time.time())), life_s=LIFE_S, most=MOST_ROWS,
            rows=[part for begun, row in told.items()
                  for part in ("|".join(begun), row.calls, row.input, row.cached, row.written)],
        )  # fmt: skip
        self._state.send(COUNT, *call)


def step_of(now_s: float) -> int:
    """Return the number of the step that a time (Unix, s) lies in."""
    return int(now_s // STEP_S)


def read_prefixes(state: redis.Redis, now_s: float) -> dict[Begun, LaneFacts]:
    """Return what is known of beginnings by this hour and the one before. One round trip, O(rows).

    Args:
        state: Plain client of the state Redis.
        now_s: Unix time of Redis.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    with state.pipeline(transaction=False) as pipe:
        for step in (step_of(now_s) - 1, step_of(now_s)):
            pipe.hgetall(lane_keys.lane_reads(step))
        hours = cast("Sequence[dict[bytes, bytes]]", pipe.execute())
    rows: defaultdict[Begun, _Counts] = defaultdict(_Counts)
    for hour in hours:
        for field, count in hour.items():
            api, lane, prefix, what = field.decode().rsplit("|", 3)
            row = rows[api, next(one for one in LANES if one == lane), prefix]
            setattr(row, what, getattr(row, what) + int(count))
    return {begun: row.facts for begun, row in rows.items() if row.calls >= LEAST_CALLS and row.input}


def with_prefix(
    known: Mapping[Lane, LaneFacts], prefixes: Mapping[Begun, LaneFacts], api: str, prefix: str
) -> dict[Lane, LaneFacts]:
    """Return what is known of lanes for a call that begins so: where its beginning is known, its own share of hits.

    Args:
        known: By lane, as calls of its kind have it.
        prefixes: What is known of beginnings.
        api: `provider/model`.
        prefix: Name of its beginning; empty: it has none.
    """
    return {
        lane: facts if (own := prefixes.get((api, lane, prefix))) is None
        else replace(facts, hit=own.hit, written=own.written, calls=own.calls)
        for lane, facts in known.items()
    }  # fmt: skip
