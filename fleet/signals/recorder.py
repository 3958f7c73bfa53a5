"""Resources of a worker process, reported to Redis every few seconds: CPU, memory, slots.

Completions and errors are recorded by the finishing script, not here.
"""

from __future__ import annotations

import os
import time

import psutil
from pydantic import Field, ValidationError

from fleet.models import Frozen
from fleet.store import keys
from fleet.store.client import Store

#: Seconds after which a worker that reported nothing counts as gone; several times the usual 5 s between reports.
STALE_S = 30.0
#: Seconds between two clean-ups of gone workers by one process. Each reads all rows, so not with every report.
CLEAN_EVERY_S = 60.0


class WorkerReport(Frozen):
    """What one worker process uses."""

    name: str = Field(min_length=1)
    pid: int
    cpu_percent: float = Field(ge=0, description="100 is one core, since the last report.")
    rss_mb: float = Field(ge=0, description="Resident memory in MiB.")
    slots: int = Field(ge=0, description="Tasks it can run at once.")
    busy: int = Field(ge=0, description="Tasks it runs now.")
    at: float = Field(description="Unix time in seconds.")
    beat_at: float | None = Field(None, description="Last turn of Celery's main thread, Unix time; None: not turning.")

    def is_stale(self, now_s: float) -> bool:
        return self.at < now_s - STALE_S


class Recorder:
    """Reports this process.

    Args:
        store: State Redis.
        name: Name of the worker, unique in the fleet.
    """

    def __init__(self, store: Store, *, name: str) -> None:
        self._store = store
        self._name = name
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first reading has nothing to compare with and is always 0
        self._clean_at_s = 0.0  # of the monotonic clock

    async def report(self, *, slots: int, busy: int, beat_at: float | None = None) -> WorkerReport:
        """Measure this process and report it. Cheap enough for every few seconds, not for every task.

        Args:
            slots: Tasks it can run at once.
            busy: Tasks it runs now.
            beat_at: Unix time of the main thread's last turn; None while it starts or stops.

        Raises:
            StoreUnavailable: When Redis does not answer; the next report makes up for it.
        """
        report = self.measure(slots=slots, busy=busy, beat_at=beat_at)
        await report_worker(self._store, report)
        if time.monotonic() >= self._clean_at_s:
            self._clean_at_s = time.monotonic() + CLEAN_EVERY_S
            await forget_gone_workers(self._store, now_s=report.at)
        return report

    def measure(self, *, slots: int, busy: int, beat_at: float | None = None) -> WorkerReport:
        """Return what this process uses now, CPU since the last measurement."""
        return WorkerReport(
            name=self._name,
            pid=os.getpid(),
            cpu_percent=self._process.cpu_percent(),
            rss_mb=round(self._process.memory_info().rss / 2**20, 1),
            slots=slots,
            busy=busy,
            at=time.time(),
            beat_at=beat_at,
        )


async def report_worker(store: Store, report: WorkerReport) -> None:
    """Write the report over the worker's last one."""
    await store.command("HSET", keys.workers(), report.name, report.model_dump_json())
    await store.command("EXPIRE", keys.workers(), keys.STATE_TTL_S)


async def forget_gone_workers(store: Store, *, now_s: float) -> None:
    """Remove the rows of workers that have reported nothing for `STALE_S`. O(workers)."""
    flat = await store.command("HGETALL", keys.workers())
    _, gone = split_reports(dict(zip(flat[::2], flat[1::2], strict=True)), now_s=now_s)
    if gone:
        await store.command("HDEL", keys.workers(), *gone)


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
