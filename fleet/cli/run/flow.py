"""The loop of `fleet run`: a bounded window of tasks in flight, answers written as they come.

Single-threaded: fill the window, submit in one go, fetch what is finished, write it, rest a moment. What is given
up by Ctrl-C or a crash goes on in Redis and is found again through the same idempotency keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from fleet.cli.run.answers import AnswerFile
from fleet.cli.run.collector import FIELDS, Collector
from fleet.cli.run.entries import FileTask
from fleet.cli.run.patience import Patience
from fleet.cli.run.summary import Summary
from fleet.errors import ConfigurationError, StoreUnavailable
from fleet.models import BotTask, TaskError
from fleet.quoting import counted, duration

#: Seconds between two looks for results: from the first while results come, to the second while none do.
POLL_S = (0.02, 0.2)
#: Seconds without any result after which the run says so, and submits what is in flight once more (same keys).
STALL_S = 30.0
#: Seconds that Redis may be away until the run stops; it can be resumed then.
OUTAGE_S = 300.0


class View(Protocol):
    """Who watches a run."""

    def update(self, *, done: int, failed: int) -> None:
        """Show how far it is."""
        ...

    def warn(self, message: str) -> None:
        """Say what needs attention."""
        ...


class EntrySource(Protocol):
    """Where entries come from."""

    @property
    def ended(self) -> bool:
        """True when there is nothing more to take."""
        ...

    def take(self, count: int) -> list[FileTask]:
        """Return at most `count` entries that are there."""
        ...


class Submit(Protocol):
    """Queues tasks under idempotency keys; returns their ids in order."""

    def __call__(self, tasks: list[BotTask], keys: list[str]) -> list[str]: ...


class Flow:
    """One run.

    Args:
        run_id: What makes the idempotency keys of this run unlike all others'.
        by_place: True for a run of the previous release, whose keys are made of line number and id.
        window: Most tasks in flight.
        stopping: Tells whether to stop early.
        patience: Says what the run waits for, and when only somebody's deed can help.
        diagnose: Returns why nothing moves, if the patience does not know.
    """

    def __init__(
        self,
        *,
        run_id: str,
        by_place: bool,
        window: int,
        out: AnswerFile,
        submit: Submit,
        collector: Collector,
        summary: Summary,
        view: View,
        stopping: Callable[[], bool],
        patience: Patience,
        diagnose: Callable[[], str | None],
    ) -> None:
        self._run_id, self._by_place, self._window = run_id, by_place, window
        self._out, self._submit, self._collector = out, submit, collector
        self._summary, self._view, self._stopping = summary, view, stopping
        self._patience, self._diagnose = patience, diagnose
        self._waiting: list[FileTask] = []  # read, not yet submitted
        self._flight: dict[str, FileTask] = {}  # task id -> its line
        self._written: list[str] = []  # answers written, not yet known to be on the disk
        self._moved_at_s = self._reached_at_s = time.monotonic()
        self._warned_at_s = 0.0
        self.written = 0

    @property
    def in_flight(self) -> int:
        return len(self._flight)

    def run(self, source: EntrySource) -> bool:
        """Work through all entries; False when it was stopped before the end, or given up.

        Raises:
            StoreUnavailable: When Redis stays away for `OUTAGE_S`.
        """
        pause_s = POLL_S[0]
        while not self._stopping():
            moved = self._fill(source)
            moved = self._reach(self._exchange) or moved
            if source.ended and not self._waiting and not self._flight:
                return True
            pause_s = POLL_S[0] if moved else min(POLL_S[1], pause_s * 1.5)
            if self._patience.is_over(self._pools, len(self._flight)):
                break
            self._watch_stall()
            time.sleep(pause_s)
        self._reach(self._collect)
        return False

    def _pools(self) -> set[str] | None:
        """Return the pools that have tasks in flight; None: the dispatcher has chosen."""
        pools = {entry.task.pool for entry in self._flight.values() if entry.task is not None}
        return None if None in pools else {pool for pool in pools if pool is not None}

    def _fill(self, source: EntrySource) -> bool:
        """Read on until the window is full; True when there was something to read."""
        room = self._window - len(self._flight) - len(self._waiting)
        fresh = source.take(room) if room > 0 and not source.ended else []
        self._write([failed_record(entry) for entry in fresh if entry.task is None])
        self._waiting += [entry for entry in fresh if entry.task is not None]
        return bool(fresh)

    def _reach(self, step: Callable[[], bool]) -> bool:
        """Run a step that needs Redis, and ride out an outage of Redis."""
        try:
            moved = step()
        except (StoreUnavailable, ConfigurationError) as error:  # both were fine at the start: Redis is away
            away_s = time.monotonic() - self._reached_at_s
            if away_s > OUTAGE_S:
                raise
            self._warn(f"{error}; trying again")
            return False
        self._reached_at_s = time.monotonic()
        return moved

    def _exchange(self) -> bool:
        self._send(self._waiting)
        self._waiting = []
        return self._collect()

    def _send(self, entries: list[FileTask]) -> None:
        if entries:
            tasks = [entry.task for entry in entries if entry.task is not None]
            ids = self._submit(tasks, [self._key(entry) for entry in entries])
            self._flight |= zip(ids, entries, strict=True)

    def _key(self, entry: FileTask) -> str:
        if self._by_place:
            return f"{self._run_id}:{entry.line}:{entry.id!a}"  # an id from JSON may hold what UTF-8 cannot
        return f"{self._run_id}:{entry.asked}"

    def _collect(self) -> bool:
        """Fetch what is finished and write it; True when there was something."""
        found = self._collector.fetch(self._flight)
        self._write([answer_record(self._flight[name], result) for name, result in found.items()])
        for name in found:
            del self._flight[name]
        self._written += found
        if self._out.sync() and self._written:
            done, self._written = self._written, []
            self._collector.release(done)
        return bool(found)

    def _write(self, records: list[dict[str, Any]]) -> None:
        if records:
            self._out.append(records)
            for record in records:
                self._summary.add(record)
            self.written += len(records)
            self._moved_at_s = time.monotonic()
            self._patience.moved()
        self._view.update(done=self._summary.done, failed=self._summary.failed)

    def _watch_stall(self) -> None:
        """Say that nothing moves; submit again what may have been lost with Redis: it is never queued twice."""
        now_s = time.monotonic()
        if self._flight and now_s - max(self._moved_at_s, self._warned_at_s) > STALL_S:
            still = (
                f"{counted(len(self._flight), 'task')} in flight, no result for {duration(now_s - self._moved_at_s)}"
            )
            reason = self._patience.reason or self._diagnose()
            self._warn(f"{still}; {reason or 'workers are alive: slow calls or exhausted limits'}")
            self._reach(self._resend)

    def _resend(self) -> bool:
        self._send(list(self._flight.values()))
        return False

    def _warn(self, message: str) -> None:
        """Pass a warning on, at most one in `STALL_S`."""
        now_s = time.monotonic()
        if not self._warned_at_s or now_s - self._warned_at_s > STALL_S:
            self._warned_at_s = now_s
            self._view.warn(message)


def answer_record(entry: FileTask, result: dict[str, Any]) -> dict[str, Any]:
    """Return the line of OUT for a finished task."""
    record = {"id": entry.id, "line": entry.line, **{name: result.get(name) for name in FIELDS}}
    if entry.task is not None and entry.task.metadata:
        record["metadata"] = entry.task.metadata
    return {**record, "asked": entry.asked}


def failed_record(entry: FileTask) -> dict[str, Any]:
    """Return the line of OUT for an input line that isn't a valid task."""
    assert entry.error is not None
    error = TaskError.of(entry.error).model_dump()
    nothing = {"simulated": False, "usage": {"input_tokens": 0, "output_tokens": 0}, "attempts": 0}
    return answer_record(entry, {"status": "failed", "error": error, **nothing})
