"""Resources of a worker process, reported to Redis every few seconds: CPU, memory, slots.

Also here: reading the reports of all workers, and dropping those of workers that are gone, with an event for each.
Completions and errors are recorded by the finishing script.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import psutil
from pydantic import Field

from fleet.config import tool_of
from fleet.frozen import Lasting
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.signals.windows import HOURS, MINUTES, RESOURCE, ResourcePeriod
from fleet.store import keys
from fleet.store.client import Script, Store
from fleet.store.clock import CLOCK, HostClock
from fleet.waits import Wait

#: Seconds after which a worker that reported nothing counts as gone; several times the usual 5 s between reports.
STALE_S = 30.0
#: Seconds after which operators are told that a worker says nothing: several times the 2 s between reports. It is not
#: given up before `STALE_S`.
SILENT_S = 10.0
#: Seconds between two clean-ups of gone workers by one process. Each reads all rows, so not with every report.
CLEAN_EVERY_S = 5.0
#: Seconds for which the loss of one process is told once.
LOST_ONCE_S = 600.0
#: Longest time that one report speaks for, in seconds: a process that was stopped for a while has used nothing.
LONGEST_STEP_S = 30.0

#: No fingerprint.
NOTHING: Mapping[str, str] = MappingProxyType({})
#: Of a process whose calls are answered.
NOBODY_SILENT: Mapping[str, tuple[int, float]] = MappingProxyType({})
#: Of a process none of whose tasks wait for a tool.
NOBODY_WAITS: Mapping[str, Mapping[str, int]] = MappingProxyType({})
#: Of a process that serves all of its pools.
NONE_SHUT: Mapping[str, Wait] = MappingProxyType({})

_REPORT = Script.beside(
    __file__,
    "report.lua",
    keys="workers resources",
    argv="worker report life_s used",
    tables={"slot old": RESOURCE},
    constants={"MINUTES": MINUTES, "HOURS": HOURS},
)


class HeldKeyReport(Lasting):
    """A key as one worker process has it; never the key."""

    key: str = Field(description="`provider`, `provider/label` or `tools/NAME`.")
    source: str = Field("", description="Where it comes from.")
    fingerprint: str = ""
    version: str = ""
    made_at: float | None = Field(None, description="Unix time in seconds of this version; None: unknown.")
    expires_at: float | None = Field(None, description="Unix time in seconds until a token serves; None: it lasts.")
    waits: str = Field("", description="Why calls with it wait; empty: they need not.")
    failure: str = Field("", description="Why its source gave none when it was last read.")


class WorkerReport(Lasting):
    """What one worker process uses."""

    name: str = Field(min_length=1)
    pid: int
    process: str = Field("", description="Random id of the process, drawn at its start.")
    host: str = Field("", description="Name of its host.")
    release: str = Field("", description="Release of Fleet that it runs; empty: 0.2 or before.")
    cpu_percent: float = Field(ge=0, description="100 is one core, since the last report.")
    rss_mb: float = Field(ge=0, description="Resident memory in MiB.")
    slots: int = Field(ge=0, description="Tasks it can run at once.")
    most_slots: int | None = Field(
        None, ge=0, description="Slots it may come to have, where they follow what is wanted; None: they are fixed."
    )
    busy: int = Field(ge=0, description="Tasks it runs now.")
    at: float = Field(description="Unix time in seconds, by the clock of Redis.")
    apart: int = Field(0, ge=0, description="How many of them are suspects, in child processes of their own.")
    beat_at: float | None = Field(None, description="Last turn of Celery's main thread, Unix time; None: not turning.")
    queues: tuple[str, ...] | None = Field(None, description="Queues it takes from; None: it does not say.")
    settings: dict[str, str] = Field(default_factory=dict, description="Fingerprint of its settings, table by table.")
    shut: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Pools that it ought to serve and cannot, by why: JSON of a `Wait`."
    )

    def why_shut(self, pool: str) -> Wait | None:
        """Return why it does not serve a pool that it ought to; None: it does, or need not."""
        for why, pools in self.shut.items():
            if pool in pools:
                with suppress(ValueError, TypeError):  # of a release that knows other causes
                    return Wait.from_json(why)
        return None

    unanswered: dict[str, tuple[int, float]] = Field(
        default_factory=dict,
        description="Limits whose calls have no answer for far longer than usual: calls, and seconds.",
    )
    tool_waits: dict[str, dict[str, int]] = Field(
        default_factory=dict,
        description="Tasks that wait in their slots, by pool and limit: of a tool API, or of a model's that may hang.",
    )

    held_keys: tuple[HeldKeyReport, ...] = Field((), description="The keys that it has.")

    @classmethod
    def read(cls, text: bytes | str) -> WorkerReport:
        """Return the report of a row, whichever release wrote it; raises `ValueError`."""
        return cls.model_validate(json.loads(text, object_pairs_hook=_merged))

    def text(self) -> str:
        """Return the row. Workers of 0.2 strike rows off that have fields which they do not know, and say that their
        worker is lost; of two fields of one name they take the second. So all else stands in the first.
        """
        more = self.model_dump_json(exclude=_KNOWN_BEFORE, exclude_defaults=True)
        return f'{{"name":{json.dumps(more)},{self.model_dump_json(include=_KNOWN_BEFORE)[1:]}'

    @property
    def row(self) -> str:
        """The name of its row: two workers may have one name, no two processes have one id."""
        return row_of(self.name, self.process)

    clock_ahead_s: float = Field(0.0, description="Seconds that its host's clock is ahead of that of Redis.")

    def is_stale(self, now_s: float) -> bool:
        return self.at < now_s - STALE_S


#: Fields of a report of 0.2.
_KNOWN_BEFORE = {"name", "pid", "cpu_percent", "rss_mb", "slots", "busy", "at", "beat_at"}


def _merged(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, with what stands in the first of two names."""
    if [name for name, _ in pairs[:2]] == ["name", "name"]:
        return {**json.loads(pairs[0][1]), **dict(pairs)}
    return dict(pairs)


def doubted_in(workers: Iterable[WorkerReport]) -> Counter[str]:
    """Return the calls that wait in their slots for a first answer of an API that may be silent, by limit."""
    found = Counter[str]()
    for worker in workers:
        for of_pool in worker.tool_waits.values():
            found.update({limit: calls for limit, calls in of_pool.items() if not tool_of(limit)})
    return found


class Recorder:
    """Reports this process.

    Args:
        store: State Redis.
        name: Name of the worker, unique in the fleet.
        process: Random id of its process.
        settings: Fingerprint of its settings.
        shut: Pools that it ought to serve and cannot, with why.
        clock: That of Redis, which the reports go by; each report hears it.

    Attributes:
        living: The workers that lived when this one looked last, itself among them.
        looked_at: When that was, by the clock of Redis, Unix time in seconds.
    """

    def __init__(
        self, store: Store, *, name: str, process: str = "", settings: Mapping[str, str] = NOTHING,
        shut: Mapping[str, Wait] = NONE_SHUT, clock: HostClock = CLOCK,
    ) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._name = name
        self._process_id = process
        self._release = version("celery-fleet")
        self._settings = dict(settings)
        self._shut: dict[str, tuple[str, ...]] = {}
        for pool, wait in shut.items():
            self._shut[wait.to_json()] = (*self._shut.get(wait.to_json(), ()), pool)
        self.living: tuple[WorkerReport, ...] = ()
        self.looked_at = 0.0
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first reading has nothing to compare with and is always 0
        self._clean_at_s = 0.0  # of the monotonic clock
        self._reported_at_s: float | None = None
        self._written_at_s = 0.0
        self._left = False

    async def report(
        self,
        *,
        slots: int,
        busy: int,
        most_slots: int | None = None,
        beat_at: float | None = None,
        apart: int = 0,
        queues: tuple[str, ...] | None = None,
        unanswered: Mapping[str, tuple[int, float]] = NOBODY_SILENT,
        tool_waits: Mapping[str, Mapping[str, int]] = NOBODY_WAITS,
        held_keys: tuple[HeldKeyReport, ...] = (),
    ) -> WorkerReport:
        """Measure this process and report it. Cheap enough for every few seconds, not for every task.

        Args:
            slots: Tasks it can run at once.
            busy: Tasks it runs now.
            most_slots: Tasks it may come to run at once, where that follows what is wanted; None: it is fixed.
            beat_at: Unix time of the main thread's last turn by this host's clock; None while none is due.
            apart: How many of those tasks are suspects.
            queues: Those it takes from.
            unanswered: Limits whose calls have no answer for far longer than usual.
            tool_waits: Tasks that wait in their slots for a tool, or for a first answer of an API in doubt, by pool and
                limit.
            held_keys: The keys that it has.

        Raises:
            StoreUnavailable: When Redis does not answer; the next report makes up for it.
        """
        report = self.measure(
            slots=slots, busy=busy, most_slots=most_slots, beat_at=beat_at, apart=apart, queues=queues,
            unanswered=unanswered, tool_waits=tool_waits, held_keys=held_keys,
        )  # fmt: skip
        if self._left:
            return report
        now_s = time.monotonic()
        step_s = 0.0 if self._reported_at_s is None else min(LONGEST_STEP_S, now_s - self._reported_at_s)
        self._reported_at_s = now_s
        asked_s = time.monotonic()
        self._clock.hear(await report_worker(self._store, report, step_s=step_s), asked_s=asked_s)
        was_heard = time.monotonic() - self._written_at_s < SILENT_S / 2
        self._written_at_s = time.monotonic()
        if time.monotonic() >= self._clean_at_s:
            self._clean_at_s = time.monotonic() + CLEAN_EVERY_S
            self.looked_at = report.at
            self.living = await forget_gone_workers(
                self._store, now_s=report.at, successor=report, tells_silent=was_heard
            )
        return report

    async def leave(self) -> None:
        """Take this worker off the list: it ends as it should, and reports nothing any more.

        Raises:
            StoreUnavailable: When Redis does not answer; then it will count as lost.
        """
        self._left = True
        record_event(self._store, catalogue.WORKER_STOPPED, worker=self._name)
        await self._store.command("HDEL", keys.workers(), row_of(self._name, self._process_id))

    def measure(
        self,
        *,
        slots: int,
        busy: int,
        most_slots: int | None = None,
        beat_at: float | None = None,
        apart: int = 0,
        queues: tuple[str, ...] | None = None,
        unanswered: Mapping[str, tuple[int, float]] = NOBODY_SILENT,
        tool_waits: Mapping[str, Mapping[str, int]] = NOBODY_WAITS,
        held_keys: tuple[HeldKeyReport, ...] = (),
    ) -> WorkerReport:
        """Return what this process uses now, CPU since the last measurement."""
        return WorkerReport(
            name=self._name,
            pid=os.getpid(),
            process=self._process_id,
            host=socket.gethostname(),
            release=self._release,
            cpu_percent=self._process.cpu_percent(),
            rss_mb=round(self._process.memory_info().rss / 2**20, 1),
            slots=slots,
            busy=busy,
            most_slots=most_slots,
            apart=apart,
            at=self._clock.now_s(),
            beat_at=None if beat_at is None else beat_at - self._clock.ahead_s,
            clock_ahead_s=round(self._clock.ahead_s, 3),
            queues=queues,
            settings=self._settings,
            shut=self._shut,
            unanswered=dict(unanswered),
            tool_waits={pool: dict(of_pool) for pool, of_pool in tool_waits.items()},
            held_keys=held_keys,
        )


def row_of(name: str, process: str) -> str:
    """Return the name of a worker's row; an earlier release had no ids of processes."""
    return f"{name}|{process}" if process else name


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
        workers=keys.workers(), resources=keys.resources(), worker=report.row, report=report.text(),
        life_s=keys.STATE_TTL_S, used=RESOURCE.pack(used),
    )  # fmt: skip
    seconds, micros = await store.run(_REPORT, *call)
    return int(seconds) + int(micros) / 1e6


async def forget_gone_workers(
    store: Store, *, now_s: float, successor: WorkerReport | None = None, tells_silent: bool = False
) -> tuple[WorkerReport, ...]:
    """Remove the rows of workers that are gone, and say so; return the living. O(workers).

    Gone is who has reported nothing for `STALE_S`, and, sooner, who had the name of `successor` in a process of the
    same host that does not exist any more.

    Args:
        store: State Redis.
        now_s: Unix time of Redis.
        successor: The worker that looks.
        tells_silent: Say of those who have said nothing for `SILENT_S` that they are lost, before they are given up.
            Who could not write itself a moment ago knows nothing of others: Redis may have been away.
    """
    flat = await store.command("HGETALL", keys.workers())
    rows = dict(zip(flat[::2], flat[1::2], strict=True))
    living, gone = split_reports(rows, now_s=now_s)
    left = [report.row.encode() for report in living if successor is not None and _was_before(successor, report)]
    for report in living if tells_silent else ():
        if report.at < now_s - SILENT_S:
            _tell_lost(store, report.row)
    for row in (*gone, *left):
        if await store.command("HDEL", keys.workers(), row):  # one worker is enough to say it
            _tell_lost(store, row.decode(errors="replace"))
    return tuple(report for report in living if report.row.encode() not in left)


def _tell_lost(store: Store, row: str) -> None:
    record_event(store, catalogue.WORKER_LOST, quiet_s=LOST_ONCE_S, about=row, worker=row.partition("|")[0])


def _was_before(successor: WorkerReport, report: WorkerReport) -> bool:
    """True for a worker of the same name and host whose process has ended: its pid is free, or has a new owner."""
    same = (report.name, report.host) == (successor.name, successor.host) and report.process != successor.process
    return same and bool(report.host) and (report.pid == successor.pid or not psutil.pid_exists(report.pid))


def speaking_of(workers: Iterable[WorkerReport], *, now_s: float) -> list[WorkerReport]:
    """Return those that have not fallen silent: what the last report of the others says is over."""
    return [worker for worker in workers if worker.at >= now_s - SILENT_S]


def told_lent(workers: Iterable[WorkerReport]) -> str:
    """Return how many slots workers have lent beyond their own, while calls hang: `, 5 lent`; empty: none."""
    lent = sum(max(0, worker.busy - worker.slots) for worker in workers)
    return f", {lent:,} lent" if lent else ""


def split_reports(rows: dict[bytes, bytes], *, now_s: float) -> tuple[list[WorkerReport], list[bytes]]:
    """Return the living workers' reports by name, and the row names of the others: stale or unreadable."""
    living, gone = [], []
    for name, row in sorted(rows.items()):
        try:
            report = WorkerReport.read(row)
        except (ValueError, TypeError):
            gone.append(name)
            continue
        if report.is_stale(now_s):
            gone.append(name)
        else:
            living.append(report)
    return living, gone
