"""How soon a stolen key is told, and how often one is accused wrongly: `fleet/signals/unusual` on traces.

Traces of arrivals (Azure's LLM inference traces of 2023, not part of this repository) are hashed to 100 bots and
repeated over 24 hours of virtual time. All bots use the key, and each is watched as well.
"""

from __future__ import annotations

import copy
import csv
import math
import random
import statistics
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from fleet.signals.unusual.detector import LOOK_S, Usual, threshold
from fleet.signals.unusual.watch import GROWTH_LOOKS, busiest, grown
from tests.keys.figures import Figure, Size

#: Where traces lie, beside the repository; without them there are no figures.
TRACES = next((one / "shared/data" for one in Path(__file__).resolve().parents if (one / "shared/data").is_dir()), None)
#: By trace: what it is called, and seconds within which a stolen key is to be told.
PROMISED = {"conv": ("conversation", 60), "code": ("code", 180)}
BOTS, HOURS, STARTS, TIMES = 100, 24, 200, 10
#: Looks of an hour, and those after which a thief counts as missed (half an hour).
LOOKS_AN_HOUR, MISSED = int(3600 / LOOK_S), 360

Look = list[int]  # calls of each bot


class Delays(NamedTuple):
    """Seconds from the first call of a thief to the alarm."""

    median: float
    p95: float
    most: float
    missed: int

    def __str__(self) -> str:
        return f"median {self.median:.0f} s, p95 {self.p95:.0f} s, max {self.most:.0f} s, missed {self.missed}"


class Figures(NamedTuple):
    """What was measured on one trace."""

    trace: str
    false_keys: int
    false_bots: int
    key: Delays
    bot: Delays


def arrivals(name: str) -> list[float] | None:
    """Return the seconds of a trace's requests since its first; None: the trace isn't here."""
    path = TRACES / f"azure_llm_2023_{name}.csv" if TRACES else None
    if path is None or not path.is_file():
        return None
    with path.open() as lines:
        times = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in csv.DictReader(lines)]
    return [at - times[0] for at in times]


def looks_of(times: list[float], hours: int, draw: random.Random, load: Callable[[float], float]) -> Iterator[Look]:
    """Yield the calls of each bot, look by look: the trace again and again, thinned to a load (by the hour)."""
    length = times[-1]
    row, number = [0] * BOTS, 0
    for lap in range(math.ceil(hours * 3600 / length)):
        for at in times:
            while lap * length + at >= (number + 1) * LOOK_S:
                yield row
                row, number = [0] * BOTS, number + 1
                if number >= hours * LOOKS_AN_HOUR:
                    return
            if draw.random() < load(number / LOOKS_AN_HOUR):
                row[draw.randrange(BOTS)] += 1


class Watched:
    """The key and its bots, as the duty of a worker watches them."""

    def __init__(self, bots: int = BOTS) -> None:
        self.alarm_at = threshold(bots + 1)
        self.key, self.bots = Usual(), [Usual(knows_days=False) for _ in range(bots)]
        self.accused_keys, self.accused_bots = 0, 0
        self._recent: list[int] = []

    def look(self, number: int, row: Look, demand: int | None = None) -> None:
        """Look once; `demand` is what was asked for, where that isn't what was done."""
        hour = number // LOOKS_AN_HOUR % 24
        before = self.key.evidence
        self._recent = [*self._recent[1 - GROWTH_LOOKS :], sum(row)]
        now, usual = busiest(self._recent), sum(bot.rate for bot in self.bots)
        after = self.key.look(sum(row) if demand is None else demand, hour=hour, alarm_at=self.alarm_at)
        self.accused_keys += before < self.alarm_at <= after
        for calls, bot in zip(row, self.bots, strict=True):
            before, growth = bot.evidence, grown(now - calls, usual - bot.rate)
            self.accused_bots += (
                before < self.alarm_at <= bot.look(calls, hour=hour, alarm_at=self.alarm_at, growth=growth)
            )


def measure(name: str, *, hours: int = HOURS, starts: int = STARTS) -> Figures | None:
    """Return how the detector does on one trace; None: the trace isn't here."""
    times = arrivals(name)
    if times is None:
        return None
    draw = random.Random(19)
    rows = list(looks_of(times, hours, draw, lambda hour: 1.0))
    first = 2 * LOOKS_AN_HOUR
    moments = sorted(draw.randrange(first, len(rows) - MISSED) for _ in range(starts))
    watched, key, bot, mean = Watched(), [], [], len(times) / times[-1] * LOOK_S
    for number, row in enumerate(rows):
        while moments and moments[0] == number:
            moments.pop(0)
            of_key = ((sum(row), 1.0) for row in rows[number:])
            key.append(_delay(copy.deepcopy(watched.key), watched.alarm_at, of_key, mean, number, draw))
            own = _of_bot(rows, number, one := draw.randrange(BOTS), watched)
            bot.append(_delay(copy.deepcopy(watched.bots[one]), watched.alarm_at, own, mean / BOTS, number, draw))
        watched.look(number, row)
    return Figures(name, watched.accused_keys, watched.accused_bots, _delays(key), _delays(bot))


def measure_alarms(size: Size) -> list[Figure]:
    """Return how soon a stolen key is told on each trace, at most, and how many alarms were false in 24 hours."""
    found = [figures for name in PROMISED if (figures := measure(name, starts=STARTS if size == "large" else 20))]
    if len(found) < len(PROMISED):
        return [Figure("alarm=", "skipped", True, ("the traces are not here: docs/keys.md says which they are",))]
    false = sum(one.false_keys + one.false_bots for one in found)
    return [
        *(
            Figure(
                f"alarm_{PROMISED[one.trace][0]}_s=", f"{one.key.most:.0f}",
                one.key.most <= PROMISED[one.trace][1], (f"the key: {one.key}", f"one bot: {one.bot}"),
            )
            for one in found
        ),
        Figure("false_alarms=", str(false), not false),
    ]  # fmt: skip


def _of_bot(rows: list[Look], number: int, bot: int, watched: Watched) -> Iterator[tuple[int, float]]:
    """Yield the calls of a bot from a look on, and how many times as much as usual the others do."""
    usual = sum(one.rate for one in watched.bots) - watched.bots[bot].rate
    for at in range(number, len(rows)):
        recent = [sum(row) - row[bot] for row in rows[at + 1 - GROWTH_LOOKS : at + 1]]
        yield rows[at][bot], grown(busiest(recent), usual)


def _delay(
    usual: Usual, alarm_at: float, own: Iterator[tuple[int, float]], mean: float, number: int, draw: random.Random
) -> float:
    """Return the seconds until a thief is told who asks as much again as to make it ten times the mean."""
    usual.evidence = min(usual.evidence, alarm_at * 0.99)
    for after, (calls, growth) in enumerate(own):
        if after >= MISSED:
            break
        hour = (number + after) // LOOKS_AN_HOUR % 24
        stolen = poisson(mean * (TIMES - 1), draw)
        if usual.look(calls + stolen, hour=hour, alarm_at=alarm_at, growth=growth) >= alarm_at:
            return (after + 1) * LOOK_S
    return math.inf


def poisson(mean: float, draw: random.Random) -> int:
    """Draw a number of arrivals."""
    if mean > 50:
        return max(0, round(draw.gauss(mean, math.sqrt(mean))))
    left, count = math.exp(-mean), -1
    share = 1.0
    while share > left or count < 0:
        share *= draw.random()
        count += 1
    return count


def _delays(found: list[float]) -> Delays:
    told = sorted(found)
    return Delays(statistics.median(told), told[int(0.95 * (len(told) - 1))], told[-1], sum(map(math.isinf, told)))


class Calm(NamedTuple):
    """What a load that is nobody's theft has raised."""

    load: str
    false_keys: int
    false_bots: int


def calm_loads(name: str) -> list[Calm] | None:
    """Return how many alarms each load that is no theft has raised; None: the trace isn't here."""
    times = arrivals(name)
    if times is None:
        return None
    return [
        Calm(load, watched.accused_keys, watched.accused_bots)
        for load, watched in (
            ("two days, a fifth of the load at night", _run(times, 48, _by_day)),
            ("a cold start, nights and a weekend without a call", _run(times, 96, _office)),
            ("an hour's outage, drained at ten times the rate", _outage(times)),
            ("100,000 tasks at once", _batch(times)),
        )
    ]


def _by_day(hour: float) -> float:
    return 0.6 - 0.4 * math.cos(2 * math.pi * hour / 24)


def _office(hour: float) -> float:
    return float(8 <= hour % 24 < 18 and not 24 <= hour < 72)


def _run(times: list[float], hours: int, load: Callable[[float], float]) -> Watched:
    watched = Watched()
    for number, row in enumerate(looks_of(times, hours, random.Random(7), load)):
        watched.look(number, row)
    return watched


def _outage(times: list[float]) -> Watched:
    """Nothing is done in the fourth hour; then ten times as much as comes, until nothing waits."""
    watched, draw, waiting = Watched(), random.Random(7), 0
    fastest = int(TIMES * len(times) / times[-1] * LOOK_S)
    for number, row in enumerate(looks_of(times, 12, draw, lambda hour: 1.0)):
        came = sum(row)
        if 4 * LOOKS_AN_HOUR <= number < 5 * LOOKS_AN_HOUR:
            waiting, row = waiting + came, [0] * BOTS
        elif waiting:
            drained = min(waiting, max(0, fastest - came))
            waiting -= drained
            for _ in range(drained):
                row[draw.randrange(BOTS)] += 1
        watched.look(number, row, demand=came)
    return watched


def _batch(times: list[float]) -> Watched:
    """At four o'clock 100,000 tasks come at once; the limit lets ten times the usual through until all are done."""
    watched, draw, waiting = Watched(), random.Random(7), 0
    fastest = int(TIMES * len(times) / times[-1] * LOOK_S)
    for number, row in enumerate(looks_of(times, 12, draw, lambda hour: 1.0)):
        came = sum(row)
        if number == 4 * LOOKS_AN_HOUR:
            waiting, came = 100_000, came + 100_000
        drained = min(waiting, max(0, fastest - sum(row)))
        waiting -= drained
        for _ in range(drained):
            row[draw.randrange(BOTS)] += 1
        watched.look(number, row, demand=came)
    return watched


def main() -> None:
    """Print the tables."""
    for name in PROMISED:
        figures, calm = measure(name), calm_loads(name)
        if figures is None or calm is None:
            print(f"{name}: the trace isn't here")
            continue
        print(f"{name}: 24 h, false alarms: key {figures.false_keys}, {BOTS} bots {figures.false_bots}")
        for who, one in (("the key", figures.key), ("one bot", figures.bot)):
            print(f"  {who} at {TIMES} times, {STARTS} starts: {one}")
        for load in calm:
            print(f"  {load.load}: alarms: key {load.false_keys}, bots {load.false_bots}")


if __name__ == "__main__":
    main()
