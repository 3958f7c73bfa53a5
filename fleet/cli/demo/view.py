"""How `fleet demo` looks on a terminal: the live frame and the closing summary. Draws, reads nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fleet.cli.demo.score import Score, waited_ms
from fleet.cli.terminal import NARROW
from fleet.config import Settings
from fleet.models import Priority
from fleet.quoting import counted
from fleet.signals import BudgetRow

#: Shares of the room that is left for texts.
_RATIOS = {"prompt": 2, "answer": 3}
#: Answers shown in the closing summary.
SAMPLES = 8


def frame(
    score: Score, settings: Settings, *, elapsed_s: float, budgets: Iterable[BudgetRow], flower: str, width: int
) -> RenderableType:
    """Return the whole live view; it fits into 80 columns and 24 lines, and leaves columns out below that."""
    narrow = width < NARROW
    return Panel(
        Group(
            _bar(score, elapsed_s, narrow=narrow),
            _pools(score, settings, narrow=narrow),
            *_budgets(budgets),
            _answers(score, score.last, narrow=narrow),
            Text(flower, "cyan", overflow="fold"),
        ),
        title=f"[bold]fleet demo[/] · {_size(settings)} · {'simulated' if narrow else 'the simulator answers'}",
        border_style="cyan",
    )


def plain_line(score: Score, elapsed_s: float) -> str:
    """Return the progress in one line, for a log."""
    return f"{score.done} of {score.total} done, {score.summary.failed} failed, {_pace(score, elapsed_s)}"


def closing(score: Score, *, elapsed_s: float, width: int) -> RenderableType:
    """Return the summary of the answers."""
    lines = "\n".join(score.summary.lines(new=score.done, wall_s=elapsed_s))
    samples = list(score.results)[:: max(1, score.done // SAMPLES)][:SAMPLES]
    answers = _answers(score, samples, narrow=width < NARROW)
    return Panel(Group(Text(lines), Text(), answers), title="Answers", title_align="left", border_style="green")


def _bar(score: Score, elapsed_s: float, *, narrow: bool) -> RenderableType:
    row = Table.grid(padding=(0, 2))
    row.add_row(
        ProgressBar(total=max(1, score.total), completed=score.done, width=8 if narrow else 44),
        Text(f"{score.done} of {score.total}", "bold"),
        Text(_pace(score, elapsed_s)),
    )
    return row


def _pace(score: Score, elapsed_s: float) -> str:
    rate = score.done / elapsed_s if elapsed_s > 0 else 0.0
    if not rate or not score.pending:
        return f"{rate:.1f} tasks/s, {elapsed_s:.0f} s"
    return f"{rate:.1f} tasks/s, {elapsed_s:.0f} s, {len(score.pending) / rate:.0f} s left"


def _pools(score: Score, settings: Settings, *, narrow: bool) -> Table:
    """One row per pool with what waits by priority; below, what was done of each priority and how long it waited."""
    names = [p.name.lower()[: 4 if narrow else None] for p in Priority]
    bots = [] if narrow else ["bots"]
    table = _table("waiting", *bots, "done", "failed", *names)
    for name, pool in settings.pools.items():
        waiting = [_count(score.backlog.get((name, priority), 0)) for priority in Priority]
        size = [] if narrow else [str(pool.bots)]
        table.add_row(name, *size, str(score.done_in(name)), _count(score.failed_in(name), "red"), *waiting)
    table.add_section()
    done = [f"{score.done_of(p)}" if narrow else f"{score.done_of(p)}/{score.submitted_of(p)}" for p in Priority]
    table.add_row("done", *[""] * len(bots), str(score.done), _count(score.summary.failed, "red"), *done)
    waits = [_seconds(score.mean_wait_s(p)) for p in Priority]
    if narrow:
        table.add_row("wait, s", "", "", *(wait.removesuffix(" s") for wait in waits))
        table.padding = (0, 1, 0, 0)
    else:
        table.add_row("mean wait", "", "", "", *waits)
    return table


def _budgets(budgets: Iterable[BudgetRow]) -> list[RenderableType]:
    return [
        Text.assemble(
            ("limit ", "dim"), row.limit, (": ", "dim"), _share(row.used_rpm, row.rpm), (" requests, ", "dim"),
            _share(row.used_tpm, row.tpm), (" tokens in the last minute\n", "dim"),
        )
        for row in budgets
    ]  # fmt: skip


def _share(used: float | None, limit: int | None) -> str:
    return "no limit" if limit is None else f"{used or 0:,.0f} of {limit:,}"


def _answers(score: Score, task_ids: Iterable[str], *, narrow: bool) -> Table:
    """One row per task; a narrow view has no room for how it was asked."""
    heads = ("bot", "persona", "priority", "wait", "prompt", "answer")
    kept = [place for place, head in enumerate(heads) if not narrow or head in ("bot", "wait", "answer")]
    table = _table(*(heads[place] for place in kept), left=range(len(kept)))
    table.expand = True
    for place, column in zip(kept, table.columns, strict=True):
        column.justify = "right" if heads[place] == "wait" else "left"
        if heads[place] in _RATIOS:
            column.ratio, column.overflow = _RATIOS[heads[place]], "ellipsis"
    for task_id in task_ids:
        result, task = score.results[task_id], score.tasks[task_id]
        said = result.get("answer") or (result.get("error") or {}).get("message") or ""
        cells = [result.get("bot") or "-", result.get("persona") or "-", task.priority.name.lower()]
        cells += [f"{waited_ms(result) / 1000:.1f} s", task.prompt or "", " ".join(said.split())]
        style = "red" if result["status"] == "failed" else ""
        table.add_row(*(Text(cells[place], style) for place in kept))
    return table


def _table(*columns: str, left: Collection[int] = (0,)) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True, header_style="dim")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index in left else "right", no_wrap=True)
    return table


def _count(number: int, style: str = "") -> Text:
    return Text(str(number), style if number else "dim")


def _seconds(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f} s"


def _size(settings: Settings) -> str:
    slots = settings.worker.processes * settings.slots_per_process
    return f"{counted(settings.bots, 'bot')} · {counted(slots, 'slot')}"
