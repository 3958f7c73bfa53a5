"""From what an agent came back with to a `BotResult`, and the one line that a log or an event gets of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fleet.errors import FleetError, quote
from fleet.models import Bot, BotResult, BotTask, TaskError, Usage

logger = logging.getLogger("fleet.worker")


@dataclass(frozen=True, slots=True)
class Done:
    """How a delivered message ended: its result (None: it was passed on, or done before) and one line."""

    summary: str
    result: BotResult | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A task's outcome: that of one bot, with what all that were asked have used. As `fleet.workers.agent.Outcome`."""

    status: Literal["ok", "degraded", "failed"]
    answer: str | None
    error: FleetError | None
    usage: Usage
    cost_usd_micros: int | None
    attempts: int
    provider_errors: Mapping[str, int]
    limited_ms: int
    provider: str
    model: str
    simulated: bool


def result_of(
    task_id: str, task: BotTask, bot: Bot, verdict: Verdict, *, queued_ms: int | None, ran_ms: int
) -> BotResult:
    """Return the result of a task that a bot has worked on."""
    return BotResult(
        task_id=task_id,
        status=verdict.status,
        answer=verdict.answer,
        error=TaskError.of(verdict.error) if verdict.error else None,
        bot=bot.name,
        persona=bot.persona.archetype,
        pool=bot.pool,
        provider=verdict.provider,
        model=verdict.model,
        simulated=verdict.simulated,
        served_by="call" if verdict.attempts else "none",
        usage=verdict.usage,
        cost_usd_micros=verdict.cost_usd_micros,
        attempts=verdict.attempts,
        queued_ms=queued_ms,
        limited_ms=verdict.limited_ms,
        ran_ms=ran_ms,
        finished_at=time.time(),
        metadata=task.metadata,
    )


def summary_of(result: BotResult) -> str:
    """Return a result as one line for events and logs: how it went, never what was asked or said."""
    who = f" by {result.bot}" if result.bot else ""
    simulated = " (simulator)" if result.simulated else ""
    what = result.status if result.error is None else f"{result.status}: {result.error.type}"
    return f"{what}{who}{simulated} in {result.ran_ms} ms"


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


def queued_ms_of(queued_at: Any) -> int | None:
    """Milliseconds since the producer queued the task, by its clock and ours; None when it did not say."""
    if not isinstance(queued_at, int | float) or isinstance(queued_at, bool):
        return None
    try:
        return max(0, round((time.time() - queued_at) * 1000))
    except (ValueError, OverflowError):  # a foreign producer may write NaN, Infinity or 10**400
        return None


def refusal(task_id: str, error: FleetError, queued_ms: int | None) -> BotResult:
    """Return the failed result of a task that no bot has seen."""
    failed = TaskError.of(error)
    return BotResult(task_id=task_id, status="failed", error=failed, queued_ms=queued_ms, finished_at=time.time())
