"""[kinds.NAME] and [lanes]: what is known of answers, and where they may come from for less."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fleet.config.sections import Section

#: Longest time (s) that an answer is kept: 30 days.
LONGEST_KEPT_S = 30 * 86_400

KindName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class KindSettings(Section):
    """What is known of the answers to a kind of tasks: whether equal tasks have equal ones, how two are compared."""

    deterministic: bool = Field(False, description="Equal tasks have equal answers: one is asked, its answer is kept.")
    by_persona: bool = Field(
        True, description="The answer depends on the bot's persona. False: one bot's answer serves for all of its pool."
    )
    keep_s: int = Field(86_400, ge=1, le=LONGEST_KEPT_S, description="Seconds for which an answer is kept.")
    keep_mb: int = Field(64, ge=1, le=4096, description="Megabytes of answers kept; the oldest make room.")
    shadow_votes: float = Field(
        0.0, ge=0, le=0.1,
        description="Calls for second answers by other bots, most for suspicious ones: a share of the tasks. 0: none.",
    )  # fmt: skip
    good_enough: float | None = Field(
        None, gt=0, lt=1,
        description="Share of right answers, by the record of grades, from which a model is good enough: the "
        "cheapest such one of a pool's persona.models is asked. None: bots ask their own.",
    )  # fmt: skip
    learning: float = Field(
        0.05, gt=0, le=1, description="Share of tasks for which bots ask their own models all the same, to be graded."
    )
    count_by: str | None = Field(
        None, min_length=1, max_length=100,
        description="What of two answers is compared: `.field` of JSON, or the line behind these words. None: all.",
    )  # fmt: skip


class LaneSettings(Section):
    """Batches of tasks that have time (`by_s`): see docs/lanes.md."""

    batches: bool = Field(True, description="Send tasks with hours of time in batches, where that is cheapest.")
    background: bool = Field(
        True, description="Let tasks with 2 or 8 hours of time be answered in the background, where that is cheapest."
    )
    batch_tasks: int = Field(1000, ge=1, le=5000, description="Tasks of a batch at most; so many go at once.")
    batch_after_s: float = Field(60.0, ge=0, le=86_400, description="Seconds for which fewer are gathered first.")
