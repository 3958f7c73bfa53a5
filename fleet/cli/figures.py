"""`Figures`: a table for rich that turns into a few lines a row where it does not fit. Imports rich: not for help."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fleet.cli.terminal import flowing


class Figures:
    """Rows of figures under heads; what `terminal.table` is for plain text.

    Args:
        heads: One per column; the first column names the row.
        left: Columns that are aligned left.
    """

    def __init__(self, *heads: str, left: Collection[int] = (0,)) -> None:
        self._heads = heads
        self._left = left
        self._rows: list[Sequence[str | Text]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add one row; missing cells at its end are empty."""
        self._rows.append([*cells, *[""] * (len(self._heads) - len(cells))])

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._table()
        if Measurement.get(console, options.update_width(10_000), table).maximum <= options.max_width:
            yield table
            return
        for row in self._rows:
            yield _plain(row[0])
            facts = [f"{head} {cell}" for head, cell in zip(self._heads[1:], row[1:], strict=True) if str(cell)]
            for line in flowing([fact.strip() for fact in facts], options.max_width):
                yield Text(line)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
        for index, head in enumerate(self._heads):
            table.add_column(head, justify="left" if index in self._left else "right", no_wrap=True)
        for row in self._rows:
            table.add_row(*map(_plain, row))
        return table


def figures(*named: tuple[str, int | str, str]) -> Text:
    """Return figures with their names in one line; each is label, value and style."""
    line = Text()
    for label, value, style in named:
        line.append("   " if line else "")
        line.append(f"{value:,}" if isinstance(value, int) else value, f"bold {style}".strip())
        line.append(f" {label}", "dim")
    return line


def _plain(cell: str | Text) -> Text:
    """Names come from outside: as `Text` their brackets are not read as markup."""
    return cell if isinstance(cell, Text) else Text(cell)
