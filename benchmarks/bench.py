"""What the benchmarks share: a private Redis in a temporary home, worker processes, and one table at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

#: Seconds after which a benchmark that does not get on is a failure.
PATIENCE_S = 300.0


@contextmanager
def private_home() -> Iterator[Path]:
    """Run inside a temporary FLEET_HOME; the embedded Redis and the simulator started there are stopped at the end.

    What was set in the environment meanwhile, such as the path of a fleet.toml in it, is undone then.
    """
    from fleet.engine.local_simulator import stop_simulator
    from fleet.store.private.embedded import stop_redis

    before, place = dict(os.environ), Path.cwd()
    with tempfile.TemporaryDirectory(prefix="fleet-bench-", ignore_cleanup_errors=True) as folder:
        os.environ["FLEET_HOME"] = folder
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            stop_simulator(Path(folder))
            stop_redis(Path(folder))
            os.chdir(place)
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def worker(app: str, *options: str, env: dict[str, str] | None = None, log: Path) -> Iterator[psutil.Process]:
    """Run `celery -A app worker ...`; ends it (warm, then by force) when the block ends."""
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "--loglevel", "WARNING", *options]
    root = Path(__file__).parents[1]
    path = {"PYTHONPATH": str(root)}
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **path, **(env or {})})
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def flower(home: Path) -> Iterator[tuple[str, str]]:
    """Run Flower with the Fleet tab until the block ends; gives its address and `user:password`."""
    from fleet import config
    from fleet.dashboard.password import password

    log = home / "flower.log"
    environment = {**os.environ, "FLEET_FLOWER__PORT": "0", "PYTHONPATH": str(Path(__file__).parents[1])}
    with log.open("wb") as out:
        command = [sys.executable, "-m", "celery", "-A", "fleet", "flower"]
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        until(lambda: b"Flower: http" in log.read_bytes(), "Flower")
        address = log.read_text().partition("Flower: ")[2].partition(",")[0].rstrip("/")
        yield address, f"{config.current().flower.user}:{password(home)}"
    finally:
        process.terminate()
        process.wait(30)


def until(condition: Callable[[], bool], what: str, *, every_s: float = 0.01) -> None:
    """Poll until `condition()`; a benchmark that gets stuck fails with what it waited for."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE_S:.0f} s for {what}")
        time.sleep(every_s)


def cpu_s(*processes: psutil.Process) -> float:
    """CPU seconds that the processes have used so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print the one table of a benchmark."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*map(escape, row))  # a finding that names [pools] is no markup
    Console(width=120).print(table)
