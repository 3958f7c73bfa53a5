"""Which findings are told by a message, when, and how often; played with a clock of the test's own."""

from __future__ import annotations

from typing import Any

from fleet.signals.diagnosis.alerting import (
    OVER_AFTER_S,
    AlertLog,
    Announcement,
    after_failure,
    look_for_news,
    told_in_text,
)
from fleet.signals.diagnosis.finding import Diagnosis, Help

DOWN = Diagnosis(
    kind="provider_down", severity="critical", sentence="alpha/m-1 is down: connection refused", about="alpha/m-1",
    help=Help(command="fleet breakers show alpha/m-1"),
)  # fmt: skip
SLOW = Diagnosis(kind="provider_slow", severity="warning", sentence="beta/m-1 is slow", about="beta/m-1")
PAUSED = Diagnosis(kind="pool_paused", severity="info", sentence="research is paused", about="research")


class Played:
    """Looks one after the other; messages are taken unless `is_down`."""

    def __init__(self, **rules: Any) -> None:
        self.rules: dict[str, Any] = {"lowest": "warning", "repeat_s": 600.0, "most_per_hour": 20} | rules
        self.log, self.is_down = AlertLog(), False
        self.last: Announcement | None = None

    def at(self, now_s: float, *found: Diagnosis) -> list[str]:
        self.last = look_for_news(found, self.log, now_s=now_s, **self.rules)
        self.log = self.last.if_not if self.is_down or not self.last.news else self.last.if_told
        return [f"{one.what} {one.kind}" for one in self.last.news]


def test_a_finding_is_told_when_it_begins_while_it_lasts_and_when_it_is_over() -> None:
    played = Played()
    assert played.at(0, DOWN, PAUSED) == ["began provider_down"], "info is below what is wanted"
    assert played.at(10, DOWN, SLOW) == ["began provider_slow"]
    assert played.at(20, SLOW) == [], "it may come back"
    assert played.at(30, DOWN, SLOW) == [], "it did: one finding"
    assert played.at(630, DOWN, SLOW) == ["lasts provider_down", "lasts provider_slow"]
    assert played.at(640) == []
    assert played.at(630 + OVER_AFTER_S) == ["over provider_down", "over provider_slow"]
    assert played.at(630 + OVER_AFTER_S + 10) == []
    assert played.log.told == ()


def test_a_finding_that_grows_worse_is_told_at_once_and_one_that_grows_better_is_not() -> None:
    played, milder = Played(), DOWN.model_copy(update={"severity": "warning"})
    assert played.at(0, milder) == ["began provider_down"]
    assert played.at(10, DOWN) == ["worse provider_down"]
    assert played.at(20, milder) == []


def test_what_nobody_took_is_told_at_the_next_look() -> None:
    played = Played()
    played.is_down = True
    assert played.at(0, DOWN) == played.at(10, DOWN) == ["began provider_down"]
    played.is_down = False
    assert played.at(20, DOWN) == ["began provider_down"]
    assert played.at(30, DOWN) == []
    played.is_down = True
    assert played.at(40) == [] and played.at(30 + OVER_AFTER_S) == ["over provider_down"]
    played.is_down = False
    assert played.at(50 + OVER_AFTER_S) == ["over provider_down"], "nobody took it, so it is told once more"
    assert played.at(60 + OVER_AFTER_S) == []


def test_what_comes_after_the_last_message_of_an_hour_waits_and_is_not_lost() -> None:
    played = Played(most_per_hour=2)
    assert played.at(0, DOWN) == ["began provider_down"]
    assert played.at(10, DOWN, SLOW) == ["began provider_slow"]
    assert played.last is not None
    text = told_in_text(played.last, most_per_hour=2, link="https://fleet.example/fleet", now_s=10)
    assert text.splitlines() == [
        "WARNING beta/m-1 is slow",
        "This is message 2 within the hour, so the next one comes at 01:00:00 UTC (alerts.most_per_hour)",
        "https://fleet.example/fleet",
    ]
    budget = Diagnosis(kind="budget_used", severity="critical", sentence="the budget is used", about="alpha/m-1")
    for now_s in range(20, 3600, 10):
        assert played.at(now_s, DOWN, SLOW, budget) == []
        assert played.last.next_at == 3600
    assert "began budget_used" in played.at(3600, DOWN, SLOW, budget)


def test_a_webhook_that_fails_is_asked_ever_more_rarely_and_not_before_it_wants() -> None:
    for may_have_arrived, most, times in (
        (False, 3, [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030]),  # refused: nobody has read them
        (True, 3, [0, 10, 30]),
        (True, 20, [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030]),
    ):
        played, seen = Played(most_per_hour=most), list[int]()
        for now_s in range(0, 3600, 10):
            if played.at(now_s, DOWN):
                seen.append(now_s)
                assert played.last is not None
                played.log = after_failure(
                    played.last.if_not, may_have_arrived=may_have_arrived, retry_after_s=0.0, now_s=now_s
                )
        assert seen == times
        assert played.at(3630, DOWN) == ["began provider_down"], "it is not lost"
        assert (played.log.failures, played.log.next_try_at) == (0, 0.0)
    for asked_s, next_at in ((95.0, 95.0), (86_400.0, 3600.0)):
        log = after_failure(AlertLog(), may_have_arrived=False, retry_after_s=asked_s, now_s=0.0)
        look = look_for_news([DOWN], log, lowest="info", repeat_s=600.0, most_per_hour=3, now_s=next_at - 1)
        assert (look.news, look.next_at) == ((), next_at)


def test_a_message_is_one_line_a_finding_with_what_helps() -> None:
    played = Played()
    played.at(0, DOWN)
    assert played.last is not None
    assert told_in_text(played.last, most_per_hour=20, link=None, now_s=0) == (
        "CRITICAL alpha/m-1 is down: connection refused\n    what helps: fleet breakers show alpha/m-1"
    )
    played.at(OVER_AFTER_S)
    assert told_in_text(played.last, most_per_hour=20, link=None, now_s=OVER_AFTER_S) == (
        "OVER, told first at 00:00:00 UTC: alpha/m-1 is down: connection refused"
    )
    many = [DOWN.model_copy(update={"about": f"alpha/m-{number}"}) for number in range(30)]
    played.at(100, *many)
    assert told_in_text(played.last, most_per_hour=20, link=None, now_s=100).endswith("and 10 more findings")


def test_what_a_provider_or_a_name_says_is_no_markup_in_a_chat() -> None:
    played = Played()
    played.at(0, DOWN.model_copy(update={"sentence": "a&b is down: <!channel> see <https://x.example|this>"}))
    assert played.last is not None
    link = "https://fleet.example/fleet?a=1&b=2"
    text = told_in_text(played.last, most_per_hour=1, link=link, now_s=0, is_marked_up=True)
    assert text.splitlines()[0] == ("CRITICAL a&amp;b is down: &lt;!channel&gt; see &lt;https://x.example|this&gt;")
    assert text.endswith(link), "it is ours"
    plain = told_in_text(played.last, most_per_hour=1, link=link, now_s=0)
    assert "a&b is down: <!channel> see" in plain, "a program reads it as it is"
