"""Reads the bill: sums by whatever its rows tell apart, for people, pages and metrics. O(rows of that time)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import redis

from fleet.economy.bill.rows import DAY_S, DAYS_KEPT, HOUR_S, HOURS_KEPT_DAYS, OTHER, Sums, unpacked
from fleet.errors import InvalidTask
from fleet.store import bill_keys

#: What calls may be told apart by.
DIMENSIONS = ("pool", "bot", "tenant", "kind", "provider", "model", "key", "tier", "day", "hour")
#: What rows by bot do not tell.
NOT_BY_BOT = ("tenant", "kind", "hour")
#: Hashes that are read in one step (count).
STEP = 24

_BY_KIND, _BY_BOT, _OF_ALL = ("pool", "tenant", "kind"), ("pool", "bot"), ("pool", "model")


@dataclass(frozen=True, slots=True)
class BillLine:
    """A line of the bill: the values of what it is split by, in that order, and its sums."""

    values: tuple[str, ...]
    sums: Sums


@dataclass(frozen=True, slots=True)
class Bill:
    """What calls have cost in a time.

    Args:
        since_s: Unix time of its begin, as far as the rows tell: a whole hour or day (UTC).
        until_s: Of its end.
        by: What it is split by.
        lines: The dearest first; in order of time where it is split by that.
        total: Of all.
    """

    since_s: int
    until_s: int
    by: tuple[str, ...]
    lines: tuple[BillLine, ...]
    total: Sums

    @property
    def has_whole_days(self) -> bool:
        """True when lines that are split by hour tell of whole days, of which no hours are kept."""
        if "hour" not in self.by:
            return False
        place = self.by.index("hour")
        return any("T" not in line.values[place] for line in self.lines)


def check_by(by: Sequence[str]) -> None:
    """Refuse what the rows do not tell apart.

    Raises:
        InvalidTask: With what can be asked for.
    """
    for name in by:
        if name not in DIMENSIONS:
            raise InvalidTask(f"expected some of {', '.join(DIMENSIONS)}, got {name!r}")
    wrong = [name for name in by if name in NOT_BY_BOT]
    if "bot" in by and wrong:
        raise InvalidTask(
            f"expected no {' or '.join(wrong)} together with bot, got {','.join(by)}: calls are summed by bot and day, "
            "and apart from that by tenant, kind and hour; ask for one after the other"
        )


def read_bill(client: redis.Redis, *, since_s: float, until_s: float, by: Sequence[str] = ()) -> Bill:
    """Return what calls have cost.

    Args:
        client: Plain client of the state Redis.
        since_s: Unix time from which calls count; begins with the hour, with the day (UTC) where only days are kept:
            by bot, and before the last 14 days.
        until_s: Unix time until which they count; ends with the hour or day that runs then.
        by: What to split it by, of `DIMENSIONS`. Where only days are kept, the value of `hour` is the day.

    Raises:
        InvalidTask: When the rows do not tell these apart.
        redis.RedisError: When Redis does not answer.
    """
    check_by(by)
    now_s = float(client.time()[0])
    spans = list(_spans(since_s, min(until_s, now_s + HOUR_S), now_s, by))
    lines: dict[tuple[str, ...], Sums] = {}
    total = Sums()
    for start in range(0, len(spans), STEP):
        some = spans[start : start + STEP]
        with client.pipeline(transaction=False) as pipe:
            for _, _, key in some:
                pipe.hgetall(key)
            found = pipe.execute()
        for (began_s, ended_s, _), rows in zip(some, found, strict=True):
            for name, packed in rows.items():
                sums = unpacked(packed)
                values = _values(name, began_s, ended_s, by)
                lines[values] = lines.get(values, Sums()) + sums
                total += sums
    since, until = (spans[0][0], spans[-1][1]) if spans else (int(since_s), int(until_s))
    return Bill(since, until, tuple(by), tuple(_ordered(lines, by)), total)


def read_now(
    client: redis.Redis, now_s: float
) -> tuple[tuple[dict[tuple[str, str], Sums], dict[tuple[str, str], Sums], dict[tuple[str, str], Sums]], int]:
    """Return the sums of this hour, of today and of all time by pool and `provider/model`; and how many rows they had.

    Args:
        client: Plain client of the state Redis.
        now_s: Unix time of Redis.
    """
    hour = int(now_s // HOUR_S)
    with client.pipeline(transaction=False) as pipe:
        for key in (bill_keys.hour(hour), bill_keys.day(hour // 24), bill_keys.ever()):
            pipe.hgetall(key)
        found = pipe.execute()
    of_hour, of_day, of_all = (_by_pool_and_model(rows) for rows in found)
    return (of_hour, of_day, of_all), sum(map(len, found))


def _by_pool_and_model(rows: Mapping[bytes, bytes]) -> dict[tuple[str, str], Sums]:
    sums: dict[tuple[str, str], Sums] = {}
    for name, packed in rows.items():
        pool, model = OTHER, OTHER
        if name != OTHER.encode():
            pool, *_, model = parts = json.loads(name)
            model = model if len(parts) == len(_OF_ALL) else parts[-2].rpartition("/")[0]
        sums[pool, model] = sums.get((pool, model), Sums()) + unpacked(packed)
    return sums


def _spans(since_s: float, until_s: float, now_s: float, by: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield begin, end and key of each hash that is to be read: days where whole ones will do, else hours."""
    first = max(since_s, now_s - (DAYS_KEPT + 1) * DAY_S)
    hours_from = now_s - HOURS_KEPT_DAYS * DAY_S
    for day in range(int(first // DAY_S), int(-(-until_s // DAY_S))):
        begin, end = day * DAY_S, (day + 1) * DAY_S
        if "bot" in by:
            yield begin, end, bill_keys.bots(day)
            continue
        is_whole = since_s <= begin and min(until_s, now_s) >= min(end, now_s)
        if begin < hours_from or (is_whole and "hour" not in by):
            yield begin, end, bill_keys.day(day)
            continue
        for hour in range(int(max(first, begin) // HOUR_S), int(-(-min(until_s, end) // HOUR_S))):
            yield hour * HOUR_S, (hour + 1) * HOUR_S, bill_keys.hour(hour)


def _values(name: bytes, began_s: int, ended_s: int, by: Sequence[str]) -> tuple[str, ...]:
    known = _parts(name, is_by_bot="bot" in by)
    known["day"] = known["hour"] = _day(began_s)
    if ended_s - began_s == HOUR_S:
        known["hour"] = _hour(began_s)
    return tuple(known.get(one, OTHER) for one in by)


def _parts(name: bytes, *, is_by_bot: bool) -> dict[str, str]:
    """Return what the name of a row tells."""
    if name == OTHER.encode():
        return {}
    *who, limit, tier = json.loads(name)
    model, _, key = limit.rpartition("/")
    whose = dict(zip(_BY_BOT if is_by_bot else _BY_KIND, who, strict=True))
    return {**whose, "provider": model.partition("/")[0], "model": model, "key": key, "tier": tier}


def _day(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")


def _hour(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:00Z")


def _ordered(lines: dict[tuple[str, ...], Sums], by: Sequence[str]) -> Iterator[BillLine]:
    times = [place for place, name in enumerate(by) if name in ("day", "hour")]

    def order(item: tuple[tuple[str, ...], Sums]) -> tuple[object, ...]:
        values, sums = item
        return (*(values[place] for place in times), -sums.all_usd_picos, -sums.calls, values)

    for values, sums in sorted(lines.items(), key=order):
        yield BillLine(values, sums)
