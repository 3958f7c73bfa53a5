"""What comes of an ask: the outcome, who agreed, who did not, and what it has cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field

from fleet.frozen import Frozen
from fleet.models import BotResult, TaskError
from fleet.money import PICOS_PER_MICRO

#: Why nobody else was heard.
WhyOver = Literal["heard", "fixed", "sure", "deadline"]


class MemberOutcome(Frozen):
    """What came of one member."""

    task_id: str
    status: Literal["ok", "degraded", "failed", "cancelled"]
    counted: str | None = Field(None, description="Its answer in canonical form; None: it has no vote.")
    answer: str | None = None
    error: TaskError | None = None
    bot: str | None = None
    persona: str | None = None
    pool: str | None = None
    model: str | None = Field(None, description="As `provider/model`: whose errors it shares.")
    cost_usd_picos: int | None = None
    ran_ms: int = 0

    @classmethod
    def of(cls, result: BotResult, counted: str | None) -> Self:
        """Return it of a member that has a result."""
        return cls(
            task_id=result.task_id, status=result.status, counted=counted, answer=result.answer, error=result.error,
            bot=result.bot, persona=result.persona, pool=result.pool, model=source_of(result),
            cost_usd_picos=result.cost_usd_picos, ran_ms=result.ran_ms,
        )  # fmt: skip


class Side(Frozen):
    """One answer and who gave it."""

    answer: str = Field(description="As the first of them gave it.")
    counted: str
    votes: int
    bots: tuple[str, ...]
    chance: float | None = Field(None, description="Weighted only: that it is right, by the record.")


class AskOutcome(Frozen):
    """One outcome of many answers."""

    ask_id: str
    status: Literal["ok", "degraded", "failed"] = Field(
        description="degraded: a quorum has answered, and the others failed or were late."
    )
    answer: str | None = None
    counted: str | None = Field(None, description="The answer in canonical form.")
    error: TaskError | None = None
    aggregate: str
    why_over: WhyOver
    agreement: float | None = Field(None, description="Share of the votes that are for the answer (0..1).")
    chance: float | None = Field(None, description="Weighted only: that the answer is right, by the record (0..1).")
    sides: tuple[Side, ...] = Field((), description="All answers, most votes first.")
    members: tuple[MemberOutcome, ...] = ()
    n: int
    asked: int
    answered: int
    failed: int = Field(description="Without a vote, and not replaced.")
    replaced: int = Field(0, description="Members that failed, and for whom another bot was asked.")
    cancelled: int = Field(description="Asked, but not needed, or late: they never start, or their call is stopped.")
    judge: str | None = Field(None, description="The bot that has judged.")
    adaptive: tuple[int, bool] | None = Field(
        None, description="Of an ask that has heard all: votes that an adaptive stop would have heard, same outcome."
    )
    cost_usd_picos: int | None = Field(None, description="Of all with a result, in 10^-12 US dollars.")
    took_ms: int

    @property
    def cost_usd_micros(self) -> int | None:
        """Micro-dollars, rounded; None when no model has a price."""
        return None if self.cost_usd_picos is None else round(self.cost_usd_picos / PICOS_PER_MICRO)

    @property
    def dissent(self) -> tuple[Side, ...]:
        """The other answers."""
        return tuple(side for side in self.sides if side.counted != self.counted)


#: Results in the order in which they came, and their answers as they are counted (None: without a vote).
Heard = Sequence[tuple[BotResult, str | None]]


def told_members(heard: Heard, cancelled: Sequence[tuple[str | None, str]]) -> tuple[MemberOutcome, ...]:
    """Return what came of all members; `cancelled`: pool and task id of those without a result."""
    given = [MemberOutcome.of(result, counted) for result, counted in heard]
    gone = [MemberOutcome(task_id=task_id, status="cancelled", pool=pool) for pool, task_id in cancelled]
    return (*given, *gone)


def sides_of(heard: Heard, chances: Mapping[str, float]) -> tuple[Side, ...]:
    """Return all answers, most votes first; `chances`: that each is right."""
    given: dict[str, list[BotResult]] = {}
    for result, counted in heard:
        if counted is not None:
            given.setdefault(counted, []).append(result)
    found = [
        Side(
            answer=those[0].answer or "", counted=counted, votes=len(those),
            bots=tuple(one.bot or "" for one in those), chance=chances.get(counted),
        )
        for counted, those in given.items()
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda side: -side.votes))


def source_of(result: BotResult) -> str | None:
    """Return whose errors an answer shares: `provider/model`."""
    return f"{result.provider}/{result.model}" if result.model is not None else None


def cost_of(results: Sequence[BotResult]) -> int | None:
    """Return what results have cost in 10^-12 US dollars; None when none of them has a price."""
    costs = [one.cost_usd_picos for one in results if one.cost_usd_picos is not None]
    return sum(costs) if costs else None
