"""Notices workers that live but do nothing: those whose reports stop, or whose main thread does.

`Watch` decides, without Redis and without a clock of its own; `Watchdog` reads the reports for it. A worker that has
not reported yet is starting and is not judged, for what it imports may take long; after a while it is told. Nobody is
judged by reports that nobody can write: when Redis is away, frozen or full, everything starts over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import redis

from fleet.config import Settings
from fleet.errors import FleetError
from fleet.quoting import duration
from fleet.signals.recorder import WorkerReport, split_reports
from fleet.store import keys
from fleet.store.client import connect
from fleet.store.private.embedded import broker_url, state_url

#: Seconds between two looks: workers report every two.
LOOK_EVERY_S = 2.0
#: How much longer the main thread may be silent than the loop: Celery waits in it when it reconnects to its broker.
MAIN_FACTOR = 3.0
#: Seconds after which a worker that has not reported yet is told: on a busy machine a start takes ten.
START_S = 60.0
#: Seconds between two looks after which it was us who stood still: nothing is concluded from such a gap.
PAUSE_S = 4 * LOOK_EVERY_S
#: Seconds for one answer of Redis; a supervisor must stay quick to stop.
TIMEOUT_S = 1.0
#: Seconds that the proof of a writable Redis lives.
PROBE_S = 60


@dataclass(frozen=True, slots=True)
class Hang:
    """A worker process that hangs, and how it shows."""

    pid: int
    why: str


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a worker said last, and when (monotonic seconds) it last said something new."""

    at: float
    beat_at: float | None
    at_moved_s: float
    beat_moved_s: float


class Watch:
    """Tells from successive reports which workers hang.

    Args:
        hang_s: Seconds without a new report after which a worker hangs; `MAIN_FACTOR` times that for its main thread.
    """

    def __init__(self, hang_s: float) -> None:
        self._hang_s = hang_s
        self._seen: dict[int, _Seen] = {}
        self._starting: dict[int, float] = {}
        self._told: set[int] = set()
        self._looked_s: float | None = None
        #: Workers that have lived for `START_S` without a report, since the last look: pid -> seconds. Once each.
        self.late: dict[int, float] = {}

    def look(
        self, reports: Mapping[int, WorkerReport] | None, now_s: float, pids: Iterable[int] = ()
    ) -> list[Hang]:  # fmt: skip
        """Return who hangs.

        Args:
            reports: By pid, the last report of each living worker that has made any; None: Redis is away.
            now_s: Monotonic time in seconds.
            pids: All workers that live.
        """
        self.late = {}
        paused = self._looked_s is not None and now_s - self._looked_s > PAUSE_S
        self._looked_s = now_s
        if reports is None or paused:  # nobody can have reported, or it was us who stood still
            self._seen.clear()
            self._starting.clear()
            return []
        self._note_late([pid for pid in pids if pid not in reports], now_s)
        self._seen = {pid: self._compare(pid, report, now_s) for pid, report in reports.items()}
        return [hang for pid in self._seen if (hang := self._judge(pid, now_s)) is not None]

    def _note_late(self, starting: Sequence[int], now_s: float) -> None:
        self._starting = {pid: self._starting.get(pid, now_s) for pid in starting}
        self._told &= set(starting)
        lived_s = {pid: now_s - since_s for pid, since_s in self._starting.items() if pid not in self._told}
        self.late = {pid: seconds for pid, seconds in lived_s.items() if seconds > START_S}
        self._told |= set(self.late)

    def _compare(self, pid: int, report: WorkerReport, now_s: float) -> _Seen:
        last = self._seen.get(pid)
        if last is None:
            return _Seen(report.at, report.beat_at, now_s, now_s)
        return _Seen(
            at=report.at,
            beat_at=report.beat_at,
            at_moved_s=last.at_moved_s if report.at == last.at else now_s,
            beat_moved_s=last.beat_moved_s if report.beat_at == last.beat_at else now_s,
        )

    def _judge(self, pid: int, now_s: float) -> Hang | None:
        seen = self._seen[pid]
        silent_s, stuck_s = now_s - seen.at_moved_s, now_s - seen.beat_moved_s
        if silent_s > self._hang_s:
            return Hang(pid, f"it lives, but has reported nothing for {duration(silent_s)}")
        if seen.beat_at is not None and stuck_s > self._hang_s * MAIN_FACTOR:
            return Hang(pid, f"it reports, but its main thread has stood still for {duration(stuck_s)}")
        return None


class Watchdog:
    """Watches the workers of one stack.

    Args:
        settings: Redis, and how long a worker may be silent.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._watch = Watch(settings.worker.hang_s)
        self._urls: tuple[str, str] | None = None
        self._look_at_s = 0.0

    def late(self, pids: Mapping[str, int]) -> list[str]:
        """Return a line about each worker that the last look found late, of those given by name."""
        names = {pid: name.partition("@")[0] for name, pid in pids.items()}
        return [
            f"{names[pid]} started {duration(seconds)} ago and has not reported: does an import hang? See its log"
            for pid, seconds in self._watch.late.items()
            if pid in names
        ]

    def look(self, pids: Mapping[str, int], now_s: float) -> list[Hang]:
        """Return the workers that hang, of those given by name. Asks Redis every `LOOK_EVERY_S` seconds."""
        if now_s < self._look_at_s:
            self._watch.late = {}
            return []
        self._look_at_s = now_s + LOOK_EVERY_S
        rows = self._read(now_s)
        return self._watch.look(None if rows is None else _own(rows, pids), now_s, pids.values())

    def _read(self, now_s: float) -> Sequence[WorkerReport] | None:
        """Return all reports; None unless both Redis servers take writes, as the workers need them to."""
        try:
            if self._urls is None:
                self._urls = state_url(self._settings), broker_url(self._settings)
            with ExitStack() as stack:
                clients = [stack.enter_context(connect(url, timeout_s=TIMEOUT_S)) for url in dict.fromkeys(self._urls)]
                for client in clients:
                    client.set(keys.write_probe(), "1", ex=PROBE_S)
                rows = clients[0].hgetall(keys.workers())
        except (FleetError, redis.RedisError):
            return None
        return split_reports(rows, now_s=0.0)[0]  # at 0, none is stale: silence is what we look for


def _own(reports: Iterable[WorkerReport], pids: Mapping[str, int]) -> dict[int, WorkerReport]:
    """Return the reports of our own workers: by name and pid, for another host's worker may have the same pid."""
    return {report.pid: report for report in reports if pids.get(report.name) == report.pid}
