"""How text gets onto any terminal: one that is narrow, and one that cannot show every character.

Everything the `fleet` command prints goes through the two streams that `adapt` changes.
"""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from textwrap import wrap

import click

#: Columns under which a table of figures rarely fits.
NARROW = 80
#: What stands for our own marks where the encoding has none; as wide, so that columns stay columns.
STAND_INS = {
    **dict(zip("→…·–—•×", ">~---*x", strict=True)),
    **dict(zip("▁▂▃▄▅▆▇█", "_.:-=+*#", strict=True)),
    **dict.fromkeys("╭╮╰╯┏┓┗┛┡┩├┤┬┴┼╇╋╸╺", "+"), **dict.fromkeys("─━═", "-"), **dict.fromkeys("│┃", "|"),
}  # fmt: skip


def adapt() -> None:
    """Let no character end a command: what stdout or stderr cannot show is replaced, never raised."""
    codecs.register_error("fleet", _stand_in)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not (stream.encoding or "").lower().startswith("utf"):
            stream.reconfigure(errors="fleet")


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """Return what to write instead: our own marks have a stand-in, the rest is spelt as Python would (`\\u4f60`)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(STAND_INS.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in text), error.end


def say(text: str) -> None:
    """Tell a person something, on stderr: `fleet: ...`, broken between words on a terminal."""
    lines = f"fleet: {text}".split("\n")
    if sys.stderr.isatty():
        room = shutil.get_terminal_size().columns
        lines = [part for line in lines for part in _wrapped(line, room, "", "  ") or [""]]
    click.echo("\n".join(lines), err=True)
    sys.stderr.flush()


def columns() -> int | None:
    """Return the width of stdout; None when nobody's screen limits it: a pipe or a file, and no COLUMNS."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS", "").isdigit():
        return None
    return shutil.get_terminal_size().columns


def table(
    rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,), nothing: Collection[str] = ("", ".")
) -> Iterator[str]:
    """Yield rows as an aligned table, or, where that does not fit, each row as a few lines under its first cell.

    Args:
        rows: The heads, then the cells, as many in each row.
        left: Columns that are aligned left; the others hold figures.
        nothing: Cells that a narrow terminal need not show.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    room = columns()
    if room is None or sum(widths) + 2 * (len(widths) - 1) <= room:
        for row in rows:
            cells = [
                cell.ljust(width) if column in left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            yield "  ".join(cells).rstrip()
        return
    heads = [head.lower() for head in rows[0]]
    for row in rows[1:]:
        yield row[0]
        facts = [f"{head} {cell}" for head, cell in zip(heads[1:], row[1:], strict=True) if cell not in nothing]
        yield from flowing(facts, room)


def fitted(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines of prose broken between words where the terminal is too narrow, the rest set in by two more."""
    room = columns()
    for line in lines:
        if room is None or len(line) <= room:
            yield line
            continue
        indent = line[: len(line) - len(line.lstrip())]
        yield from _wrapped(line.strip(), room, indent, f"{indent}  ")


def flowing(facts: Sequence[str], room: int, *, indent: str = "  ") -> Iterator[str]:
    """Yield facts side by side, none torn apart unless it is wider than the room itself."""
    line = ""
    for fact in facts:
        if line and len(indent) + len(line) + 3 + len(fact) > room:
            yield indent + line
            line = ""
        line = f"{line}   {fact}" if line else fact
        if len(indent) + len(line) > room:
            yield from _wrapped(line, room, indent, indent * 2)
            line = ""
    if line:
        yield indent + line


def _wrapped(line: str, room: int, first: str, later: str) -> list[str]:
    """Break a line between words; a path that is wider than the room stays whole, so that it can be copied."""
    return wrap(
        line, room, initial_indent=first, subsequent_indent=later, break_on_hyphens=False, break_long_words=False
    )
