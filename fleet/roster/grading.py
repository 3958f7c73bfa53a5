"""Right and wrong answers: the record of bots, kinds and models, and the test that finds bots fluent but wrong.

One script a grade (`grade.lua`), after its task: tasks that nobody grades pay nothing. Who grades:
`engine/answers/grades.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import redis

from fleet.config import HealthSettings
from fleet.models import bot_name
from fleet.roster import health
from fleet.store import answer_keys, keys
from fleet.store.client import Script
from fleet.store.layouts import Layout, Place, Places

#: Evidence that is enough. Where one answer of ten is wrong, a good bot reaches it once in a million grades, and one
#: that is wrong besides in 40% of its tasks after 24 (median; worked out as a Markov chain).
ENOUGH_WRONG = 11.6
#: What a bad bot does: it is wrong besides in this share of the tasks that others get right.
LIES = 0.4
#: Bytes of `answer_keys.grades` before the first row.
GRADES_HEAD_BYTES = 32
#: One-sided 95% point of the normal distribution, for the bounds of a share.
_SURE = 1.64
#: Of what a grade may be: of the answer itself; of a vote, compared with what most others say; of a second answer.
Of = Literal["grades", "votes", "shadows"]
#: What they are kept under, behind the kind.
ENDS: dict[Of, str] = {"grades": "", "votes": ":votes", "shadows": ":shadows"}


class _UsualGrades(Places):
    """Grades of a class that fade slowly, of bots that nobody suspects; and of all bots, that fade soon."""

    GOOD = Place()
    BAD = Place()
    RECENT_GOOD = Place()
    RECENT_BAD = Place()


class _GradesRow(Places):
    """Grades of one bot in one class."""

    #: All, which fade.
    RIGHTS = Place()
    WRONGS = Place()
    #: Since it last stood well, and those of them that were wrong.
    SINCE = Place()
    WRONG = Place()
    #: 1: it does not say what is usual.
    SUSPECTED = Place()


USUAL, ROW = Layout.of(_UsualGrades, "4f"), Layout.of(_GradesRow, "2f2HB")
GRADE = Script.beside(
    __file__,
    "grade.lua",
    keys="mark grades classes doubted models health norms skills bots quarantined reasons probation events quiet "
    "totals",
    argv="number is_right class_ kind pool model cost rules watch adaptive life_s mark_life_s "
    "quarantined_event cap_event counter",
    tables={
        "usual": USUAL, "row": ROW, "rules": health.RULES, "skill": health.SKILL, "norm": health.NORM,
        "standing": health.ROW,
    },
    constants={
        "HEAD_BYTES": GRADES_HEAD_BYTES, "HEALTH_HEAD_BYTES": health.HEAD_BYTES, "ENOUGH": ENOUGH_WRONG, "LIES": LIES,
        "TESTS": len(health.TESTS),
    },
    using=[health.TAKE_OUT],
)  # fmt: skip
#: Says whether a second answer is to be asked for, and of whom.
SHADOW = Script.beside(
    __file__,
    "shadow.lua",
    keys="ration grades doubted bots quarantined",
    argv="number class_ pool size share life_s",
    tables={"row": ROW},
    constants={"HEAD_BYTES": GRADES_HEAD_BYTES, "ENOUGH": ENOUGH_WRONG},
)


def shadow_call(pool: str, kind: str, bot: str, *, size: int, share: float) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `SHADOW`.

    Args:
        pool: Of the bot.
        kind: Class of the task that it has just done.
        bot: Its name.
        size: Bots of its pool.
        share: Of a call that a task earns.
    """
    class_ = kind + ENDS["shadows"]
    return SHADOW.call(
        ration=answer_keys.ration(pool, kind), grades=answer_keys.grades(pool, class_),
        doubted=answer_keys.doubted(),
        bots=keys.bots(pool), quarantined=keys.quarantined(pool), number=str(number_of(bot)), class_=class_, pool=pool,
        size=size, share=share, life_s=keys.STATE_TTL_S,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grade:
    """What one answer was worth.

    Args:
        task_id: Of its task, which counts once.
        kind: Class of the task.
        is_right: Whether the answer is right; of a vote: whether it is what most others say.
        pool: The bot's.
        bot: Whose answer it is; None: a fallback's, so only its model learns.
        model: `provider/model` that gave it; empty: unknown.
        cost: Micro-dollars, or tokens where there is no price.
        of: What was graded.
    """

    task_id: str
    kind: str
    is_right: bool
    pool: str
    bot: str | None
    model: str = ""
    cost: int = 0
    of: Of = "grades"

    @property
    def class_(self) -> str:
        """What it is compared with."""
        return self.kind + ENDS[self.of]


def grade_call(
    grade: Grade, settings: HealthSettings, *, mark_life_s: int, counter: str
) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `GRADE`.

    Args:
        grade: What is learnt.
        settings: How bots are judged.
        mark_life_s: Seconds for which the task is known to have been graded.
        counter: Name of the counter of such grades.
    """
    quarantined, _, cap = health.EVENTS
    pool = grade.pool
    return GRADE.call(
        mark=answer_keys.graded(grade.task_id + ENDS[grade.of]),
        grades=answer_keys.grades(pool, grade.class_), classes=answer_keys.classes(pool),
        doubted=answer_keys.doubted(), models=answer_keys.models(grade.kind),
        health=keys.health(pool), norms=keys.norms(pool), skills=keys.skills(pool, grade.kind), bots=keys.bots(pool),
        quarantined=keys.quarantined(pool), reasons=keys.quarantine_reasons(pool), probation=keys.probation(pool),
        events=keys.events(), quiet=keys.event_quiet(f"quarantine_cap:{pool}"), totals=keys.pool_totals(pool),
        number=str(number_of(grade.bot)), is_right=str(int(grade.is_right)), class_=grade.class_,
        kind=grade.kind if grade.of == "grades" else "", pool=pool, model=grade.model, cost=grade.cost,
        rules=health.rules_of(settings), watch=str(int(settings.watch)), adaptive=str(int(grade.of == "shadows")),
        life_s=keys.STATE_TTL_S,
        mark_life_s=mark_life_s, quarantined_event=quarantined, cap_event=cap, counter=counter,
    )  # fmt: skip


def number_of(bot: str | None) -> int:
    """Return the number of a bot in its pool; 0: there is none."""
    return int(bot.rpartition("-")[2]) if bot else 0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often answers are right, as far as that is known.

    Args:
        right: Share of the latest grades, 0..1.
        least: With 95% it is at least this much.
        most: With 95% at most this much.
        grades: How many that rests on; older ones count less.
    """

    right: float
    least: float
    most: float
    grades: float

    @classmethod
    def of(cls, good: float, bad: float) -> Accuracy | None:
        """Return it of right and wrong answers; None when there are none. Bounds: Wilson's score interval (1927)."""
        count = good + bad
        if count <= 0:
            return None
        share, squared = good / count, _SURE**2
        middle = (share + squared / (2 * count)) / (1 + squared / count)
        half = _SURE * math.sqrt(share * (1 - share) / count + squared / (4 * count * count)) / (1 + squared / count)
        return cls(share, max(0.0, middle - half), min(1.0, middle + half), count)


@dataclass(frozen=True, slots=True)
class BotGrades:
    """How a bot does one class of graded tasks.

    Args:
        kind: Class of tasks.
        of: What was graded.
        accuracy: Its own.
        usual: Share of right answers that is usual for the class.
        evidence: That it is wrong more often, from 0; `ENOUGH_WRONG` takes it out.
    """

    kind: str
    of: Of
    accuracy: Accuracy
    usual: float
    evidence: float


def read_grades(client: redis.Redis, pool: str, number: int) -> list[BotGrades]:
    """Return how a bot does each class that it was graded in. Two round trips."""
    names: Any = client.zrange(answer_keys.classes(pool), 0, -1)
    classes = [name.decode() for name in names]
    if not classes:
        return []
    with client.pipeline(transaction=False) as pipe:
        for class_ in classes:
            first = GRADES_HEAD_BYTES + number * ROW.struct.size
            pipe.getrange(answer_keys.grades(pool, class_), 0, USUAL.struct.size - 1)
            pipe.getrange(answer_keys.grades(pool, class_), first, first + ROW.struct.size - 1)
            pipe.zscore(answer_keys.doubted(), f"{class_}|{bot_name(pool, number)}")
        replies = pipe.execute()
    found = []
    for class_, usual, raw, doubt in zip(classes, replies[::3], replies[1::3], replies[2::3], strict=True):
        row = ROW.unpack(raw)
        accuracy = Accuracy.of(row[_GradesRow.RIGHTS], row[_GradesRow.WRONGS])
        if accuracy is not None:
            kind, of = kind_of(class_)
            found.append(BotGrades(kind, of, accuracy, usual_of(usual), float(doubt or 0.0)))
    return found


def kind_of(class_: str) -> tuple[str, Of]:
    """Return the kind of a class of grades, and what was graded."""
    kind, found, _ = class_.partition(":")
    return kind, next(of for of, end in ENDS.items() if end == class_[len(kind) :]) if found else "grades"


def read_usual(raw: bytes) -> tuple[float, float]:
    """Return the right and wrong answers of a class that are remembered, from the head of `answer_keys.grades`."""
    usual = USUAL.unpack(raw)
    return usual[_UsualGrades.GOOD], usual[_UsualGrades.BAD]


def usual_of(raw: bytes) -> float:
    """Return the share of right answers that is usual in a class, from the head of `answer_keys.grades`."""
    good, bad = read_usual(raw)
    return good / (good + bad) if good + bad else 0.0


@dataclass(frozen=True, slots=True)
class ModelGrades:
    """How a model does one kind of tasks.

    Args:
        model: As `provider/model`.
        good: Right answers, which fade.
        bad: Wrong ones.
        cost: Of a task, in micro-dollars; tokens where there is no price.
    """

    model: str
    good: float
    bad: float
    cost: float

    @property
    def accuracy(self) -> Accuracy:
        """How often it is right."""
        return Accuracy.of(self.good, self.bad) or Accuracy(0.0, 0.0, 1.0, 0.0)


def models_of(fields: Mapping[bytes, bytes]) -> list[ModelGrades]:
    """Return how models do a kind of tasks, from its hash `answer_keys.models`, the best first."""
    found = []
    for name, raw in fields.items():
        _, good, bad, costs, _ = health.SKILL.unpack(raw)
        if good + bad > 0:
            found.append(ModelGrades(name.decode(), good, bad, costs / (good + bad)))
    return sorted(found, key=lambda one: -one.accuracy.right)


def read_doubted(client: redis.Redis) -> dict[str, tuple[str, float]]:
    """Return the bots whose answers may be wrong, with the class and the evidence that says most. One round trip."""
    rows: Any = client.zrange(answer_keys.doubted(), 0, -1, withscores=True)
    found: dict[str, tuple[str, float]] = {}
    for member, evidence in rows:  # the least first
        class_, _, bot = member.decode().rpartition("|")
        found[bot] = (class_, evidence)
    return found
