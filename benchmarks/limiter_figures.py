"""The figures of Fleet's own limiter: each function makes its runs and yields rows of what, bar, measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

from benchmarks.limiter_candidates import Shape
from benchmarks.limiter_run import SHAPE, WARM_UP_S, Bench, Run, quantile
from benchmarks.limiter_server_time import question_us

#: Median time to an answer, where it matters (ms): quick for an LLM.
LATENCY_MS = 200.0
#: Critical callers among the 100.
URGENT = 10
#: When a process is killed, in seconds after the warm-up, one run each.
KILLS_S = (3.5, 3.7, 3.9, 4.1)
#: Pairs of runs for the client's CPU time, and the length of each run (s).
CPU_TURNS, CPU_S = 5, 15.0

Row = list[str]


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
        run = bench.run(urgent=URGENT, latency_ms=latency_ms)
        waits = run.waits(urgent=True)
        rest = sum(not call[4] for call in run.measured) / len(run.measured)
        about = f"answers after {latency_ms:.0f} ms"
        yield [
            f"p95 / p99 wait of {URGENT} critical of 100, {about}", "<= 0.20 / 0.30 s",
            f"{quantile(waits, 0.95):.2f} / {quantile(waits, 0.99):.2f} s",
        ]  # fmt: skip
        if not latency_ms:
            # Who asks again at once waits callers / grants a second on average, in whatever order: Little's law.
            least_s = URGENT * 700 / (SHAPE.tpm / SHAPE.minute_s * 0.9)
            yield ["  the least that a mean wait can be then, with 10% for the rest", "-", f"{least_s:.2f} s"]
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
    what = "first second after 10 s of outage, peak/mean of 100 ms"
    yield [what, "<= 2", f"{max(slices.values()) / (len(first) / 10):.2f}"]
    yield ["429s in the outage of 10 s and after", "-", str(len(run.refused))]


def _killed(bench: Bench) -> Iterator[Row]:
    # Two seconds are 86 calls, so that a single kill says +- 2%.
    runs = [bench.run(kill_after_s=after_s, seconds=WARM_UP_S + 7) for after_s in KILLS_S]
    used = [run.served_after_kill / 2 / (SHAPE.tpm / SHAPE.minute_s) for run in runs]
    each = ", ".join(f"{share:.2f}" for share in used)
    what = "tokens used in the 2 s after kill -9 of a quarter, mean (each)"
    yield [what, ">= 0.95", f"{sum(used) / len(used):.3f} ({each})"]


def _thousand(bench: Bench) -> Iterator[Row]:
    shape = Shape(rpm=3000, tpm=1_800_000, minute_s=6.0, callers=1000)
    run = bench.run(shape=shape)
    starved = shape.callers - len({call[0] for call in run.sent})
    yield ["1,000 bots at 430 calls/s: tokens used", ">= 0.99", f"{run.used():.4f}"]
    yield ["bots starved, 429s", "0, 0", f"{starved}, {len(run.refused)}"]
    yield ["round trips (questions) per acquire, 1,000 bots", "-", _trips(run)]


def _cpu(bench: Bench) -> Iterator[Row]:
    # In turns, for what a call costs the floor alone varies by half with what else the machine does.
    above = []
    for turn in range(CPU_TURNS):
        ours, floor = (bench.run(name, seconds=CPU_S + turn / 1000) for name in ("fleet", "blind sleep"))
        above.append((ours.cpu_s / len(ours.sent) - floor.cpu_s / len(floor.sent)) * 1000)
    each = ", ".join(f"{one:.2f}" for one in above)
    what = "client CPU s per 1,000 calls above the floor, median (each)"
    yield [what, "<= 0.5", f"{median(above):.2f} ({each})"]


def _server(bench: Bench) -> Iterator[Row]:
    for depth, (ours_us, trivial_us) in question_us(bench.url).items():
        what = f"server time per question, {depth:,} waiting"
        yield [what, "<= 45 us", f"{ours_us:.0f} us (a trivial script {trivial_us:.1f})"]


#: By name: what `--only` takes.
FIGURES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "equal": _equal, "idle": _idle, "by-token": _by_token, "greedy": _greedy, "urgent": _urgent, "partial": _partial,
    "outage": _outage, "killed": _killed, "thousand": _thousand, "cpu": _cpu, "server": _server,
}  # fmt: skip
