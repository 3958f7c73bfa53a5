"""What a page tells of several brokers; nothing where there is one."""

from __future__ import annotations

from pydantic import Field

from fleet.frozen import Frozen
from fleet.quoting import counted


class BrokerView(Frozen):
    """One of several brokers."""

    name: str = Field(description="`main`, or as redis.brokers names it.")
    pools: tuple[str, ...] = Field((), description="Whose tasks go there.")
    waiting: int = Field(0, description="Tasks that wait or are parked there.")
    elsewhere: int = Field(0, description="Of these, those of pools whose tasks go to another broker by now.")
    held: int = Field(0, description="Messages that workers hold of it.")
    away: str = Field("", description="Why it does not answer; empty: it does.")

    @property
    def line(self) -> str:
        """What is to be said of it, in one line."""
        if self.away:
            return f"broker {self.name} does not answer: its {counted(len(self.pools), 'pool')} wait"
        left = f", {self.elsewhere:,} of them of pools that have another broker now" if self.elsewhere else ""
        return f"{counted(self.waiting, 'task')} of {counted(len(self.pools), 'pool')} wait at {self.name}{left}"
