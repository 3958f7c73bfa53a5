"""How suspects are halved, with quick children that speak as real ones do; a real child: `test_apart.py`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet.engine.outcomes.results import Done
from fleet.engine.process.suspects import apart
from fleet.engine.process.suspects.apart import Apart, told
from fleet.errors import Poison

WAIT_S = 90
#: The first word of a task's id says what it does; how often it was begun is written down.
CHILD = """
import os, sys, threading, time
from fleet.engine.process.suspects.frames import Begun, Ended, Failed, Socket, Stop, Work

worker = Socket(int(sys.argv[-1]))
worker.hear()

def note(word):
    with open({log!r}, "a") as log:
        log.write(word + "\\n")
    with open({log!r}) as log:
        return log.read().split().count(word)

if note("started") <= {false_starts}:
    os._exit(4)

def work(said):
    what = said.task_id.split("-")[0]
    times = note(said.task_id)
    worker.say(Begun(said.tag))
    if what == "kill" or (what == "once" and times == 1):
        time.sleep(0.2)
        os.kill(os.getpid(), 9)
    if what == "untold" and times == 1:  # its result is in Redis, and nobody hears of it
        os._exit(5)
    if what == "back":
        worker.say(Failed(said.tag, True, "all bots are quarantined"))
    if what != "long":
        time.sleep(0.4)
        worker.say(Ended(said.tag, "done before" if times > 1 else "done"))

while (said := worker.hear()) is not None:
    if isinstance(said, Work):
        threading.Thread(target=work, args=(said,), daemon=True).start()
    if isinstance(said, Stop):
        break
os._exit(0)
"""


class Trials:
    """Runs suspects in quick children, and remembers who was buried."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._script, self._log = folder / "child.py", folder / "log"
        self.buried: dict[str, str] = {}
        self.false_starts(0)
        monkeypatch.setattr(apart, "PYTHON_MODULE", (sys.executable, "-P", str(self._script)))
        monkeypatch.setattr(apart, "LINGER_S", 0.3)

    def false_starts(self, count: int) -> None:
        """Let so many children die before they begin anything."""
        self._script.write_text(CHILD.format(log=str(self._log), false_starts=count))

    def began(self, task_id: str) -> int:
        return self._log.read_text().split().count(task_id) if self._log.exists() else 0

    def children(self) -> list[psutil.Process]:
        """Return the children that are alive."""
        return [child for child in psutil.Process().children() if str(self._script) in child.cmdline()]

    def run(self, main: Callable[[Apart], Coroutine[Any, Any, Any]]) -> Any:
        async def bury(task_id: str, proven: Poison, headers: Mapping[str, Any], body: bytes) -> Done:
            self.buried[task_id] = str(proven)
            return Done("buried")

        async def run() -> Any:
            suspects = Apart(bury)
            try:
                async with asyncio.timeout(WAIT_S):
                    return await main(suspects)
            finally:
                await suspects.close()
                assert suspects.count == 0

        return asyncio.run(run())

    def all(self, *task_ids: str) -> list[Any]:
        """Return how each of these ended."""
        return list(self.run(lambda suspects: asyncio.gather(*(suspects.work(i, request(i)) for i in task_ids))))


def request(task_id: str) -> dict[str, Any]:
    return {"args": [], "kwargs": {}, "properties": {"delivery_tag": f"tag of {task_id}"}}


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trials:
    return Trials(tmp_path, monkeypatch)


def test_one_deadly_task_among_ninety_is_buried_and_nobody_else(trials: Trials) -> None:
    ends = trials.all(*(f"ok-{n}" for n in range(45)), "kill-1", *(f"ok-{n}" for n in range(45, 89)))
    assert list(trials.buried) == ["kill-1"]
    assert "alone in a child process, which died by signal 9 (SIGKILL)" in trials.buried["kill-1"]
    assert [isinstance(end, Done) for end in ends].count(True) == 1 and len(ends) == 90  # the others have answers


def test_several_deadly_tasks_are_each_proven_alone(trials: Trials) -> None:
    trials.all("kill-1", "ok-1", "kill-2", "ok-2", "ok-3", "kill-3")
    assert sorted(trials.buried) == ["kill-1", "kill-2", "kill-3"]


def test_a_task_that_was_alone_in_one_death_only_is_innocent(trials: Trials) -> None:
    assert trials.all("once-1") == ["done before"]
    assert trials.buried == {} and trials.began("once-1") == 2


def test_children_that_die_before_they_begin_prove_nothing_however_many(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "FIRST_PAUSE_S", 0.01)
    trials.false_starts(4)
    assert trials.all("ok-1") == ["done"]
    assert trials.buried == {} and trials.began("started") == 5


def test_a_child_that_cannot_even_be_started_is_tried_again(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "FIRST_PAUSE_S", 0.05)
    good = apart.PYTHON_MODULE
    monkeypatch.setattr(apart, "PYTHON_MODULE", ("/no/such/program",))

    async def main(suspects: Apart) -> Any:
        work = asyncio.ensure_future(suspects.work("ok-1", request("ok-1")))
        await asyncio.sleep(0.2)
        monkeypatch.setattr(apart, "PYTHON_MODULE", good)
        return await work

    assert trials.run(main) == "done" and trials.buried == {}


def test_an_end_that_the_child_could_not_tell_is_asked_for_again_and_loses_nothing(trials: Trials) -> None:
    assert trials.all("untold-1", "ok-1")[0] == "done before"
    assert trials.buried == {}


def test_a_suspect_that_comes_later_joins_the_child_that_runs_and_a_cancelled_one_keeps_nobody(trials: Trials) -> None:
    async def main(suspects: Apart) -> Any:
        long = asyncio.ensure_future(suspects.work("long-1", request("long-1")))
        while not trials.began("long-1"):
            await asyncio.sleep(0.02)
        done = await suspects.work("ok-1", request("ok-1"))
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        return done

    assert trials.run(main) == "done" and trials.began("started") == 1


def test_when_it_closes_no_child_is_left_whichever_half_ends_first(trials: Trials) -> None:
    async def main(suspects: Apart) -> None:
        works = [
            asyncio.ensure_future(suspects.work(i, request(i))) for i in ("untold-1", "long-1", "long-2", "long-3")
        ]
        while trials.began("started") < 3:
            await asyncio.sleep(0.02)
        await suspects.close()
        assert trials.children() == []
        for work in works:
            work.cancel()
        await asyncio.wait(works)

    trials.run(main)


def test_what_the_child_hands_back_goes_back(trials: Trials) -> None:
    from celery.exceptions import Reject

    with pytest.raises(Reject) as rejected:
        trials.all("back-1")
    assert rejected.value.requeue


@pytest.mark.parametrize(("code", "how"), [(-9, "signal 9 (SIGKILL)"), (-70, "signal 70"), (3, "exit code 3")])
def test_the_proof_names_the_signal_or_the_exit_code(code: int, how: str) -> None:
    assert told(code) == f"died by {how}"
