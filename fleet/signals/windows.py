"""The moving windows as they lie in Redis: packed numbers of fixed width, written by `record.lua`, decoded here.

Per pool: 64 minutes and 48 hours (`keys.series`), a row per bot (`keys.bot_rows`) and its last four tasks
(`keys.bot_tasks`), durations of seven times ten minutes (`keys.sketch`), its last completions (`keys.pool_recent`) and
failures (`keys.pool_failures`). Per fleet: 64 minutes and 48 hours of resources (`keys.resources`); what else is the
fleet's is added up (`counted/sums.py`). All sizes are fixed by the number of pools and bots, none grows with tasks.

Money is counted in micro-dollars with their parts, as doubles on the nearest pico: a sum below $1,000 is exact. Above,
one of S after n tasks is off by n * S / 2^53 at most, which is $0.0001 in a million tasks that cost a million dollars.
The exact sum of all time is in `keys.pool_totals`.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from fleet.errors import RateLimited
from fleet.models import CACHE, BotResult
from fleet.money import PICOS_PER_MICRO
from fleet.signals.catalogue import DEAD_LETTER, error_name
from fleet.signals.rungs import BACK_AFTER_S, RUNGS, RUNGS_COUNTED, SLOT_S, SLOTS
from fleet.signals.sketch import BUCKETS, bucket_of
from fleet.store import keys
from fleet.store.client import Script
from fleet.store.layouts import Layout

#: Slots of the ring of minutes: an hour, and some for readers that come late.
MINUTES = 64
#: Slots of the ring of hours: two days.
HOURS = 48
#: Completions and failures that are remembered: shown of a fleet, kept of a pool at most.
RECENT = 1000
#: Those that many pools keep together, about, and each of them at least (32 bytes each).
RECENT_OF_ALL, RECENT_LEAST = 4000, 50
#: Ten-minute sketches kept: the last 60 to 70 minutes.
SKETCH_SLOTS = SLOTS
#: Seconds of one sketch.
SKETCH_S = SLOT_S
#: Tasks that are remembered per bot.
BOT_TASKS = 4
#: Bytes of a task id that windows keep: a UUID has 36.
ID_BYTES = 36

STATUSES = ("ok", "degraded", "failed")


class Period(NamedTuple):
    """Sums of one minute or hour; `number` is minutes or hours since 1970."""

    number: float
    completions: float
    ok: float
    degraded: float
    failed: float
    input_tokens: float
    output_tokens: float
    cost_usd_micros: float
    calls: float
    calls_failed: float
    rate_limited: float
    queued_ms: float
    limited_ms: float
    ran_ms: float
    discarded: float
    dead_letters: float


class BotRows(NamedTuple):
    """What is counted per bot, in columns: entry 0 is nobody, entry 1 the first bot of the pool.

    `this_hour` belongs to `hour` (hours since 1970), `last_hour` to the one before.
    """

    completions: tuple[int, ...]
    failed: tuple[int, ...]
    calls_failed: tuple[int, ...]
    hour: tuple[int, ...]
    this_hour: tuple[int, ...]
    last_hour: tuple[int, ...]
    last_at: tuple[float, ...]
    cost_usd_micros: tuple[float, ...]
    tokens: tuple[float, ...]
    ran_ms: tuple[float, ...]

    def per_hour(self, now_s: float) -> list[int]:
        """Return completions of the last 60 minutes; of the hour before this one, an even flow is assumed."""
        hour, elapsed_s = divmod(now_s, 3600)
        left = 1 - elapsed_s / 3600
        return [
            (this + int(before * left + 0.5) if before else this)
            if of == hour
            else (int(this * left + 0.5) if of == hour - 1 else 0)
            for of, this, before in zip(self.hour, self.this_hour, self.last_hour, strict=True)
        ]

    def mean_ms(self) -> list[int]:
        """Return the mean time that tasks ran; 0 without tasks."""
        return [int(ms / n + 0.5) if n else 0 for ms, n in zip(self.ran_ms, self.completions, strict=True)]

    def of_bots(self, bots: int) -> BotRows:
        """Return bots 1 to `bots` only, the first one at 0."""
        return BotRows(*(column[1 : bots + 1] for column in self))  # type: ignore[arg-type]


class BotTaskEntry(NamedTuple):
    """One of the last tasks of a bot."""

    task_id: bytes
    at: int
    ran_ms: int
    status: int


class RecentEntry(NamedTuple):
    """One of the fleet's last completions; pool, API and error are told by the checksum of their names."""

    at: float
    pool: int
    api: int
    error: int
    bot: int
    status: int
    queued_ms: int
    ran_ms: int


class ResourcePeriod(NamedTuple):
    """Resources of all workers, integrated over one minute or hour: divided by its seconds they are averages."""

    number: float
    cpu_s: float
    rss_mb_s: float
    busy_s: float
    slots_s: float


class TaskSample(NamedTuple):
    """What `record.lua` is told of a finished task; pool, API and error as checksums of their names.

    `rung` is that of its pool's fallback ladder which answered it; -1: the pool has none, or nobody answered.
    """

    input_tokens: int
    output_tokens: int
    cost_usd_micros: float
    calls: int
    calls_failed: int
    rate_limited: int
    bot: int
    status: int
    queued_ms: int
    limited_ms: int
    ran_ms: int
    queued_bucket: int
    limited_bucket: int
    ran_bucket: int
    pool: int
    api: int
    error: int
    rung: int


class Share(NamedTuple):
    """What one of several bots that have worked on a task has used of it."""

    bot: str
    calls_failed: int
    cost_usd_micros: float
    tokens: int
    ran_ms: int

    def pack(self) -> bytes:
        """Return it as `record.lua` reads it."""
        return _SHARE.pack((bot_index(self.bot), *self[1:]))


PERIODS, ROWS = Layout.of(Period), Layout.of(BotRows, "6I4d")
LAST_TASKS, _RECENT_ENTRY = Layout.of(BotTaskEntry, f"{ID_BYTES}s2IB3x"), Layout.of(RecentEntry, "d3IHBx2I")
_SAMPLE, _SHARE = Layout.of(TaskSample), Layout.of(Share)
_pack_sample = _SAMPLE.packer(TaskSample)
RESOURCE = Layout.of(ResourcePeriod)
PERIOD, BOT_ROW, BOT_TASK, RECENT_ENTRY = (one.struct for one in (PERIODS, ROWS, LAST_TASKS, _RECENT_ENTRY))
#: Bytes of one sketch: its number, then queued, limited and ran; big-endian, as BITFIELD counts.
SKETCH_NUMBER_BYTES = 4
SKETCH_BYTES = SKETCH_NUMBER_BYTES + 4 * 3 * BUCKETS
#: Where in the same string it says who of the pool's fallback ladder serves (`rungs.py`).
RUNGS_START = SKETCH_SLOTS * SKETCH_BYTES
#: Adds a finished task to the windows, as a function of the finishing script.
RECORD = Script.beside(
    __file__,
    "record.lua",
    keys="series rows tasks sketch recent failures events",
    argv="now_us nth sample shown_id line dead_reason life_s pool dead_letter others most",
    tables={
        "period sums": PERIODS, "row": ROWS, "task": _SAMPLE, "sample": _SAMPLE, "share": _SHARE, "last": LAST_TASKS,
        "entry": _RECENT_ENTRY, "rungs": RUNGS,
    },
    constants={
        "MINUTES": MINUTES, "HOURS": HOURS, "SKETCHES": SKETCH_SLOTS, "SKETCH_S": SKETCH_S,
        "RUNGS_COUNTED": RUNGS_COUNTED, "BACK_AFTER_S": BACK_AFTER_S,
        "SKETCH_BYTES": SKETCH_BYTES, "BUCKETS": BUCKETS, "TASKS_EACH": BOT_TASKS, "ID_BYTES": ID_BYTES,
        "FAILED_STATUS": STATUSES.index("failed"),
    },
)  # fmt: skip
_MOST_U32 = 2**32 - 1
#: Names of bots, pools and APIs whose numbers are kept (count): each task asks for five of them.
MOST_NAMES = 20_000


@lru_cache(maxsize=MOST_NAMES)
def checksum(name: str) -> int:
    """Return the number that stands for a name in `RecentEntry`."""
    return zlib.crc32(name.encode())


@lru_cache(maxsize=MOST_NAMES)
def bot_index(bot: str) -> int:
    """Return the number of a bot within its pool, from 1; 0 for nobody."""
    digits = bot.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else 0


def record_keys(pool: str) -> dict[str, str]:
    """Return the KEYS of `record.lua` by name."""
    return {
        "series": keys.series(pool),
        "rows": keys.bot_rows(pool),
        "tasks": keys.bot_tasks(pool),
        "sketch": keys.sketch(pool),
        "recent": keys.pool_recent(pool),
        "failures": keys.pool_failures(pool),
        "events": keys.events(),
    }


def kept_of(pools: int) -> int:
    """Return how many completions and failures each pool remembers in a fleet of so many pools."""
    return min(RECENT, max(RECENT_LEAST, RECENT_OF_ALL // max(1, pools)))


def record_constants(pool: str, pools: int) -> dict[str, str | int]:
    """Return those ARGV of `record.lua` by name that are the same for all tasks of a pool, in a fleet of so many."""
    return {"life_s": keys.STATE_TTL_S, "pool": pool, "dead_letter": DEAD_LETTER.name, "most": kept_of(pools)}


def record_arguments(
    result: BotResult,
    *,
    bot: str,
    pool: str,
    api: str,
    calls_failed: Mapping[str, int],
    is_buried: bool,
    has_ladder: bool = False,
    others: Iterable[Share] = (),
) -> dict[str, bytes | str]:
    """Return the other ARGV of `record.lua` by name, but for the time and `nth`: what one finished task adds.

    `is_buried` says that the result makes a dead letter, `has_ladder` that its pool has a fallback ladder; `others` are
    bots that have worked on the task as well.
    """
    error = error_name(result.error.type) if result.error else ""
    queued, limited, ran = result.queued_ms, result.limited_ms, result.ran_ms
    sample = _pack_sample(
        input_tokens=result.usage.input_tokens,
        output_tokens=result.usage.output_tokens,
        cost_usd_micros=result.spent_usd_picos / PICOS_PER_MICRO,
        calls=result.attempts,
        calls_failed=sum(calls_failed.values()),
        rate_limited=calls_failed.get(RateLimited.__name__, 0),
        bot=bot_index(bot),
        status=STATUSES.index(result.status),
        queued_ms=min(queued or 0, _MOST_U32),
        limited_ms=min(limited, _MOST_U32),
        ran_ms=min(ran, _MOST_U32),
        queued_bucket=bucket_of(queued),
        limited_bucket=bucket_of(limited),
        ran_bucket=bucket_of(ran),
        pool=checksum(pool),
        api=checksum(api),
        error=checksum(error) if error else 0,
        rung=result.rung if has_ladder and result.status != "failed" and result.served_by != CACHE else -1,
    )
    task_id = result.task_id.encode(errors="replace")[:ID_BYTES]
    line = json.dumps([result.task_id[:ID_BYTES], pool, bot, api, error]) if error else ""
    return {
        "sample": sample,
        "shown_id": task_id,
        "line": line,
        "dead_reason": error if is_buried else "",
        "others": b"".join([one.pack() for one in others]),
    }


def bot_rows_of(raw: bytes, bots: int) -> BotRows:
    """Return the rows of a pool's bots 0 (nobody) to `bots`, and of later ones that have left the pool.

    Reads columns, not rows: ten times faster, and right on the little-endian machines that Fleet runs on.
    """
    missing = max(0, bots + 1 - len(raw) // BOT_ROW.size)
    whole = memoryview(raw[: len(raw) - len(raw) % BOT_ROW.size] + bytes(missing * BOT_ROW.size))
    counts, numbers = whole.cast("I"), whole.cast("d")
    columns = [counts[place :: BOT_ROW.size // 4].tolist() for place in range(6)]
    columns += [numbers[place :: BOT_ROW.size // 8].tolist() for place in range(3, 7)]
    return BotRows(*map(tuple, columns))


def bot_tasks_of(raw: bytes, completions: int) -> list[BotTaskEntry]:
    """Return the last tasks of one bot that has done so many, the newest first."""
    whole = raw[: len(raw) - len(raw) % BOT_TASK.size]
    ring = [BotTaskEntry(*fields) for fields in BOT_TASK.iter_unpack(whole)]
    last = range(completions, max(0, completions - BOT_TASKS), -1)
    return [ring[nth % BOT_TASKS] for nth in last if nth % BOT_TASKS < len(ring)]


def recent_of(raw: bytes) -> list[RecentEntry]:
    """Return the last completions of a ring, in no order."""
    whole = raw[: len(raw) - len(raw) % RECENT_ENTRY.size]
    return [RecentEntry(*fields) for fields in RECENT_ENTRY.iter_unpack(whole) if fields[0]]


def sketches_of(raw: bytes, *, now_s: float) -> tuple[array[int], array[int], array[int]]:
    """Return counts per bucket of the last hour's durations: queued, limited, ran."""
    current, total = int(now_s // SKETCH_S), 0
    for start in range(0, min(len(raw), RUNGS_START) - SKETCH_BYTES + 1, SKETCH_BYTES):
        counts = start + SKETCH_NUMBER_BYTES
        if current - SKETCH_SLOTS < int.from_bytes(raw[start:counts]) <= current + 1:
            total += int.from_bytes(
                raw[counts : start + SKETCH_BYTES]
            )  # all counters at once: none overflows into another
    sums = array("I", total.to_bytes(4 * 3 * BUCKETS))
    sums.byteswap()  # on the little-endian machines that Fleet runs on
    return sums[:BUCKETS], sums[BUCKETS : 2 * BUCKETS], sums[2 * BUCKETS :]


def resources_of(raw: bytes) -> dict[int, ResourcePeriod]:
    """Return the minutes of resources by their number."""
    return _resources_in(raw[: MINUTES * RESOURCE.struct.size])


def resource_hours(raw: bytes) -> dict[int, ResourcePeriod]:
    """Return the hours of resources by their number: those that were folded, and the minutes that wait to be."""
    hours = _resources_in(raw[MINUTES * RESOURCE.struct.size :])
    for minute, used in resources_of(raw).items():
        before = hours.get(minute // 60, ResourcePeriod(0, 0, 0, 0, 0))
        hours[minute // 60] = ResourcePeriod(minute // 60, *map(sum, zip(before[1:], used[1:], strict=True)))
    return hours


def _resources_in(raw: bytes) -> dict[int, ResourcePeriod]:
    whole = raw[: len(raw) - len(raw) % RESOURCE.struct.size]
    periods = (ResourcePeriod(*numbers) for numbers in RESOURCE.struct.iter_unpack(whole))
    return {int(period.number): period for period in periods if period.number}


class Failure(NamedTuple):
    """One failed task, as it was written and `record.lua` dated it."""

    at: float
    task_id: str
    pool: str
    bot: str
    api: str
    type: str


def failures_of(lines: Iterable[bytes], *, since: float) -> Iterator[Failure]:
    """Yield failures, the newest first, none before `since`."""
    for line in lines:
        at, _, rest = line.partition(b"|")
        if float(at) >= since:
            yield Failure(float(at), *json.loads(rest))


def names_by_checksum(names: Iterable[str]) -> Mapping[int, str]:
    """Return how names that are told by their checksum read; what nobody knows reads as "-"."""
    known: defaultdict[int, str] = defaultdict(lambda: "-")
    known.update((checksum(name), name) for name in names)
    return known
