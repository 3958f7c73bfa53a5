"""One attack on one system from start to verdict."""

from __future__ import annotations

import random
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from tests.chaos.arena import Arena, Tally
from tests.chaos.attacks import ATTACKS, QUICK_MS, SLOW_MS, Attack
from tests.chaos.fleet_side import fleet_side
from tests.chaos.stock_side import stock_side
from tests.redis_server import RedisServer
from tests.sentinels import SentinelStack

Budget = Literal["small", "large"]
COLUMNS = ("attack", "tasks", "lost", "doubled", "re-runs", "failed typed", "calls unknown", "seconds", "holds?")
#: What stands for durability in all figures: an append-only file, fsynced every second.
_AOF = ("--appendonly", "yes", "--appendfsync", "everysec")


@dataclass(frozen=True)
class Verdict:
    """One row: an attack, what became of its tasks, and why that is not what was promised."""

    attack: str
    tasks: int
    tally: Tally
    seconds: float
    broken: tuple[str, ...]
    note: str = ""

    def row(self) -> list[str]:
        tally = self.tally
        counts = [tally.lost, tally.doubled, tally.reruns, tally.failed, tally.unknown]
        holds = "yes" if not self.broken else "NO: " + "; ".join(self.broken)
        holds += f" ({self.note})" if self.note else ""
        return [self.attack, f"{self.tasks:,}", *(f"{count:,}" for count in counts), f"{self.seconds:.0f}", holds]


def run(attack: Attack, budget: Budget, *, seed: int, stock: bool = False) -> Verdict:
    """Strike one system with one attack, let it settle, and count.

    Args:
        attack: What to do.
        budget: How much of it.
        seed: Decides latencies, victims and moments. Two runs are alike, not the same: processes race.
        stock: Attack stock Celery, not Fleet.
    """
    with tempfile.TemporaryDirectory(prefix="fleet-chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with closing(_Sentinels(folder) if attack.sentinels else _Server(folder)) as broker:
            if stock:
                with stock_side(folder, broker, latency_ms=QUICK_MS, slow_ms=SLOW_MS) as side:
                    return _strike(attack, budget, Arena(broker, side, random.Random(seed)), "stock Celery: ")
            with fleet_side(folder, broker, latency_ms=QUICK_MS, slow_ms=SLOW_MS, seed=seed) as fleet:
                return _strike(attack, budget, Arena(broker, fleet, random.Random(seed)), "")


def run_apart(attack: Attack, budget: Budget, *, seed: int, stock: bool = False) -> Verdict:
    """Do the same in a process of its own: a Celery app stays with the first Redis that it has met."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_run_named, attack.name, budget, seed, stock).result()


def _run_named(name: str, budget: Budget, seed: int, stock: bool) -> Verdict:
    return run(next(attack for attack in ATTACKS if attack.name == name), budget, seed=seed, stock=stock)


class _Server(RedisServer):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, *_AOF)

    def close(self) -> None:
        self.stop()


class _Sentinels(SentinelStack):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, *_AOF)

    def close(self) -> None:
        self.stop()


def _strike(attack: Attack, budget: Budget, arena: Arena, prefix: str) -> Verdict:
    try:
        arena.open()
        started = time.monotonic()
        size = (attack.small if budget == "small" else attack.large) or {}
        attack.strike(arena, **size)
        arena.settle()
        seconds = time.monotonic() - started
    finally:
        arena.close()
    tally = arena.side.tally(arena.ids)
    broken = tuple(_broken(attack, arena, tally, deadly=size.get(attack.deadly, 0)))
    note = attack.stock_note if prefix else ""
    return Verdict(prefix + attack.name, len(arena.ids), tally, seconds, broken, note)


def _broken(attack: Attack, arena: Arena, tally: Tally, *, deadly: int) -> list[str]:
    """What was promised and is not so."""
    promises = {
        f"{tally.lost} lost": tally.lost,
        f"{tally.doubled} doubled": tally.doubled,
        f"{tally.reruns} re-runs": attack.runs_once and tally.reruns,
        f"{tally.buried} buried of {deadly} deadly": tally.buried != deadly,
        f"{tally.failed} failed": not attack.may_fail and tally.failed,
    }
    seen: dict[str, list[str]] = defaultdict(list)
    for problem in arena.problems:
        seen[problem.split(": ")[0]].append(problem)  # the rest tells one case from another
    times = [f"{len(cases)} x, first: {cases[0]}" if len(cases) > 1 else cases[0] for cases in seen.values()]
    return [what for what, is_broken in promises.items() if is_broken] + times + tally.problems
