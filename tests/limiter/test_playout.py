"""Tasks played through a limit and slots: the same bounds as the real limiter, and what a day's money does."""

from __future__ import annotations

import pytest

from fleet.config import LimitSettings
from fleet.limiter.simulated.playout import PlayedTask, play

TASK = PlayedTask(0.0, "k", 100, 200, 100, 1.0, most_usd_micros=500.0, usd_micros=300.0)


def tasks(count: int, *, every_s: float = 0.0) -> list[PlayedTask]:
    return [
        PlayedTask(n * every_s, TASK.kind, 100, 200, 100, TASK.latency_s, TASK.most_usd_micros, TASK.usd_micros)
        for n in range(count)
    ]


def limit(**rates: object) -> LimitSettings:
    return LimitSettings.model_validate({"counting": "bucket", **rates})


@pytest.mark.parametrize(
    ("rates", "slots", "seconds"),
    [
        ({"rpm": 600}, 100, 60),  # 600 calls at 10 a second
        ({"tpm": 60_000}, 100, 120),  # 200 tokens each, once it is learnt that they use no more
        ({"in_flight": 5}, 100, 120),
        ({}, 10, 60),
    ],
)
def test_the_slowest_of_limit_and_slots_decides(rates: dict[str, int], slots: int, seconds: float) -> None:
    found = play(limit(**rates), tasks(600), slots=slots)
    assert found.done == 600
    assert found.tokens == 600 * 200
    assert found.seconds == pytest.approx(seconds, rel=0.06)
    assert found.waits_s[300] == pytest.approx(seconds / 2, rel=0.12)


def test_tasks_that_come_slower_than_they_could_go_do_not_wait() -> None:
    found = play(limit(rpm=600), tasks(100, every_s=0.5), slots=20)
    assert found.waits_s[98] < 0.05
    assert found.seconds == pytest.approx(50.5, abs=0.6)


def test_a_days_money_ends_it_and_nothing_is_spent_beyond_it() -> None:
    found = play(limit(rpm=6000, usd_per_day=0.06), tasks(500), slots=20)
    assert found.stopped == "the day's money"
    assert 190 <= found.done <= 200  # 200 at 300 micro-dollars
    assert play(limit(requests_per_day=40), tasks(50), slots=20).done == 40


def test_the_same_seed_gives_the_same_play_and_no_tasks_take_no_time() -> None:
    assert play(limit(rpm=60), tasks(30), slots=9, seed=3) == play(limit(rpm=60), tasks(30), slots=9, seed=3)
    assert play(limit(rpm=60), [], slots=9).seconds == 0
