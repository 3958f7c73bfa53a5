"""How often calls are held though their API answers, and how soon when it does not: a worker with a clock of its own.

Times of answers are drawn from distributions that have nothing in common but that they are drawn one by one.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pytest

from fleet.workers.silence.answer_times import AnswerTimes
from fleet.workers.silence.under_way import UNLIKELY, UnderWay
from tests.signals.test_slowness import azure

Times = Callable[[random.Random], float]
LIMIT = "alpha/m-1/default"
#: Seconds from one try to the next, as breakers ration them.
TRY_EVERY_S = 1.7
TIMES: dict[str, Times] = {
    "as the benchmark's": lambda dice: dice.lognormvariate(-1.61, 0.42),
    "lognormal, wide": lambda dice: dice.lognormvariate(0.0, 1.2),
    "Pareto, no variance": lambda dice: 0.1 * dice.paretovariate(1.2),
    "one in twenty thinks for a minute": lambda dice: dice.uniform(0.5, 1.0) if dice.random() < 0.95 else 60.0,
    "all alike": lambda dice: 0.2,
}


@dataclass(frozen=True)
class One:
    number: int
    who: str = ""
    pool: str = "research"
    kind: str = "qa"


@dataclass
class Held:
    """What a worker made of its API: calls that left, those of them in a stop, holds, and seconds that it held."""

    calls: int = 0
    into_stops: int = 0
    holds: int = 0
    held_s: float = 0.0


class World:
    """A worker that sends calls at random; while it doubts, one each `TRY_EVERY_S`, and those that it held at the end.

    Args:
        times: How long answers take.
        stops: From when to when the API stands still: nothing is answered, and what is under way is, that much later.
        seed: Of the dice.
    """

    def __init__(self, times: Times, *, stops: Sequence[tuple[float, float]] = (), seed: int = 7) -> None:
        self._times, self._stops, self._dice = times, stops, random.Random(seed)
        self._under_way, self._answers = UnderWay(), list[tuple[float, int]]()
        self._held, self._doubted_at, self._tried_at = 0, 0.0, 0.0  # each call that leaves is a try
        self.found = Held()

    def live(self, calls: int, *, a_second: float) -> Held:
        """Send so many calls, at random times."""
        gaps = (self._dice.expovariate(a_second) for _ in itertools.count())
        return self.live_through(itertools.takewhile(lambda at: self.found.calls < calls, itertools.accumulate(gaps)))

    def live_through(self, times: Iterable[float]) -> Held:
        """Send a call at each time."""
        for now in times:
            self._hear_until(now)
            if self._under_way.doubted_s(LIMIT, now) == 0:
                self._send(now)
            else:
                self._doubt(now)
        return self.found

    def _hear_until(self, now: float) -> None:
        while self._answers and self._answers[0][0] <= now:
            at, number = heapq.heappop(self._answers)
            self._under_way.ended(LIMIT, One(number), at, is_answered=True)
            if self._doubted_at and self._under_way.doubted_s(LIMIT, at) == 0:
                self.found.held_s += at - self._doubted_at
                self._doubted_at, held, self._held = 0.0, self._held, 0
                for _ in range(held):
                    self._send(at)

    def _doubt(self, now: float) -> None:
        if not self._doubted_at:
            self._doubted_at, self.found.holds = now, self.found.holds + 1
        if now - self._tried_at >= TRY_EVERY_S:
            self._send(now)
        else:
            self._held += 1

    def _send(self, now: float) -> None:
        self.found.calls, self._tried_at = self.found.calls + 1, now
        self._under_way.sent(LIMIT, One(self.found.calls), now)
        at = now + self._times(self._dice)
        for start, end in self._stops:
            self.found.into_stops += start <= now < end
            if now < end and at > start:
                at += end - max(start, now)
        heapq.heappush(self._answers, (at, self.found.calls))


@pytest.mark.parametrize("a_second", [0.5, 20.0, 200.0])
@pytest.mark.parametrize("times", TIMES)
def test_an_api_that_answers_is_hardly_ever_doubted_whatever_its_times_are(times: str, a_second: float) -> None:
    found = World(TIMES[times]).live(20_000, a_second=a_second)
    assert found.holds <= 2
    assert found.held_s <= 0.0001 * found.calls / a_second


@pytest.mark.parametrize("times", ["as the benchmark's", "lognormal, wide"])
def test_hiccups_of_a_second_hold_calls_back_for_no_longer_than_they_last(times: str) -> None:
    stops = [(at, at + 1.0) for at in range(20, 1000, 30)]
    found = World(TIMES[times], stops=stops).live(20_000, a_second=20.0)
    assert found.holds <= len(stops)
    assert found.held_s <= 0.7 * len(stops)


@pytest.mark.parametrize("name", ["conv", "code"])
@pytest.mark.parametrize("workers", [1, 4])
def test_no_calls_of_azures_traces_are_held_though_long_ones_come_together(name: str, workers: int) -> None:
    asked, dice = azure(name)[::workers], random.Random(3)
    answers = ((0.3 + 0.02 * tokens) * dice.lognormvariate(0, 0.6) for _, tokens in asked)
    found = World(lambda _: next(answers)).live_through(at for at, _ in asked)
    assert found.holds == 0


def test_about_ten_calls_are_sent_into_a_silence_and_then_one_now_and_then() -> None:
    sent = [
        World(TIMES["as the benchmark's"], stops=[(100.0, 160.0)], seed=seed).live(2_200, a_second=20.0).into_stops
        for seed in range(20)
    ]
    tries = 60 / TRY_EVERY_S
    assert statistics.mean(sent) - tries <= 12


def test_where_little_is_known_little_is_unlikely() -> None:
    usual = AnswerTimes()
    for seconds in range(10):
        usual.learn(0.1 * seconds, in_doubt=False)
    alive = math.prod(usual.chance(60.0, nth) for nth in range(1, 10))
    assert UNLIKELY < alive == pytest.approx(1 / math.comb(19, 10)), "one way of all in which 19 can be in order"
