"""python -m benchmarks.answers_live [--check]: GSM8K as four live pools, asked by `ask_fleet` through real workers.

Each pool's simulator replays one model's recorded answers over HTTP. Half of the questions is asked with its known
answers, which teaches the fleet's record; the other half is then asked by majority, and by weighted votes with the
adaptive stop. What comes out is compared with the same halves counted offline (`benchmarks/answers.py`), and the calls
with the simulators' ledgers. Needs the public data (FLEET_DATA_DIR or ../shared/data); about two minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise, permutations
from pathlib import Path
from statistics import mean
from typing import Any

import click

from benchmarks.answers import MODELS, ROOT, Question, counted, not_worth, read
from benchmarks.bench import print_table, private_home, until, worker
from fleet.answers import Kinship, Majority, Weighted, learnt

#: Asks at the same time (count).
AT_ONCE = 48
#: Points by which live and offline may differ: of equal answers the first one counts, and an answer without a number
#: is no vote.
NEAR = 1.5
CONFIG = """
[worker]
slots = 100
processes = 1

[kinds.gsm8k]
"""
POOL = """
[providers.{name}]
kind = "simulator"
base_url = "{url}"

[limits."{name}/{name}"]
rpm = 10000000
tpm = 1000000000000

[pools.{name}]
bots = 40
provider = "{name}"
model = "{name}"
"""


@dataclass(frozen=True)
class Heard:
    """What came of a half: outcomes that are right and that failed, and members asked, by the fleet's own count."""

    right: float
    failed: int
    asked: int
    seconds: float


async def ask_half(rows: Sequence[dict[str, Any]], *, teach: bool = False, **terms: Any) -> Heard:
    """Ask each question of four pools, in the models' order, and see whether the outcome is the known answer."""
    from fleet import ask_fleet_async

    gate, started = asyncio.Semaphore(AT_ONCE), time.monotonic()

    async def ask(row: dict[str, Any]) -> Any:
        gold = row["ground_truth"].rpartition("A:")[2].strip()
        async with gate:
            return gold, await ask_fleet_async(
                row["question"], n=len(MODELS), pools=[f"m-{name}" for name in MODELS], kind="gsm8k",
                count_by=r"A:\s*(.*)", quorum=1, deadline_s=120, right=f"A: {gold}" if teach else None, **terms,
            )  # fmt: skip

    found = await asyncio.gather(*map(ask, rows))
    right = sum(outcome.counted == _canonical(gold) for gold, outcome in found)
    failed = sum(outcome.status == "failed" for _, outcome in found)
    asked = sum(outcome.asked + outcome.replaced for _, outcome in found)
    return Heard(right / len(rows), failed, asked, time.monotonic() - started)


def _canonical(gold: str) -> str | None:
    from fleet.answers import canonical

    return canonical(gold)


def offline(known: Sequence[Question], asked: Sequence[Question]) -> tuple[float, float, float]:
    """Return the same halves counted offline: majority, weighted with its stop, and the share of calls it saves.

    Of equal answers the first one is a majority's outcome, so that is the mean over all orders in which they may come.
    """
    rule = Weighted(Kinship(learnt((one.votes, one.right) for one in known)))
    order = sorted(range(len(MODELS)), key=lambda number: -rule.kinship.odds(MODELS[number]))
    early = counted(asked, rule, order, not_worth(rule))
    plain = mean(counted(asked, Majority(), one).right for one in permutations(range(len(MODELS))))
    return plain, early.right, early.saved


@contextmanager
def simulator(answers: Path, model: str) -> Iterator[str]:
    """Run a simulator that replays one model's answers; yields its address."""
    command = [sys.executable, "-m", "fleet.workers.simulator", "--port", "0", "--rpm", "100000000"]
    more = [
        "--tpm",
        "1000000000000",
        "--latency-ms",
        "20",
        "--answers",
        str(answers),
        "--answer-field",
        f"{model}.solution",
    ]
    process = subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1].rstrip("/")
    finally:
        process.terminate()
        process.wait()


def served(urls: Sequence[str]) -> int:
    """Return the calls that all simulators have answered."""
    total = 0
    for url in urls:
        with urllib.request.urlopen(f"{url}/ledger") as reply:
            total += int(json.load(reply)["total"]["served"])
    return total


def on_the_bill() -> int:
    """Return the calls that the fleet has counted."""
    from fleet import config
    from fleet.engine.operations.overview import open_overview

    with open_overview(config.current()) as overview:
        return sum(row.ever.calls for row in overview.read().bill.rows)


@click.command()
@click.option("--questions", default=0, help="Only N questions; 0 = all.")
@click.option("--check", is_flag=True, help="Exit code 1 when a bar is missed.")
def main(questions: int, check: bool) -> None:
    """Ask GSM8K of four live pools."""
    data = Path(os.environ.get("FLEET_DATA_DIR") or ROOT.parent / "shared" / "data") / "gsm8k_model_solutions.jsonl"
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    votes = read(data)
    places = random.Random(0).sample(range(len(rows)), questions or len(rows))
    known, asked = places[: len(places) // 2], places[len(places) // 2 :]
    with private_home() as home, ExitStack() as stack:
        urls = [stack.enter_context(simulator(data, name)) for name in MODELS]
        pools = "".join(POOL.format(name=f"m-{name}", url=url) for name, url in zip(MODELS, urls, strict=True))
        (home / "fleet.toml").write_text(CONFIG + pools)
        for number in (1, 2):
            stack.enter_context(worker("fleet", "-n", f"w{number}@answers", log=home / "worker.log"))
        wait_for_workers(2)
        taught, majority, weighted, calls = asyncio.run(_all(rows, known, asked, urls))
        billed = on_the_bill()
    plain, early, saves = offline([votes[place] for place in known], [votes[place] for place in asked])
    tell(len(asked), taught, majority, weighted, calls, billed, (plain, early, saves), check=check)


async def _all(
    rows: list[dict[str, Any]], known: Sequence[int], asked: Sequence[int], urls: Sequence[str]
) -> tuple[Heard, Heard, Heard, list[int]]:
    calls = [served(urls)]
    half = [rows[place] for place in asked]
    taught = await ask_half([rows[place] for place in known], stop="shadow", teach=True)
    calls.append(served(urls))
    majority = await ask_half(half, stop="shadow")
    calls.append(served(urls))
    weighted = await ask_half(half, aggregate="weighted", stop="adaptive")
    return taught, majority, weighted, [*calls, served(urls)]


def tell(
    asked: int, taught: Heard, majority: Heard, weighted: Heard, calls: list[int], billed: int,
    counted_offline: tuple[float, float, float], *, check: bool,
) -> None:  # fmt: skip
    """Print what was measured, and end with 1 where a bar is missed."""
    plain, early, saves = counted_offline
    paid = [after - before for before, after in pairwise(calls)]
    saved = 1 - paid[2] / (asked * len(MODELS))
    members = taught.asked + majority.asked + weighted.asked
    print_table(
        f"GSM8K asked of four live pools, {asked} questions, weights learnt on as many others",
        ["way to ask", "right, live", "right, offline", "calls saved, live", "offline", "asks/s"],
        [
            ["majority", f"{majority.right:.1%}", f"{plain:.1%}", "", "", f"{asked / majority.seconds:.0f}"],
            ["weighted, adaptive", f"{weighted.right:.1%}", f"{early:.1%}", f"{saved:.1%}", f"{saves:.1%}",
             f"{asked / weighted.seconds:.0f}"],
        ],
    )  # fmt: skip
    held = [
        ("no ask failed", f"{taught.failed + majority.failed + weighted.failed}",
         not taught.failed + majority.failed + weighted.failed),
        ("majority as offline, within 1.5 points", f"{100 * (majority.right - plain):+.1f}",
         abs(100 * (majority.right - plain)) <= NEAR),
        ("weighted as offline, or better, within 1.5 points", f"{100 * (weighted.right - early):+.1f}",
         100 * (weighted.right - early) >= -NEAR),
        ("weighted beats the majority by 5 points", f"{100 * (weighted.right - majority.right):.1f}",
         weighted.right - majority.right >= 0.05),
        ("the early stop saves 40% of the calls, by the ledgers", f"{saved:.1%}", saved >= 0.4),
        ("the fleet's bill and the ledgers count the same calls", f"{billed:,} {sum(paid):,}", billed == sum(paid)),
        ("a call for each member; second opinions are a few more", f"{members:,} {sum(paid):,}",
         members <= sum(paid) <= 1.01 * members),
    ]  # fmt: skip
    print_table(
        "Bars", ["bar", "measured", "holds"], [[name, value, "yes" if ok else "NO"] for name, value, ok in held]
    )
    if check and not all(ok for _, _, ok in held):
        sys.exit(1)


def wait_for_workers(count: int) -> None:
    """Wait until so many workers report."""
    from fleet import config
    from fleet.store import keys
    from fleet.store.client import connect
    from fleet.store.private.embedded import state_url

    redis = connect(state_url(config.current()))
    until(lambda: redis.hlen(keys.workers()) >= count, f"{count} workers")


if __name__ == "__main__":
    main()
