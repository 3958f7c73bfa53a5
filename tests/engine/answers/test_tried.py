"""What a rollout tries, task by task: counted once however often the task is parked, and no task pays for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fleet.config import HealthSettings, PoolSettings, PriceSettings, ProviderSettings, Settings
from fleet.engine.operations.rollouts import board
from fleet.outcome import Before, Outcome, Parking
from fleet.rollouts import Rollout, RolloutState, read_rollouts, start
from fleet.store.client import connect
from fleet.store.clock import CLOCK
from fleet.waits import Wait
from tests.engine.answers.test_opinions import EMPTY, GOOD, UNAVAILABLE, Scripted, ask, parked, waiting
from tests.every import every
from tests.waiting import wait_until

ROLLOUT = Rollout(id="", pool="p", persona="creative", share=0.5, since=0)
#: Parked by its provider.
PARKED = waiting(Parking(Wait("outage", 9e9), Before(parked=1, attempts=1)))


def begin(url: str, *, is_new: bool) -> None:
    """Start a rollout in which the task of these tests gets what is tried, or does not."""
    many = (ROLLOUT.model_copy(update={"id": str(number), "since": CLOCK.now_s()}) for number in range(99))
    with connect(url) as client:
        assert start(client, next(one for one in many if one.takes("t") is is_new)) is None


def state(url: str, has_come: Callable[[RolloutState], Any] = lambda _: True) -> RolloutState:
    """Return how the rollout stands when what was counted has come."""
    with connect(url) as client:
        wait_until(lambda: has_come(read_rollouts(client)[0]), 5, "counted")
        return read_rollouts(client)[0]


@pytest.mark.parametrize("is_new", [True, False])
def test_a_task_that_is_parked_and_comes_back_has_begun_once(redis_url: str, is_new: bool) -> None:
    begin(redis_url, is_new=is_new)
    first = parked(redis_url, Scripted(PARKED), with_rollouts=True)
    again = parked(redis_url, Scripted(PARKED), before=first.before, with_rollouts=True)
    assert again.before.entered is not None
    ask(redis_url, Scripted(GOOD), before=again.before, with_rollouts=True)
    found = state(redis_url, lambda one: (one.new + one.old).tasks)
    mine, other = (found.new, found.old) if is_new else (found.old, found.new)
    assert (mine.begun, mine.tasks, mine.failed, mine.unknown, other.begun) == (1, 1, 0, 0, 0)


def test_what_was_tried_is_not_tried_again_when_the_rescue_is_parked(redis_url: str) -> None:
    """It would be paid for, and counted against what is tried, as often as the task comes back."""
    begin(redis_url, is_new=True)
    slow = replace(EMPTY, ran_ms=299_000)
    agent = Scripted(slow, PARKED)
    first = parked(redis_url, agent, with_rollouts=True)
    assert len(set(agent.bots)) == 1
    again = Scripted(PARKED)
    second = parked(redis_url, again, before=first.before, with_rollouts=True)
    last = Scripted(EMPTY, GOOD)
    opinions = ask(redis_url, last, before=second.before, with_rollouts=True)
    assert opinions.outcome().answer == "four" and "rollout" not in opinions.outcome().sent
    assert every(left_s is not None and left_s > 250 for left_s in again.left_s + last.left_s), "all of its time"
    found = state(redis_url, lambda one: one.new.tasks)
    assert (found.new.begun, found.new.tasks, found.new.failed, found.old.begun) == (1, 1, 1, 0)


@pytest.mark.parametrize("bad", [EMPTY, UNAVAILABLE])
def test_no_task_pays_for_a_rollout_where_there_are_no_second_opinions(redis_url: str, bad: Outcome) -> None:
    begin(redis_url, is_new=True)
    agent = Scripted(bad, GOOD)
    opinions = ask(redis_url, agent, with_rollouts=True, rules=HealthSettings(opinions=1))
    assert opinions.outcome().answer == "four" and len(set(agent.bots)) == 1
    assert state(redis_url, lambda one: one.new.tasks).new.failed == 1


@pytest.mark.parametrize("is_priced", [True, False])
def test_both_settings_are_counted_in_one_unit(redis_url: str, is_priced: bool) -> None:
    """Where a candidate has no price, its tokens were compared with the micro-dollars of the others."""
    dollar = PriceSettings(input_usd_per_mtok=1, output_usd_per_mtok=1)
    models = ["own/one", "own/two"] if is_priced else ["own/one"]
    settings = Settings(
        providers={"own": ProviderSettings(kind="openai", base_url="http://127.0.0.1:9/v1")},
        pools={"p": PoolSettings(bots=5, provider="own", model="one", candidates=("two",))},
        prices=dict.fromkeys(models, dollar),
    )
    with connect(redis_url) as client:
        made = board.begin(client, settings, ROLLOUT.model_copy(update={"persona": "", "model": "two"}), by="ann")
    assert made.in_tokens is not is_priced
    told = GOOD if is_priced else replace(GOOD, cost_usd_picos=None) if made.takes("t") else GOOD
    ask(redis_url, Scripted(replace(told, model="two")), with_rollouts=True)
    found = state(redis_url, lambda one: (one.new + one.old).tasks)
    assert (found.new + found.old).costs.total == (7.0 if is_priced else 15.0)
