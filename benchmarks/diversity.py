"""python -m benchmarks.diversity: bots fall into one answer, and the fleet finds, names and treats them.

A real worker and a real simulator that replays a language model's recorded answers (FLEET_DATA_DIR or
../shared/data), or makes its own where there are none. The simulator lets a share of the bots collapse; what cures
them is chosen so that each rung of the ladder is needed once.
"""

from __future__ import annotations

import itertools
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen
from sys import executable
from typing import Any

import click
import redis

from benchmarks.bench import print_table, private_home, until, worker

ROOT = Path(__file__).parents[1]
BOTS = 100
#: One each, so that a temperature names a bot; none of them plus the 0.3 of the third rung is another one.
TEMPERATURES = [round(0.3 + 0.003 * number, 3) for number in range(BOTS)]
#: Answers of a window: the smallest there is, the hardest to judge.
WINDOW = 200
#: Tasks that wait in the queue, so that the worker is never idle.
AHEAD = 600
#: Share of the bots that collapse, what ends it for one, and so the rung that must help.
CASES = ((0.1, "order", 1), (0.4, "persona", 2), (0.4, "temperature", 3))
CONFIG = """
[providers.replay]
kind = "simulator"
base_url = "{url}"
[pools.maths]
bots = {bots}
provider = "replay"
[pools.maths.persona]
temperatures = {temperatures}
[worker]
slots = 100
[diversity]
window = {window}
every_s = 0.5
"""


@dataclass
class Case:
    """What was seen of one collapse."""

    share: float
    until: str
    rungs: list[str] = field(default_factory=list)
    delay: float = 0.0
    precision: float = 0.0
    recall: float = 0.0
    scores: tuple[float, float, float] = (0.0, 0.0, 0.0)
    control: list[float] = field(default_factory=list)

    def row(self) -> list[str]:
        before, fallen, after = self.scores
        return [
            f"{self.share:.0%}, until another {self.until}", f"{self.delay:.2f}", f"{self.precision:.2f}",
            f"{self.recall:.2f}", f"{before:.0f} / {fallen:.0f} / {after:.0f}", ", ".join(self.rungs),
            ", ".join(f"{share:.2f}" for share in self.control),
        ]  # fmt: skip


class Fleet:
    """The running fleet, as a benchmark feeds it and looks at it."""

    def __init__(self, url: str, questions: list[str]) -> None:
        from fleet import config
        from fleet.engine.producer import submit_many
        from fleet.models import BotTask
        from fleet.store import keys
        from fleet.store.client import connect
        from fleet.store.embedded import state_url

        self.url = url
        self.redis: redis.Redis = connect(state_url(config.current()))
        self._keys = keys
        tasks = (BotTask(prompt=text, pool="maths", kind="gsm8k") for text in itertools.cycle(questions))
        self._submit: Callable[[int], object] = lambda count: list(submit_many(itertools.islice(tasks, count)))

    @property
    def answers(self) -> int:
        return int(self.redis.hget(self._keys.answer_counts(), "maths|gsm8k") or 0)

    def state(self) -> dict[str, Any]:
        raw: Any = self.redis.hget(self._keys.diversity_states(), "maths|gsm8k")
        return dict(json.loads(raw)) if raw else {}

    def events(self, name: str, after: str = "-") -> list[dict[str, str]]:
        """Return the events of that name, the oldest first."""
        entries: Any = self.redis.xrange(self._keys.events(), f"({after}" if after != "-" else "-")
        rows = [{key.decode(): text.decode() for key, text in entry.items()} for _, entry in entries]
        return [row for row in rows if row["event"] == name]

    def now(self) -> str:
        """Return the place in the stream of events where we are."""
        last: Any = self.redis.xrevrange(self._keys.events(), count=1)
        return last[0][0].decode() if last else "0-0"

    def feed(self, condition: Callable[[], bool], what: str) -> None:
        """Keep the queue filled until a condition holds."""
        queue = self._keys.queue("maths")

        def step() -> bool:
            waiting = sum(int(self.redis.llen(key)) for key in self.redis.keys(f"{queue}*"))  # type: ignore[arg-type, union-attr]
            if waiting < AHEAD:
                self._submit(AHEAD)
            return condition()

        until(step, what, every_s=0.1)

    def collapse(self, **mode: object) -> dict[str, Any]:
        query = "&".join(f"{name}={value}" for name, value in mode.items())
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/collapse?{query}", method="POST")) as reply:
            return dict(json.load(reply))

    def collapsed(self) -> int:
        """Return how many collapsed answers the simulator has given since it was told to."""
        with urllib.request.urlopen(f"{self.url}/collapse") as reply:
            return int(json.load(reply)["answered"])

    def relearn(self) -> None:
        """Forget the class and everything about it, and learn it again while it is healthy."""
        self.collapse(share=0)
        self.redis.hdel(self._keys.diversity_states(), "maths|gsm8k")
        self.feed(lambda: _usual(self.state()) > 0, "a learnt class")


@click.command()
@click.option("--windows", default=100, show_default=True, help="Healthy windows in which nothing may be reported.")
def main(windows: int) -> None:
    """Measure false alarms, delay, culprits and the ladder; print one table."""
    with private_home() as home, ExitStack() as stack:
        questions, replay = _questions()
        url = stack.enter_context(_simulator(replay))
        config = CONFIG.format(url=url, bots=BOTS, temperatures=TEMPERATURES, window=WINDOW)
        (home / "fleet.toml").write_text(config)
        fleet = Fleet(url, questions)
        stack.enter_context(worker("fleet", "-n", "w1@diversity", log=home / "worker.log"))
        started, first = time.monotonic(), fleet.now()
        for number in range(1, windows + 1):
            fleet.feed(lambda until=number * WINDOW: fleet.answers >= until, f"healthy window {number}")  # type: ignore[misc]
        rate = fleet.answers / (time.monotonic() - started)
        false_alarms = len(fleet.events("diversity_alarm", first))
        cases = [_case(fleet, *case) for case in CASES]
        costs = _costs(fleet)
    print_table(
        f"{BOTS} bots, windows of {WINDOW} answers; {'real' if replay else 'generated'} answers, {rate:.0f}/s: "
        f"{false_alarms} false alarms in {windows} healthy windows; {costs}",
        ["collapse", "alarm after, windows", "precision", "recall", "score: usual / fallen / treated", "verdicts",
         "control: likeness left"],
        [case.row() for case in cases],
    )  # fmt: skip


def _case(fleet: Fleet, share: float, until_what: str, rung: int) -> Case:
    """Let bots collapse, and follow what the fleet does until the rung that must help is held."""
    fleet.relearn()
    case = Case(share, until_what)
    usual, first = _usual(fleet.state()), fleet.now()
    told = fleet.collapse(share=share, until=until_what, seed=rung)
    until(lambda: fleet.collapsed() > 0, "the first collapsed answer")
    start = fleet.answers
    fleet.feed(lambda: bool(fleet.events("diversity_treatment", first)), "an alarm and a treatment")
    alarm, state = fleet.events("diversity_alarm", first)[0], fleet.state()
    case.delay = (int(alarm["answer"]) - start) / WINDOW
    bad = {TEMPERATURES.index(temperature) + 1 for temperature in told["temperatures"]}
    named = set(state["flagged"])
    case.precision, case.recall = len(bad & named) / len(named), len(bad & named) / len(bad)
    fleet.feed(lambda: _helped(fleet.events("diversity_verdict", first), rung), "the verdict that its rung helped")
    fleet.feed(lambda: not _across(fleet.state())["fallen"] and fleet.state()["calm"] > 1, "a recovery")
    verdicts = fleet.events("diversity_verdict", first)
    case.rungs = [f"{one['rung']} {one['verdict']}" for one in verdicts]
    case.control = [float(one["control_share"]) for one in verdicts]
    case.scores = usual, float(alarm["score"]), _across(fleet.state())["score"]
    return case


def _helped(verdicts: list[dict[str, str]], rung: int) -> bool:
    return any(one["verdict"] == "helped" and one["rung"] == str(rung) for one in verdicts)


def _across(state: dict[str, Any]) -> dict[str, Any]:
    return dict(state["readings"].get("across", {"score": 0.0, "fallen": True, "usual_score": None}))


def _usual(state: dict[str, Any]) -> float:
    return float((state and _across(state)["usual_score"]) or 0.0)


def _questions() -> tuple[list[str], list[str]]:
    """Return the questions, and the simulator's options that replay their recorded answers, if there are any."""
    data = Path(os.environ.get("FLEET_DATA_DIR") or ROOT.parent / "shared" / "data") / "gsm8k_model_solutions.jsonl"
    if not data.is_file():
        return [f"Tell me about subject {number}." for number in range(1319)], []
    questions = [json.loads(line)["question"] for line in data.read_text().splitlines()]
    return questions, ["--answers", str(data), "--answer-field", "175b_verification.solution"]


@contextmanager
def _simulator(replay: list[str]) -> Iterator[str]:
    limits = ["--rpm", "1000000", "--tpm", "1000000000", "--latency-ms", "20"]
    command = [executable, "-m", "workers.simulator", "--port", "0", *limits, *replay]
    process = Popen(command, stdout=PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def _costs(fleet: Fleet) -> str:
    """Measure CPU: of a worker per answer, and of the leader per look at a window."""
    from fleet.diversity.fingerprint import Fingerprint, bins_of
    from fleet.diversity.ladder import Look, advance
    from fleet.diversity.state import ClassState
    from fleet.store import keys

    texts = ["On the morning of the third day the tide had turned, and nobody said so. " * 4] * 2000
    started = time.process_time()
    for text in texts:
        bins_of(text)
    per_answer_us = (time.process_time() - started) / len(texts) * 1e6
    packed: Any = fleet.redis.lrange(keys.answers("maths", "gsm8k"), 0, WINDOW - 1)
    answers = list(enumerate(map(Fingerprint.unpack, packed)))
    started = time.process_time()
    for _ in range(20):
        advance(ClassState(pool="maths", kind="gsm8k"), Look(answers, size=WINDOW, seen=WINDOW))
    per_look_ms = (time.process_time() - started) / 20 * 1e3
    size = sum(map(len, packed)) / len(packed)
    return f"CPU {per_answer_us:.0f} us an answer, {per_look_ms:.0f} ms a look; {size:.0f} bytes an answer"


if __name__ == "__main__":
    main()
