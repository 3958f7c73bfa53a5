"""Grades on a real fleet: of tasks that say what is right, of people who tell later, and of votes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis
from click.testing import CliRunner

import fleet
from fleet import config
from fleet.cli.operate.bots import bots
from fleet.cli.operate.why import read_story
from fleet.cli.run.grade import grade
from fleet.engine.answers.grades import Worth, worth_of
from fleet.errors import InvalidTask
from fleet.roster.grading import BotGrades, models_of, read_grades
from fleet.store import answer_keys
from fleet.store.client import connect
from tests.counted import counted
from tests.engine.asking.conftest import AskStage
from tests.every import every
from tests.waiting import wait_until

PROMPT = "What is 6 * 7?"


def grades_of(client: redis.Redis, bot: str) -> list[BotGrades]:
    return read_grades(client, bot.rpartition("-")[0], int(bot.rpartition("-")[2]))


def test_a_task_that_says_what_is_right_is_graded_by_its_worker_and_no_model_sees_it(stage: AskStage) -> None:
    found: Any = [
        fleet.submit_task.delay(PROMPT, pool="quick", kind="taught", right=right).get(timeout=20)
        for right in ("42", "42.0", "43", "42")
    ]
    assert {one["answer"] for one in found} == {"42"} and {one["kind"] for one in found} == {"taught"}
    with connect(stage.server.url) as client:
        wait_until(lambda: client.zcard(answer_keys.classes("quick")), 10, lambda: "the first is learnt")
        model = f"{found[0]['provider']}/{found[0]['model']}"

        def learnt() -> float:
            rows = models_of(client.hgetall(answer_keys.models("taught")))
            return sum(one.good + one.bad for one in rows if one.model == model)

        wait_until(lambda: learnt() > 3.9, 10, lambda: f"learnt {learnt()} of 4")
        (row,) = models_of(client.hgetall(answer_keys.models("taught")))
        assert row.accuracy.right == pytest.approx(0.75, abs=0.01)
        assert counted(client, "graded_wrong") >= 1


def test_an_answer_can_be_graded_later_once_by_program_and_from_a_shell(stage: AskStage) -> None:
    late = fleet.submit_task.delay(PROMPT, pool="few", kind="later")
    bot = late.get(timeout=20)["bot"]
    fleet.grade(late.id, right=False)
    with connect(stage.server.url) as client:
        wait_until(lambda: client.get(answer_keys.graded(late.id)) == b"0", 15, lambda: "it is learnt")
        done = CliRunner().invoke(grade, [late.id, "--answer", "42", "--json"], catch_exceptions=False)
        assert json.loads(done.stdout) == {"tasks": [{"task_id": late.id, "right": True}]}
        wait_until(lambda: client.llen(answer_keys.told()) == 0, 15, lambda: "what was told is struck off")
        (known,) = [one for one in grades_of(client, bot) if one.kind == "later"]
        assert (known.accuracy.right, round(known.accuracy.grades)) == (0.0, 1)
    story = read_story(late.id, config.current())
    assert "its answer is wrong, by the record of grades" in story.lines
    shown = CliRunner().invoke(bots, ["show", bot], catch_exceptions=False).output
    assert "grades: later: 0% right (0% to" in shown
    assert "wrong answers, later: 100% of its last tasks, evidence 0.0 of 11.6" in shown


@pytest.mark.parametrize("task_id", ["nobody-knows-it"])
def test_what_cannot_be_graded_is_refused(task_id: str) -> None:
    with pytest.raises(InvalidTask, match="expected one with a result that is still kept, got 'nobody-knows-it'"):
        fleet.grade(task_id, right=True)


def test_a_failed_task_has_no_answer_to_grade() -> None:
    failed = fleet.submit_task.delay(PROMPT, pool="few", max_cost_usd=1e-9)
    failed.get(timeout=20)
    with pytest.raises(InvalidTask, match="expected one that a bot has answered"):
        asyncio.run(fleet.agrade(failed.id, right=True))


def test_votes_teach_who_answers_otherwise_and_a_known_answer_who_is_right(stage: AskStage) -> None:
    asked = fleet.ask_fleet("Tea or coffee?", n=9, pools=["torn"], stop="shadow", kind="tastes")
    known = fleet.ask_fleet("Tea or coffee?", n=9, pools=["torn"], stop="shadow", kind="tastes", right="coffee")
    with connect(stage.server.url) as client:
        told = [f"{one.task_id}:votes" for one in asked.members] + [one.task_id for one in known.members]
        wait_until(lambda: client.exists(*map(answer_keys.graded, told)) == 18, 15, lambda: "all are learnt")
        for one in asked.members:
            assert client.get(answer_keys.graded(f"{one.task_id}:votes")) == str(int(one.counted == "tea")).encode()
        for one in known.members:
            assert client.get(answer_keys.graded(one.task_id)) == str(int(one.counted == "coffee")).encode()
        assert {b"tastes", b"tastes:votes"} <= set(client.zrange(answer_keys.classes("torn"), 0, -1))


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        ("aab", {"b": False}),  # the two others are divided, for each of those who agree
        ("aaab", {"a": True, "b": False}),
        ("ab", {}),
        ("aabb", {}),
        ("aaabbb", {}),
        ("aa", {}),
        ("aaa", {"a": True}),
        ("abcd", {}),
    ],
)
def test_a_vote_is_compared_with_what_most_of_the_others_say(votes: str, said: dict[str, bool]) -> None:
    answers = [(f"{place}{key}", key) for place, key in enumerate(votes)]
    found = {one.task[-1]: one.right for one in worth_of([*answers, ("none", None)], None)}
    assert found == said
    assert worth_of([("t", "a"), ("u", None)], "a") == [Worth(task="t", right=True)]


def test_where_nobody_grades_another_bot_is_asked_now_and_then_within_the_ration(stage: AskStage) -> None:
    with connect(stage.server.url) as client:
        before = stage.served(stage.torn)
        client.set(answer_keys.ration("torn", "compared"), 20, ex=60)  # what some thousand tasks would have earned
        tasks = [fleet.submit_task.delay("Tea or coffee?", pool="torn", kind="compared") for _ in range(60)]
        answers = [task.get(timeout=30)["answer"] for task in tasks]

        def shadows() -> int:
            return counted(client, "shadows")

        wait_until(lambda: b"compared:shadows" in client.zrange(answer_keys.classes("torn"), 0, -1), 20, "a comparison")
        wait_until(lambda: stage.served(stage.torn) - before == 60 + shadows(), 20, "all are counted")
        assert len(set(answers)) == 2
        assert 1 <= shadows() <= 22, "the ration is 20, and 60 tasks earn 1.8"
        assert float(client.get(answer_keys.ration("torn", "compared")) or 0) < 20
        graded = [bot for number in range(1, 61) for bot in read_grades(client, "torn", number) if bot.of == "shadows"]
        assert every(0 <= bot.accuracy.right <= 1 for bot in graded)
        assert not client.exists(answer_keys.ration("quick", "compared"))
