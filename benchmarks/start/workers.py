"""Workers of Fleet, bare Celery and dramatiq: until they have started, what they take, and what they idle at."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import psutil

from benchmarks.bench import cpu_s, until
from benchmarks.overhead import SLOTS
from benchmarks.start.spent import QUICK, environment
from benchmarks.transport import kill_tree

#: Seconds that a worker without work is looked at, once it has calmed down.
CALM_S, IDLE_S = (0.1, 0.5) if QUICK else (4.0, 8.0)
#: Seconds that it gets to end.
END_S = 20.0
CELERY = (sys.executable, "-m", "celery", "-A")
OPTIONS = ("worker", "--loglevel", "INFO", "-c", str(SLOTS))
#: What Celery, and dramatiq, log once a worker takes tasks.
READY, DRAMATIQ_READY = b" ready.", b"Worker process is ready"


@dataclass(frozen=True)
class Started:
    """How a worker started: until its log says that it is ready, its CPU by then (ms), its first task done.

    Memory (MB) and idle CPU (share of a core) are those of all its processes; the peak, open files (but those
    of calls) and connections to Redis those of the first.
    """

    ready_ms: float
    first_ms: float
    cpu_ms: float
    rss_mb: float
    peak_mb: float
    idle_share: float | None
    files: int
    connections: int


def started(command: Sequence[str], ready: bytes, log: Path, is_done: Callable[[], bool], *, idles: bool) -> Started:
    """Start a worker for which a task waits, and end it.

    Args:
        command: Starts it.
        ready: What it logs once it takes tasks.
        log: Where it logs.
        is_done: Whether its first task is.
        idles: Nothing else waits: its CPU is read once it has calmed down.
    """
    log.write_bytes(b"")
    began = time.perf_counter()
    with log.open("ab") as out:
        process = psutil.Popen(command, stdout=out, stderr=out, env=environment())
    try:
        until(lambda: ready in log.read_bytes(), f"{' '.join(command)} to be ready; see {log}")
        ready_ms, cpu_ms = 1000 * (time.perf_counter() - began), 1000 * _cpu_s(process)
        until(is_done, f"the first task of {' '.join(command)}; see {log}")
        first_ms = 1000 * (time.perf_counter() - began)
        return Started(ready_ms, first_ms, cpu_ms, *_calm(process, idles))
    finally:
        _end(process)


def _end(process: psutil.Popen) -> None:
    """End a worker as an operator would: what it has taken goes back."""
    process.terminate()
    try:
        process.wait(END_S)
    except psutil.TimeoutExpired:
        kill_tree(process)


def _calm(process: psutil.Process, idles: bool) -> tuple[float, float, float | None, int, int]:
    time.sleep(CALM_S if idles else 0)
    before = _cpu_s(process)
    time.sleep(IDLE_S if idles else 0)
    share = (_cpu_s(process) - before) / IDLE_S if idles else None
    family = [process, *process.children(recursive=True)]
    rss_mb = sum(one.memory_info().rss for one in family) / 2**20
    port = urlparse(os.environ["BENCH_BROKER"]).port
    peers = [one.raddr.port for one in process.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]
    to_redis = peers.count(port)  # the others are kept for the next call to a provider
    return rss_mb, peak_mb(process.pid), share, process.num_fds() - len(peers) + to_redis, to_redis


def peak_mb(pid: int) -> float:
    """Return the most memory a process ever had, MB; where the system does not tell, what it has now."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024


def _cpu_s(process: psutil.Process) -> float:
    return cpu_s(process, *process.children(recursive=True))
