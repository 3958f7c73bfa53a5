"""Traces of tasks: two hours of Azure's, and seeded days with an office's hours."""

from __future__ import annotations

import csv
import math
import os
import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from benchmarks.scaling.world import Task

DATA = Path(os.environ.get("FLEET_DATA_DIR") or Path(__file__).parents[3] / "shared" / "data")
#: Seconds of a call: to begin with, for a token of the prompt, for a token of the answer.
BEGIN_S, IN_S, OUT_S = 0.3, 0.0001, 0.03
#: Tasks a second at night and in the busiest hour, mean seconds of a task.
NIGHT, NOON, MEAN_S = 0.4, 5.0, 5.0
#: Seconds of a day.
DAY_S = 86_400.0


def azure(name: str) -> list[Task] | None:
    """Return Azure's requests of an hour (`conv`, `code`); None: the data is not here."""
    path = DATA / f"azure_llm_2023_{name}.csv"
    if not path.exists():
        return None
    with path.open(encoding="utf-8") as file:
        return sorted(
            Task(
                datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp(),
                BEGIN_S + IN_S * int(row["ContextTokens"]) + OUT_S * int(row["GeneratedTokens"]),
            )
            for row in csv.DictReader(file)
        )


def diurnal(seed: int = 22) -> tuple[list[Task], tuple[float, ...]]:
    """Return a day of tasks, from midnight, and the tasks of each of the 48 hours before it.

    Nights are quiet; at nine the office opens within a quarter of an hour, and at six it closes.
    """
    chance = random.Random(seed)
    before = tuple(_hour_before(hour, chance) for hour in range(48))
    return list(_day(chance)), before


def rate(at_s: float) -> float:
    """Return the tasks a second at a time of day."""
    hour = at_s / 3600 % 24
    open_share = min(1.0, max(0.0, (hour - 8.9) / 0.25)) * min(1.0, max(0.0, (18.25 - hour) / 0.5))
    wave = 0.75 + 0.25 * math.sin((hour - 8) / 10 * 2 * math.pi)
    return NIGHT + (NOON - NIGHT) * open_share * wave


def _day(chance: random.Random) -> Iterator[Task]:
    at_s = 0.0
    while (at_s := at_s + chance.expovariate(NOON)) < DAY_S:
        if chance.random() < rate(at_s) / NOON:
            yield Task(at_s, chance.expovariate(1 / MEAN_S))


def _hour_before(hour: int, chance: random.Random) -> float:
    mean = sum(rate(hour * 3600 + minute * 60) for minute in range(60)) * 60
    return round(chance.gauss(mean, math.sqrt(mean)))
