"""The running fleet of `benchmarks.behaviour`: worker processes and an embedded Redis, fed and looked at."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import redis

from benchmarks.behaviour_simulator import Pool, Simulator, recorded_answers
from benchmarks.bench import private_home, until, worker

#: Task class of everything that is asked.
KIND = "gsm8k"
#: Worker processes, and slots of each: fewer than bots, so that slots that bad bots hold are missed.
PROCESSES, SLOTS = 2, 40
#: Median time to an answer: with 80 slots about 250 tasks/s, which leaves the machine some room.
LATENCY_MS = 300
#: Tasks that wait in the queue while the fleet is kept busy.
AHEAD = 400
#: Results that are read at a time.
READ = 500
#: Seconds between two looks at who is out.
LOOK_S = 0.1
HEAD = """
[providers.replay]
kind = "simulator"
base_url = "{url}"
timeout_s = 3
[worker]
slots = {slots}
"""
POOL = """
[pools.{name}]
bots = {bots}
provider = "replay"
[pools.{name}.persona]
temperatures = {temperatures}
"""


class Fleet:
    """A running fleet, as a benchmark feeds it and looks at it.

    Attributes:
        wrong: Answers that were not the good one: what, by whom, how.
    """

    def __init__(self, simulator: Simulator, answers: dict[str, str]) -> None:
        from fleet import config
        from fleet.store import keys
        from fleet.store.client import connect
        from fleet.store.private.embedded import state_url

        self.simulator = simulator
        self.redis: redis.Redis = connect(state_url(config.current()), timeout_s=30)
        self.keys = keys
        self._answers = answers
        self.questions: Iterator[str] = itertools.cycle(answers)
        self._asked: dict[str, str] = {}
        self._submitted = 0
        self.wrong: list[str] = []

    @property
    def done(self) -> int:
        """Tasks with a result."""
        from fleet.signals.catalogue import COMPLETIONS
        from fleet.signals.counted.sums import read_totals

        return read_totals(self.redis, ()).get(COMPLETIONS.name.encode(), 0)

    @property
    def is_idle(self) -> bool:
        """True when every task has its result."""
        return self.done >= self._submitted

    def submit(self, pool: str, count: int, kind: str = KIND) -> None:
        from fleet.engine.messages.producer import submit_many
        from fleet.models import BotTask

        texts = list(itertools.islice(self.questions, count))
        tasks = (BotTask(prompt=text, pool=pool, kind=kind) for text in texts)
        self._asked.update(zip(submit_many(tasks), texts, strict=True))
        self._submitted += count

    def run(self, pool: str, tasks: int, *, look: Callable[[], object] = lambda: None) -> float:
        """Let a pool work on so many tasks, and return its tasks/s without the first and the last of them.

        Args:
            pool: Its name.
            tasks: How many.
            look: Called every tenth of a second.
        """
        start, edge, times = self.done, tasks // 50, []
        self.submit(pool, tasks)

        def reaches(wanted: int) -> bool:
            look()
            return self.done >= wanted

        for wanted in (edge, tasks - edge, tasks):
            until(lambda wanted=start + wanted: reaches(wanted), f"{wanted} tasks of {pool}", every_s=LOOK_S)  # type: ignore[misc]
            times.append(time.monotonic())
        look()
        return (tasks - 2 * edge) / (times[1] - times[0])

    def feed(
        self,
        pool: str,
        condition: Callable[[], bool],
        what: str,
        *,
        kind: str = KIND,
        look: Callable[[], object] = lambda: None,
    ) -> None:
        """Keep a pool busy until a condition holds; `look` is called every tenth of a second."""
        queue = self.keys.queue(pool)

        def step() -> bool:
            waiting = sum(int(self.redis.llen(key)) for key in self.redis.keys(f"{queue}*"))
            if waiting < AHEAD:
                self.submit(pool, AHEAD, kind)
            look()
            return condition()

        until(step, what, every_s=LOOK_S)

    def feed_for(self, pool: str, seconds: float, *, look: Callable[[], object] = lambda: None) -> None:
        """Keep a pool busy for so long."""
        end = time.monotonic() + seconds
        self.feed(pool, lambda: time.monotonic() > end, f"{seconds:.0f} s of work", look=look)

    def drain(self) -> Counter[str]:
        """Wait for all results not read so far, and return how many are good, wrong and failed."""
        found: Counter[str] = Counter()
        asked, self._asked = list(self._asked.items()), {}
        for start in range(0, len(asked), READ):
            part = asked[start : start + READ]
            names = [self.keys.result(task_id) for task_id, _ in part]
            until(lambda names=names: self.redis.exists(*names) == len(names), "results")  # type: ignore[misc]
            for raw, (_, question) in zip(self.redis.mget(names), part, strict=True):
                found[self._judged(json.loads(raw or "")["result"], question)] += 1
            self.redis.unlink(*names)
        return found

    def _judged(self, result: dict[str, Any], question: str) -> str:
        from fleet.quoting import quote

        if result["status"] == "failed":
            return f"failed: {result['error']['type']}"
        if result["answer"].strip() == self._answers[question].strip():
            return "good"
        self.wrong.append(
            f"{quote(result['answer'])} by {result['bot']}, {result['attempts']} calls, {result['ran_ms']} ms"
        )
        return "wrong"

    def events(self, *names: str, after: str = "-") -> list[dict[str, str]]:
        """Return the events of those names, the oldest first, each with its place in the stream as `id`."""
        entries: Any = self.redis.xrange(self.keys.events(), f"({after}" if after != "-" else "-")
        rows = [
            {"id": place.decode(), **{k.decode(): v.decode() for k, v in entry.items()}} for place, entry in entries
        ]
        return [row for row in rows if row["event"] in names]

    def now(self) -> str:
        """Return the place in the stream of events where we are."""
        last: Any = self.redis.xrevrange(self.keys.events(), count=1)
        return last[0][0].decode() if last else "0-0"


@contextmanager
def running_fleet(*pools: Pool, seed: int, latency_ms: float = LATENCY_MS, settings: str = "") -> Iterator[Fleet]:
    """Run a simulator and workers of these pools.

    Args:
        pools: The pools.
        seed: Of the simulator.
        latency_ms: Median time to an answer.
        settings: Further lines of fleet.toml.
    """
    from fleet import config

    answers = recorded_answers()
    with private_home() as home, ExitStack() as stack:
        replayed = home / "answers.jsonl"
        replayed.write_text("\n".join(json.dumps({"question": q, "answer": a}) for q, a in answers.items()))
        simulator = Simulator(replayed, "answer", latency_ms=latency_ms, seed=seed)
        stack.callback(simulator.stop)
        tables = [POOL.format(name=p.name, bots=p.bots, temperatures=p.temperatures) for p in pools]
        (home / "fleet.toml").write_text("".join([HEAD.format(url=simulator.url, slots=SLOTS), *tables, settings]))
        config.current.cache_clear()
        fleet = Fleet(simulator, answers)
        for number in range(PROCESSES):
            stack.enter_context(worker("fleet", "-n", f"w{number}@behaviour", log=home / "worker.log"))
        yield fleet
