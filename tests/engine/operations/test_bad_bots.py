"""Bad bots and sameness of answers as everybody is shown them: columns, pools, the worst five, classes in words."""

from __future__ import annotations

import socket
import time

import pytest
import redis

from fleet.diversity import ClassState
from fleet.diversity.state import Pairs, Reading, Trial
from fleet.engine.operations.levers import quarantine_bot, relearn_class
from fleet.engine.operations.sameness import diversity_views
from fleet.errors import ConfigurationError
from fleet.models import Remedy
from fleet.roster import quarantine, row_of
from fleet.roster.health import ROW
from fleet.signals.health_view import ClassDiversity
from fleet.signals.metrics import exposition
from fleet.store import keys
from tests.every import every
from tests.signals.working_fleet import SETTINGS, WorkingFleet

BY_HEALTH = "slow: 40% of its last tasks, 5% is usual"
FALLEN = {
    "across": Reading(score=9.0, near_share=0.6, usual_score=180.0, usual_near_share=0.01, fallen=True),
    "within": Reading(score=50.0, near_share=0.1, usual_score=100.0, usual_near_share=0.1),
}
TRIAL = Trial(
    aspect="across", rung=2, since=900, counted=900, treated=(1, 2), control=(3,), alike=0.4,
    treated_pairs=Pairs(total=4.0, count=100), control_pairs=Pairs(total=40.0, count=100),
)  # fmt: skip


def judged(client: redis.Redis, bot: str, *evidence: float, rates: tuple[int, int, int] = (0, 0, 0)) -> None:
    """Write a bot's row as the finishing script does."""
    pool, _, number = bot.rpartition("-")
    client.setrange(keys.health(pool), row_of(int(number))[0], ROW.pack((*evidence, *rates, 0, 300, 30, 0, 0)))


def remember(client: redis.Redis, state: ClassState, answers: int) -> None:
    client.hset(keys.answer_counts(), f"{state.pool}|{state.kind}", answers)
    client.hset(keys.diversity_states(), f"{state.pool}|{state.kind}", state.model_dump_json())


def test_what_speaks_against_bots_stands_in_columns_by_pool_and_in_the_list_of_the_worst(
    working_fleet: WorkingFleet, client: redis.Redis
) -> None:
    working_fleet.finish(5, pool="b", bot=1, error="ProviderUnavailable", calls={"ProviderUnavailable": 3})
    judged(client, "a-001", 3.2, 0, 0, rates=(102, 0, 0))
    quarantine_bot(client, SETTINGS, "a-002", by="ann", reason="odd")
    quarantine(client, "a", "a-003", by="health", reason=BY_HEALTH, for_s=60)  # its tests begin anew then
    judged(client, "b-003", 0, 4.7, 0, rates=(0, 51, 0))
    client.zadd(keys.probation("b"), {"b-003": 7})
    view = working_fleet.overview.read()
    bots = view.bots
    assert bots.evidence == (3.2, 0.0, 9.2, 0.0, 0.0, 4.7)
    assert bots.test == ("bad answers", "", "slow", "", "", "avoids work")
    assert (bots.bad_percent[0], bots.avoids_percent[5], bots.slow_percent) == (40, 20, (0,) * 6)
    suspected = ("bad answers: 40% of its last tasks", "avoids work: 20% of its last tasks")
    assert bots.reason == (suspected[0], "odd", BY_HEALTH, "", "", suspected[1])
    assert bots.until[2] == pytest.approx(time.time() + 60, abs=50)
    assert bots.until[:2] + bots.until[3:] == (None,) * 5
    a, b = view.health.pools
    assert (a.out, a.suspected, a.kept_in, a.probation, a.all_out, a.most_out) == (2, 1, 0, 0, False, 1)
    assert (b.out, b.suspected, b.kept_in, b.probation, b.back_at) == (0, 1, 1, 1, None)
    worst = view.health.worst
    assert [one.bot for one in worst] == ["b-003", "a-003", "a-002", "a-001"]
    assert [(one.by, one.reason, one.until is None) for one in worst[1:3]] == [
        ("health", BY_HEALTH, False), ("ann", "odd", True),
    ]  # fmt: skip
    assert [(one.evidence, one.enough) for one in (worst[0], worst[3])] == [(4.7, 4.6), (3.2, 9.2)]
    shown = exposition(view).decode()
    assert 'fleet_bots_kept_in{pool="b"} 1.0' in shown and 'fleet_bots_suspected{pool="a"} 1.0' in shown
    quarantine_bot(client, SETTINGS, "a-001", by="ann", for_s=30)
    a = working_fleet.overview.read().health.pools[0]
    assert a.all_out and a.back_at == pytest.approx(time.time() + 30, abs=25)


def test_alike_bots_are_named_by_class_by_pool_and_in_the_metrics_until_the_class_is_relearnt(
    working_fleet: WorkingFleet, client: redis.Redis
) -> None:
    remedies = {1: Remedy(rung=2, generation=1), 2: Remedy(rung=2, generation=1)}
    remember(client, ClassState(pool="b", kind="calm", readings={"across": FALLEN["within"]}), 900)
    state = ClassState(
        pool="a", kind="chat", phase="treating", alarm=True, alarm_at=50.0, flagged=(1, 2, 3), remedies=remedies,
        readings=FALLEN, trial=TRIAL, verdict="remedy 1: did not help",
    )  # fmt: skip
    remember(client, state, 1000)
    remember(client, ClassState(pool="gone", kind="chat", alarm=True), 5)
    view = working_fleet.overview.read()
    assert view.bots.alike == (True, True, True, False, False, False)
    assert [pool.alike for pool in view.health.pools] == [3, 0]
    chat, calm = view.diversity
    assert (chat.pool, chat.kind, chat.answers, chat.alarm_at, chat.flagged) == ("a", "chat", 1000, 50.0, 3)
    assert chat.culprits == ("a-001", "a-002", "a-003")
    assert (chat.remedy, chat.treated, chat.control, chat.share_of_usual) == (2, 2, 1, 0.05)
    assert (chat.treated_left, chat.control_left) == (pytest.approx(0.1), pytest.approx(1.0))
    assert chat.line == "3 bots answer alike: 2 get remedy 2, persona drawn anew, 1 is left as it is, to compare"
    assert chat.verdict == "remedy 1: did not help" and "fleet diversity relearn a chat" in chat.advice
    assert (calm.alarm, calm.line, calm.share_of_usual) == (False, "answers differ as usual", 0.5)
    shown = exposition(view).decode()
    for line in (
        'fleet_diversity_alarms{pool="a"} 1.0', 'fleet_diversity_alarms{pool="b"} 0.0',
        'fleet_bots_alike{pool="a"} 3.0',
        'fleet_diversity_score_ratio{pool="a"} 0.05', 'fleet_diversity_score_ratio{pool="b"} 0.5',
    ):  # fmt: skip
        assert line in shown

    with pytest.raises(ConfigurationError, match=r"expected a pool and a kind with answers \(a chat, b calm\), got"):
        relearn_class(client, SETTINGS, "a", "chatt", by="ann")
    relearn_class(client, SETTINGS, "a", "chat", by="ann")
    view = working_fleet.overview.read()
    again = next(one for one in view.diversity if one.pool == "a")
    assert (again.alarm, again.phase, again.answers, again.line) == (
        False, "learning", 1000, "learning what is usual: 1,000 answers so far",
    )  # fmt: skip
    assert every(not alike for alike in view.bots.alike)
    assert (view.events[0].name, view.events[0].fields) == (
        "diversity_relearnt", {"pool": "a", "kind": "chat", "by": "ann", "host": socket.gethostname()},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "line", "has_advice"),
    [
        (ClassState(pool="a", kind="k", phase="exhausted", alarm=True, flagged=(1, 2)), "no remedy has helped", True),
        (ClassState(pool="a", kind="k", alarm=True, readings=FALLEN, flagged=(1, 2)), "2 bots answer alike", True),
        (ClassState(pool="a", kind="k", alarm=True, readings=FALLEN), "no bot stands out", True),
        (ClassState(pool="a", kind="k", readings=FALLEN), "it is watched", False),
        (
            ClassState(
                pool="a",
                kind="k",
                phase="holding",
                alarm=True,
                remedies={1: Remedy(rung=1, generation=1)},
                flagged=(1,),
            ),
            "1 bot keeps remedy 1, context reshuffled: the answers differ again",
            False,
        ),
    ],
)
def test_a_class_says_in_one_sentence_how_it_stands(state: ClassState, line: str, has_advice: bool) -> None:
    (view,) = diversity_views([(state, 7)])
    assert isinstance(view, ClassDiversity)
    assert line in view.line and bool(view.advice) == has_advice
