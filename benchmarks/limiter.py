"""python -m benchmarks.limiter: every permitted call and none more, for Fleet's limiter and for what else there is.

4 processes x 25 callers in a closed loop against the simulator over HTTP, its minute compressed to 6 s: 300 requests
and 180,000 tokens a minute, 200-1200 tokens a call, so tokens bind at 43 calls/s. One run a cell: trust ratios.
"""

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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import redis

from benchmarks.bench import print_table, private_home
from benchmarks.limiter_candidates import CANDIDATES, Shape
from benchmarks.limiter_server_time import question_us

PROCESSES = 4
SHAPE = Shape(rpm=300, tpm=180_000, minute_s=6.0, callers=100)
#: Seconds at the start of a run that are not measured: the bursts of provider and limiter.
WARM_UP_S = 3.0
#: Median time to an answer, where it matters (ms): quick for an LLM.
LATENCY_MS = 200.0
#: Module that each library brings.
MODULES = {
    "throttled-py": "throttled", "limits": "limits", "pyrate-limiter": "pyrate_limiter",
    "self-limiters": "self_limiters",
}  # fmt: skip


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
    """One Redis and one provider a run."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self.seconds = seconds

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
        redis.Redis.from_url(self._url).flushall()
        names = bots or [f"bot-{i:03d}" for i in range(shape.callers)]
        run = Run(replace(shape, window=mode != "bucket"), seconds or self.seconds, 0.0)
        plan = {
            "candidate": candidate, "shape": asdict(run.shape), "urgent": sorted(set(names))[:urgent], "share": share,
            "seconds": run.seconds, "redis": self._url, "stream": kill_after_s is not None,
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


Row = list[str]


def _field(bench: Bench, only: str) -> Iterator[Row]:
    """Compare the candidates, in both modes of the provider."""
    for name in CANDIDATES:
        if only not in ("field", name) and not (only == "fleet" and name == "fleet"):
            continue
        if name in MODULES and find_spec(MODULES[name]) is None:
            yield [f"{name} (not installed)", *["-"] * 7]
            continue
        for mode in ("bucket", "sliding"):
            run = bench.run(name, mode=mode)
            waits = run.waits()
            calls = max(1, len(run.sent))
            yield [
                f"{name}, {mode}", f"{run.used():.3f}", str(len(run.refused)),
                f"{quantile(waits, 0.5):.2f} / {quantile(waits, 0.99):.2f}",
                f"{run.jain(tokens=False):.3f}", f"{run.round_trips / max(1, run.acquired):.2f}",
                f"{run.questions / max(1, run.acquired):.2f}", f"{run.cpu_s / calls * 1000:.2f}",
            ]  # fmt: skip


def _figures(bench: Bench, wanted: str) -> Iterator[Row]:
    """Return one row for each figure of Fleet's limiter: what, bar, measured."""
    for name, figure in FIGURES.items():
        if wanted in ("figures", name):
            yield from figure(bench)


def _equal(bench: Bench) -> Iterator[Row]:
    for mode, bar in (("bucket", 0.995), ("sliding", 0.990), ("fixed", 0.990)):
        run = bench.run(mode=mode)
        waits = run.waits()
        yield [f"tokens used, {mode}", f">= {bar}", f"{run.used():.4f}"]
        yield [f"429s in {run.seconds:.0f} s, {mode}", "0", str(len(run.refused))]
        yield [f"p99 / p50 wait, {mode}", "<= 1.15", f"{quantile(waits, 0.99) / quantile(waits, 0.5):.3f}"]
        yield [f"Jain of calls, charged per call, {mode}", ">= 0.99", f"{run.jain(tokens=False):.4f}"]
        yield [f"round trips (questions) per acquire, {mode}", "<= 2.2", _trips(run)]


def _trips(run: Run) -> str:
    return f"{run.round_trips / run.acquired:.2f} ({run.questions / run.acquired:.2f})"


def _idle(bench: Bench) -> Iterator[Row]:
    shape = replace(SHAPE, callers=4)
    run = bench.run(shape=shape, latency_ms=LATENCY_MS)
    yield ["questions per acquire, idle", "1", f"{run.questions / run.acquired:.2f}"]


def _by_token(bench: Bench) -> Iterator[Row]:
    run = bench.run(shape=replace(SHAPE, charge="token"))
    yield ["Jain of tokens, charged per token", ">= 0.99", f"{run.jain(tokens=True):.4f}"]


def _greedy(bench: Bench) -> Iterator[Row]:
    bots = ["greedy"] * 40 + [f"bot-{i:03d}" for i in range(60)]
    run = bench.run(bots=bots)
    tokens = Counter[str]()
    for bot, _, _, amount, _ in run.measured:
        tokens[bot] += amount
    yield ["share of a bot with 40 of 100 callers", "<= 2%", f"{tokens['greedy'] / sum(tokens.values()):.1%}"]
    yield ["tokens used meanwhile", ">= 0.995", f"{run.used():.4f}"]


def _urgent(bench: Bench) -> Iterator[Row]:
    for latency_ms in (LATENCY_MS, 0.0):
        run = bench.run(urgent=10, latency_ms=latency_ms)
        waits = run.waits(urgent=True)
        rest = sum(not call[4] for call in run.measured) / len(run.measured)
        about = f"answers after {latency_ms:.0f} ms"
        yield [
            f"p95 / p99 wait of 10 critical of 100, {about}", "<= 0.20 / 0.30 s" if latency_ms else "-",
            f"{quantile(waits, 0.95):.2f} / {quantile(waits, 0.99):.2f} s",
        ]  # fmt: skip
        yield [f"grants left to the rest, {about}", ">= 10%", f"{rest:.1%}"]
        yield [f"tokens used, round trips (questions), {about}", "-", f"{run.used():.4f}, {_trips(run)}"]


def _partial(bench: Bench) -> Iterator[Row]:
    # Calls that use 60% on average: 71 calls/s, so that tokens bind and not requests.
    run = bench.run(shape=replace(SHAPE, rpm=600), share=0.2, latency_ms=LATENCY_MS)
    yield ["tokens used, calls use 20-100% of what they reserve", ">= 0.99", f"{run.used():.4f}"]
    yield ["429s meanwhile", "0", str(len(run.refused))]


def _outage(bench: Bench) -> Iterator[Row]:
    run = bench.run(outage=(3.0, 1.5), seconds=WARM_UP_S + 10)
    yield ["429s in an outage of 1.5 s", "<= 6", str(run.refusals(3.0, 4.6))]
    yield ["429s in the 3 s after it", "0", str(run.refusals(4.6, 7.6))]
    run = bench.run(outage=(2.0, 10.0), seconds=WARM_UP_S + 15)
    first = [call[2] for call in run.between(12.0, 13.0)]
    if not first:
        yield ["first second after 10 s of outage", "<= 2", "nothing sent"]
        return
    slices = Counter(int((at - first[0]) * 10) for at in first if at - first[0] < 1)
    yield [
        "first second after 10 s of outage, peak/mean of 100 ms",
        "<= 2",
        f"{max(slices.values()) / (len(first) / 10):.2f}",
    ]
    yield ["429s in the outage of 10 s and after", "-", str(len(run.refused))]


def _killed(bench: Bench) -> Iterator[Row]:
    run = bench.run(kill_after_s=4.0, seconds=WARM_UP_S + 8)
    yield ["tokens used in the 2 s after kill -9 of a quarter", ">= 0.95", f"{run.served_after_kill / 2 / 30_000:.4f}"]


def _thousand(bench: Bench) -> Iterator[Row]:
    shape = Shape(rpm=3000, tpm=1_800_000, minute_s=6.0, callers=1000)
    run = bench.run(shape=shape)
    starved = shape.callers - len({call[0] for call in run.sent})
    yield ["1,000 bots at 430 calls/s: tokens used", ">= 0.99", f"{run.used():.4f}"]
    yield ["bots starved, 429s", "0, 0", f"{starved}, {len(run.refused)}"]
    yield ["round trips (questions) per acquire, 1,000 bots", "-", _trips(run)]


def _cpu(bench: Bench) -> Iterator[Row]:
    ours, floor = bench.run(), bench.run("blind sleep")
    per_call = [run.cpu_s / len(run.sent) * 1000 for run in (ours, floor)]
    yield ["client CPU s per 1,000 calls above the floor", "<= 0.5", f"{per_call[0] - per_call[1]:.2f}"]


def _server(bench: Bench) -> Iterator[Row]:
    for depth, (ours_us, trivial_us) in question_us(bench._url).items():
        yield [
            f"server time per question, {depth:,} waiting",
            "<= 45 us",
            f"{ours_us:.0f} us (a trivial script {trivial_us:.1f})",
        ]


FIGURES = {
    "equal": _equal, "idle": _idle, "by-token": _by_token, "greedy": _greedy, "urgent": _urgent, "partial": _partial,
    "outage": _outage, "killed": _killed, "thousand": _thousand, "cpu": _cpu, "server": _server,
}  # fmt: skip


@click.command()
@click.option("--seconds", default=40.0, show_default=True, help="Length of a run, warm-up included.")
@click.option(
    "--only", default="", help=f"field, figures, a candidate, or one of {', '.join(FIGURES)}. Empty: everything."
)
def main(seconds: float, only: str) -> None:
    """Measure Fleet's limiter and what else there is."""
    from fleet.store.embedded import ensure_redis

    with private_home() as home:
        bench = Bench(ensure_redis(home), seconds)
        if only in ("", "field", *CANDIDATES):
            columns = [
                "candidate",
                "tokens used",
                "429s",
                "wait p50 / p99 s",
                "Jain",
                "trips",
                "questions",
                "CPU s/1,000",
            ]
            print_table(f"the field, {seconds:.0f} s a run", columns, list(_field(bench, only or "field")))
        if only in ("", "figures", *FIGURES):
            print_table("Fleet's limiter", ["figure", "bar", "measured"], list(_figures(bench, only or "figures")))


if __name__ == "__main__":
    main()
