"""Resources of a worker process, reported to Redis every few seconds: CPU, memory, slots.

Also here: reading the reports of all workers, and dropping those of workers that are gone, with an event for each.
Completions and errors are recorded by the finishing script.
"""

from __future__ import annotations

import os
import time

import psutil
from pydantic import Field, ValidationError

from fleet.models import Frozen
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.signals.windows import MINUTES, RESOURCE, ResourcePeriod
from fleet.store import keys
from fleet.store.client import Script, Store
from fleet.store.clock import CLOCK, HostClock

#: Seconds after which a worker that reported nothing counts as gone; several times the usual 5 s between reports.
STALE_S = 30.0
#: Seconds between two clean-ups of gone workers by one process. Each reads all rows, so not with every report.
CLEAN_EVERY_S = 10.0
#: Longest time that one report speaks for, in seconds: a process that was stopped for a while has used nothing.
LONGEST_STEP_S = 30.0

_REPORT = Script.beside(
    __file__,
    "report.lua",
    keys="workers resources",
    argv="worker report life_s used",
    tables={"slot": RESOURCE},
    constants={"MINUTES": MINUTES},
)


class WorkerReport(Frozen):
    """What one worker process uses."""

    name: str = Field(min_length=1)
    pid: int
    process: str = Field("", description="Random id of the process, drawn at its start.")
    cpu_percent: float = Field(ge=0, description="100 is one core, since the last report.")
    rss_mb: float = Field(ge=0, description="Resident memory in MiB.")
    slots: int = Field(ge=0, description="Tasks it can run at once.")
    busy: int = Field(ge=0, description="Tasks it runs now.")
    at: float = Field(description="Unix time in seconds, by the clock of Redis.")
    apart: int = Field(0, ge=0, description="How many of them are suspects, in child processes of their own.")
    beat_at: float | None = Field(None, description="Last turn of Celery's main thread, Unix time; None: not turning.")

    clock_ahead_s: float = Field(0.0, description="Seconds that its host's clock is ahead of that of Redis.")

    def is_stale(self, now_s: float) -> bool:
        return self.at < now_s - STALE_S


class Recorder:
    """Reports this process.

    Args:
        store: State Redis.
        name: Name of the worker, unique in the fleet.
        process: Random id of its process.
        clock: That of Redis, which the reports go by; each report hears it.
    """

    def __init__(self, store: Store, *, name: str, process: str = "", clock: HostClock = CLOCK) -> None:
        self._store = store
        self._clock = clock
        self._name = name
        self._process_id = process
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first reading has nothing to compare with and is always 0
        self._clean_at_s = 0.0  # of the monotonic clock
        self._reported_at_s: float | None = None
        self._left = False

    async def report(self, *, slots: int, busy: int, beat_at: float | None = None, apart: int = 0) -> WorkerReport:
        """Measure this process and report it. Cheap enough for every few seconds, not for every task.

        Args:
            slots: Tasks it can run at once.
            busy: Tasks it runs now.
            beat_at: Unix time of the main thread's last turn by this host's clock; None while it starts or stops.
            apart: How many of those tasks are suspects.

        Raises:
            StoreUnavailable: When Redis does not answer; the next report makes up for it.
        """
        report = self.measure(slots=slots, busy=busy, beat_at=beat_at, apart=apart)
        if self._left:
            return report
        now_s = time.monotonic()
        step_s = 0.0 if self._reported_at_s is None else min(LONGEST_STEP_S, now_s - self._reported_at_s)
        self._reported_at_s = now_s
        asked_s = time.monotonic()
        self._clock.hear(await report_worker(self._store, report, step_s=step_s), asked_s=asked_s)
        if time.monotonic() >= self._clean_at_s:
            self._clean_at_s = time.monotonic() + CLEAN_EVERY_S
            await forget_gone_workers(self._store, now_s=report.at)
        return report

    async def leave(self) -> None:
        """Take this worker off the list: it ends as it should, and reports nothing any more.

        Raises:
            StoreUnavailable: When Redis does not answer; then it will count as lost.
        """
        self._left = True
        record_event(self._store, catalogue.WORKER_STOPPED, worker=self._name)
        await self._store.command("HDEL", keys.workers(), self._name)

    def measure(self, *, slots: int, busy: int, beat_at: float | None = None, apart: int = 0) -> WorkerReport:
        """Return what this process uses now, CPU since the last measurement."""
        return WorkerReport(
            name=self._name,
            pid=os.getpid(),
            process=self._process_id,
            cpu_percent=self._process.cpu_percent(),
            rss_mb=round(self._process.memory_info().rss / 2**20, 1),
            slots=slots,
            busy=busy,
            apart=apart,
            at=self._clock.now_s(),
            beat_at=None if beat_at is None else beat_at - self._clock.ahead_s,
            clock_ahead_s=round(self._clock.ahead_s, 3),
        )


async def report_worker(store: Store, report: WorkerReport, *, step_s: float = 0.0) -> float:
    """Write the report over the worker's last one, and count what it used in the `step_s` seconds since.

    Returns:
        The time of Redis, Unix time in seconds.
    """
    used = ResourcePeriod(
        number=0,
        cpu_s=report.cpu_percent / 100 * step_s,
        rss_mb_s=report.rss_mb * step_s,
        busy_s=report.busy * step_s,
        slots_s=report.slots * step_s,
    )
    call = _REPORT.call(
        workers=keys.workers(), resources=keys.resources(), worker=report.name, report=report.model_dump_json(),
        life_s=keys.STATE_TTL_S, used=RESOURCE.pack(used),
    )  # fmt: skip
    seconds, micros = await store.run(_REPORT, *call)
    return int(seconds) + int(micros) / 1e6


async def forget_gone_workers(store: Store, *, now_s: float) -> None:
    """Remove the rows of workers that have reported nothing for `STALE_S`, and say so. O(workers)."""
    flat = await store.command("HGETALL", keys.workers())
    rows = dict(zip(flat[::2], flat[1::2], strict=True))
    for name in split_reports(rows, now_s=now_s)[1]:
        if await store.command("HDEL", keys.workers(), name):  # one worker is enough to say it
            record_event(store, catalogue.WORKER_LOST, worker=name.decode(errors="replace"))


def split_reports(rows: dict[bytes, bytes], *, now_s: float) -> tuple[list[WorkerReport], list[bytes]]:
    """Return the living workers' reports by name, and the row names of the others: stale or unreadable."""
    living, gone = [], []
    for name, row in sorted(rows.items()):
        try:
            report = WorkerReport.model_validate_json(row)
        except ValidationError:
            gone.append(name)  # written by another version
            continue
        if report.is_stale(now_s):
            gone.append(name)
        else:
            living.append(report)
    return living, gone
