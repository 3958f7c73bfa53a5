"""When a class alarms, whom it names, and how the ladder is climbed, held and left."""

from __future__ import annotations

import random

import pytest

from fleet.diversity import ladder
from fleet.models import Remedy
from tests.diversity.played import Answers, Played, pool_of_prose, prose, with_noise

BOTS = 50


def healthy(seed: int = 1) -> Answers:
    draw = random.Random(seed)
    return lambda bot, remedy, question: draw.choice(pool_of_prose())


def collapsed(bad: set[int], *, cured_at: int, seed: int = 2) -> Answers:
    """Bots of `bad` say one thing with some words changed, until they are treated with the rung that cures them."""
    draw = random.Random(seed)
    one = prose(random.Random(99))

    def answer(bot: int, remedy: Remedy | None, question: int) -> str:
        is_cured = remedy is not None and remedy.rung >= cured_at
        return with_noise(one, draw) if bot in bad and not is_cured else draw.choice(pool_of_prose())

    return answer


def bad_bots(share: float) -> set[int]:
    return set(random.Random(share).sample(range(1, BOTS + 1), round(BOTS * share)))


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_collapse_alarms_within_two_windows_and_names_the_bots(share: float) -> None:
    played, bad = Played(healthy(), bots=BOTS), bad_bots(share)
    played.windows(6)
    played.answers = collapsed(bad, cured_at=4)
    assert played.until("diversity_alarm") <= 2
    named = set(played.state.flagged)
    assert len(named & bad) / len(named) >= 0.9
    assert len(named & bad) / len(bad) >= 0.9


def test_forty_healthy_windows_give_no_alarm() -> None:
    assert Played(healthy(), bots=BOTS).windows(40) == []


@pytest.mark.parametrize("rung", [1, 2, 3])
def test_the_ladder_stops_at_the_rung_that_helps_the_treated_and_not_the_control(rung: int) -> None:
    played, bad = Played(healthy(), bots=BOTS), bad_bots(0.4)
    played.windows(6)
    played.answers = collapsed(bad, cured_at=rung)
    played.until("diversity_alarm")
    assert played.state.trial is not None
    assert abs(len(played.state.trial.treated) - len(played.state.trial.control)) <= 1
    while played.state.phase == "treating":
        played.windows(0.25)
    verdict = played.last("diversity_verdict")
    assert (verdict["remedy"], verdict["verdict"]) == (rung, "helped")
    assert float(verdict["treated_share"]) < 0.1
    assert 0.8 < float(verdict["control_share"]) < 1.2
    assert {one.rung for one in played.state.remedies.values()} == {rung}
    assert set(played.state.remedies) == set(played.state.flagged)


def test_a_recovery_that_the_control_shares_is_not_credited_to_the_remedy() -> None:
    played = Played(healthy(), bots=BOTS)
    played.windows(6)
    played.answers = collapsed(bad_bots(0.4), cured_at=4)
    played.until("diversity_treatment")
    played.answers = healthy(3)
    played.until("diversity_ended")
    assert played.last("diversity_verdict")["verdict"] == "passed by itself"
    assert played.state.remedies == {}
    assert not played.state.alarm


def test_a_ladder_that_helps_nobody_ends_without_remedies_and_with_a_lasting_alarm() -> None:
    played = Played(healthy(), bots=BOTS)
    played.windows(6)
    played.answers = collapsed(bad_bots(0.4), cured_at=4)
    played.until("diversity_exhausted")
    rungs = [one.facts["remedy"] for one in played.happened if one.name == "diversity_verdict"]
    assert rungs == [1, 2, 3]
    assert played.state.remedies == {}
    assert played.windows(5) == []
    assert (played.state.phase, played.state.alarm) == ("exhausted", True)
    played.answers = healthy(4)
    played.until("diversity_recovered")
    assert (played.state.phase, played.state.alarm) == ("watching", False)


def test_a_rung_that_works_is_taken_back_step_by_step_and_again_held_for_longer_after_a_relapse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ladder, "HOLD_WINDOWS", 1)
    played, bad = Played(healthy(), bots=BOTS), bad_bots(0.4)
    played.windows(6)
    played.answers = collapsed(bad, cured_at=2)
    played.until("diversity_step_down")
    played.until("diversity_relapse")  # rung 1 is not enough
    assert {one.rung for one in played.state.remedies.values()} == {2}
    assert played.last("diversity_relapse")["hold_windows"] == 2
    played.answers = healthy(5)  # what made them alike is over
    played.until("diversity_ended", most=30)
    assert played.state.remedies == {}
    assert played.windows(5) == []


def test_a_class_with_one_right_answer_is_alike_by_nature_and_never_judged() -> None:
    draw = random.Random(6)
    text = prose(draw)
    played = Played(lambda bot, remedy, question: text, bots=BOTS, questions=lambda n: 1)
    assert played.windows(6) == []


def test_more_repetitions_of_the_same_questions_are_no_collapse() -> None:
    draw = random.Random(7)
    right = [prose(draw) for _ in range(500)]
    mix = {"size": 400}
    played = Played(
        lambda bot, remedy, question: with_noise(right[question], draw, 0.1),
        bots=BOTS,
        questions=lambda n: draw.randrange(mix["size"]),
    )
    assert played.windows(6) == []
    mix["size"] = 20  # each question now comes twenty times as often, and its answers are as alike as ever
    assert played.windows(6) == []


def test_a_form_that_all_bots_have_to_follow_from_now_on_ends_in_a_lasting_alarm_and_without_remedies() -> None:
    draw = random.Random(8)
    form = prose(draw, 30)
    played = Played(healthy(), bots=BOTS)
    played.windows(6)
    played.answers = lambda bot, remedy, question: f"{draw.choice(pool_of_prose())} {form}"
    played.until("diversity_exhausted")
    assert len(played.state.flagged) == BOTS
    assert played.state.remedies == {}
    assert played.windows(5) == []


def test_two_bots_are_too_few_for_a_control_and_the_verdict_says_only_that_they_recovered() -> None:
    played = Played(healthy(), bots=6)
    played.windows(6)
    played.answers = collapsed({2, 5}, cured_at=1)
    played.until("diversity_treatment")
    assert played.state.trial is not None
    assert played.state.trial.control == ()
    while played.state.phase == "treating":
        played.windows(0.25)
    assert played.last("diversity_verdict")["verdict"] == "recovered"


def test_with_remedies_switched_off_the_alarm_stands_and_nothing_is_prescribed() -> None:
    played, bad = Played(healthy(), bots=BOTS, may_treat=False), bad_bots(0.4)
    played.windows(6)
    played.answers = collapsed(bad, cured_at=1)
    assert played.windows(5) == ["diversity_alarm"]
    assert (played.state.remedies, set(played.state.flagged)) == ({}, bad)
    played.answers = healthy(9)
    assert played.windows(3) == ["diversity_recovered"]


def test_in_a_pool_larger_than_its_window_the_rung_that_helped_is_spread_to_the_bots_seen_later() -> None:
    played, bad = Played(healthy(), bots=600), set(range(1, 601, 3))
    played.windows(6)
    played.answers = collapsed(bad, cured_at=1)
    played.until("diversity_verdict", most=40)
    first = set(played.state.flagged)
    while played.state.phase == "holding" and len(played.state.remedies) < 0.95 * len(bad):
        played.until("diversity_treatment")
    assert len(first) < len(bad) / 2
    assert played.state.remedies.keys() <= bad
    assert {remedy.rung for remedy in played.state.remedies.values()} == {1}
