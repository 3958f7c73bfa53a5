"""What a call carries on its way: on whose behalf it goes, and what is known of it once it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fleet.grants import Caller
from fleet.usage import Usage
from fleet.workers.deadline import Deadline
from fleet.workers.meter import Meter
from fleet.workers.rungs import Route


@dataclass(frozen=True, slots=True)
class Errand:
    """On whose behalf a call goes, and how.

    Args:
        pool: Whose call it is.
        route: Where it goes.
        most: The most that it may use: what is reserved.
        tier: Service tier that is asked; None: the usual one.
        deadline: Of the task; it stands still while the call waits, and a call that fails does not count.
        meter: Where to write what was used.
        caller: For whom: the limiter orders waiting calls by it.
        patience_s: How far away its turn may be.
        offers: Tools that it offers to the model.
        head: Stands for the beginning of its prompt, where its provider has several keys; None: no cache has it.
    """

    pool: str
    route: Route
    most: Usage
    tier: str | None
    deadline: Deadline
    meter: Meter
    caller: Caller
    patience_s: float
    offers: tuple[str, ...] = ()
    head: int | None = None

    @property
    def task(self) -> str:
        """The task."""
        return self.meter.who


class KeySeeker(NamedTuple):
    """Who asks for a key without a call: `keys.Seeker`."""

    pool: str
    caller: Caller
    task: str
    offers: tuple[str, ...] = ()
    head: int | None = None


class Sent(Protocol):
    """What is sent, as far as a call that gets no answer is settled by it."""

    @property
    def is_cut(self) -> bool:
        """True when the answer of a call that failed broke off: what its error tells is by what came."""
        ...

    def cut(self) -> tuple[Usage, bool]:
        """Return what it has used when it is cancelled, and whether something of the answer had come."""
        ...

    def believed(self, usage: Usage) -> Usage:
        """Return no more usage than the call can have had."""
        ...
