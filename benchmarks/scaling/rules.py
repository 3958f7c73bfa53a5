"""The rules that are compared: a fixed number, KEDA's, Celery's, and Fleet's own.

KEDA hands a metric to Kubernetes' horizontal pod autoscaler (HPA), whose rule is in "Algorithm details" of its docs:
every 15 s ceil(metric / target), nothing within 10% of it; up at once, by at most as many as there are, or four; down
to the most that was wanted in the last 300 s. Celery's `Autoscaler` has as many processes as there are reserved
requests, and takes some away once none was received for 30 s.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.scaling.world import Seen
from fleet.scaling import Bounds, Decision, Demand, PoolDemand, decide

#: Seconds of HPA's window of scaling down, and its tolerance.
WINDOW_S, TOLERANCE = 300.0, 0.1
#: Seconds of Celery's keepalive.
KEEPALIVE_S = 30.0
#: Pods that no rule exceeds.
MOST = 400


@dataclass
class Fixed:
    """As many as ever."""

    pods: int

    def __call__(self, seen: Seen) -> int:
        return self.pods


@dataclass
class Keda:
    """KEDA over the length of the list, which its Redis scaler sees, or over what waits and runs.

    Args:
        target: Tasks for each pod.
        sees: What its metric counts.
    """

    target: float
    sees: Literal["waiting", "waiting and running"]
    lately: deque[tuple[float, int]] = field(default_factory=deque)

    def __call__(self, seen: Seen) -> int:
        metric = seen.waiting + (seen.running if self.sees == "waiting and running" else 0)
        raw = math.ceil(metric / self.target)
        if seen.pods and abs(metric / (self.target * seen.pods) - 1) <= TOLERANCE:
            raw = seen.pods
        if not self.lately:  # HPA begins with the replicas that there are
            self.lately.append((seen.now, seen.pods))
        self.lately.append((seen.now, raw))
        while self.lately[0][0] <= seen.now - WINDOW_S:
            self.lately.popleft()
        wanted = min(seen.pods, max(one for _, one in self.lately)) if raw < seen.pods else raw
        return min(max(min(wanted, max(2 * seen.pods, seen.pods + 4)), 1), MOST)


@dataclass
class Celery:
    """Celery's own autoscaler over the processes of one host: reserved requests are what waits and runs, up to `most`.

    Args:
        most: Of `--autoscale`.
    """

    most: int
    active_at: float | None = None
    came: int = 0

    def __call__(self, seen: Seen) -> int:
        reserved = min(seen.waiting + seen.running, self.most)
        if seen.arrived > self.came or reserved > seen.pods:
            self.active_at, self.came = seen.now, seen.arrived
        if reserved > seen.pods:
            return reserved
        idle = self.active_at is not None and seen.now - self.active_at > KEEPALIVE_S
        return max(reserved, 1) if idle else seen.pods


@dataclass
class Ours:
    """Fleet's: `fleet.scaling`, with the settings it ships with.

    Args:
        slots: Of a pod.
        lead_s: Seconds until a pod works.
        hours: Tasks of each hour before the trace.
    """

    slots: int
    lead_s: float
    hours: tuple[float, ...] = ()
    before: Decision | None = None
    _began: float | None = None

    def __call__(self, seen: Seen) -> int:
        total, count = seen.took
        self._began = seen.now if self._began is None else self._began
        passed = int((seen.now - self._began) // 3600)
        hours = (*self.hours, *(sum(seen.minutes[60 * at : 60 * at + 60]) for at in range(passed)))
        pool = PoolDemand(
            pool="p", minutes=tuple(seen.minutes[-30:]), hours=hours[-48:] if self.hours else (), ready=seen.waiting,
            running=seen.running, service_s=total / count if count else None,
        )  # fmt: skip
        rules = Bounds(least=self.slots, slots_each=self.slots, lead_s=self.lead_s)
        snapshot = Demand(at=seen.now, pools=(pool,), slots=seen.pods * self.slots)
        self.before = decide(snapshot, rules, self.before)
        return self.before.workers
