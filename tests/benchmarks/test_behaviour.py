"""A small run of the behaviour benchmark: the fleet, the bad bots and the table are real, the numbers are few."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]


def measured(output: str, figure: str) -> int:
    """Return the first number that was measured for a figure of the table."""
    found = re.search(rf"│ {re.escape(figure)} *│[^│]*│ *(\d+)", output)
    assert found, output
    return int(found.group(1))


def test_of_too_many_bad_bots_the_worst_are_found_and_the_cap_holds_and_tasks_get_their_answers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.behaviour", "--only", "crowd", "--tasks", "4800"]
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    name = "40 of 100 bad"
    assert measured(run.stdout, f"{name}: bad bots found") >= 8
    assert measured(run.stdout, f"{name}: most out at a time") <= 35
    assert measured(run.stdout, f"{name}: good bots out in 800 tasks") == 0
    assert measured(run.stdout, f"{name}: tasks without a good answer") <= 20
