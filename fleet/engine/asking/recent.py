"""The fleet's newest asks, for people: how each came out, who was asked, and what was saved. Never a word of them.

A list of the state Redis. Members are named by task ids, their answers by numbers: of equal ones the same.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import redis
from pydantic import Field, ValidationError

from fleet.engine.asking.outcome import AskOutcome, WhyOver
from fleet.frozen import Lasting
from fleet.store import answer_keys, keys
from fleet.store.client import Store

#: Asks that are kept (count): about 500 kB.
MOST_KEPT = 500


_WHY: dict[WhyOver, str] = {
    "heard": "",
    "fixed": ": the rest could not change it",
    "sure": ": the rest was not worth it",
    "deadline": ": time was over",
}


class RecentMember(Lasting):
    """One member, as it is kept."""

    task_id: str
    status: Literal["ok", "degraded", "failed", "cancelled"]
    side: int | None = Field(None, description="Number of its answer, 0 the first one's; null: it has no vote.")
    error: str | None = Field(None, description="Type of its error.")
    pool: str | None = None
    bot: str | None = None


class RecentAsk(Lasting):
    """One ask, as it is kept."""

    ask_id: str
    at: float = Field(description="When it was over, Unix time.")
    kind: str
    status: Literal["ok", "degraded", "failed"]
    aggregate: str
    why_over: WhyOver
    n: int
    asked: int
    answered: int
    replaced: int = 0
    agreed: int | None = Field(None, description="Votes for the outcome.")
    chance: float | None = None
    error: str | None = Field(None, description="Type of its error.")
    cost_usd_picos: int | None = None
    took_ms: int
    members: tuple[RecentMember, ...] = ()

    @property
    def spared(self) -> int:
        """Members that were never asked."""
        return self.n - self.asked

    @property
    def line(self) -> str:
        """How it came out, in a few words."""
        agreed = "no outcome" if self.status == "failed" else f"{self.agreed} of {self.answered} agree"
        if self.status != "failed" and self.agreed is None:
            agreed = f"{self.answered} answers"
        why = {
            "fixed": ": the rest could not change it",
            "sure": ": the rest was not worth it",
            "deadline": ": time was over",
        }
        replaced = f", {self.replaced} replaced" if self.replaced else ""
        return f"{agreed}, asked {self.asked} of {self.n}{replaced}{why.get(self.why_over, '')}"


def recent_of(outcome: AskOutcome, kind: str, at: float) -> RecentAsk:
    """Return what is kept of an outcome; its words stay behind."""
    numbers = {side.counted: number for number, side in enumerate(outcome.sides)}
    won = next((side.votes for side in outcome.sides if side.counted == outcome.counted), None)
    return RecentAsk(
        ask_id=outcome.ask_id, at=round(at, 3), kind=kind, status=outcome.status, aggregate=outcome.aggregate,
        why_over=outcome.why_over, n=outcome.n, asked=outcome.asked, answered=outcome.answered,
        replaced=outcome.replaced, agreed=won, chance=outcome.chance,
        error=outcome.error.type if outcome.error else None, cost_usd_picos=outcome.cost_usd_picos,
        took_ms=outcome.took_ms,
        members=tuple(
            RecentMember(
                task_id=one.task_id, status=one.status, side=numbers.get(one.counted) if one.counted else None,
                error=one.error.type if one.error else None, pool=one.pool, bot=one.bot,
            )
            for one in outcome.members
        ),
    )  # fmt: skip


async def note_recent(state: Store, ask: RecentAsk) -> None:
    """Keep an ask. One round trip.

    Raises:
        FleetError: When Redis does not take it.
    """
    name = answer_keys.recent_asks()
    await asyncio.gather(
        state.command("LPUSH", name, ask.model_dump_json(exclude_defaults=True)),
        state.command("LTRIM", name, 0, MOST_KEPT - 1),
        state.command("EXPIRE", name, keys.STATE_TTL_S),
    )


def read_recent(state: redis.Redis, count: int) -> list[RecentAsk]:
    """Return the newest asks, the newest first; rows of another release are left out."""
    rows: Any = state.lrange(answer_keys.recent_asks(), 0, count - 1)
    found = list[RecentAsk]()
    for row in rows:
        try:
            found.append(RecentAsk.model_validate_json(row))
        except ValidationError:
            continue
    return found
