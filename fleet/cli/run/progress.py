"""How far `fleet run` is, on stderr: a live bar on a terminal, a line every ten seconds when piped."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fleet.quoting import duration

#: Seconds between two lines when stderr is not a terminal.
LINE_EVERY_S = 10.0


class ProgressView:
    """Shows a run. Use it as a context manager.

    Args:
        total: Lines to do, blank ones included; None when it is not known.
        before: Lines that were done before this run.
        quiet: Show warnings only.
    """

    def __init__(self, *, total: int | None, before: int, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._total, self._before, self._quiet = total, before, quiet
        self._started_at_s = self._line_at_s = time.monotonic()
        self._bar: Progress | None = None
        if self._console.is_terminal and not quiet:
            self._bar = Progress(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=True),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=total, completed=before, rate="", note="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, *, done: int, failed: int) -> None:
        """Show how many lines are done and how many of them failed."""
        now_s = time.monotonic()
        rate = (done - self._before) / max(now_s - self._started_at_s, 1e-9)
        note = f"{failed:,} failed" if failed else ""
        if self._bar:
            self._bar.update(self._task, completed=done, rate=f"{rate:,.1f}/s", note=note)
        elif not self._quiet and now_s - self._line_at_s >= LINE_EVERY_S:
            self._line_at_s = now_s
            self._console.print(progress_line(done=done, total=self._total, rate=rate, note=note), soft_wrap=True)

    def say(self, message: str, is_warning: bool) -> None:
        """Print what the run waits for beside the bar; with `quiet` only what somebody must change."""
        if is_warning or not self._quiet:
            style = "yellow" if is_warning else "dim"
            self._console.print(f"fleet: {message}", style=style, markup=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print a warning beside the bar."""
        self._console.print(f"fleet: {message}", style="yellow", markup=False, soft_wrap=True)


def progress_line(*, done: int, total: int | None, rate: float, note: str) -> str:
    """Return one line of progress; the time left is only known with a total and a rate."""
    of_total = f" of {total:,}" if total is not None else ""
    parts = [f"{done:,}{of_total}", f"{rate:,.1f}/s"]
    if total is not None and rate > 0:
        parts.append(f"{duration(round((total - done) / rate))} left")
    return ", ".join([*parts, *([note] if note else [])])
