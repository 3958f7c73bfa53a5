"""[kinds.NAME] and [lanes]: where answers may come from for less: docs/caching.md, docs/lanes.md."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fleet.config.sections import Section

#: Longest time (s) that an answer is kept: 30 days.
LONGEST_KEPT_S = 30 * 86_400

KindName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class KindSettings(Section):
    """Whether equal tasks of a kind have equal answers, so that only one of them is asked: see docs/caching.md."""

    deterministic: bool = Field(False, description="Equal tasks have equal answers: one is asked, its answer is kept.")
    by_persona: bool = Field(
        True, description="The answer depends on the bot's persona. False: one bot's answer serves for all of its pool."
    )
    keep_s: int = Field(86_400, ge=1, le=LONGEST_KEPT_S, description="Seconds for which an answer is kept.")
    keep_mb: int = Field(64, ge=1, le=4096, description="Megabytes of answers kept; the oldest make room.")


class LaneSettings(Section):
    """Batches of tasks that have time (`by_s`): see docs/lanes.md."""

    batches: bool = Field(True, description="Send tasks with hours of time in batches, where that is cheapest.")
    background: bool = Field(
        True, description="Let tasks with 2 or 8 hours of time be answered in the background, where that is cheapest."
    )
    batch_tasks: int = Field(1000, ge=1, le=5000, description="Tasks of a batch at most; so many go at once.")
    batch_after_s: float = Field(60.0, ge=0, le=86_400, description="Seconds for which fewer are gathered first.")
