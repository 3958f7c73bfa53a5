"""[lanes]: how tasks that say by when they need their answers are sent for less: docs/lanes.md."""

from __future__ import annotations

from pydantic import Field

from fleet.config.sections import Section


class LaneSettings(Section):
    """Batches of tasks that have time (`by_s`): see docs/lanes.md."""

    batches: bool = Field(True, description="Send tasks with hours of time in batches, where that is cheapest.")
    batch_tasks: int = Field(1000, ge=1, le=5000, description="Tasks of a batch at most; so many go at once.")
    batch_after_s: float = Field(60.0, ge=0, le=86_400, description="Seconds for which fewer are gathered first.")
