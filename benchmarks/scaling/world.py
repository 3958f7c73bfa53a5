"""A made-up host for rules of scaling: pods that take a while to start, slots, one queue, and a clock of its own.

A pod costs from the second it is ordered until the last task in it has ended. One that is to go takes no more tasks.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

#: Seconds after its arrival by which a task must have begun.
PATIENCE_S = 5.0
#: Seconds between two decisions: what the horizontal pod autoscaler of Kubernetes waits between two.
EVERY_S = 15.0


class Task(NamedTuple):
    """When it comes, and how long it holds a slot, in seconds."""

    at: float
    takes: float


@dataclass(slots=True)
class Pod:
    """One worker: ordered, ready a lag later, gone once it was told to go and holds nothing."""

    ordered_at: float
    ready_at: float
    busy: int = 0
    leaves: bool = False


@dataclass(slots=True)
class Seen:
    """What rules may know at a time.

    Args:
        now: Unix time.
        waiting: Tasks in the queue.
        running: Tasks in slots.
        pods: Those that are ready or start.
        minutes: Tasks that came in each whole minute.
        took: Seconds of the tasks that have ended in the last 15 minutes, and their number.
        arrived: Tasks that have come in all.
    """

    now: float
    waiting: int
    running: int
    pods: int
    minutes: Sequence[int]
    took: tuple[float, int]
    arrived: int


@dataclass(frozen=True, slots=True)
class Cell:
    """What one rule has cost on one trace."""

    hours: float
    missed: float
    track: tuple[int, ...] = field(default=(), repr=False)


class World:
    """Runs one trace under one rule.

    Args:
        slots: Of each pod.
        lag_s: Seconds until an ordered pod works.
        every_s: Seconds between decisions.
    """

    def __init__(self, *, slots: int, lag_s: float, every_s: float = EVERY_S) -> None:
        self._slots, self._lag_s, self._every_s = slots, lag_s, every_s

    def run(self, trace: Sequence[Task], rule: Callable[[Seen], int], *, begin_with: int) -> Cell:
        """Return what a rule costs that tells, from what is seen, how many pods are wanted."""
        begin = trace[0].at
        pods = [Pod(begin, begin) for _ in range(begin_with)]
        queue, ends = deque[Task](), list[tuple[float, int, float]]()
        of_end, hours_s, missed = dict[int, Pod](), 0.0, 0
        counts, took, track = [0], deque[tuple[float, float]](), list[int]()
        wakes, tick, serial, at = list[float](), begin, 0, 0

        def start(now: float) -> None:
            nonlocal serial, missed
            while queue:
                free = [pod for pod in pods if pod.ready_at <= now and not pod.leaves and pod.busy < self._slots]
                if not free:
                    return
                pod, task = max(free, key=lambda one: one.busy), queue.popleft()
                missed += now - task.at > PATIENCE_S
                pod.busy += 1
                serial += 1
                of_end[serial] = pod
                heapq.heappush(ends, (now + task.takes, serial, task.takes))

        while at < len(trace) or queue or ends:
            nexts = [tick, *(trace[at : at + 1] and [trace[at].at]), *(ends and [ends[0][0]]), *(wakes and [wakes[0]])]
            now = min(nexts)
            while wakes and wakes[0] <= now:
                heapq.heappop(wakes)
            while ends and ends[0][0] <= now:
                _, number, takes = heapq.heappop(ends)
                pod = of_end.pop(number)
                pod.busy -= 1
                took.append((now, takes))
                if pod.leaves and not pod.busy:
                    pods.remove(pod)
                    hours_s += now - pod.ordered_at
            while at < len(trace) and trace[at].at <= now:
                queue.append(trace[at])
                minute = int((now - begin) // 60)
                counts.extend([0] * (minute + 1 - len(counts)))
                counts[minute] += 1
                at += 1
            start(now)
            if now < tick:
                continue
            tick = now + self._every_s
            while took and took[0][0] < now - 900:
                took.popleft()
            minute = int((now - begin) // 60)
            counts.extend([0] * (minute + 1 - len(counts)))
            staying = [pod for pod in pods if not pod.leaves]
            seen = Seen(
                now, len(queue), len(ends), len(staying), counts[:minute],
                (sum(one for _, one in took), len(took)), arrived=at,
            )  # fmt: skip
            wanted = rule(seen)
            track.append(wanted)
            for _ in range(wanted - len(staying)):
                pods.append(Pod(now, now + self._lag_s))
                heapq.heappush(wakes, now + self._lag_s)
            for pod in sorted(staying, key=lambda one: (-one.ready_at, one.busy))[: max(0, len(staying) - wanted)]:
                pod.leaves = True
                if not pod.busy:
                    pods.remove(pod)
                    hours_s += now - pod.ordered_at
            start(now)
        hours_s += sum(now - pod.ordered_at for pod in pods)
        return Cell(hours_s / 3600, missed / len(trace), tuple(track))
