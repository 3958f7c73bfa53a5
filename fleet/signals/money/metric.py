"""One metric, as it is declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Values of its labels, and the number.
Sample = tuple[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as Prometheus sees it; counters get `_total` at their end, workers' durations are histograms."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    labels: tuple[str, ...] = ()

    @property
    def samples(self) -> tuple[str, ...]:
        """Names under which its samples can be queried."""
        if self.kind == "histogram":
            return tuple(f"{self.name}{end}" for end in ("_bucket", "_sum", "_count"))
        return (f"{self.name}_total",) if self.kind == "counter" else (self.name,)
