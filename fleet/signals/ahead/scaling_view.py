"""How many slots are wanted, as the Fleet tab, `fleet top`, doctor and the metrics show it."""

from __future__ import annotations

from pydantic import Field

from fleet.frozen import Frozen


class ScalingView(Frozen):
    """How many slots and workers are wanted, as was decided last; see `fleet scaling`."""

    at: float = Field(description="When it was decided.")
    slots: int
    workers: int
    there: int = Field(description="Slots that there were.")
    reason: str
    by_pool: dict[str, float] = Field(description="Slots that each pool wants, before they are rounded.")

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"{self.slots:,} slots wanted, {self.there:,} there: {self.reason}"
