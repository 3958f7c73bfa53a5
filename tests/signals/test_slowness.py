"""Is an API slow, by its last tasks? Real requests (Azure's traces of 2023) are answered, each in its time. Pure."""

from __future__ import annotations

import csv
import random
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

import pytest

from fleet.signals.diagnosis.engine import diagnose
from fleet.signals.diagnosis.symptoms import LastTask, Symptoms
from fleet.signals.view import Durations, Quantiles
from tests.conftest import DATA_DIR
from tests.signals.played_fleet import NOW_S, minutes_of_pool, pool_view, view_of

#: Completions that the fleet remembers, as `windows.RECENT`.
REMEMBERED = 1000
ALPHA = "alpha/m-1"
NOTHING = Quantiles(count=0, p50=None, p90=None, p99=None)


class Done(NamedTuple):
    """One answer: when it ended, how long it took, and its tokens."""

    at: float
    ran_ms: int
    tokens: int


class Played:
    """A pool whose API has answered all this; it is looked at in the second hour."""

    def __init__(self, done: Iterable[Done]) -> None:
        self.done = sorted(done)
        self._ends = [one.at for one in self.done]
        self._minutes: dict[int, dict[str, float]] = {}
        self._quantiles: dict[float, Quantiles] = {}
        #: The quantiles of the hour are those of now, as Fleet has them, not of whole minutes.
        self.counts_what_runs = False

    def findings(self, now_s: float) -> list[str]:
        """Return what is said at that time."""
        last = bisect_right(self._ends, now_s)
        durations = Durations(
            queued=NOTHING, limited=NOTHING, ran=self._ran(now_s / 60 if self.counts_what_runs else int(now_s // 60))
        )
        ended = [
            LastTask(one.at, "research", one.ran_ms) for one in reversed(self.done[max(0, last - REMEMBERED) : last])
        ]
        view = view_of(now_s=now_s, pools=[pool_view("research", durations=durations)])
        symptoms = Symptoms(series={"research": self._series(now_s)}, ended={ALPHA: ended})
        return [one.sentence for one in diagnose(view, symptoms)]

    def _ran(self, minute: float) -> Quantiles:
        """Return the quantiles of the hour before a minute."""
        if minute not in self._quantiles:
            first, last = (bisect_left(self._ends, 60 * at) for at in (minute - 60, minute))
            ran = sorted(one.ran_ms for one in self.done[first:last])
            found = {f"p{n}": ran[len(ran) * n // 100] for n in (50, 90, 99)}
            self._quantiles[minute] = Quantiles(count=len(ran), **found)
        return self._quantiles[minute]

    def _series(self, now_s: float) -> array[float]:
        last = int(now_s // 60)
        rows = {ago: self._sums(60 * (last - ago), now_s) for ago in range(60)}
        return minutes_of_pool(rows, now_s=now_s)

    def _sums(self, began_s: int, now_s: float) -> dict[str, float]:
        """Return the sums of a minute, of the one that runs those so far."""
        if (found := self._minutes.get(began_s)) is None:
            first, last = (bisect_left(self._ends, at) for at in (began_s, min(began_s + 60, now_s)))
            done = self.done[first:last]
            found = {
                "completions": len(done), "ok": len(done), "calls": len(done),
                "ran_ms": sum(one.ran_ms for one in done), "output_tokens": sum(one.tokens for one in done),
            }  # fmt: skip
            if began_s + 60 <= now_s:
                self._minutes[began_s] = found
        return found


def azure(name: str, *, hours: int = 2) -> list[tuple[float, int]]:
    """Return when requests came, and the tokens of their answers."""
    path = DATA_DIR / f"azure_llm_2023_{name}.csv"
    if not path.is_file():
        pytest.skip(f"needs {path.name} in FLEET_DATA_DIR")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            (datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp(), int(row["GeneratedTokens"]))
            for row in csv.DictReader(file)
        ]
    began_s, lasts_s = rows[0][0], rows[-1][0] - rows[0][0] + 1
    return [(NOW_S + at - began_s + n * lasts_s, tokens) for n in range(hours) for at, tokens in rows]


def answered(asked: Iterable[tuple[float, int]], pace: Callable[[float], float], *, token_ms: float = 20) -> Played:
    """Return the answers: a start, so much for each token, and chance; all of it slower at times, by `pace`."""
    draw = random.Random(3)
    done = []
    for at, tokens in asked:
        ran_ms = (300 + token_ms * tokens) * draw.lognormvariate(0, 0.6) * pace(at)
        done.append(Done(at + ran_ms / 1000, round(ran_ms), tokens))
    return Played(done)


@pytest.mark.parametrize("name", ["conv", "code"])
def test_nothing_is_said_of_real_requests_that_are_answered_as_usual(name: str) -> None:
    played = answered(azure(name), lambda at: 1.0)
    looks = range(int(NOW_S) + 3600, int(played.done[-1].at) - 60, 7)
    said = {at: found for at in looks if (found := played.findings(at))}
    assert (len(looks) > 400, said) == (True, {})


@pytest.mark.parametrize("name", ["conv", "code"])
def test_nothing_is_said_when_a_job_of_long_answers_begins(name: str) -> None:
    began_s = NOW_S + 4000
    asked = [(at, 8 * tokens if at > began_s else tokens) for at, tokens in azure(name)]
    played = answered(asked, lambda at: 1.0)
    said = {at: found for at in range(int(began_s), int(began_s) + 900, 3) if (found := played.findings(at))}
    assert said == {}


def test_nothing_is_said_of_a_hiccup_of_three_seconds() -> None:
    began_s = NOW_S + 4000
    asked = [(NOW_S + n / 20, 40) for n in range(20 * 4400)]
    played = answered(asked, lambda at: 8.0 if began_s < at < began_s + 3 else 1.0, token_ms=2)
    assert {at: found for at in range(int(began_s), int(began_s) + 120) if (found := played.findings(at))} == {}


@pytest.mark.parametrize("minutes", [1.5, 3, 5])
def test_an_api_that_becomes_slow_is_told_as_soon_in_a_young_fleet(minutes: float) -> None:
    began_s = NOW_S + 4020
    asked = [(began_s - 60 * minutes + n / 2, 40) for n in range(int(2 * (60 * minutes + 100)))]
    played = answered(asked, lambda at: 8.0 if at > began_s else 1.0, token_ms=2)
    played.counts_what_runs = True
    assert next(at for at in range(60) if played.findings(began_s + at)) <= 13


@pytest.mark.parametrize("a_second", [2, 20])
@pytest.mark.parametrize("times", [4.0, 8.0])
@pytest.mark.parametrize("phase", [0, 50])
def test_an_api_that_becomes_slow_is_told_within_ten_seconds_of_its_first_slow_answer_and_is_over_within_half_a_minute(
    a_second: int, times: float, phase: int
) -> None:
    began_s = NOW_S + 4020 + phase
    over_s = began_s + 400
    asked = [(NOW_S + n / a_second, 40) for n in range(a_second * 4900)]
    played = answered(asked, lambda at: times if began_s < at < over_s else 1.0, token_ms=2)
    usual_s = 0.38
    looks = [began_s + n for n in (*range(60), *range(60, 540, 3))]
    told = [at for at in looks if played.findings(at)]
    allowed_s = 10 if times == 8 else 20
    assert told[0] - began_s < allowed_s + times * usual_s
    sure_s = told[0] + 20  # of a change that is hardly enough, the first ten seconds tell it by fits and starts
    assert [at for at in looks if sure_s < at < over_s and at not in told] == [], "it is told all the time"
    assert told[-1] < over_s + times * usual_s + 30
    (sentence,) = played.findings(told[0])
    assert sentence.startswith(f"{ALPHA} is slow: half of its last ")


@pytest.mark.parametrize("a_second", [1, 7, 20])
def test_a_hang_that_is_over_is_told_no_more_half_a_minute_later(a_second: int) -> None:
    """Its calls all end with it, after up to a minute each; they say nothing of those that follow."""
    began_s = NOW_S + 4020
    over_s = began_s + 60
    usual = answered([(NOW_S + n / a_second, 40) for n in range(a_second * 4500)], lambda at: 1.0, token_ms=2)
    held = [
        one._replace(at=over_s + 0.3, ran_ms=one.ran_ms + round(1000 * (over_s - one.at)))
        if began_s < one.at < over_s else one
        for one in usual.done
    ]  # fmt: skip
    played = Played(held)
    told = [at for at in range(int(over_s), int(over_s) + 400) if played.findings(at)]
    assert not told or told[-1] < over_s + 30
