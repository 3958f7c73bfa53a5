"""Logs of processes that run on are put aside while they are written."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

from fleet.store.private.log_file import rotate
from tests.waiting import wait_until


def test_a_log_that_has_grown_is_put_aside_and_its_process_writes_on(tmp_path: Path) -> None:
    log, aside = tmp_path / "w1.log", tmp_path / "w1.log.1"
    code = "import sys\nfor line in sys.stdin: print('x' * 999, flush=True)"
    with log.open("ab") as out:
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=out)
    assert process.stdin is not None
    try:
        for lines in (12, 12, 1):
            process.stdin.write(b"\n" * lines)
            process.stdin.flush()
            wait_until(lambda lines=lines: log.stat().st_size == 1000 * lines, 20, "the lines are there")
            assert rotate(log, most_bytes=10_000) is (lines > 10)
        assert aside.stat().st_size == 12_000
        assert log.read_bytes() == b"x" * 999 + b"\n"
    finally:
        process.stdin.close()
        process.wait(20)


def test_what_is_not_there_or_small_stays_as_it_is(tmp_path: Path) -> None:
    assert not rotate(tmp_path / "none.log")
    (tmp_path / "small.log").write_text("a line")
    assert not rotate(tmp_path / "small.log")
    assert [path.name for path in tmp_path.iterdir()] == ["small.log"]


def test_of_two_who_look_at_once_one_puts_the_log_aside(tmp_path: Path) -> None:
    log = tmp_path / "w1.log"
    log.write_bytes(b"x" * 5_000_000)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert sorted(pool.map(_rotate, [log] * 4)) == [False, False, False, True]
    assert log.stat().st_size == 0 and log.with_name("w1.log.1").stat().st_size == 5_000_000


def _rotate(log: Path) -> bool:
    return rotate(log, most_bytes=1000)
