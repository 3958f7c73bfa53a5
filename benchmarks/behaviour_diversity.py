"""Bots that fall into one answer, through a real fleet: found, named and treated; and real text that is none of it.

What cures the bots is chosen so that each rung of the ladder is needed once.
"""

from __future__ import annotations

import json
import random
import time
from itertools import chain, cycle, repeat
from pathlib import Path
from typing import Any

from benchmarks.behaviour_fleet import KIND, Fleet, running_fleet
from benchmarks.behaviour_simulator import DATA, Pool
from benchmarks.behaviour_watch import Figure
from benchmarks.bench import until

#: Answers of a window: the smallest there is, the hardest to judge.
WINDOW = 200
#: Median time to an answer: as fast as the workers are.
LATENCY_MS = 20
#: Share of the bots that collapse, what ends it for one, and so the rung that must help.
CASES = ((0.1, "order", 1), (0.4, "persona", 2), (0.4, "temperature", 3))
#: Seconds between two looks: a window of such quick answers is over in half a second, and one look more is much of it.
EVERY_S = 0.2
SETTINGS = f"""
[diversity]
window = {WINDOW}
every_s = {EVERY_S}
"""
POOL = Pool("alike")
#: Whose recorded answers are mixed.
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
#: Bots asked the same question in turn; windows of a mix; share of words that noise replaces, in how many ways.
ASKED, MIXED, NOISE, WAYS = 4, 12, 0.1, 16


class Watched:
    """One class of answers as the fleet's watch sees it."""

    def __init__(self, fleet: Fleet, kind: str = KIND) -> None:
        self.fleet, self._field = fleet, f"{POOL.name}|{kind}"
        self._kind = kind

    @property
    def answers(self) -> int:
        return int(self.fleet.redis.hget(self.fleet.keys.answer_counts(), self._field) or 0)

    @property
    def state(self) -> dict[str, Any]:
        raw: Any = self.fleet.redis.hget(self.fleet.keys.diversity_states(), self._field)
        return dict(json.loads(raw)) if raw else {}

    @property
    def across(self) -> dict[str, Any]:
        readings = self.state.get("readings", {})
        return dict(readings.get("across", {"score": 0.0, "fallen": True, "usual_score": None}))

    @property
    def usual(self) -> float:
        """The score that is usual; 0 until it is learnt."""
        return float(self.across["usual_score"] or 0.0)

    def windows(self, count: float) -> float:
        """Let the bots answer for so many windows; return the answers per second."""
        started, first = time.monotonic(), self.answers
        self.fleet.feed(POOL.name, lambda: self.answers >= first + count * WINDOW, f"{count} windows", kind=self._kind)
        return (self.answers - first) / (time.monotonic() - started)

    def alarms(self, after: str) -> list[dict[str, str]]:
        return [one for one in self.fleet.events("diversity_alarm", after=after) if one["kind"] == self._kind]


def collapse(tasks: int, seed: int) -> list[Figure]:
    """Healthy windows, then three collapses."""
    with running_fleet(POOL, seed=seed, latency_ms=LATENCY_MS, settings=SETTINGS) as fleet:
        watched, windows, first = Watched(fleet), max(10, tasks // 500), fleet.now()
        rate = watched.windows(windows)
        alarms = len(watched.alarms(first))
        healthy = f"diversity alarms in {windows} healthy windows ({rate:.0f} answers/s)"
        cases = [figure for case in CASES for figure in _case(watched, *case)]
        return [
            Figure(healthy, "0", f"{alarms}", alarms == 0),
            *cases,
            _costs(watched),
        ]


def _case(watched: Watched, share: float, until_what: str, rung: int) -> list[Figure]:
    """Let bots collapse, and follow what the fleet does until the rung that must help is held."""
    fleet = watched.fleet
    _relearn(watched)
    usual, first = watched.usual, fleet.now()
    told = fleet.simulator.post("collapse", share=share, until=until_what, seed=rung)
    until(lambda: fleet.simulator.get("collapse")["answered"] > 0, "the first collapsed answer")
    start = watched.answers

    def seen(name: str) -> list[dict[str, str]]:
        return fleet.events(name, after=first)

    fleet.feed(POOL.name, lambda: bool(seen("diversity_treatment")), "an alarm and a treatment")
    alarm, flagged = seen("diversity_alarm")[0], watched.state["flagged"]
    bad = {POOL.bot(temperature) for temperature in told["temperatures"]}
    named = {POOL.bot(POOL.temperatures[number - 1]) for number in flagged}
    fleet.feed(POOL.name, lambda: _helped(seen("diversity_verdict"), rung), "the verdict that its rung helped")
    fleet.feed(POOL.name, lambda: not watched.across["fallen"] and watched.state["calm"] > 1, "a recovery")
    verdicts = seen("diversity_verdict")
    name = f"{share:.0%} collapse, until another {until_what}"
    delay = (int(alarm["answer"]) - start) / WINDOW
    precision, recall = len(bad & named) / len(named), len(bad & named) / len(bad)
    left, after = [float(one["control_share"]) for one in verdicts], watched.across["score"]
    return [
        Figure(f"{name}: alarm after, windows", "<= 2", f"{delay:.2f}", delay <= 2),
        Figure(f"{name}: precision, recall", ">= 0.9", f"{precision:.2f}, {recall:.2f}", min(precision, recall) >= 0.9),
        Figure(
            f"{name}: score usual / fallen / treated",
            "back",
            f"{usual:.0f} / {float(alarm['score']):.0f} / {after:.0f}",
            after >= 0.9 * usual,
        ),
        Figure(
            f"{name}: verdicts", f"{rung} helped", ", ".join(f"{one['remedy']} {one['verdict']}" for one in verdicts)
        ),
        Figure(
            f"{name}: likeness left in the control group",
            "0.8 to 1.2",
            ", ".join(f"{one:.2f}" for one in left),
            all(0.8 <= one <= 1.2 for one in left),
        ),
    ]


def _relearn(watched: Watched) -> None:
    """Forget the class and everything about it, and learn it again while it is healthy."""
    watched.fleet.simulator.post("collapse", share=0)
    watched.windows(2)  # so that no answer of the last collapse is learnt as usual
    watched.fleet.redis.hdel(watched.fleet.keys.diversity_states(), watched._field)
    watched.fleet.feed(POOL.name, lambda: watched.usual > 0, "a learnt class")


def _helped(verdicts: list[dict[str, str]], rung: int) -> bool:
    return any(one["verdict"] == "helped" and one["remedy"] == str(rung) for one in verdicts)


def _costs(watched: Watched) -> Figure:
    """Measure CPU: of a worker per answer, and of the leader per look at a window."""
    from fleet.diversity.fingerprint import Fingerprint, bins_of
    from fleet.diversity.ladder import Look, advance
    from fleet.diversity.state import ClassState

    texts = ["On the morning of the third day the tide had turned, and nobody said so. " * 4] * 2000
    started = time.process_time()
    for text in texts:
        bins_of(text)
    per_answer_us = (time.process_time() - started) / len(texts) * 1e6
    packed: Any = watched.fleet.redis.lrange(watched.fleet.keys.answers(POOL.name, KIND), 0, WINDOW - 1)
    answers = list(enumerate(map(Fingerprint.unpack, packed)))
    started = time.process_time()
    for _ in range(20):
        advance(ClassState(pool=POOL.name, kind=KIND), Look(answers, size=WINDOW, seen=WINDOW))
    per_look_ms = (time.process_time() - started) / 20 * 1e3
    size = sum(map(len, packed)) / len(packed)
    return Figure(
        "diversity: CPU of an answer, of a look; bytes of an answer",
        "",
        f"{per_answer_us:.0f} us, {per_look_ms:.0f} ms; {size:.0f}",
    )


def text(tasks: int, seed: int) -> list[Figure]:
    """Four models' answers as a mix, on own questions and on shared ones; then one model's with words changed."""
    if not DATA.is_file():
        return [Figure("real text", "", f"skipped: expected {DATA.name} in FLEET_DATA_DIR")]
    rows = [json.loads(line) for line in DATA.read_text().splitlines()]
    with running_fleet(POOL, seed=seed, latency_ms=LATENCY_MS, settings=SETTINGS) as fleet:
        fleet.simulator.stop()
        fleet.simulator.start(DATA, ",".join(f"{model}.solution" for model in MODELS))
        own, shared, first = Watched(fleet, "own"), Watched(fleet, "shared"), fleet.now()
        own.windows(MIXED)
        fleet.questions = cycle(chain.from_iterable(repeat(row["question"].strip(), ASKED) for row in rows))
        shared.windows(MIXED)
        mixed = len(own.alarms(first)), len(shared.alarms(first))
        until(lambda: fleet.is_idle, "the mix to end")
        fleet.simulator.stop()
        fleet.simulator.start(_noisy(rows, seed), ",".join(map(str, range(WAYS))))
        first, start = fleet.now(), shared.answers
        fleet.feed(
            POOL.name,
            lambda: bool(shared.alarms(first)) or shared.answers > start + 8 * WINDOW,
            "an alarm",
            kind="shared",
        )
        alarms = shared.alarms(first)
    delay = (int(alarms[0]["answer"]) - start) / WINDOW if alarms else float("inf")
    name = f"four models' answers, {MIXED} windows: alarms"
    return [
        Figure(f"{name} on own questions", "0", str(mixed[0]), mixed[0] == 0),
        Figure(f"{name} on questions shared by {ASKED} bots", "0", str(mixed[1]), mixed[1] == 0),
        Figure(
            f"one model's, {NOISE:.0%} of the words other plain words: alarm after, windows",
            "<= 2",
            f"{delay:.2f}",
            delay <= 2,
        ),
    ]


def _noisy(rows: list[dict[str, Any]], seed: int) -> Path:
    """Write one model's answers in several ways, in each of which a share of the words is another; return the file."""
    draw = random.Random(seed)
    solutions = [row[MODELS[-1]]["solution"] for row in rows]
    words = sorted({word for solution in solutions for word in solution.split() if word.isalpha()})

    def changed(solution: str) -> str:
        return " ".join(draw.choice(words) if draw.random() < NOISE else word for word in solution.split())

    path = Path("noisy.jsonl").absolute()
    lines = (
        json.dumps({"question": row["question"], **{str(way): changed(solution) for way in range(WAYS)}})
        for row, solution in zip(rows, solutions, strict=True)
    )
    path.write_text("\n".join(lines))
    return path
