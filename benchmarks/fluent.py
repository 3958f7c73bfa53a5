"""Bots that are fluent but wrong: how soon the record of grades finds them. A part of `python -m benchmarks.answers`.

A hundred bots answer GSM8K as a model did whose answers were recorded; twenty of them give another question's answer
in 40% of their tasks. Their grades go through the script that runs in workers (`roster/grade.lua`), on a real Redis.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

import redis

from fleet.config import HealthSettings
from fleet.models import bot_name
from fleet.roster.grading import GRADE, SHADOW, Grade, grade_call, shadow_call
from fleet.store import keys

POOL, KIND = "p", "sums"
#: Bots of the fleet, bad ones among them, and the share of their tasks in which they give another question's answer.
BOTS, BAD, LIES = 100, 20, 0.4
#: The model whose answers are replayed, by its place among the recorded ones.
REPLAYED = 3
#: Fleets of each cell: a median of 20 bots moves by three tasks from one to the next.
FLEETS = 3
#: Where nobody grades: share of calls for second answers, and tasks of a fleet.
SHARE, UNGRADED_TASKS = 0.03, 150_000
#: A quarantine that does not end within the benchmark.
RULES = HealthSettings(quarantine_s=3600)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: what the model answered, and what is right, both in canonical form."""

    answer: str
    right: str


@dataclass
class Found:
    """What came of a run.

    Args:
        after: Graded tasks of each bad bot since it is bad, until it was out.
        good_out: Good bots that were taken out.
        tasks: Graded tasks in all.
    """

    after: list[int] = field(default_factory=list)
    good_out: int = 0
    tasks: int = 0

    @property
    def median(self) -> float:
        """Of the bad bots that were found."""
        return median(self.after) if self.after else float("inf")


def of_error(questions: Sequence[Asked], error: float | None, draw: random.Random) -> list[Asked]:
    """Return questions of which the model gets a share wrong: all it got right, and some of the others; None: all."""
    if error is None:
        return list(questions)
    right = [one for one in questions if one.answer == one.right]
    wrong = [one for one in questions if one.answer != one.right]
    return right + draw.sample(wrong, round(len(right) * error / (1 - error)))


def graded_run(
    client: redis.Redis, questions: Sequence[Asked], *, bad_from: int, tasks: int, seed: int, bad: int = BAD
) -> Found:
    """Grade tasks of a fleet, in turn, and return who was taken out.

    Args:
        client: An empty Redis.
        questions: What is asked, drawn anew for each task.
        bad_from: Graded tasks that a bad bot does well before it turns bad; 0: it is bad from its first task.
        tasks: How many in all.
        seed: For chance.
        bad: Bad bots among BOTS.
    """
    draw, found, done = random.Random(seed), Found(), dict.fromkeys(range(1, BOTS + 1), 0)
    client.zadd(keys.bots(POOL), {bot_name(POOL, number): 0 for number in done})
    client.script_load(GRADE.text)
    wicked = set(draw.sample(list(done), bad))
    while found.tasks < tasks:
        turn = list(done)
        with client.pipeline(transaction=False) as pipe:
            for number in turn:
                lies = number in wicked and done[number] >= bad_from and draw.random() < LIES
                one = draw.choice(questions)
                said = draw.choice(questions).answer if lies else one.answer
                task_id = f"{number}-{done[number]}"
                grade = Grade(task_id, KIND, said == one.right, POOL, bot_name(POOL, number), "replay/gsm8k")
                names, arguments = grade_call(grade, RULES, mark_life_s=600, counter="grades")
                pipe.evalsha(GRADE.sha, len(names), *names, *arguments)
                done[number] += 1
            replies = pipe.execute()
        found.tasks += len(turn)
        for number, reply in zip(turn, replies, strict=True):
            if reply == 2:
                after = done.pop(number) - bad_from
                if number in wicked and after > 0:
                    found.after.append(after)
                else:
                    found.good_out += 1
    return found


#: Name, share of wrong answers of the model (None: as recorded), tasks before bad ones turn bad, most tasks (median).
CELLS = (
    ("one answer of ten is wrong", 0.1, 100, 25),
    ("the same, bad from the first task", 0.1, 0, 25),
    ("44 of a hundred are wrong", None, 100, 120),
    ("the same, bad from the first task", None, 0, 120),
)


def graded_cells(
    client: redis.Redis, questions: Sequence[Asked], *, fleets: int = FLEETS, tasks: int = 50_000
) -> Iterator[tuple[str, Found, int]]:
    """Yield each cell: what it is, what was found in all of its fleets, and the most that the median may be.

    Args:
        client: A Redis that is emptied before each fleet.
        questions: All of them.
        fleets: Of each cell, each with other bad bots.
        tasks: Graded tasks of each fleet.
    """
    for number, (name, error, bad_from, most) in enumerate(CELLS):
        found = Found()
        drawn = of_error(questions, error, random.Random(number))
        for fleet in range(fleets):
            client.flushdb()
            one = graded_run(client, drawn, bad_from=bad_from, tasks=tasks, seed=10 * fleet + number)
            found.after += one.after
            found.good_out += one.good_out
            found.tasks += one.tasks
        yield name, found, most


def ungraded_run(
    client: redis.Redis, questions: Sequence[Asked], wrong_answers: Sequence[Sequence[str]], *,
    error: float, share: float, tasks: int, seed: int,
) -> tuple[Found, int]:  # fmt: skip
    """Let a fleet work whose answers nobody grades, and return who was taken out, and the second answers asked for.

    Args:
        client: An empty Redis.
        questions: What is asked, drawn anew for each task.
        wrong_answers: Of each question, what models have said that is wrong.
        error: Share of tasks in which a good bot gives one of those, each bot by itself.
        share: Of a call that each task earns.
        tasks: How many in all.
        seed: For chance.
    """
    draw, found, done = random.Random(seed), Found(), dict.fromkeys(range(1, BOTS + 1), 0)
    client.zadd(keys.bots(POOL), {bot_name(POOL, number): 0 for number in done})
    client.script_load(GRADE.text)
    client.script_load(SHADOW.text)
    wicked, shadows = set(draw.sample(list(done), BAD)), 0

    def answer(number: int, which: int) -> str:
        if number in wicked and draw.random() < LIES:
            return draw.choice(questions).right
        return draw.choice(wrong_answers[which]) if draw.random() < error else questions[which].right

    while found.tasks < tasks:
        turn = list(done)
        calls = [shadow_call(POOL, KIND, bot_name(POOL, number), size=BOTS, share=share) for number in turn]
        with client.pipeline(transaction=False) as pipe:
            for names, arguments in calls:
                pipe.evalsha(SHADOW.sha, len(names), *names, *arguments)
            others = pipe.execute()
        pairs = [(number, other) for number, other in zip(turn, others, strict=True) if other]
        with client.pipeline(transaction=False) as pipe:
            for number, other in pairs:
                which = draw.randrange(len(questions))
                same = answer(number, which) == answer(other, which)
                shadows += 1
                grade = Grade(f"s{shadows}", KIND, same, POOL, bot_name(POOL, number), of="shadows")
                names, arguments = grade_call(grade, RULES, mark_life_s=600, counter="votes")
                pipe.evalsha(GRADE.sha, len(names), *names, *arguments)
            replies = pipe.execute() if pairs else []
        found.tasks += len(turn)
        for number, reply in zip([number for number, _ in pairs], replies, strict=True):
            if reply == 2 and done.pop(number, None) is not None:
                if number in wicked:
                    found.after.append(found.tasks)
                else:
                    found.good_out += 1
    return found, shadows


def ungraded_cell(
    client: redis.Redis, votes: Sequence[tuple[str, Sequence[str]]], *, fleets: int = FLEETS
) -> list[tuple[Found, int]]:
    """Return what was found of each fleet whose answers nobody grades, and the second answers asked for.

    Args:
        client: A Redis that is emptied before each fleet.
        votes: Of each question what is right, and what models have said.
        fleets: Each with other bad bots.
    """
    known = [(right, wrong) for right, said in votes if (wrong := sorted({one for one in said if one != right}))]
    found = []
    for fleet in range(fleets):
        client.flushdb()
        questions, wrong_answers = [Asked(right, right) for right, _ in known], [wrong for _, wrong in known]
        found.append(
            ungraded_run(client, questions, wrong_answers, error=0.1, share=SHARE, tasks=UNGRADED_TASKS, seed=fleet)
        )
    return found
