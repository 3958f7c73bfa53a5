"""The record of right and wrong answers on a real Redis: bots fluent but wrong are found, good ones are not."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.config import HealthSettings
from fleet.roster import HEALTH, Deed, Health, read_probation, read_quarantined, read_skills
from fleet.roster.grading import (
    ENOUGH_WRONG,
    GRADE,
    LIES,
    Accuracy,
    Grade,
    Of,
    grade_call,
    models_of,
    read_doubted,
    read_grades,
)
from fleet.store import answer_keys, keys
from fleet.store.client import connect, run_script
from tests.counted import counted
from tests.every import every

HOUR = HealthSettings(quarantine_s=3600)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


class Pool:
    """One pool whose graded tasks go in turn to those of its bots that are not out."""

    def __init__(self, client: redis.Redis, bots: int, rules: HealthSettings = HOUR) -> None:
        self.client, self.rules, self.done = client, rules, 0
        self.bots = [f"p-{number:03d}" for number in range(1, bots + 1)]
        self.tasks = dict.fromkeys(self.bots, 0)
        self.found_after: dict[str, int] = {}
        client.zadd(keys.bots("p"), dict.fromkeys(self.bots, 0))

    def grade(
        self, bot: str | None, right: bool, *, kind: str = "sums", task: str = "", vote: bool = False, of: Of = "grades"
    ) -> int:
        self.done += 1
        told = Grade(task or f"t{self.done}", kind, right, "p", bot, "sim/one", 7, "votes" if vote else of)
        call = grade_call(told, self.rules, mark_life_s=60, counter="graded")
        return int(run_script(self.client, GRADE, *call))

    def play(self, tasks: int, is_wrong: Callable[[str], bool], *, vote: bool = False) -> None:
        done = 0
        while done < tasks:
            for bot in [bot for bot in self.bots if bot not in self.found_after]:
                self.tasks[bot] += 1
                done += 1
                if self.grade(bot, not is_wrong(bot), vote=vote) == 2:
                    self.found_after[bot] = self.tasks[bot]

    def evidence(self, bot: str) -> float:
        return read_doubted(self.client).get(bot, ("", 0.0))[1]


def wrong(chance: random.Random, usual: float, *bad: str, lies: float = LIES) -> Callable[[str], bool]:
    return lambda bot: chance.random() < usual + (lies * (1 - usual) if bot in bad else 0.0)


@pytest.mark.parametrize(("usual", "most"), [(0.1, 35), (0.44, 160)])
@pytest.mark.parametrize("vote", [False, True])
def test_bots_that_are_wrong_more_often_are_found_from_their_first_task_and_no_good_one(
    client: redis.Redis, usual: float, most: int, vote: bool
) -> None:
    chance, pool = random.Random(5), Pool(client, 40)
    bad = pool.bots[::5]
    pool.play(16_000, wrong(chance, usual, *bad), vote=vote)
    assert set(pool.found_after) == set(bad)
    assert sorted(pool.found_after.values())[4] <= most


@pytest.mark.parametrize("worse", [0.3, 0.5, 0.8])
def test_a_kind_that_becomes_harder_for_all_accuses_hardly_any(client: redis.Redis, worse: float) -> None:
    chance, pool = random.Random(3), Pool(client, 40)
    pool.play(4000, wrong(chance, 0.1))
    pool.play(6000, wrong(chance, worse))
    assert len(pool.found_after) <= 2


def test_a_bot_that_turns_bad_is_told_with_its_share_and_how_much_is_usual(client: redis.Redis) -> None:
    chance, pool = random.Random(3), Pool(client, 20)
    pool.play(2000, wrong(chance, 0.1))
    pool.play(1500, wrong(chance, 0.1, "p-007", lies=0.9))
    out = read_quarantined(client, ["p"])["p-007"]
    assert out.by == "health"
    assert out.reason.startswith("wrong answers: ") and "graded tasks of kind sums, " in out.reason
    (event,) = [fields for _, fields in client.xrange(keys.events())]
    assert (event[b"event"], event[b"bot"]) == (b"bot_quarantined", b"p-007")
    assert pool.evidence("p-007") == 0.0  # the test begins anew


def test_the_same_task_counts_once_whatever_it_is_graded_then(client: redis.Redis) -> None:
    pool = Pool(client, 4)
    assert pool.grade("p-001", True, task="a") == 1
    assert pool.grade("p-001", False, task="a") == 0
    assert pool.grade("p-001", False, task="a", vote=True) == 1  # how it compares is another matter
    known = {(one.of, one.accuracy.right) for one in read_grades(client, "p", 1)}
    assert known == {("grades", 1.0), ("votes", 0.0)}
    assert counted(client, "graded") == 2
    assert client.get(answer_keys.graded("a")) == b"1"


def test_too_many_bad_bots_stay_in_and_that_is_told(client: redis.Redis) -> None:
    chance, pool = random.Random(3), Pool(client, 10, HealthSettings(quarantine_s=3600, most_out=0.2))
    pool.play(1000, wrong(chance, 0.05))
    pool.play(1500, wrong(chance, 0.05, *pool.bots[:3], lies=0.95))
    assert len(pool.found_after) == 2
    (kept,) = set(pool.bots[:3]) - set(pool.found_after)
    assert pool.evidence(kept) >= ENOUGH_WRONG
    assert b"quarantine_cap" in [fields[b"event"] for _, fields in client.xrange(keys.events())]


def test_without_watching_grades_are_kept_and_nobody_goes_out(client: redis.Redis) -> None:
    chance, pool = random.Random(3), Pool(client, 10, HealthSettings(watch=False))
    pool.play(2000, wrong(chance, 0.05, "p-003", lies=0.9))
    assert pool.found_after == {}
    (known,) = read_grades(client, "p", 3)
    assert known.accuracy.most < 0.3 < 0.9 < known.usual


def test_a_wrong_answer_on_probation_is_not_a_task_done_well(client: redis.Redis) -> None:
    chance, pool = random.Random(3), Pool(client, 10)
    pool.play(500, wrong(chance, 0.05))
    client.zadd(keys.probation("p"), {"p-002": 4})
    pool.grade("p-002", False)
    assert read_probation(client, ["p"]) == {"p-002"}
    assert client.zscore(keys.probation("p"), "p-002") == 5


def test_a_wrong_answer_counts_against_the_skill_of_its_bot(client: redis.Redis) -> None:
    pool, health = Pool(client, 4), Health(HOUR)
    for number in range(60):
        bot = pool.bots[number % 4]
        named = {**health.names("p", "sums"), **health.constants("p", "sums")}
        samples = health.samples([Deed(bot, None, 200, 300, 10)])
        run_script(client, HEALTH, *HEALTH.call(**named, now_us=time.time_ns() // 1000, samples=samples))
        pool.grade(bot, bot != "p-002")
    shares = [read_skills(client, "p", number, ["sums"])[0].good for number in (1, 2, 3)]
    assert shares[0] == shares[2] == 1.0 and shares[1] < 0.1


def test_models_are_learnt_with_what_they_cost_and_votes_teach_none(client: redis.Redis) -> None:
    pool = Pool(client, 4)
    for number in range(20):
        pool.grade(None, number % 4 > 0)
        pool.grade("p-001", False, vote=True)
    (one,) = models_of(client.hgetall(answer_keys.models("sums")))
    assert one.model == "sim/one" and one.cost == pytest.approx(7)
    assert one.accuracy.right == pytest.approx(0.75, abs=0.01)
    assert one.accuracy.least < 0.75 < one.accuracy.most
    assert client.zscore(answer_keys.classes("p"), "sums") is not None


def test_classes_beyond_the_most_are_refused_until_old_ones_are_quiet(client: redis.Redis) -> None:
    pool = Pool(client, 4)
    for number in range(64):
        assert pool.grade("p-001", True, kind=f"k{number}") == 1
    assert pool.grade("p-001", True, kind="one-more") == -1
    client.zadd(answer_keys.classes("p"), {"k3": 1})  # of 1970
    assert pool.grade("p-001", True, kind="one-more") == 1


def test_every_key_expires(client: redis.Redis) -> None:
    pool = Pool(client, 4)
    for number in range(60):
        pool.grade("p-001", number % 2 > 0)
    assert client.ttl(keys.pool_totals("p")) == -1, "but for the counters: they must not fall"
    made = [name.decode() for name in client.keys("*grade*")]
    assert len(made) == 3 + 60
    assert every(client.ttl(name) > 0 for name in made)


def test_the_list_of_classes_expires_also_where_no_bot_is_graded(client: redis.Redis) -> None:
    assert Pool(client, 4).grade(None, True) == 1
    assert client.ttl(answer_keys.classes("p")) > 0


def test_second_answers_find_a_liar_where_every_bot_was_wrong_once_early(client: redis.Redis) -> None:
    pool, chance = Pool(client, 4), random.Random(1)
    for bot in pool.bots * 2:  # wrong and right: each bot is off zero before anything is known
        pool.grade(bot, False, of="shadows")
    for _ in range(300):
        for bot in pool.bots:
            if pool.grade(bot, chance.random() > (0.6 if bot == "p-001" else 0.1), of="shadows") == 2:
                pool.found_after[bot] = 1
    assert list(pool.found_after) == ["p-001"]


def test_bounds_of_an_accuracy_close_with_grades() -> None:
    assert Accuracy.of(0, 0) is None
    few, many = Accuracy.of(9, 1), Accuracy.of(900, 100)
    assert few is not None and many is not None
    assert few.least < many.least < 0.9 < many.most < few.most


class Model:
    """`grade.lua` in Python, for one class: what is usual, and each bot's evidence."""

    def __init__(self) -> None:
        self.good = self.bad = self.recent_good = self.recent_bad = 0.0
        self.rows: dict[str, list[int]] = {}

    def share(self) -> float:
        known = (self.bad + 1) / (self.good + self.bad + 10)
        recent = self.recent_bad / max(1, self.recent_good + self.recent_bad)
        return min(0.95, max(0.05, recent if recent > known + 0.35 * LIES * (1 - known) else known))

    @staticmethod
    def weight(row: list[int], share: float) -> float:
        weight = row[1] * math.log((share + LIES * (1 - share)) / share) + (row[0] - row[1]) * math.log(1 - LIES)
        return weight / (1 + 0.35 * max(0, share - 0.1))

    def teach(self, row: list[int], sign: int) -> None:
        self.good, self.bad = max(0, self.good + sign * (row[0] - row[1])), max(0, self.bad + sign * row[1])

    def grade(self, bot: str, is_wrong: bool) -> float:
        row = self.rows.setdefault(bot, [0, 0, 0])
        self.recent_good = self.recent_good * 0.99 + (not is_wrong)
        self.recent_bad = self.recent_bad * 0.99 + is_wrong
        if self.recent_good + self.recent_bad < 30:
            self.good, self.bad = self.good + (not is_wrong), self.bad + is_wrong
            row[0], row[1] = row[0] + 1, row[1] + is_wrong
            return 0.0
        share = self.share()
        if self.weight(row, share) <= 0:
            if row[2]:
                self.teach(row, 1)
            row[:] = [0, 0, 0]
        row[0], row[1] = row[0] + 1, row[1] + is_wrong
        weight = self.weight(row, share)
        self.good, self.bad = self.good * 0.9998, self.bad * 0.9998
        if not row[2]:
            self.good, self.bad = self.good + (not is_wrong), self.bad + is_wrong
        if weight >= 3 and not row[2]:
            self.teach(row, -1)
        if weight < 3 and row[2]:
            self.teach(row, 1)
        row[2] = int(weight >= 3)
        if weight <= 0:
            row[0] = row[1] = 0
        return max(0.0, weight)


@settings(max_examples=30, deadline=None)
@given(told=st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=40, max_size=120))
def test_the_script_does_what_its_model_does(redis_url: str, told: list[tuple[int, bool]]) -> None:
    with connect(redis_url) as client:
        client.flushdb()
        pool, model = Pool(client, 4, HealthSettings(watch=False)), Model()
        for number, is_wrong in told:
            bot = f"p-{number:03d}"
            pool.grade(bot, not is_wrong)
            weight = model.grade(bot, is_wrong)
            assert pool.evidence(bot) == pytest.approx(weight if weight >= 3 else 0.0, abs=0.06)
