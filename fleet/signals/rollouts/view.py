"""What people see of a rollout, as frozen values. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from fleet.frozen import Frozen

RolloutWord = Literal["running", "back", "stopped", "finished"]


class AspectView(Frozen):
    """How what is tried compares with what was there, in one aspect."""

    aspect: Literal["success", "cost", "diversity"]
    new: float | None = Field(
        description="Share of good first answers; micro-dollars, or tokens, an answer; likeness, 0 to 1."
    )
    old: float | None = Field(description="The same of the other tasks.")
    evidence: float = Field(description="That it is worse, as a share of what sends it back.")


class RolloutView(Frozen):
    """One rollout."""

    id: str
    pool: str
    what: str = Field(description="What is new, in a few words.")
    word: RolloutWord
    share: float
    in_tokens: bool = Field(False, description="Costs are tokens: a model of its pool has no price.")
    since: float
    by: str
    ended_at: float | None
    ended_by: str
    why: str = Field(description="Why it went back; empty: it did not.")
    new_tasks: int
    new_failed: int
    old_tasks: int
    old_failed: int
    aspects: tuple[AspectView, ...]
    line: str = Field("", description="How it does, in one line.")


def line_of(new_tasks: int, old_tasks: int, aspects: Iterable[AspectView]) -> str:
    """Say how a rollout does."""
    told = [_told(one) for one in aspects if one.new is not None and one.old is not None]
    tasks = f"{new_tasks:,} tasks under it, {old_tasks:,} others"
    return "; ".join([tasks, ", ".join(told)]) if told else tasks


def _told(one: AspectView) -> str:
    new, old = one.new or 0.0, one.old or 0.0
    if one.aspect == "success":
        return f"good {new:.1%} beside {old:.1%}"
    if one.aspect == "diversity":
        return f"alike {new:.0%} beside {old:.0%}"
    return f"costs {new / old:.2f} times as much" if old > 0 else "costs not known"
