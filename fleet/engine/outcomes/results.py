"""From what an agent came back with to a `BotResult`, and the one line that a log or an event gets of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fleet.engine.messages.envelope import BEFORE, QUEUED_AT
from fleet.errors import FleetError
from fleet.models import Bot, BotResult, BotTask, TaskError
from fleet.money import micros_of
from fleet.outcome import NOTHING_BEFORE, Before, Outcome
from fleet.quoting import quote

logger = logging.getLogger("fleet.worker")

#: Tier of answers that came in a batch.
LATER = ("batch", "background-")


@dataclass(frozen=True, slots=True)
class Done:
    """How a delivered message ended, and one line about it.

    Args:
        summary: The line.
        result: The task's result, stored just now; None when it was passed on, or had ended before.
        ended_before: True when it had, or when another worker has it.
        is_doubtful: It stands, and other bots may do better: it is nobody else's answer.
    """

    summary: str
    result: BotResult | None = None
    ended_before: bool = False
    is_doubtful: bool = False


def result_of(
    task_id: str,
    task: BotTask,
    bot: Bot,
    outcome: Outcome,
    *,
    queued_ms: int | None,
    ran_ms: int,
    before: Before = NOTHING_BEFORE,
) -> BotResult:
    """Return the result of a task that a bot has worked on.

    Args:
        task_id: The Celery task id.
        task: What it was.
        bot: Whose answer it is.
        outcome: What came of it, what was before it was parked included.
        queued_ms: From its submission to its last delivery; None when its producer did not say when that was.
        ran_ms: Since that.
        before: What the task has had before it was parked: time at work then is no time in the queue.
    """
    return BotResult(
        task_id=task_id,
        kind=task.kind,
        status=outcome.status,
        answer=outcome.answer,
        tool_calls=outcome.tool_calls,
        more_answers=outcome.more_answers,
        tier=outcome.tier,
        sent=dict(outcome.sent),
        reasoning=outcome.reasoning or None,
        error=TaskError.of(outcome.error) if outcome.error else None,
        bot=bot.name,
        persona=bot.persona.archetype,
        pool=bot.pool,
        provider=outcome.provider or None,
        model=outcome.model or None,
        simulated=outcome.simulated,
        served_by=_served_by(outcome),
        usage=outcome.usage,
        cost_usd_micros=outcome.cost_usd_micros,
        cost_usd_picos=outcome.cost_usd_picos,
        attempts=outcome.attempts,
        tenant=task.tenant,
        parked=before.parked,
        queued_ms=None if queued_ms is None else max(0, queued_ms - before.ran_ms - before.limited_ms),
        limited_ms=outcome.limited_ms,
        ran_ms=ran_ms + before.ran_ms + before.limited_ms,
        cut_tokens=outcome.cut_tokens,
        left_out=outcome.left_out,
        finished_at=time.time(),
        metadata=task.metadata,
    )


def _served_by(outcome: Outcome) -> str:
    if outcome.rung:
        return f"fallback {outcome.rung}"
    if outcome.raced:
        return f"race {outcome.raced}"
    return "none" if not outcome.attempts else "batch" if (outcome.tier or "").startswith(LATER) else "call"


def summary_of(result: BotResult) -> str:
    """Return a result as one line for events and logs: how it went, never what was asked or said."""
    who = f" by {result.bot}" if result.bot else ""
    simulated = " (simulator)" if result.simulated else ""
    what = result.status if result.error is None else f"{result.status}: {result.error.type}"
    fallback = f" ({result.served_by})" if result.rung else ""
    return f"{what}{who}{simulated}{fallback} in {result.ran_ms} ms"


def log_result(result: BotResult) -> None:
    """Log the one line of a task: who answered and how it went, never what was asked or said."""
    if logger.isEnabledFor(logging.INFO):
        task_id = result.task_id if result.task_id.isprintable() else quote(result.task_id)
        error = result.error.type if result.error else None
        logger.info(
            "finished task=%s status=%s error=%s pool=%s bot=%s provider=%s model=%s simulated=%s tokens=%d "
            "queued_ms=%s limited_ms=%d ran_ms=%d",
            task_id, result.status, error, result.pool, result.bot, result.provider, result.model, result.simulated,
            result.usage.total_tokens, result.queued_ms, result.limited_ms, result.ran_ms,
        )  # fmt: skip


def refusal(task_id: str, error: FleetError, queued_ms: int | None, before: Before = NOTHING_BEFORE) -> BotResult:
    """Return the failed result of a task that no bot has now; `before`: what it had until it was parked."""
    result = spent_before(task_id, before)
    return result.model_copy(update={"error": TaskError.of(error), "queued_ms": queued_ms})


def spent_before(task_id: str, before: Before) -> BotResult:
    """Return the result of a task that ended while it was parked: without an answer, and with all that it has cost."""
    cost = before.cost_usd_picos
    return BotResult(
        task_id=task_id,
        status="failed",
        parked=before.parked,
        usage=before.usage,
        cost_usd_micros=None if cost is None else micros_of(cost),
        cost_usd_picos=cost,
        attempts=before.attempts,
        limited_ms=before.limited_ms,
        ran_ms=before.ran_ms,
        finished_at=time.time(),
    )


def life_of(headers: Mapping[str, Any]) -> str:
    """Return what tells one submission of a task from another one under the same id: when it was queued."""
    return str(headers.get(QUEUED_AT) or "-")


def before_of(headers: Mapping[str, Any]) -> Before:
    """Return what a task has had before, by its message's headers; nothing when they say nothing that can be read."""
    try:
        return Before.model_validate(headers[BEFORE]) if headers.get(BEFORE) else NOTHING_BEFORE
    except ValidationError:  # not ours
        return NOTHING_BEFORE
