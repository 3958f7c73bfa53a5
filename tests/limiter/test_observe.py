"""What headers and 429s teach a limit: `observe.lua` and `learning.lua` on a real Redis, by way of their replies."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.config import LimitSettings
from fleet.grants import Mark
from fleet.limiter import live
from fleet.limiter.layouts import At
from fleet.limiter.limits import Terms
from fleet.limiter.simulated.model import SEND
from fleet.limiter.simulated.question import Answer
from fleet.rates import RateReading
from tests.limiter.scripted import ScriptedLimit, a_limit, ask, new_name

#: 100 calls a second, a burst of 20.
BUCKET = LimitSettings(rpm=6000, burst=0.2 / 60, counting="bucket")


def mark_of(limit: ScriptedLimit, answer: Answer) -> Mark:
    state = limit.state()
    granted, tokens = state[At.GRANTED], state[At.GRANTED_TOKENS]
    return Mark(answer.now_us + answer.wait_us, round(granted), round(tokens))


def test_what_others_took_out_of_a_small_bucket_is_waited_for(client: Any) -> None:
    limit = a_limit(client, BUCKET)
    mark = mark_of(limit, ask(limit, 0))
    # 300 in a full bucket, 5 are left, all of it is back in 2.95 s: others took 294.
    assert limit.observe(mark, RateReading(6000, 5, 2.95)) > 0
    assert limit.state()[At.CLOCK + 1] - mark.at_us == pytest.approx(
        200_000 + 150_000
    )  # the burst is gone, and 15 more are kept


def test_our_own_calls_since_the_reading_are_not_taken_for_those_of_others(client: Any) -> None:
    limit = a_limit(client, BUCKET)
    first = ask(limit, 0)
    mark = mark_of(limit, first)
    for number in range(1, 20):
        ask(limit, number)
    before = limit.state()[At.CLOCK + 1]
    assert limit.observe(mark, RateReading(6000, 299, 0.01)) == 0
    assert limit.state()[At.CLOCK + 1] == before


def test_headers_never_give_more_than_is_configured(client: Any) -> None:
    limit = a_limit(client, BUCKET)
    answers = [ask(limit, number) for number in range(20)]
    before = limit.state()
    limit.observe(mark_of(limit, answers[0]), RateReading(1_000_000, 1_000_000, 0.0))
    assert limit.state()[: At.VIRTUAL_TIME] == before[: At.VIRTUAL_TIME]
    assert limit.terms_in_force()[0] == 6000


def test_what_others_use_of_a_minute_is_taken_off_it_until_it_is_over(client: Any) -> None:
    settings = LimitSettings(rpm=600, burst=1.0)  # pace allows them all at once, the window does not
    free, shared = a_limit(client, settings), a_limit(client, settings)
    for limit in (free, shared):
        mark = mark_of(limit, ask(limit, 0))
        limit.observe(mark, RateReading(600, 599, 60.0))
    shared.observe(mark, RateReading(600, 99, 60.0))  # 500 are gone, one of them was ours
    sent = [sum(ask(limit, n, max_wait_us=0.0).code == SEND for n in range(1, 200)) for limit in (free, shared)]
    assert sent == [199, 69]  # of 600 a minute 500 are theirs and 30 kept for them, and one was ours before
    for _ in range(40):
        shared.observe(mark, RateReading(600, 499, 10.0))  # theirs are over
    assert ask(shared, 300, max_wait_us=0.0).code == SEND


@pytest.mark.parametrize(
    ("configured", "told", "in_force"), [(6000, 600, 600), (600, 6000, 600), (None, 600, 600), (6000, None, 6000)]
)
def test_the_lower_of_what_is_configured_and_what_the_provider_allows_is_in_force(
    client: Any, configured: int | None, told: float | None, in_force: float
) -> None:
    limit = a_limit(client, LimitSettings(rpm=configured))
    limit.observe((0, 0, 0), RateReading(told, told))
    assert limit.terms_in_force()[0] == in_force


def test_neither_can_an_operator_set_more_than_the_provider_allows(client: Any) -> None:
    name = new_name()
    limit = ScriptedLimit(client, name, Terms.of(LimitSettings(rpm=100)))
    limit.observe((0, 0, 0), RateReading(600, 600), RateReading(5000, 5000))
    live.change(client, name, {"rpm": 900, "tpm": 4000}, configured=LimitSettings(rpm=100))
    assert limit.terms_in_force()[:2] == (600, 4000)


def test_without_headers_a_429_makes_a_guess_and_the_next_one_does_not_cut_it_again(client: Any) -> None:
    limit = a_limit(client, LimitSettings())
    for number in range(100):
        ask(limit, number, tokens=50)
    limit.penalise(1000)
    guessed = limit.terms_in_force()
    assert guessed[0] == pytest.approx(0.8 * 99 * 12)  # 99 granted and not refused, in 5 s
    assert guessed[1] == pytest.approx(0.8 * 5000 * 12)
    limit.penalise(1000)
    assert limit.terms_in_force() == guessed


def test_a_configured_limit_is_not_guessed_at(client: Any) -> None:
    limit = a_limit(client, LimitSettings(rpm=6000))
    ask(limit, 0)
    limit.penalise(1000)
    assert limit.terms_in_force()[0] == 6000


def test_what_was_guessed_gives_way_to_what_the_provider_says(client: Any) -> None:
    limit = a_limit(client, LimitSettings())
    for number in range(10):
        ask(limit, number)
    limit.penalise(1000)
    limit.observe((0, 0, 0), RateReading(6000, 6000))
    assert limit.terms_in_force()[:2] == (6000, 0)
