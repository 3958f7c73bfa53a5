"""What a backup and a restore of a full queue cost: time, for how long writes wait, and memory of the process.

python -m benchmarks.backup [--tasks 10000 --tasks 100000 --tasks 1000000] [--results 100000]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import click

from benchmarks.bench import print_table, until

FLEET = "import sys; from fleet.cli.main import main; sys.exit(main())"
#: Results that are written in one round trip (count).
CHUNK = 5000
RESULT = json.dumps({"status": "SUCCESS", "result": {"status": "ok", "answer": "x" * 400}})


@click.command()
@click.option("--tasks", "sizes", type=int, multiple=True, default=(10_000, 100_000, 1_000_000), help="That wait.")
@click.option("--results", default=100_000, show_default=True, help="Results that are there: a key each.")
def main(sizes: tuple[int, ...], results: int) -> None:
    """Fill a Redis, back it up, restore it into another one; print one table."""
    rows = [_row(size, results) for size in sizes]
    head = ["tasks", "keys", "Redis", "file", "backup", "writes wait", "its memory", "restore", "its memory"]
    print_table("Backup and restore", head, rows)


def _row(tasks: int, results: int) -> list[str]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-bench-")))
        first, other = (stack.enter_context(_server(home / name)) for name in ("first", "other"))
        _fill(first, tasks, results)
        told, backup_s, backup_mb = _run(first, home, "backup", "b.fleet", "--most-s", "600", "--json")
        _, restore_s, restore_mb = _run(other, home, "restore", "b.fleet", "--json")
        cells = [f"{tasks:,}", f"{sum(told['keys'].values()):,}", f"{_used_mb(first):,.0f} MB"]
        cells += [
            f"{told['bytes'] / 1e6:,.1f} MB",
            f"{backup_s:.1f} s",
            f"{told['held_s']:.1f} s",
            f"{backup_mb:.0f} MB",
        ]
        return [*cells, f"{restore_s:.1f} s", f"{restore_mb:.0f} MB"]


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    from fleet.config import RedisSettings
    from fleet.store.client import connect
    from fleet.store.private.server import choose_server

    folder.mkdir()
    program = choose_server(RedisSettings().server)[0].program
    socket = folder / "redis.sock"
    url = f"unix://{socket}"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([str(program), *options], stdout=subprocess.DEVNULL)
    try:
        until(socket.exists, "Redis")
        connect(url, timeout_s=30).ping()
        yield url
    finally:
        process.kill()
        process.wait()


def _fill(url: str, tasks: int, results: int) -> None:
    """Queue tasks, and put as many results there, as a fleet at work has them."""
    from fleet import config
    from fleet.engine.messages.producer import submit_many
    from fleet.store import keys
    from fleet.store.client import connect

    os.environ["FLEET_REDIS__URL"] = url
    config.current.cache_clear()
    prompt = "What is to be said of it? " * 16
    for _ in submit_many({"prompt": f"{number}: {prompt}", "pool": "research"} for number in range(tasks)):
        pass
    client = connect(url, timeout_s=30)
    for start in range(0, results, CHUNK):
        with client.pipeline(transaction=False) as pipe:
            for number in range(start, min(results, start + CHUNK)):
                pipe.set(keys.result(f"00000000-0000-4000-a000-{number:012d}"), RESULT, ex=86_400)
            pipe.execute()


def _used_mb(url: str) -> float:
    from fleet.store.client import connect

    info: Any = connect(url, timeout_s=30).info("memory")
    return cast("float", info["used_memory"] / 1e6)


def _run(url: str, home: Path, *arguments: str) -> tuple[Any, float, float]:
    """Run a command; return what it printed, its seconds, and the most memory that it had, in MB."""
    env = {**os.environ, "FLEET_REDIS__URL": url, "FLEET_HOME": str(home / ".fleet")}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", FLEET, *arguments], cwd=home, env=env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"expected fleet {arguments[0]} to work, got exit code {process.returncode}")
    return json.loads(text), time.monotonic() - began, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
