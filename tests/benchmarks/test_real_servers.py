"""The benchmark against real servers, kept working by the simulator: the program and the adapters are real."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_server_is_asked_everything_and_the_table_says_what_it_saw(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-m", "benchmarks.real_servers", "--kind", kind]
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr

    def good(row: str) -> str:
        found = re.search(rf"│ {re.escape(row)} +│ +(\d+ of \d+) │", run.stdout)
        assert found, run.stdout
        return found[1]

    assert good("an answer") == good("cut at 5 tokens") == good("a tool's call") == "1 of 1"
    assert (good("JSON, told in the prompt"), good("JSON, told by the wire")) == ("0 of 6", "6 of 6")
    assert good("a prompt too long") == "0 of 1"
    assert "a prompt too long: " in run.stdout


def test_a_program_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.real_servers", "--litellm", "--litellm-program", "no-such-program"]
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "expected no-such-program on PATH" in run.stderr
    assert "Traceback" not in run.stderr
