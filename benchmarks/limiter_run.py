"""One run of the limiter's benchmark: a provider, four processes of callers, and what they saw."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import redis

from benchmarks.limiter_candidates import Shape

PROCESSES = 4
SHAPE = Shape(rpm=300, tpm=180_000, minute_s=6.0, callers=100)
#: Seconds at the start of a run that are not measured: the bursts of provider and limiter.
WARM_UP_S = 3.0


@dataclass
class Run:
    """What one run showed; times in seconds since the measured part began."""

    shape: Shape
    seconds: float
    start: float
    sent: list[tuple[str, float, float, int, bool]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    acquired: int = 0
    questions: int = 0
    round_trips: int = 0
    served_after_kill: int = 0

    def between(self, begin_s: float, end_s: float) -> list[tuple[str, float, float, int, bool]]:
        """Return the calls sent between two times of the measured part."""
        begin, end = self.start + WARM_UP_S + begin_s, self.start + WARM_UP_S + end_s
        return [call for call in self.sent if begin <= call[2] < end]

    @property
    def measured(self) -> list[tuple[str, float, float, int, bool]]:
        return self.between(0.0, self.seconds - WARM_UP_S)

    def used(self, begin_s: float = 0.0, end_s: float | None = None) -> float:
        """Return the share of the permitted tokens that was used."""
        end_s = self.seconds - WARM_UP_S if end_s is None else end_s
        rate = self.shape.tpm / self.shape.minute_s
        return sum(call[3] for call in self.between(begin_s, end_s)) / (rate * (end_s - begin_s))

    def refusals(self, begin_s: float, end_s: float) -> int:
        begin = self.start + WARM_UP_S
        return sum(begin + begin_s <= at < begin + end_s for at in self.refused)

    def waits(self, *, urgent: bool = False) -> list[float]:
        return sorted(sent - asked for _, asked, sent, _, is_urgent in self.measured if is_urgent == urgent) or [0.0]

    def jain(self, *, tokens: bool) -> float:
        """Return Jain's index over bots: 1 when all got the same."""
        got: Counter[str] = Counter()
        for bot, _, _, amount, _ in self.measured:
            got[bot] += amount if tokens else 1
        return sum(got.values()) ** 2 / (len(got) * sum(value**2 for value in got.values())) if got else 0.0


def quantile(values: list[float], share: float) -> float:
    """Return the value below which `share` of the sorted values lie."""
    return values[min(len(values) - 1, int(len(values) * share))]


class Bench:
    """One Redis for all runs, one provider a run. A run that was made before is not made again."""

    def __init__(self, url: str, seconds: float) -> None:
        self.url = url
        self.seconds = seconds
        self._runs: dict[str, Run] = {}

    def run(
        self, candidate: str = "fleet", *, shape: Shape = SHAPE, bots: list[str] | None = None, urgent: int = 0,
        share: float = 1.0, latency_ms: float = 0.0, mode: str = "bucket", seconds: float | None = None,
        outage: tuple[float, float] | None = None, kill_after_s: float | None = None,
    ) -> Run:  # fmt: skip
        """Let all processes call for `seconds`, and collect what they saw.

        Args:
            candidate: Name in `CANDIDATES`.
            shape: What the provider allows.
            bots: Name of each caller; callers of one name are one bot.
            urgent: So many bots are critical.
            share: Smallest share of its reservation that a call uses.
            latency_ms: Median time to an answer.
            mode: How the provider counts.
            seconds: Instead of the bench's, warm-up included.
            outage: When after the warm-up the provider refuses everybody, and for how long (s).
            kill_after_s: When after the warm-up one of the processes is killed (kill -9).
        """
        name = repr((candidate, shape, bots, urgent, share, latency_ms, mode, seconds, outage, kill_after_s))
        if name in self._runs:
            return self._runs[name]
        redis.Redis.from_url(self.url).flushall()
        names = bots or [f"bot-{i:03d}" for i in range(shape.callers)]
        run = Run(replace(shape, window=mode != "bucket"), seconds or self.seconds, 0.0)
        plan = {
            "candidate": candidate, "shape": asdict(run.shape), "urgent": sorted(set(names))[:urgent], "share": share,
            "seconds": run.seconds, "redis": self.url, "stream": kill_after_s is not None,
        }  # fmt: skip
        with _provider(shape, mode, latency_ms) as provider:
            plan["provider"] = provider
            workers = [_worker(plan | {"bots": names[i::PROCESSES]}) for i in range(PROCESSES)]
            run.start = _start(workers)
            reports: list[list[dict[str, Any]]] = [[] for _ in workers]
            readers = [
                threading.Thread(target=_read, args=(worker, report))
                for worker, report in zip(workers, reports, strict=True)
            ]
            for reader in readers:
                reader.start()
            if outage:
                _sleep_until(run.start + WARM_UP_S + outage[0])
                urllib.request.urlopen(f"{provider}/outage?s={outage[1]}", data=b"").read()
            if kill_after_s is not None:
                _sleep_until(run.start + WARM_UP_S + kill_after_s)
                workers[0].send_signal(signal.SIGKILL)
                before = _served_tokens(provider)
                _sleep_until(run.start + WARM_UP_S + kill_after_s + 2)
                run.served_after_kill = _served_tokens(provider) - before
            for reader in readers:
                reader.join()
        for report in reports:
            _add(run, report)
        self._runs[name] = run
        return run


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.time()))


def _served_tokens(provider: str) -> int:
    with urllib.request.urlopen(f"{provider}/ledger") as page:
        ledger = json.load(page)
    return int(ledger["total"]["input_tokens"]) + int(ledger["total"]["output_tokens"])


def _read(worker: subprocess.Popen[str], into: list[dict[str, Any]]) -> None:
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.endswith("\n"):
            into.append(json.loads(line))
    worker.wait()


def _add(run: Run, report: list[dict[str, Any]]) -> None:
    """Add what one process said: its last line is the whole, or it was killed and the lines before it are parts."""
    if report and "cpu_s" in report[-1]:
        report = report[-1:]
    for part in report:
        run.sent += [tuple(call) for call in part["sent"]]
        run.refused += part.get("refused", [])
        for name in ("cpu_s", "acquired", "questions", "round_trips"):
            setattr(run, name, getattr(run, name) + part.get(name, 0))


def _environment() -> dict[str, str]:
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _worker(plan: dict[str, Any]) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.limiter_worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=_environment(),
    )  # fmt: skip
    assert worker.stdin is not None
    worker.stdin.write(f"{json.dumps(plan)}\n")
    worker.stdin.flush()
    return worker


def _start(workers: list[subprocess.Popen[str]]) -> float:
    """Wait until all processes are ready, and let them begin together; return when."""
    for worker in workers:
        assert worker.stdout is not None
        if worker.stdout.readline() != "ready\n":
            raise RuntimeError("expected a worker of the benchmark to be ready, got none; its error stands above")
    start = time.time() + 0.2
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(f"{start}\n")
        worker.stdin.close()
    return start


@contextmanager
def _provider(shape: Shape, mode: str, latency_ms: float) -> Iterator[str]:
    options = {
        "rpm": shape.rpm, "tpm": shape.tpm, "minute_s": shape.minute_s, "mode": mode, "latency_ms": latency_ms,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.limiter_provider", json.dumps(options)], stdout=subprocess.PIPE, text=True,
        env=_environment(),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
