"""One bot as the page and `fleet bots show` open it: what it did last, what failed, how healthy it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import redis

from fleet.config import Settings
from fleet.models import Bot
from fleet.money import whole_micros
from fleet.roster import ENOUGH, TESTS, Quarantine, Skill, bot_health_of, load_of, read_quarantined, read_skills, row_of
from fleet.roster.grading import ENOUGH_WRONG, BotGrades, read_grades
from fleet.signals import picture, windows
from fleet.signals.bot_table import BotState
from fleet.signals.catalogue import ErrorField
from fleet.signals.view import (
    BotDetail,
    BotErrors,
    GradeLine,
    HealthTest,
    HealthView,
    QuarantineLine,
    SkillLine,
    TaskLine,
)
from fleet.store import keys

#: Failures of one bot, when it is opened.
FAILURES_SHOWN = 20


def read_bot(client: redis.Redis, settings: Settings, name: str) -> BotDetail:
    """Return one bot. A few round trips.

    Args:
        client: Plain client of the state Redis.
        settings: Pools, their bots and APIs.
        name: Of the bot.

    Raises:
        ConfigurationError: When no pool has a bot of this name.
    """
    bot = check_bot(name, settings)
    pool, index = bot.pool, windows.bot_index(name)
    row_at, tasks_at = index * windows.BOT_ROW.size, index * windows.BOT_TASKS * windows.BOT_TASK.size
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.getrange(keys.bot_rows(pool), row_at, row_at + windows.BOT_ROW.size - 1)
        pipe.getrange(keys.bot_tasks(pool), tasks_at, tasks_at + windows.BOT_TASKS * windows.BOT_TASK.size - 1)
        pipe.zscore(keys.bots(pool), name)
        pipe.lrange(keys.pool_failures(pool), 0, -1)
        pipe.lrange(keys.failures(), 0, -1)
        pipe.hgetall(keys.errors(pool))
        pipe.getrange(keys.health(pool), *row_of(index))
        pipe.zscore(keys.probation(pool), name)
        pipe.hget(keys.remedies(), name)
        pipe.hkeys(keys.norms(pool))
        (seconds, _), raw_row, raw_tasks, score, *lines, errors, raw_health, trial, remedy, kinds = pipe.execute()
    row = windows.bot_rows_of(raw_row, 0)
    skills = read_skills(client, pool, index, [kind.decode() for kind in kinds])
    grades = read_grades(client, pool, index)
    failures = [one for some in lines for one in windows.failures_of(some, since=0.0) if one.bot == name]
    load, quarantined = load_of(score or 0), read_quarantined(client, [pool]).get(name)
    state: BotState = "quarantined" if quarantined else "probation" if trial else "busy" if load else "idle"
    return BotDetail(
        name=name, pool=pool, api=settings.limit_of(pool, bot.persona.model)[0], state=state, persona=bot.persona,
        load=load, completions=row.completions[0], failed=row.failed[0], calls_failed=row.calls_failed[0],
        per_hour=row.per_hour(seconds)[0], last_at=row.last_at[0], cost_usd_micros=whole_micros(row.cost_usd_micros[0]),
        tokens=int(row.tokens[0]), mean_ms=row.mean_ms()[0],
        tasks=tuple(map(_task_line, windows.bot_tasks_of(raw_tasks, row.completions[0]))),
        failures=tuple(map(picture.failure_shown, failures[:FAILURES_SHOWN])),
        errors=tuple(_bot_errors(name, errors)),
        health=_health(quarantined, raw_health, trial, remedy, skills, grades),
    )  # fmt: skip


def check_bot(name: str, settings: Settings) -> Bot:
    """Return the bot of this name.

    Raises:
        ConfigurationError: When no pool has one.
    """
    from fleet.engine.process.assembly import make_bot  # the data plane makes personas; only who opens a bot needs it

    return make_bot(name, settings)


def _task_line(entry: windows.BotTaskEntry) -> TaskLine:
    task_id = entry.task_id.rstrip(b"\0").decode(errors="replace")
    return TaskLine(task_id=task_id, at=entry.at, status=windows.STATUSES[entry.status], ran_ms=entry.ran_ms)


def _bot_errors(name: str, counts: Mapping[bytes, bytes]) -> Iterator[BotErrors]:
    sums: dict[tuple[str, str], dict[str, int]] = {}
    for raw, number in counts.items():
        field = ErrorField.parse(raw.decode())
        if field.bot == name:
            row = sums.setdefault((field.api, field.type), {"task": 0, "call": 0})
            row[field.of] += int(number)
    for (api, kind), row in sums.items():
        yield BotErrors(api=api, type=kind, failures=row["task"], calls=row["call"])


def _health(
    out: Quarantine | None, raw: bytes, trial: float | None, remedy: bytes | None, skills: Iterable[Skill],
    grades: Sequence[BotGrades],
) -> HealthView:  # fmt: skip
    health, enough = bot_health_of(raw), ENOUGH if trial is None else ENOUGH / 2
    tests = zip(TESTS, health.rates, health.evidence, strict=True) if health.tasks else ()
    return HealthView(
        quarantine=out and QuarantineLine(since=out.since, until=out.until, by=out.by, reason=out.reason),
        probation_tasks_left=None if trial is None else round(trial),
        remedy=None if remedy is None else int(remedy.decode().partition("|")[0]),
        judged_tasks=health.tasks,
        quarantines=health.quarantines,
        tests=(
            *(HealthTest(name=what, share=rate, evidence=weight, enough=enough) for what, rate, weight in tests),
            *(_graded(one, is_tried=trial is not None) for one in grades),
        ),
        grades=tuple(_grade_line(one) for one in grades),
        skills=tuple(SkillLine(kind=it.kind, good=it.good, tasks=round(it.tasks), better=it.better) for it in skills),
    )


def _graded(one: BotGrades, *, is_tried: bool) -> HealthTest:
    what = "wrong answers" if one.of == "grades" else "answers otherwise"
    enough = ENOUGH_WRONG / 2 if is_tried else ENOUGH_WRONG
    return HealthTest(
        name=f"{what}, {one.kind}", share=1 - one.accuracy.right, evidence=max(0.0, one.evidence), enough=enough
    )


def _grade_line(one: BotGrades) -> GradeLine:
    known = one.accuracy
    return GradeLine(
        kind=one.kind, of=one.of, right=known.right, least=known.least, most=known.most,
        grades=round(known.grades), usual=one.usual,
    )  # fmt: skip
