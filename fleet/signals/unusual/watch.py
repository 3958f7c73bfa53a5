"""Everything that is watched, look by look: keys by what is asked of them, bots beside the others of their pool. Pure.

A bot is compared with its own past and with what the others of its pool do at the same time, so that a backlog that
drains accuses none. A pool of one bot has no others: its key tells.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fleet.models import bot_name
from fleet.signals.unusual.detector import LOOK_S, LOOKS_A_MINUTE, SCALES, Usual, threshold

#: Looks over which it is said how much all others do.
GROWTH_LOOKS = 3
#: Share of the calls that are allowed whatever is usual below which that is over: it must not come and go.
BELOW = 0.9
#: Numbers of one who is watched as they are kept: of a bot, and of a key, which knows days.
_BOT_FORMAT = f"<6d{4 * len(SCALES)}d"
_KEY_FORMAT = f"{_BOT_FORMAT}4d48d"


@dataclass(frozen=True, slots=True)
class Overuse:
    """A key or bot that is asked for far more than usual.

    Args:
        kind: `key` or `bot`.
        name: Of the key as `fleet keys` has it, or of the bot.
        usual_rpm: Calls a minute that are usual at this time of the day.
        rpm: Calls a minute that were asked for in the last minute.
        most_rpm: Calls a minute that it may make whatever is usual, if only that is passed.
    """

    kind: str
    name: str
    usual_rpm: float
    rpm: float
    most_rpm: float | None = None


@dataclass(slots=True)
class _One:
    """Somebody who is watched.

    Attributes:
        usual: What is usual for it.
        asked, made: Calls of the last minute, look by look.
        is_over_most: They are more than is allowed whatever is usual.
        is_excused: Somebody has resumed it while they were.
    """

    usual: Usual
    asked: deque[float] = field(default_factory=lambda: deque(maxlen=LOOKS_A_MINUTE))
    made: deque[float] = field(default_factory=lambda: deque(maxlen=LOOKS_A_MINUTE))
    is_over_most: bool = False
    is_excused: bool = False

    def look(self, asked: float, made: float, most_rpm: float) -> None:
        """Learn what was asked for and made, and whether that is more than is allowed whatever is usual."""
        self.asked.append(asked)
        self.made.append(made)
        if sum(self.made) > most_rpm:
            self.is_over_most = True
        elif len(self.made) == LOOKS_A_MINUTE and max(sum(self.made), sum(self.asked)) < BELOW * most_rpm:
            self.is_over_most = self.is_excused = False


class UseWatch:
    """What is known of all keys and bots. One per fleet, in the worker that looks."""

    def __init__(self) -> None:
        self._keys: dict[str, _One] = {}
        self._bots: dict[str, dict[int, _One]] = {}
        self._grown: dict[str, deque[float]] = {}

    @property
    def watched(self) -> int:
        """How many keys and bots."""
        return len(self._keys) + sum(map(len, self._bots.values()))

    def look(
        self,
        asked: Mapping[str, float],
        done: Mapping[str, Mapping[int, float]],
        *,
        hour: int,
        made: Mapping[str, float] | None = None,
        most_rpm: float = math.inf,
        most_bot_rpm: float = math.inf,
    ) -> list[Overuse]:
        """Take one look.

        Args:
            asked: Calls that were asked for by key since the last look, scaled to `LOOK_S`.
            done: Calls that bots have made by pool and number, likewise; a bot that is missing has made none.
            hour: Of the day (UTC).
            made: Calls that were made by key since the last look, scaled likewise.
            most_rpm: Calls of a key in a minute that are an alarm, whatever is usual.
            most_bot_rpm: Those of a bot.

        Returns:
            Who is under alarm now.
        """
        for key in asked:
            self._keys.setdefault(key, _One(Usual()))
        for pool, bots in done.items():
            known = self._bots.setdefault(pool, {})
            for number in bots:
                known.setdefault(number, _One(Usual(knows_days=False)))
        alarm_at, found = threshold(self.watched), list[Overuse]()
        for key, one in self._keys.items():
            wanted = asked.get(key, 0.0)
            one.look(wanted, wanted if made is None else made.get(key, 0.0), most_rpm)
            is_told = one.usual.look(wanted, hour=hour, alarm_at=alarm_at) >= alarm_at
            found += _suspects("key", key, one, hour, is_told, most_rpm)
        for pool, known in self._bots.items():
            found += self._look_at_bots(pool, known, done.get(pool, {}), hour, alarm_at, most_bot_rpm)
        return found

    def _look_at_bots(
        self, pool: str, known: dict[int, _One], calls: Mapping[int, float], hour: int, alarm_at: float, most: float
    ) -> Iterator[Overuse]:
        """Look at the bots of a pool; nobody (0) is no bot. One without others is measured by `most` alone."""
        recent = self._grown.setdefault(pool, deque(maxlen=GROWTH_LOOKS))
        recent.append(sum(calls.values()))
        now = busiest(recent)
        usual = sum(one.usual.rate for one in known.values())
        for number, one in known.items():
            own = calls.get(number, 0.0)
            growth = grown(now - own, usual - one.usual.rate)
            if not number:
                continue
            one.look(own, own, most)
            is_told = one.usual.look(own, hour=hour, alarm_at=alarm_at, growth=growth) >= alarm_at
            yield from _suspects("bot", bot_name(pool, number), one, hour, is_told and len(known) > 1, most)

    def is_calm(self, kind: str, name: str) -> bool:
        """True when nothing speaks against a key or bot any more."""
        one = self._find(kind, name)
        return one is None or (one.usual.evidence <= 0 and not one.is_over_most)

    def relearn(self, kind: str, name: str) -> None:
        """Forget what was usual for a key or bot: what it does from now on is."""
        if (one := self._find(kind, name)) is not None:
            one.usual = Usual(knows_days=one.usual.knows_days)
            one.is_excused = one.is_over_most

    def _find(self, kind: str, name: str) -> _One | None:
        if kind == "key":
            return self._keys.get(name)
        pool, _, number = name.rpartition("-")
        return self._bots.get(pool, {}).get(int(number)) if number.isdigit() else None

    def packed(self) -> dict[str, bytes]:
        """Return all that is known, as it is kept: `key NAME`, and `bots POOL` in one string."""
        kept = {f"key {name}": _packed(one) for name, one in self._keys.items()}
        for pool, known in self._bots.items():
            rows = (struct.pack("<I", number) + _packed(one) for number, one in known.items())
            kept[f"bots {pool}"] = b"".join(rows)
        return kept

    @classmethod
    def of(cls, kept: Mapping[str, bytes]) -> UseWatch:
        """Return what is known from what was kept; what another release has written is learnt anew."""
        watch = cls()
        for name, packed in kept.items():
            kind, _, what = name.partition(" ")
            if kind == "key" and len(packed) == struct.calcsize(_KEY_FORMAT):
                watch._keys[what] = _unpacked(packed)
            elif kind == "bots" and not len(packed) % (size := 4 + struct.calcsize(_BOT_FORMAT)):
                rows = (packed[start : start + size] for start in range(0, len(packed), size))
                watch._bots[what] = {struct.unpack_from("<I", row)[0]: _unpacked(row[4:]) for row in rows}
        return watch


def _suspects(kind: str, name: str, one: _One, hour: int, is_told: bool, most_rpm: float) -> Iterator[Overuse]:
    """Yield one who is under alarm: against its usual, or above what is allowed whatever is usual."""
    if is_told or (one.is_over_most and not one.is_excused):
        rpm = sum(one.asked if is_told else one.made) * LOOKS_A_MINUTE / len(one.asked)
        usual_rpm = one.usual.expected(hour) * LOOKS_A_MINUTE
        yield Overuse(kind, name, round(usual_rpm, 1), round(rpm, 1), None if is_told else most_rpm)


def _packed(one: _One) -> bytes:
    usual = one.usual
    flags = one.is_excused + 2 * one.is_over_most
    numbers = [
        usual.rate, usual.minutes, usual.busy_minutes, usual.evidence, usual.looks, flags, *usual.scatter, *usual.sums,
        *usual.dues,
    ]  # fmt: skip
    if not usual.knows_days:
        return struct.pack(_BOT_FORMAT, *numbers)
    of_hour = usual.hour, usual.hour_sum, usual.hour_looks, usual.hour_peak
    return struct.pack(_KEY_FORMAT, *numbers, *of_hour, *usual.hours, *usual.peaks)


def _unpacked(packed: bytes) -> _One:
    is_key = len(packed) == struct.calcsize(_KEY_FORMAT)
    rate, minutes, busy, evidence, looks, flags, *rest = struct.unpack(_KEY_FORMAT if is_key else _BOT_FORMAT, packed)
    scales = len(SCALES)
    usual = Usual(
        rate=rate, minutes=int(minutes), busy_minutes=int(busy), evidence=evidence, looks=int(looks),
        scatter=rest[: 2 * scales], sums=rest[2 * scales : 3 * scales], dues=rest[3 * scales : 4 * scales],
        knows_days=is_key,
    )  # fmt: skip
    if is_key:
        hour, usual.hour_sum, hour_looks, usual.hour_peak, *days = rest[4 * scales :]
        usual.hour, usual.hour_looks, usual.hours, usual.peaks = int(hour), int(hour_looks), days[:24], days[24:]
    return _One(usual, is_over_most=flags >= 2, is_excused=flags % 2 == 1)


def busiest(recent: Sequence[float]) -> float:
    """Return the calls of the last look, or of the last few on average where these are more."""
    return max(recent[-1], sum(recent) / len(recent))


def grown(calls: float, usual: float) -> float:
    """Return how many times as much as usual the others of a pool do."""
    return max(0.0, calls) / usual if usual > 0 else 1.0


def scaled(calls: float, seconds: float) -> float:
    """Return what `calls` in so many seconds are in one look."""
    return calls * LOOK_S / max(seconds, LOOK_S / 5)
