"""`grade`: tell the fleet later whether an answer was right. What becomes of that: `engine/answers/grades.py`."""

from __future__ import annotations

import asyncio

from fleet.engine.answers.grades import Worth, tell
from fleet.engine.messages.desk import desk_here
from fleet.engine.outcomes.stored import read_result
from fleet.errors import InvalidTask
from fleet.models import BotResult
from fleet.quoting import quote
from fleet.store import keys


async def agrade(task_id: str, right: bool) -> None:
    """Tell the fleet whether a task's answer was right: the record of its bot, kind and model learns it.

    The first grade of a task counts; workers learn it within seconds, while its result is kept.

    Raises:
        InvalidTask: When there is no result of that id, or it holds no answer of a bot.
        StoreUnavailable: When Redis does not answer.
    """
    desk = await desk_here()
    check(task_id, read_result(await desk.state.command("GET", keys.result(task_id))))
    await tell(desk.state, [Worth(task=task_id, right=bool(right))])


def grade(task_id: str, right: bool) -> None:
    """Do what `agrade` does, and block meanwhile."""
    asyncio.run(agrade(task_id, right))


def check(task_id: str, result: BotResult | None) -> BotResult:
    """Return a result that can be graded.

    Raises:
        InvalidTask: When it can't.
    """
    if result is None:
        raise InvalidTask(
            f"task: expected one with a result that is still kept, got {quote(task_id)}; `results.expires_s` says how "
            "long they are"
        )
    if result.answer is None or result.bot is None:
        raise InvalidTask(f"task: expected one that a bot has answered, got {quote(task_id)} ({result.status})")
    return result
