"""A job of a provider: many requests that are answered later, each at a time of its own. No clock: time is an argument.

How long a job takes is log-normal; its requests are done evenly over that time. What isn't done when the window or a
cancellation ends it is never done, and not billed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, NamedTuple

from fleet.workers.simulator.batch.faults import BatchFaults
from fleet.workers.simulator.chance import Chance, Draw
from fleet.workers.simulator.wires.wire import Wire

#: Seconds that both vendors give a batch.
WINDOW_S = 86_400.0
#: Seconds that a file is checked before its first request runs, at least and at most.
CHECKED_S = (5.0, 60.0)
#: Seconds for which a batch is being cancelled, at least and at most: the vendor says up to ten minutes.
CANCELLED_S = (10.0, 600.0)
#: Seconds from the last answer to the files.
FINALIZED_S = 20.0

_UNIT = 2.0**-64
_P95 = NormalDist().inv_cdf(0.95)
_NORMAL = NormalDist()


class LaterAnswer(NamedTuple):
    """What came of one request.

    Args:
        status: HTTP status that it would have had.
        body: As JSON values.
        tokens: Input, read from the cache, output, and those of the output that are thinking.
    """

    status: int
    body: Mapping[str, Any]
    tokens: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(slots=True)
class Item:
    """One request of a job.

    Attributes:
        custom_id: The client's name for it.
        body: The request; None once it is answered.
        due_s: Unix time at which it is answered; infinite: never.
        answer: None until then, and for one that hangs.
    """

    custom_id: str
    body: dict[str, Any] | None
    due_s: float
    answer: LaterAnswer | None = None


@dataclass(slots=True, kw_only=True)
class BatchJob:
    """A batch.

    Attributes:
        id: The vendor's.
        key: Whose it is.
        wire: The format of its requests.
        tier: How the ledger bills it.
        created_s: Unix time of the clock.
        begins_s: The same, when its requests begin to run.
        expires_s: End of its window.
        items: In the order in which they are answered.
        cancel_takes_s: Seconds from a cancellation to its end.
        finalized_s: Seconds from its last answer to its end.
        done: Items that were run.
        answered: Those of them that have an answer.
        cancelled_at_s: When it was cancelled; None: it was not.
        errors: Why its file is refused; nothing of it runs.
        told: What the vendor's object repeats.
        files: Which ids its output and error file have, by the field of the object; none before its end.
        queued_tokens: Input that waits in the queue of batches for it, where that is limited.
        is_gone: Its output cannot be read, though it is named.
        is_partial: Half of the answers are missing in the files.
    """

    id: str
    key: str
    wire: Wire
    tier: str
    created_s: float
    begins_s: float
    expires_s: float
    items: list[Item]
    cancel_takes_s: float = CANCELLED_S[0]
    finalized_s: float = FINALIZED_S
    done: int = 0
    answered: int = 0
    cancelled_at_s: float | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    queued_tokens: int = 0
    is_gone: bool = False
    is_partial: bool = False

    def due(self, now_s: float) -> Item | None:
        """Return the next item that has to be answered by now; None when none has."""
        if self.done >= len(self.items):
            return None
        item = self.items[self.done]
        ends_s = self.expires_s if self.cancelled_at_s is None else min(self.expires_s, self.cancelled_at_s)
        return item if item.due_s <= min(now_s, ends_s) else None

    @property
    def is_whole(self) -> bool:
        """True when every item is answered."""
        return self.answered == len(self.items)

    @property
    def ends_s(self) -> float:
        """When it ends, as far as its items were run."""
        if self.errors:
            return self.begins_s
        if self.cancelled_at_s is not None:
            return self.cancelled_at_s + self.cancel_takes_s
        if not self.is_whole:
            return self.expires_s
        return min(self.expires_s, self.items[-1].due_s + self.finalized_s)

    def cancel(self, now_s: float) -> None:
        """Let nothing more of it run."""
        if self.cancelled_at_s is None:
            self.cancelled_at_s = now_s

    def in_files(self) -> list[Item]:
        """Return the items that its files tell of, in the order in which they were answered."""
        return self.items[::2] if self.is_partial else self.items

    def meet(self, faults: BatchFaults) -> None:
        """Take the faults that are to come: half of it is never answered, or not in its files, or these are gone."""
        if faults.meets("stuck"):
            for item in self.items[len(self.items) // 2 :]:
                item.due_s = math.inf
        self.is_gone, self.is_partial = faults.meets("gone_output"), faults.meets("partial")


def between(number: int, bounds: tuple[float, float]) -> float:
    """Return a value between two, by a 64-bit number."""
    low, high = bounds
    return low + (high - low) * number * _UNIT


def takes_s(draw: Draw, *, median_s: float, p95_s: float) -> float:
    """Return how long a job takes: log-normal, known by its median and its 95th percentile."""
    if median_s <= 0:
        return 0.0
    sigma = math.log(p95_s / median_s) / _P95
    share = min(max(draw.latency * _UNIT, 1e-9), 1 - 1e-9)
    return median_s * math.exp(sigma * _NORMAL.inv_cdf(share))


def planned(
    requests: Iterable[tuple[str, dict[str, Any]]], *, chance: Chance, draw: Draw, begins_s: float, takes_s: float
) -> list[Item]:
    """Return the items of a job in the order in which they are answered: that of the requests says nothing about it."""
    items = [
        Item(custom_id, body, begins_s + takes_s * (1 - chance.seeded(draw, custom_id).latency * _UNIT))
        for custom_id, body in requests
    ]
    return sorted(items, key=lambda item: item.due_s)
