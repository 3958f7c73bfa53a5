"""Rows: entries summed by who asked and who answered, exactly. Pure; how Redis adds them up: `rows.lua`.

A row is packed as doubles, which are whole numbers here: money lies in two of them, whole micro-dollars and the rest in
10^-12 dollars, so that each is exact far beyond what anybody pays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from fleet.economy.prices import STANDARD_TIERS
from fleet.entries import Entry
from fleet.money import PICOS_PER_MICRO
from fleet.store import bill_keys
from fleet.store.layouts import Layout
from fleet.usage import Usage

#: Rows of an hour or a day at most (count); what is beyond them is summed in one row.
MOST_ROWS = 10_000
#: That row.
OTHER = "other"
#: Days for which the rows of an hour, and of a day, are kept.
HOURS_KEPT_DAYS, DAYS_KEPT = 14, 400
HOUR_S, DAY_S = 3600, 86_400


class Row(NamedTuple):
    """Sums of calls; each a whole number.

    Money comes as whole micro-dollars and the rest in 10^-12 dollars: what is settled, then what was reserved for
    calls of which nobody knows the cost.
    """

    calls: float = 0
    unknown_calls: float = 0
    unpriced_calls: float = 0
    usd_micros: float = 0
    usd_rest: float = 0
    unknown_usd_micros: float = 0
    unknown_usd_rest: float = 0
    input_tokens: float = 0
    output_tokens: float = 0
    cached_tokens: float = 0
    cache_write_tokens: float = 0
    cache_write_1h_tokens: float = 0
    reasoning_tokens: float = 0
    audio_input_tokens: float = 0
    audio_output_tokens: float = 0
    image_input_tokens: float = 0
    image_output_tokens: float = 0
    cached_audio_tokens: float = 0
    cached_image_tokens: float = 0
    web_searches: float = 0
    estimated_calls: float = 0


ROW = Layout.of(Row)
#: Classes of usage that a row counts.
CLASSES = Row._fields[7:]

#: Nothing.
NO_USAGE = Usage()

#: What a row stands for: the hash that it lies in, and its name there.
Place = tuple[str, str]


def hour_of(at_s: float) -> int:
    """Return the hour of a Unix time, since 1970."""
    return int(at_s // HOUR_S)


@lru_cache(maxsize=MOST_ROWS)
def _places(hour: int, pool: str, bot: str, tenant: str, kind: str, limit: str, tier: str) -> tuple[Place, ...]:
    """Return where an entry is counted: in its hour, in its day, in its day by bot, and in all."""
    by_kind, by_bot = spelt(pool, tenant, kind, limit, tier), spelt(pool, bot, limit, tier)
    day = hour // 24
    ever = bill_keys.ever(), spelt(pool, limit.rpartition("/")[0])
    return (bill_keys.hour(hour), by_kind), (bill_keys.day(day), by_kind), (bill_keys.bots(day), by_bot), ever


def places_of(entry: Entry) -> tuple[Place, ...]:
    """Return where an entry is counted: in its hour, in its day, in its day by bot, and in all."""
    tier = "" if entry.tier in STANDARD_TIERS else entry.tier
    return _places(hour_of(entry.at_s), entry.pool, entry.bot, entry.tenant, entry.kind, entry.limit, tier)


@lru_cache(maxsize=MOST_ROWS)
def spelt(*parts: str) -> str:
    """Return the name of a row."""
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def _add(row: list[int], entry: Entry, sign: int) -> None:
    """Add an entry to a row, or subtract it."""
    row[_CALLS] += sign
    picos, at = entry.usd_picos, _MICROS
    if entry.state == "unknown":
        row[_UNKNOWN] += sign
        at = _UNKNOWN_MICROS
    if picos is None:
        row[_UNPRICED] += sign
    else:
        micros, rest = divmod(picos, PICOS_PER_MICRO)
        row[at] += sign * micros
        row[at + 1] += sign * rest
    usage = entry.usage.__dict__
    for name, place in _CLASSES:
        if number := usage[name]:
            row[place] += sign * number


#: Places in `Row`, from 0.
_CALLS, _UNKNOWN, _UNPRICED = map(Row._fields.index, ("calls", "unknown_calls", "unpriced_calls"))
_MICROS, _UNKNOWN_MICROS = map(Row._fields.index, ("usd_micros", "unknown_usd_micros"))
_CLASSES = tuple((name, Row._fields.index(name)) for name in CLASSES)


def summed(entries: Iterable[Entry], *, taken_back: Iterable[Entry] = ()) -> dict[Place, bytes]:
    """Return what entries add to each row, packed.

    Args:
        entries: They are added.
        taken_back: These are subtracted.
    """
    alike: dict[tuple[Place, ...], list[int]] = {}
    for sign, some in ((1, entries), (-1, taken_back)):
        for entry in some:
            places = places_of(entry)
            row = alike.get(places)
            if row is None:
                row = alike[places] = [0] * ROW.size
            _add(row, entry, sign)
    sums: dict[Place, list[int]] = {}
    for places, row in alike.items():
        numbers = [(at, number) for at, number in enumerate(row) if number]
        for place in places:
            total = sums.get(place)
            if total is None:
                sums[place] = row.copy()
                continue
            for at, number in numbers:
                total[at] += number
    return {place: ROW.pack(row) for place, row in sums.items()}


@dataclass(frozen=True, slots=True)
class Sums:
    """A row as people and programs read it: whole numbers, money in 10^-12 dollars.

    Args:
        calls: All of them.
        unknown_calls: Those of them of which nobody knows what was counted.
        unpriced_calls: Those of them without a price.
        usd_picos: What the settled ones have cost.
        unknown_usd_picos: What was reserved for the unknown ones.
        usage: Each class of token.
    """

    calls: int = 0
    unknown_calls: int = 0
    unpriced_calls: int = 0
    usd_picos: int = 0
    unknown_usd_picos: int = 0
    usage: Usage = NO_USAGE

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.calls + other.calls,
            self.unknown_calls + other.unknown_calls,
            self.unpriced_calls + other.unpriced_calls,
            self.usd_picos + other.usd_picos,
            self.unknown_usd_picos + other.unknown_usd_picos,
            self.usage + other.usage,
        )

    @property
    def all_usd_picos(self) -> int:
        """Both together: the most that is known to be owed."""
        return self.usd_picos + self.unknown_usd_picos


def unpacked(packed: bytes) -> Sums:
    """Return the sums of a row as it lies in Redis; nothing for one of another version."""
    row = Row._make(ROW.unpack(packed)[1:])
    counts = row._asdict()
    return Sums(
        int(row.calls),
        int(row.unknown_calls),
        int(row.unpriced_calls),
        int(row.usd_micros) * PICOS_PER_MICRO + int(row.usd_rest),
        int(row.unknown_usd_micros) * PICOS_PER_MICRO + int(row.unknown_usd_rest),
        Usage(**{name: int(counts[name]) for name in CLASSES}),
    )


def arguments_of(rows: Mapping[Place, bytes]) -> tuple[dict[str, str], list[int | str | bytes]]:
    """Return the hashes of the rows of one hour by their names in the scripts, and the rows as these take them."""
    hashes = dict.fromkeys(key for key, _ in rows)
    numbers = {key: number for number, key in enumerate(hashes, start=1)}
    listed = [part for (key, name), packed in rows.items() for part in (numbers[key], name, packed)]
    return dict(zip(("hour", "day", "bots", "ever"), hashes, strict=True)), listed
