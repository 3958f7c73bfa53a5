"""What the `fleet` command prints on terminals that are narrow, or that cannot show every character."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from rich.console import Console

from fleet.cli import terminal
from fleet.cli.figures import Figures
from tests.cli.operate.test_stats import snapshot_of
from tests.every import every

#: Environments whose stdout knows few characters.
LATIN_1 = {"PYTHONIOENCODING": "latin-1"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ROWS = [("POOL", "BOTS", "GATE"), ("research", "30", "closed, for 590 s"), ("writing", "4", ".")]


def test_a_table_that_fits_is_aligned_and_one_that_does_not_is_a_few_lines_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aligned = ["POOL      BOTS  GATE", "research    30  closed, for 590 s", "writing      4  ."]
    assert list(terminal.table(ROWS, left=(0, 2))) == aligned  # no screen: nothing limits the width
    monkeypatch.setenv("COLUMNS", "60")
    assert list(terminal.table(ROWS, left=(0, 2))) == aligned
    monkeypatch.setenv("COLUMNS", "24")
    assert list(terminal.table(ROWS, left=(0, 2))) == [
        "research", "  bots 30", "  gate closed, for 590 s", "writing", "  bots 4",
    ]  # fmt: skip


def test_prose_is_broken_between_words_and_set_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert list(terminal.fitted(["  rate  one two three four", "short"])) == [
        "  rate  one two",
        "    three four",
        "short",
    ]


def test_figures_turn_into_lines_where_they_do_not_fit() -> None:
    figures = Figures("pool", "bots", "busiest", left=(0, 2))
    figures.add_row("[research]", "30", "research-001 6")
    drawn = []
    for width in (60, 26):
        console = Console(width=width, file=io.StringIO())
        console.print(figures)
        assert isinstance(console.file, io.StringIO)
        drawn.append(console.file.getvalue())
    assert "[research]     30   research-001 6" in drawn[0]
    assert [line.rstrip() for line in drawn[1].splitlines()] == ["[research]", "  bots 30", "  busiest research-001 6"]


def test_what_an_encoding_lacks_is_replaced_and_columns_stay_columns() -> None:
    codecs_name = "fleet"
    terminal.adapt()
    drawn = "│ → … · ▁█ ─╮ 你"
    assert drawn.encode("ascii", codecs_name) == b"| > ~ - _# -+ \\u4f60"
    assert "é →".encode("latin-1", codecs_name) == "é >".encode("latin-1")
    assert every(len(stand_in) == 1 and stand_in.isascii() for stand_in in terminal.STAND_INS.values())


#: What is asked where nothing but ASCII is known; two that draw are asked in latin-1 as well.
COMMANDS = (
    ["--help"], ["doctor", "--all"], ["stats"], ["top", "--once"], ["pools"], ["bots"], ["limits"], ["diversity"],
    ["dead", "list"], ["why", "no-such-task"], ["bots", "show", "research-001"], ["simulate", "--rpm", "60"],
)  # fmt: skip
#: Runs them in one process, which has to import what they need once, and sets a mark behind what each prints and says.
ONE_AFTER_ANOTHER = """
import json, sys
from fleet.cli.main import main

for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments, prog_name="fleet")
    except SystemExit:
        pass
    for stream in (sys.stdout, sys.stderr):
        print("\\0", file=stream, flush=True)
"""


@pytest.mark.parametrize(("poor", "commands"), [(LATIN_1, COMMANDS[2:4]), (ASCII, COMMANDS)], ids=["latin-1", "ASCII"])
def test_no_command_ends_for_a_character_and_none_is_wider_than_the_terminal(
    poor: dict[str, str], commands: Sequence[list[str]], redis_url: str
) -> None:
    """Given a fleet that has worked, when each command prints for 60 columns of few characters, it ends well."""
    environment = {**os.environ, **poor, "FLEET_REDIS__URL": redis_url, "COLUMNS": "60"}
    snapshot_of(redis_url)
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps(commands)], capture_output=True, env=environment,
        timeout=120, check=False,
    )  # fmt: skip
    out, talk = (stream.decode("latin-1").split("\0\n") for stream in (done.stdout, done.stderr))
    assert done.returncode == 0 and len(out) == len(talk) == len(commands) + 1, talk[-1]
    for arguments, printed, said in zip(commands, out, talk, strict=False):
        assert "Traceback" not in said and "UnicodeEncodeError" not in said, (arguments, said)
        assert printed or said, arguments
        if arguments[0] in ("doctor", "stats", "top", "pools", "bots"):
            wide = [line for line in printed.splitlines() if len(line) > 60]
            assert wide == [], (arguments, wide)
