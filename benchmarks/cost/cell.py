"""The cell: 60,000 tasks in eight hours, of 2,000 tokens of a shared document, 300 of their own and 200 of an answer.

A share of the tasks repeats one that came before, word for word. Each layout of the prompt says the same in another
order; the answers are recorded by the question, so that they must be equal whatever a lever does.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import math
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cost.world import BEGIN_S, POOL, PriceTable, Vendor, World
from fleet.batches import Leaving
from fleet.economy.cache.digest import digest_of, digest_of_pool
from fleet.economy.lanes.choice import LaneFacts
from fleet.economy.lanes.times import JobTime, facts_of
from fleet.engine.process.lanes import rescue_at
from fleet.models import BotTask
from fleet.workers.simulator.batch.jobs import planned, takes_s

#: Tokens of the shared document, of what is a task's own, and of an answer.
PREFIX_TOKENS, OWN_TOKENS, ANSWER_TOKENS = 2000, 300, 200
#: Documents that the tasks are about.
DOCUMENTS = 10
#: Ids by which tasks of the virtual world name them.
NAMES = {number: f"ctx-{number:024x}" for number in range(DOCUMENTS)}
#: Seconds between two tasks: 60,000 in eight hours; and within which an answer is needed where lanes may be taken.
EVERY_S, BY_S = 8 * 3600.0 / 60_000, 8 * 3600.0
#: Class of the tasks.
KIND = "cell"
#: Words of which all texts are stretches.
RESERVOIR = 200_000
#: Words of one token each.
WORDS = ("port", "crane", "tide", "pilot", "quay", "north", "sound", "rope", "mast", "keel", "hull", "dock", "buoy",
         "sail", "wind", "chart")  # fmt: skip


class Levers(NamedTuple):
    """What is used against the cost.

    Args:
        answers: Their kind is deterministic, whatever the persona: equal tasks, by Fleet's digest, are asked once.
        prefix: Shared documents are named, and stand first; else each prompt has them behind what is its own.
        lanes: Tasks say that they have eight hours.
        pasted_first: Without `prefix`: the documents are pasted before what is a task's own.
    """

    answers: bool = False
    prefix: bool = False
    lanes: bool = False
    pasted_first: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """What a task is about: the number of its question, and when it comes (s from the begin)."""

    question: int
    at_s: float


@lru_cache(maxsize=1)
def _reservoir() -> list[str]:
    return random.Random(7).choices(WORDS, k=RESERVOIR)


def words(seed: str, tokens: int) -> str:
    """Return a text of so many tokens by Fleet's and the simulator's count: a stretch of one long text."""
    start = zlib.crc32(seed.encode()) % (RESERVOIR - tokens)
    return " ".join(_reservoir()[start : start + tokens])


@lru_cache(maxsize=DOCUMENTS)
def document(number: int) -> str:
    """Return a shared document."""
    return words(f"document {number}", PREFIX_TOKENS)


def question(number: int) -> str:
    """Return the last thing that a task says."""
    return f"Case {number}: what is to be done?"


def notes(number: int) -> str:
    """Return what a task says before that: it is its own."""
    return words(f"notes {number}", OWN_TOKENS - 10)


def answer(number: int) -> str:
    """Return the recorded answer."""
    return f"In case {number}: {words(f'answer {number % 500}', ANSWER_TOKENS - 5)}"


def cases(count: int, repeated: float, seed: int = 7) -> list[Case]:
    """Return tasks, of which a share repeats one that came before."""
    draw, found, new = random.Random(seed), list[Case](), 0
    repeats = set(draw.sample(range(count // 20, count), round(count * repeated)))
    for number in range(count):
        asked = draw.randrange(new) if number in repeats else new
        new += number not in repeats
        found.append(Case(asked, EVERY_S * number))
    return found


def task_of(case: Case, levers: Levers, names: Mapping[int, str] = NAMES) -> dict[str, Any]:
    """Return a task as its producer submits it.

    Args:
        case: What it is about.
        levers: How it is written.
        names: Ids of the documents.
    """
    about, own = case.question % DOCUMENTS, {"role": "system", "content": notes(case.question)}
    asked = {"role": "user", "content": question(case.question)}
    pasted = {"role": "system", "content": document(about)}
    by = {"by_s": BY_S} if levers.lanes else {}
    if levers.prefix:
        return {"messages": [own, asked], "context": [names[about]], "kind": KIND, **by}
    said = [pasted, own, asked] if levers.pasted_first else [own, pasted, asked]
    return {"messages": said, "kind": KIND, **by}


def record(path: Path, questions: int) -> Path:
    """Write the recorded answers."""
    with path.open("w") as file:
        for number in range(questions):
            file.write(json.dumps({"question": question(number), "answer": answer(number)}) + "\n")
    return path


@dataclass(frozen=True, slots=True)
class Run:
    """What a run came to.

    Args:
        usd: By price list.
        answers: In the order of the tasks.
        calls: That were billed.
    """

    usd: Mapping[str, float]
    answers: tuple[str | None, ...]
    calls: int


def run(tables: Sequence[PriceTable], stream: Sequence[Case], levers: Levers, recorded: Path) -> Run:
    """Let a world answer all tasks; price lists beside the first bill the same calls."""
    return asyncio.run(_run(tables, stream, levers, recorded))


async def _run(tables: Sequence[PriceTable], stream: Sequence[Case], levers: Levers, recorded: Path) -> Run:
    vendor, table = Vendor(tables, recorded), tables[0]
    documents = {name: document(number) for number, name in NAMES.items()}
    world = World(vendor, table, documents=documents, times={f"api/{table.name}": batch_times(vendor)})
    answers: dict[int, str | None] = {}
    first: dict[int | str, int] = {}
    of_pool = digest_of_pool(world.settings, POOL)
    equal: list[int | str] = []
    batches = Batches(world)
    for number, case in enumerate(stream):
        at_s = BEGIN_S + case.at_s
        answers |= await batches.answered(at_s)
        vendor.now_s = at_s
        task = BotTask.model_validate(task_of(case, levers))
        equal.append(digest_of(task, of_pool=of_pool) if levers.answers else number)
        if first.setdefault(equal[number], number) == number:
            answers[number] = await world.ask(task, number)
            batches.take(number, task, at_s)
    answers |= await batches.answered(math.inf)
    told = [answers[first[one]] for one in equal]
    return Run(vendor.usd(), tuple(told), vendor.ledger.report()["total"]["served"])


def batch_times(vendor: Vendor) -> LaneFacts:
    """Return what Fleet has learnt of batches before: the times of its last fifty."""
    draws = [vendor.model.chance.draw("learnt", str(number).encode()) for number in range(50)]
    options = vendor.options
    took = [takes_s(draw, median_s=options.batch_median_s, p95_s=options.batch_p95_s) for draw in draws]
    return facts_of([JobTime(min(seconds, BY_S), 100, 100) for seconds in took])


@dataclass(order=True, slots=True)
class _Waiting:
    """A task in a batch: when it goes on, and whether it does so without an answer, because its time runs out."""

    at_s: float
    number: int
    is_freed: bool = field(compare=False)
    task: BotTask = field(compare=False)
    leaving: Leaving = field(compare=False)


class Batches:
    """What gathers, and what is on its way: formed as Fleet's `[lanes]` say, answered as the simulator's jobs are.

    Args:
        world: Whose tasks leave.
    """

    def __init__(self, world: World) -> None:
        self._world, self._formed = world, 0
        self._gathering: list[tuple[int, BotTask, Leaving]] = []
        self._since_s = 0.0
        self._due: list[_Waiting] = []

    def take(self, number: int, task: BotTask, at_s: float) -> None:
        """Take a task, if it has just left."""
        if not self._world.lanes.left:
            return
        self._since_s = self._since_s if self._gathering else at_s
        self._gathering.append((number, task, self._world.lanes.left.pop()))

    async def answered(self, until_s: float) -> dict[int, str | None]:
        """Return the answers of tasks that are back by then, by their numbers."""
        lanes, found = self._world.settings.lanes, dict[int, str | None]()
        is_full = len(self._gathering) >= lanes.batch_tasks
        if self._gathering and (is_full or until_s - self._since_s >= lanes.batch_after_s):
            self._form(self._since_s + lanes.batch_after_s)
        while self._due and self._due[0].at_s <= until_s:
            back = heapq.heappop(self._due)
            self._world.vendor.now_s = max(self._world.vendor.now_s, back.at_s)
            self._world.back(back.leaving, is_freed=back.is_freed)
            found[back.number] = await self._world.ask(back.task, back.number)
        return found

    def _form(self, at_s: float) -> None:
        vendor, self._formed = self._world.vendor, self._formed + 1
        chance, options = vendor.model.chance, vendor.options
        draw = chance.draw("batch", str(self._formed).encode())
        takes = takes_s(draw, median_s=options.batch_median_s, p95_s=options.batch_p95_s)
        due = {item.custom_id: item.due_s for item in planned(
            ((leaving.task, {}) for _, _, leaving in self._gathering), chance=chance, draw=draw, begins_s=at_s,
            takes_s=takes,
        )}  # fmt: skip
        for number, task, leaving in self._gathering:
            rescued_s, answered_s = rescue_at(leaving.by_at, at_s), due[leaving.task]
            waiting = _Waiting(min(answered_s, rescued_s), number, answered_s > rescued_s, task, leaving)
            heapq.heappush(self._due, waiting)
        self._gathering = []
