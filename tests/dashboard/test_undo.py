"""What brings back what was before an action: ends that an action may have, and few actions."""

from __future__ import annotations

import time

from fleet.dashboard.actions import (
    LONGEST_S,
    MOST_UNDO,
    QuarantineBot,
    ResumePool,
    _as_before,
    _done,
    _out_as_before,
)
from fleet.engine.admission.gates import CLOSED, OPEN_GATE, Gate
from fleet.roster import Quarantine


def out(bot: str, left_s: float | None) -> Quarantine:
    now_s = time.time()
    return Quarantine(bot=bot, by="ann", reason="odd", since=now_s, until=None if left_s is None else now_s + left_s)


def test_an_end_that_no_action_may_have_is_the_latest_one_that_it_may() -> None:
    (again,) = _out_as_before([out("research-001", 90 * 86_400)])
    assert isinstance(again, QuarantineBot) and again.for_s == LONGEST_S
    (paused,) = _as_before({"research": Gate(CLOSED, 90 * 86_400.0)})
    assert getattr(paused, "for_s", None) == LONGEST_S


def test_a_gate_that_has_just_ended_was_open() -> None:
    gates = {"research": Gate(CLOSED, 0.0), "review": OPEN_GATE}
    assert _as_before(gates) == (ResumePool(do="resume", pools=("research", "review")),)


def test_bots_and_pools_with_ends_in_the_same_minute_come_back_by_one_action() -> None:
    bots = _out_as_before([out(f"research-{number:03d}", 605 + number / 100) for number in range(1000)])
    assert [getattr(action, "for_s", None) for action in bots] == [660]
    pools = _as_before({f"p{number}": Gate(CLOSED, 605 + number / 100) for number in range(1000)})
    assert [getattr(action, "for_s", None) for action in pools] == [660]


def test_no_undo_is_offered_that_takes_more_than_a_few_actions() -> None:
    many = _out_as_before([out(f"research-{number:03d}", 60.0 * number + 30) for number in range(MOST_UNDO + 1)])
    assert _done("done", many).undo == ()
    assert _done("done", many).said == "done; no undo: what was before has 21 different ends and reasons"
    assert _done("done", many[1:]).undo == many[1:]
