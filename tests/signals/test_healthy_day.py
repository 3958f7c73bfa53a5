"""No finding over a healthy day: real traffic (Azure's traces of 2023, looped to 24 h) and bursts that are drawn.

A fleet of two pools is played minute by minute: what arrives waits for slots, a few calls fail or are answered 429 and
are tried again, a few tasks fail, on any bot. Its limits and slots suffice, with queues in bursts.
"""

from __future__ import annotations

import csv
import random
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

import pytest

from fleet.models import bot_name
from fleet.signals.diagnosis.engine import diagnose
from fleet.signals.diagnosis.symptoms import BreakerFacts, Symptoms
from fleet.signals.diagnosis.verdict import judge
from fleet.signals.series import series_of
from fleet.signals.windows import HOURS, MINUTES, PERIOD, Failure, Period
from tests.conftest import DATA_DIR
from tests.signals.played_fleet import BOTS, NOW_S, POOLS, limit_view, pool_view, report, view_of

#: Minutes of a day.
DAY_MIN = 1440
#: Minutes between two looks: all windows are longer.
LOOK_EVERY_MIN = 4
#: Shares of the calls that fail and are answered 429, and of the tasks that end badly, in health.
FAILING, REFUSED, ENDING_BADLY = 0.01, 0.01, 0.004


def azure(name: str) -> list[tuple[int, int]]:
    """Return requests and generated tokens of each whole minute of a trace."""
    path = DATA_DIR / f"azure_llm_2023_{name}.csv"
    if not path.is_file():
        pytest.skip(f"needs {path.name} in FLEET_DATA_DIR")
    minutes: dict[int, tuple[int, int]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            minute = int(datetime.fromisoformat(row["TIMESTAMP"][:19]).timestamp() // 60)
            requests, tokens = minutes.get(minute, (0, 0))
            minutes[minute] = requests + 1, tokens + int(row["GeneratedTokens"])
    return [minutes.get(minute, (0, 0)) for minute in range(min(minutes) + 1, max(minutes))]


def drawn(seed: int) -> list[tuple[int, int]]:
    """Return an hour of arrivals with bursts: the mean changes eightfold between minutes."""
    draw = random.Random(seed)
    means = [draw.choice((40, 60, 80, 320)) for _ in range(60)]
    return [(count := round(draw.gauss(mean, mean**0.5)), 200 * count) for mean in means]


class PlayedPool:
    """One pool, minute by minute."""

    def __init__(self, pool: str, arrivals: list[tuple[int, int]], draw: random.Random) -> None:
        self.pool = pool
        self.waiting = 0
        self.backlog: deque[tuple[int, int]] = deque(maxlen=16)
        self.failures: deque[Failure] = deque(maxlen=500)
        self._arrivals = arrivals
        self._draw = draw
        mean = sum(count for count, _ in arrivals) / len(arrivals)
        #: Tasks that its slots do in a minute; its limit gives a fifth more.
        self.most = round(1.3 * mean) + 1
        self._ring = bytearray((MINUTES + HOURS) * PERIOD.size)
        self.tally: deque[dict[str, int]] = deque(maxlen=6)

    def play(self, minute: int, now_s: float) -> None:
        """Let one minute pass."""
        arrived, tokens = self._arrivals[minute % len(self._arrivals)]
        self.waiting += arrived
        done = min(self.waiting, self.most)
        self.waiting -= done
        failing, refused, bad = (sum(self._draw.random() < share for _ in range(done))
                                 for share in (FAILING, REFUSED, ENDING_BADLY))  # fmt: skip
        per_task = tokens / max(1, arrived) * self._draw.uniform(0.8, 1.25)
        number = int(now_s // 60)
        sums = dict.fromkeys(Period._fields, 0.0) | {
            "number": number, "completions": done, "ok": done - bad, "failed": bad, "dead_letters": bad,
            "calls": done + failing + refused, "calls_failed": failing + refused, "rate_limited": refused,
            "output_tokens": done * per_task, "ran_ms": done * (500 + 20 * per_task), "cost_usd_micros": done * 10,
        }  # fmt: skip
        PERIOD.pack_into(self._ring, number % MINUTES * PERIOD.size, *Period(**sums))
        self.tally.append({"well": done, "outage": failing})
        self.backlog.append((number, self.waiting))
        for _ in range(bad):
            bot = bot_name(self.pool, self._draw.randint(1, BOTS))
            self.failures.appendleft(Failure(now_s, "t", self.pool, bot, POOLS[self.pool], "BadAnswer"))

    @property
    def breaker(self) -> BreakerFacts:
        calls = {name: sum(one[name] for one in self.tally) for name in ("well", "outage")}
        last = self.tally[-1]
        return BreakerFacts(False, failed=last["outage"], well=last["well"], calls=calls)

    @property
    def series(self) -> bytes:
        return bytes(self._ring)


def day(source: str) -> Iterator[tuple[float, list[PlayedPool]]]:
    """Yield the pools every few minutes of a day, once an hour of it is behind them."""
    hours = [azure("conv"), azure("code")] if source == "azure" else [drawn(1), drawn(2)]
    draw = random.Random(7)
    pools = [PlayedPool(pool, hour, draw) for pool, hour in zip(POOLS, hours, strict=True)]
    for minute in range(DAY_MIN):
        now_s = NOW_S + 60 * minute
        for pool in pools:
            pool.play(minute, now_s)
        if minute % LOOK_EVERY_MIN == 0:
            yield now_s, pools


@pytest.mark.parametrize("source", ["drawn", "azure"])
def test_nothing_is_said_of_a_healthy_day(source: str) -> None:
    said: dict[float, tuple[str, ...]] = {}
    had_backlog = False
    for now_s, pools in day(source):
        had_backlog |= any(pool.waiting > pool.most for pool in pools)
        view = view_of(
            now_s=now_s,
            pools=[pool_view(pool.pool, waiting=pool.waiting) for pool in pools],
            limits=[limit_view(POOLS[pool.pool], rpm=round(1.2 * pool.most), usd_per_day=100.0, used_usd=5.0)
                    for pool in pools],
            workers=[report("w1@h", now_s=now_s), report("w2@h", now_s=now_s, ago_s=4)],
            busy=40 if any(pool.waiting for pool in pools) else 12,
        )  # fmt: skip
        symptoms = Symptoms(
            breakers={f"{POOLS[pool.pool]}/default": pool.breaker for pool in pools},
            series={pool.pool: series_of(pool.series) for pool in pools},
            failures=[failure for pool in pools for failure in islice(pool.failures, 100)],
            backlogs={pool.pool: tuple(pool.backlog) for pool in pools},
        )
        if found := diagnose(view, symptoms):
            said[now_s] = tuple(one.sentence for one in found)
        assert judge(view, symptoms).verdict != "our bots"
    assert not said
    assert had_backlog
