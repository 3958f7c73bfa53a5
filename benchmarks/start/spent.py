"""What a command takes from its start to its end: wall clock and CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Whether nothing is to be learnt from the figures: the test of this benchmark says so.
QUICK = "BENCH_QUICK" in os.environ
#: What `fleet` is, where it may not be on the PATH.
FLEET = ("-c", "from fleet.cli.main import main; main()")


@dataclass(frozen=True)
class Spent:
    """What a command took, and what it printed."""

    wall_ms: float
    cpu_ms: float
    out: str


def environment() -> dict[str, str]:
    """Return the environment of what is started here: it finds the benchmarks."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def spent(*command: str, fine: Sequence[int] = (0,)) -> Spent:
    """Run `python COMMAND...` to its end.

    Args:
        command: What stands behind `python`.
        fine: The exit codes that it may have.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], stdout=out, stderr=err, env=environment())
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode not in fine:
            said = err.read().decode()[-500:]
            raise RuntimeError(f"{' '.join(command)}: expected exit code {fine}, got {process.returncode}: {said}")
        cpu_s = usage.ru_utime + usage.ru_stime
        return Spent(1000 * wall_s, 1000 * cpu_s, out.read().decode())
