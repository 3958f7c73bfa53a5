"""What the page, `fleet job`, `fleet top` and metrics show of jobs, as frozen values. Times are Unix seconds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.frozen import Frozen
from fleet.quoting import counted, duration

JobWord = Literal["open", "sealed", "done", "cancelled"]


class JobView(Frozen):
    """How a job stands."""

    id: str = Field(description="15 hexadecimal digits.")
    key: str = Field(description="By which its producer calls it.")
    word: JobWord
    made_at: float
    moved_at: float = Field(description="When a member was queued or ended last.")
    queued: int = Field(description="Members that are surely queued.")
    total: int | None = Field(description="Members that it has; null: it is open, and may get more.")
    ended: int
    ok: int
    degraded: int
    failed: int
    cancelled: int
    per_minute: float | None = Field(None, description="Members that end in a minute, lately; null: none has.")
    left_s: float | None = Field(None, description="Seconds until the last one ends at this rate; null: unknown.")
    done_at: float | None = None
    has_follower: bool = Field(False, description="A task is to follow it.")
    called_at: float | None = Field(None, description="When that was queued.")
    then_id: str = Field("", description="Its task id, where one follows or has followed.")
    trouble: str = Field("", description="Why it stands still; empty: it does not.")

    @property
    def members(self) -> int:
        """Members that it has so far."""
        return self.queued if self.total is None else self.total

    @property
    def pending(self) -> int:
        """Members that have not ended."""
        return max(0, self.members - self.ended)

    @property
    def is_live(self) -> bool:
        """True until it is over."""
        return self.total is None or self.pending > 0

    @property
    def line(self) -> str:
        """How far it is, in a few words."""
        so_far = " so far" if self.total is None else ""
        left = f", {duration(self.left_s)} left" if self.left_s is not None else ""
        return f"{self.ended:,} of {self.members:,}{so_far} ended{left}"


class JobsView(Frozen):
    """The jobs that are not over, and the newest of the others."""

    live: int = Field(0, description="Jobs that are not over.")
    jobs: tuple[JobView, ...] = Field((), description="Those that are not over first, then the newest.")

    @property
    def headline(self) -> str:
        """One line about those that are not over; empty: none is."""
        shown = [job for job in self.jobs if job.is_live]
        if not shown:
            return ""
        first = max(shown, key=lambda job: job.pending)
        others = f"; {counted(self.live - 1, 'more job')}" if self.live > 1 else ""
        return f"job {first.key[:MOST_KEY]}: {first.line}{others}"


#: Characters of a job's key in a line.
MOST_KEY = 40
