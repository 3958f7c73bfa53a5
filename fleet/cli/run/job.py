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
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

import click

from fleet.cli.exit_codes import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_WAITS
from fleet.cli.run.answers import AnswerFile, RunNote
from fleet.cli.run.collector import another_fleet, nobody_serves, open_collector
from fleet.cli.run.entries import FileSource, LineFormat, PipeSource, numbered, read_entries, read_questions
from fleet.cli.run.flow import EntrySource, Flow
from fleet.cli.run.patience import Patience, ending_lines
from fleet.cli.run.progress import ProgressView
from fleet.cli.run.purse import RunBudget
from fleet.cli.run.recognition import AnswerIndex, Survey
from fleet.cli.run.summary import Summary
from fleet.cli.stop_signals import StopSignals
from fleet.config import Settings
from fleet.economy.prices import PriceList, told_unpriced
from fleet.errors import ConfigurationError, StoreUnavailable
from fleet.models import BotTask
from fleet.quoting import counted, noun_for
from fleet.signals.view import WaitLine


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
    survey: Survey
    waits: tuple[WaitLine, ...] = ()
    purse: RunBudget | None = None

    @property
    def exit_code(self) -> int:
        """0 every line has an answer, 1 some failed, 3 the rest waits for somebody, 130 it was stopped."""
        if self.waits:
            return EXIT_WAITS
        if not self.finished:
            return EXIT_INTERRUPTED
        return EXIT_FAILURE if self.summary.failed else 0

    def tell(self, *, as_json: bool) -> None:
        """Print the closing summary: JSON to stdout, or lines to stderr."""
        if as_json:
            sums = self.summary.as_dict(new=self.written, wall_s=self.wall_s)
            end = {**sums, "finished": self.finished, "in_flight": self.in_flight}
            end["waits"] = [line.model_dump() for line in self.waits]
            if self.purse is not None:
                end |= {"max_usd": self.purse.max_usd, "spent_usd": self.purse.spent_usd}
            click.echo(json.dumps({**end, "without_line": self.survey.gone}))
        else:
            self._tell_people()
        if self.purse is not None and not as_json:
            click.echo(f"budget    {self.purse.told()}", err=True)
        for line in ending_lines(self.waits, time.time()):
            click.echo(f"waits     {line}", err=True)
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
        if self.purse is not None and self.resumable and any(self.purse.is_about(line.about) for line in self.waits):
            return f"{_going_on(self.in_flight)} with more money: run the same command again with a higher --max-usd."
        if self.waits and self.resumable:
            return f"{_going_on(self.in_flight)}. Run the same command again then (`--wait` would have waited)."
        if not self.resumable:
            verb = noun_for(self.in_flight, "was", "were")
            return f"stopped; {counted(self.in_flight, 'task')} {verb} in flight. A run from a pipe cannot be resumed."
        return f"stopped; {_going_on(self.in_flight)}. Run the same command again: nothing is paid twice."


@dataclass
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
    endless: bool = False
    max_usd: float | None = None
    _summary: Summary = field(default_factory=Summary, init=False)
    _answers: AnswerIndex = field(default_factory=AnswerIndex, init=False)
    _failed_before: int = field(default=0, init=False)
    _written: int = field(default=0, init=False)
    _in_flight: int = field(default=0, init=False)
    _has_sent: bool = field(default=False, init=False)
    _has_noted: bool = field(default=False, init=False)
    _waits: tuple[WaitLine, ...] = field(default=(), init=False)
    _purse: RunBudget | None = field(default=None, init=False)

    @property
    def resumable(self) -> bool:
        """True when IN can be read again."""
        return self.source is not None and self.source.is_file()

    def run(self, *, retry_failed: bool, overwrite: bool) -> RunEnd:
        """Do what is left to do.

        Raises:
            ConfigurationError: When OUT or its sidecar is not one of a run, or IN is not made of JSON lines.
            StoreUnavailable: When Redis stays away for long; the run can be resumed.
        """
        started_at_s = time.monotonic()
        if self.source is not None and self.target.exists() and self.source.samefile(self.target):
            raise ConfigurationError(f"-o: expected a different file from IN, got the same: {self.target}")
        if not self.resumable and retry_failed:
            raise ConfigurationError("IN: expected a file for --retry-failed, got a pipe")
        with AnswerFile(self.target) as out, StopSignals() as signals:
            try:
                finished = self._run(out, signals, retry_failed=retry_failed, overwrite=overwrite)
            except ConfigurationError:
                if out.created and out.empty and not self._has_sent:
                    self._take_back(out)
                raise
        if told := self._format.told_unused():
            click.echo(f"fleet: {told}", err=True)
        wall_s = time.monotonic() - started_at_s
        survey = self._answers.survey
        return RunEnd(
            self._summary,
            self._written,
            wall_s,
            finished,
            self._in_flight,
            self.resumable,
            self.target,
            survey,
            self._waits,
            self._purse,
        )

    def _take_back(self, out: AnswerFile) -> None:
        """Leave no trace of a run that has sent nothing; the note of another one stays."""
        if self._has_noted:
            out.note_path.unlink(missing_ok=True)
        if not out.note_path.exists():
            out.remove()

    def _run(self, out: AnswerFile, signals: StopSignals, *, retry_failed: bool, overwrite: bool) -> bool:
        """Run what OUT lacks, then what failed; True at the end of IN, False when stopped."""
        if overwrite:
            out.clear()
        note = self._begin(out)
        finished = note is None or self._work(out, note, signals)
        if finished and retry_failed and (self._summary.failed or self._failed_before):
            finished = self._retry(out, signals)
        if finished:
            out.sync(force=True)
            out.note_path.unlink(missing_ok=True)
        return finished

    def _begin(self, out: AnswerFile) -> RunNote | None:
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
        self._recognise(out, repair=note is not None)
        self._tell_found(self._answers.survey)
        return note or (self._new_note(out) if self._answers.survey.fresh else None)

    def _tell_found(self, survey: Survey) -> None:
        """Say in one line what the lines of IN have to do with the answers in OUT."""
        if survey.moved or survey.gone or survey.by_place or (survey.answered and survey.fresh and not self.quiet):
            click.echo(f"fleet: {self.target.name}: {survey}", err=True)

    def _begin_pipe(self, out: AnswerFile) -> RunNote:
        if not out.empty or out.note_path.exists():
            raise ConfigurationError(f"{self.target}: expected no such file for a run from a pipe; use --overwrite")
        click.echo("fleet: IN is a pipe: this run cannot be resumed", err=True)
        return RunNote.of(None, prompt_field=self.prompt_field, id_field=self.id_field)

    def _new_note(self, out: AnswerFile) -> RunNote:
        self._total()  # refuses what isn't made of JSON lines, before anything is written
        note = RunNote.of(self.source, prompt_field=self.prompt_field, id_field=self.id_field)
        if self._purse is not None:  # what failed just now is asked again for the same money
            note = replace(note, max_usd=self._purse.max_usd, budget=self._purse.run_id)
        note.write(out.note_path)
        self._has_noted = True
        return note

    def _retry(self, out: AnswerFile, signals: StopSignals) -> bool:
        """Run what failed under a new id. The id comes first: a crash in between leaves a complete OUT."""
        note = self._new_note(out)
        out.rewrite(lambda record: None if record["status"] == "failed" else record)
        self._recognise(out, repair=True)
        return self._work(out, note, signals)

    def _recognise(self, out: AnswerFile, *, repair: bool) -> None:
        """Find out which lines of IN have their answer in OUT, and bring its line numbers up to date."""
        answers = self._answers = AnswerIndex()
        self._summary, self._failed_before = Summary(), 0
        for record in out.records(repair=repair):
            answers.add(record)
        if not answers:
            return
        with self._open() as lines:
            for question in read_questions(lines, self._format):
                answers.meet(question)
        if answers.is_out_of_date:
            out.rewrite(answers.settled)
        for record in out.records(repair=False):
            if record["line"] is not None:
                self._summary.add(record)
            else:
                self._failed_before += record["status"] == "failed"

    def _work(self, out: AnswerFile, note: RunNote, signals: StopSignals) -> bool:
        """Run the lines that OUT lacks; True at the end of IN, False when stopped."""
        pool = self.options.get("pool")
        run = self._fill_purse(out, note)
        with (
            open_collector(self.settings) as collector,
            self._open() as lines,
            ProgressView(total=self._total(), before=self._summary.done, quiet=self.quiet) as view,
        ):
            if warning := nobody_serves(collector, pool, self.settings):
                view.warn(warning)
            if warning := another_fleet(collector, self.settings):
                view.warn(warning)
            for unpriced in PriceList(self.settings).unpriced_of([pool] if pool else self.settings.pools):
                view.warn(told_unpriced(*unpriced))
            patience = Patience(lambda pools: collector.look(self.settings, pools), view.say, endless=self.endless)
            flow = Flow(
                run_id=note.run_id,
                by_place=note.by_place,
                window=self.window,
                out=out,
                submit=partial(submit_batch, run=run),
                collector=collector,
                summary=self._summary,
                view=view,
                stopping=lambda: signals.asked,
                patience=patience,
                diagnose=lambda: nobody_serves(collector, pool, self.settings),
            )
            finished, self._has_sent = False, True
            try:
                finished = flow.run(self._read(lines))
                return finished
            finally:
                self._written += flow.written
                self._in_flight = flow.in_flight
                self._waits = patience.lines
                if self._purse is not None:
                    with suppress(StoreUnavailable):
                        self._purse.close(is_done=finished)

    def _fill_purse(self, out: AnswerFile, note: RunNote) -> str:
        """Give the run its budget, that of this command or of the one before; return what its tasks are marked with."""
        max_usd = note.max_usd if self.max_usd is None else self.max_usd
        if max_usd is None:
            return ""
        self._purse = RunBudget(self.settings, note.payer, max_usd)
        self._purse.fill(self._usual_pools())
        if max_usd != note.max_usd and self.resumable:
            replace(note, max_usd=max_usd).write(out.note_path)
        return note.payer

    def _usual_pools(self) -> list[str]:
        """Return the pools to which a line goes that names neither pool nor kind."""
        from fleet.engine.messages.pool_choice import candidates

        return candidates(BotTask.parse("-", **self.options), self.settings)

    @cached_property
    def _format(self) -> LineFormat:
        """How lines are read."""
        from fleet.engine.messages.pool_choice import candidates

        def check(task: BotTask) -> None:
            pools = candidates(task, self.settings)
            if self._purse is not None:
                self._purse.check(pools)

        return LineFormat(
            prompt_field=self.prompt_field,
            id_field=self.id_field,
            options=self.options,
            check=check,
        )

    def _total(self) -> int | None:
        """Number of lines that are not blank, about 4 million a second; None for a pipe."""
        if self.source is None or not self.resumable:
            return None
        with self.source.open("rb") as file:
            return sum(1 for _ in numbered(file, self._format.known_fields))

    def _open(self) -> AbstractContextManager[BinaryIO]:
        """Open IN. A pipe stays open: a thread that waits for its next line would hold up closing it."""
        if self.source is not None and self.resumable:
            return self.source.open("rb")
        descriptor = sys.stdin.fileno() if self.source is None else os.open(self.source, os.O_RDONLY)
        return nullcontext(open(descriptor, "rb", closefd=False))

    def _read(self, lines: Iterable[bytes]) -> EntrySource:
        entries = read_entries(lines, self._format, answered=self._answers.has)
        return FileSource(entries) if self.resumable else PipeSource(entries, ahead=self.window)


def _going_on(in_flight: int) -> str:
    if in_flight == 1:
        return "1 task in flight goes on, and its answer waits in Redis"
    return f"{in_flight:,} tasks in flight go on, and their answers wait in Redis"


def submit_batch(tasks: list[BotTask], keys: list[str], *, run: str = "") -> list[str]:
    """Queue tasks under idempotency keys and return their ids.

    Args:
        tasks: To queue.
        keys: One each.
        run: Whose budget counts them; empty: none.
    """
    from fleet.engine.messages.producer import submit_many

    if run:
        tasks = [task.model_copy(update={"run": run}) for task in tasks]
    return list(submit_many(tasks, idempotency_keys=keys))
