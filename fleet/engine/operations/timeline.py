"""A task's steps in their order, with what is recorded of each: when it began, how long it took. Pure; no Redis.

Nothing is written per task for this: the steps are read out of the result, the message's headers, the lease and the
dead letter. So calls, your own code and the judging of the answer share one time: only their sum is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from fleet.engine.messages.envelope import QUEUED_AT
from fleet.engine.operations.task_facts import Facts
from fleet.engine.outcomes.dead_letters import parts_of
from fleet.engine.outcomes.results import before_of
from fleet.frozen import Frozen
from fleet.models import CACHE, BotResult
from fleet.outcome import Before
from fleet.quoting import clock, counted

StepName = Literal["queued", "parked", "checkout", "limit", "call", "judge", "died", "finish"]


class StoryStep(Frozen):
    """One step of a task."""

    name: StepName
    at: float | None = None
    took_s: float | None = None
    told: str = ""


def timeline(facts: Facts) -> Iterator[StoryStep]:
    """Yield what is known of a task's way, the first step first."""
    if facts.filed is not None:
        lives = facts.filed.letter.history
        for number, death in enumerate(lives, 1):
            by = f" by {death.bot}" if death.bot else ""
            if facts.result is None or number < len(lives):  # the last one is the result below
                yield StoryStep(name="died", at=death.at, told=f"{death.error}{by}")
    if facts.result is not None:
        yield from _of_result(facts.result)
    elif facts.message is not None:
        yield from _of_message(facts)


def _of_result(result: BotResult) -> Iterator[StoryStep]:
    """The times of a task that has ended: its parts are known, and its end."""
    ran_s, limited_s = result.ran_ms / 1000, result.limited_ms / 1000
    began_at = result.finished_at - ran_s
    went_back = bool(result.parked)  # then it began before its last turn in the queue
    if result.queued_ms is not None:
        queued_s = result.queued_ms / 1000
        yield StoryStep(name="queued", at=began_at - queued_s, took_s=queued_s, told="from its submission to its bot")
    if went_back:
        yield StoryStep(name="parked", told=f"it went back to wait {_times(result.parked)}: that is in the time queued")
    if result.bot is not None:
        yield StoryStep(name="checkout", at=None if went_back else began_at, told=f"{result.bot} took it")
    if result.limited_ms:
        yield StoryStep(name="limit", took_s=limited_s, told="waited for grants of the limiter")
    if result.attempts:
        api = f" of {result.provider}/{result.model}" if result.provider else ""
        work = "your code and the judging included" if result.bot else "the judging included"
        said = f"{counted(result.attempts, 'provider call')}{api}, {work}"
        yield StoryStep(name="call", took_s=max(0.0, ran_s - limited_s), told=said)
    verdict = result.status if result.error is None else f"{result.status}: {result.error.type}"
    yield StoryStep(name="judge", told=verdict)
    is_served = result.attempts or result.served_by == CACHE
    yield StoryStep(name="finish", at=result.finished_at, told=f"served by {result.served_by}" if is_served else "")


def _of_message(facts: Facts) -> Iterator[StoryStep]:
    """The times of a task whose message is in Redis, by the headers that it travels with."""
    headers = parts_of(facts.message or b"")[0]
    before = before_of(headers)
    queued_at = headers.get(QUEUED_AT)
    if isinstance(queued_at, int | float) and not isinstance(queued_at, bool):
        since_s = max(0.0, facts.now_s - queued_at)
        yield StoryStep(name="queued", at=float(queued_at), took_s=since_s, told="since its submission")
    yield from _had_before(before)
    if facts.parked is not None:
        yield StoryStep(name="parked", told=f"until {clock(facts.parked.opens_at, facts.now_s)}")
    if facts.bot is not None:
        yield StoryStep(name="checkout", told=f"{facts.bot.bot} works on it")


def _had_before(before: Before) -> Iterator[StoryStep]:
    if before.parked:
        yield StoryStep(name="parked", told=f"it has gone back to wait {_times(before.parked)}")
    if before.limited_ms:
        yield StoryStep(name="limit", took_s=before.limited_ms / 1000, told="waited for grants of the limiter so far")
    if before.attempts:
        failed = sum(before.failed.values())
        said = f"{counted(before.attempts, 'provider call')} so far" + (
            f", {failed:,} of them failed" if failed else ""
        )
        yield StoryStep(name="call", at=before.since or None, took_s=before.ran_ms / 1000, told=said)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"
