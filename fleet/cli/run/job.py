"""One `fleet run`: decides what is left to do, from OUT and its sidecar, and has `flow` do it.

Nothing is ever paid twice: a run that stopped goes on under its old id, and a new id is only made where every
answer of the old one is in OUT.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import click

from fleet.cli.exit_codes import EXIT_FAILURE, EXIT_INTERRUPTED
from fleet.cli.run.answers import AnswerFile, LineSet, RunNote, new_run_id
from fleet.cli.run.collector import another_fleet, nobody_serves, open_collector
from fleet.cli.run.entries import FileSource, LineFormat, PipeSource, numbered, read_entries
from fleet.cli.run.flow import EntrySource, Flow
from fleet.cli.run.progress import ProgressView
from fleet.cli.run.summary import Summary
from fleet.cli.stop_signals import StopSignals
from fleet.config import Settings
from fleet.errors import ConfigurationError
from fleet.models import BotTask
from fleet.quoting import counted, noun_for


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended."""

    summary: Summary
    written: int
    wall_s: float
    finished: bool
    in_flight: int
    resumable: bool
    target: Path

    @property
    def exit_code(self) -> int:
        """0 every line has an answer, 1 some failed, 130 it was stopped."""
        if not self.finished:
            return EXIT_INTERRUPTED
        return EXIT_FAILURE if self.summary.failed else 0

    def tell(self, *, as_json: bool) -> None:
        """Print the closing summary: JSON to stdout, or lines to stderr."""
        if as_json:
            sums = self.summary.as_dict(new=self.written, wall_s=self.wall_s)
            click.echo(json.dumps({**sums, "finished": self.finished, "in_flight": self.in_flight}))
        else:
            self._tell_people()
        if not self.finished:
            click.echo(self._how_to_go_on(), err=True)

    def _tell_people(self) -> None:
        if self.finished and not self.written:
            click.echo(f"nothing left to do: {counted(self.summary.done, 'line')} done before: {self.target}", err=True)
        for line in self.summary.lines(new=self.written, wall_s=self.wall_s):
            click.echo(line, err=True)
        if self.finished and self.summary.failed and self.resumable:
            them = noun_for(self.summary.failed, "it", "them")
            click.echo(f"{self.summary.failed:,} failed: `--retry-failed` runs {them} again", err=True)

    def _how_to_go_on(self) -> str:
        if not self.resumable:
            verb = noun_for(self.in_flight, "was", "were")
            return f"stopped; {counted(self.in_flight, 'task')} {verb} in flight. A run from a pipe cannot be resumed."
        return f"stopped; {_going_on(self.in_flight)}. Run the same command again: nothing is paid twice."


@dataclass(slots=True)
class Job:
    """A run as it was asked for. `source` None is stdin."""

    settings: Settings
    source: Path | None
    target: Path
    prompt_field: str | None
    id_field: str
    options: Mapping[str, Any]
    window: int
    quiet: bool = False
    _summary: Summary = field(default_factory=Summary, init=False)
    _done: LineSet = field(default_factory=LineSet, init=False)
    _written: int = field(default=0, init=False)
    _in_flight: int = field(default=0, init=False)

    @property
    def resumable(self) -> bool:
        """True when IN can be read again."""
        return self.source is not None and self.source.is_file()

    def run(self, *, retry_failed: bool, resume: bool, overwrite: bool) -> RunEnd:
        """Do what is left to do.

        Raises:
            ConfigurationError: When OUT, its sidecar and IN do not belong together.
            StoreUnavailable: When Redis stays away for long; the run can be resumed.
        """
        started_at_s = time.monotonic()
        if self.source is not None and self.target.exists() and self.source.samefile(self.target):
            raise ConfigurationError(f"-o: expected a different file from IN, got the same: {self.target}")
        if not self.resumable and (retry_failed or resume):
            raise ConfigurationError("IN: expected a file for --resume and --retry-failed, got a pipe")
        with AnswerFile(self.target) as out, StopSignals() as signals:
            if overwrite:
                out.clear()
            note = self._begin(out, resume=resume)
            finished = note is None or self._work(out, note.run_id, signals)
            if finished and retry_failed and self._summary.failed:
                finished = self._retry(out, signals)
            if finished:
                out.sync(force=True)
                out.note_path.unlink(missing_ok=True)
        wall_s = time.monotonic() - started_at_s
        return RunEnd(self._summary, self._written, wall_s, finished, self._in_flight, self.resumable, self.target)

    def _begin(self, out: AnswerFile, *, resume: bool) -> RunNote | None:
        """Return the run to go on with: an old one, a new one, or None when everything is done."""
        if self.source is None or not self.resumable:
            return self._begin_pipe(out)
        note = RunNote.read(out.note_path)
        if note is None and out.empty:
            return self._new_note(out)
        if note is not None:
            if out.created:
                out.remove()
                raise ConfigurationError(
                    f"{self.target}: expected the answers of the run that {out.note_path.name} remembers, got no "
                    "such file; bring it back, or --overwrite to start anew"
                )
            note.check(self.source, prompt_field=self.prompt_field, id_field=self.id_field)
            self._recover(out, repair=True)
            return note
        self._recover(out, repair=False)
        return self._complete(out, resume=resume)

    def _begin_pipe(self, out: AnswerFile) -> RunNote:
        if not out.empty or out.note_path.exists():
            raise ConfigurationError(f"{self.target}: expected no such file for a run from a pipe; use --overwrite")
        click.echo("fleet: IN is a pipe: this run cannot be resumed", err=True)
        return RunNote(new_run_id(), "-", 0, "", time.time(), self.prompt_field, self.id_field)

    def _complete(self, out: AnswerFile, *, resume: bool) -> RunNote | None:
        """OUT has answers and no sidecar: its run is complete, or it belongs to another input."""
        assert self.source is not None
        lines = missing = 0
        with self.source.open("rb") as file:
            for line, _ in numbered(file):
                lines += 1
                missing += line not in self._done
        if len(self._done) + missing > lines:
            raise ConfigurationError(
                f"{self.target}: expected answers to {self.source}, got answers to lines that it does not have; "
                "give another -o, or --overwrite to replace them"
            )
        if not missing:
            return None
        if not resume:
            raise ConfigurationError(
                f"{self.target}: expected the answers of an unfinished run (with {out.note_path.name}) or to every "
                f"line, got {counted(len(self._done), 'answer')} and {counted(missing, 'line')} without one; "
                "--resume runs those, --overwrite starts anew"
            )
        return self._new_note(out)

    def _new_note(self, out: AnswerFile) -> RunNote:
        assert self.source is not None
        note = RunNote.of(self.source, prompt_field=self.prompt_field, id_field=self.id_field)
        note.write(out.note_path)
        return note

    def _retry(self, out: AnswerFile, signals: StopSignals) -> bool:
        """Run what failed under a new id. The id comes first: a crash in between leaves a complete OUT."""
        note = self._new_note(out)
        out.drop_failed()
        self._recover(out, repair=True)
        return self._work(out, note.run_id, signals)

    def _recover(self, out: AnswerFile, *, repair: bool) -> None:
        """Read what OUT has."""
        self._summary, self._done = Summary(), LineSet()
        for record in out.records(repair=repair):
            if self._done.add(record["line"]):
                self._summary.add(record)

    def _work(self, out: AnswerFile, run_id: str, signals: StopSignals) -> bool:
        """Run the lines that OUT lacks; True at the end of IN, False when stopped."""
        pool = self.options.get("pool")
        with (
            open_collector(self.settings) as collector,
            self._open() as lines,
            ProgressView(total=self._total(), before=len(self._done), quiet=self.quiet) as view,
        ):
            if warning := nobody_serves(collector, pool, self.settings):
                view.warn(warning)
            if warning := another_fleet(collector, self.settings):
                view.warn(warning)
            flow = Flow(
                run_id=run_id,
                window=self.window,
                out=out,
                submit=submit_batch,
                collector=collector,
                summary=self._summary,
                view=view,
                stopping=lambda: signals.asked,
                diagnose=lambda: nobody_serves(collector, pool, self.settings),
            )
            try:
                return flow.run(self._read(lines))
            finally:
                self._written += flow.written
                self._in_flight = flow.in_flight

    def _total(self) -> int | None:
        """Number of lines that are not blank, about 4 million a second; None for a pipe."""
        if self.source is None or not self.resumable:
            return None
        with self.source.open("rb") as file:
            return sum(1 for _ in numbered(file))

    def _open(self) -> AbstractContextManager[BinaryIO]:
        """Open IN. A pipe stays open: a thread that waits for its next line would hold up closing it."""
        if self.source is not None and self.resumable:
            return self.source.open("rb")
        descriptor = sys.stdin.fileno() if self.source is None else os.open(self.source, os.O_RDONLY)
        return nullcontext(open(descriptor, "rb", closefd=False))

    def _read(self, lines: Iterable[bytes]) -> EntrySource:
        line_format = LineFormat(prompt_field=self.prompt_field, id_field=self.id_field, options=self.options)
        entries = read_entries(lines, line_format, done=self._done)
        return FileSource(entries) if self.resumable else PipeSource(entries, ahead=self.window)


def _going_on(in_flight: int) -> str:
    if in_flight == 1:
        return "1 task in flight goes on, and its answer waits in Redis"
    return f"{in_flight:,} tasks in flight go on, and their answers wait in Redis"


def submit_batch(tasks: list[BotTask], keys: list[str]) -> list[str]:
    """Queue tasks under idempotency keys and return their ids."""
    from fleet.engine.messages.producer import submit_many

    return list(submit_many(tasks, idempotency_keys=keys))
