"""What a job says while its tasks wait, and when it ends: the rules on a stand-in's looks, then the commands."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet.cli.main import main
from fleet.cli.run import patience
from fleet.cli.run.patience import Patience
from fleet.engine.admission.gates import CLOSED, Gate, Waiting
from fleet.engine.operations.obstacles import ParkedSample, PoolStanding
from fleet.engine.operations.waits import Crew, Standings, lines_in_order
from fleet.errors import StoreRefused, StoreUnavailable
from fleet.store import keys
from fleet.store.client import connect
from fleet.waits import CAUSES, LASTING, Cause, Wait
from tests.waiting import wait_until

LIMIT = "openai/gpt-5/default"


def waiting(tasks: int) -> Waiting:
    return Waiting((0, 0, tasks, 0, 0), None)


class Job:
    """A job of ten tasks whose clock the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *pools: PoolStanding, endless: bool = False) -> None:
        self.pools = pools
        self.now_s = 1000.0
        self.said: list[tuple[str, bool]] = []
        self.looks = 0
        monkeypatch.setattr(patience.time, "monotonic", lambda: self.now_s)
        self.patience = Patience(self.look, lambda line, warns: self.said.append((line, warns)), endless=endless)

    def look(self, pools: Iterable[str] | None) -> Standings:
        self.looks += 1
        return Standings(Crew(time.time(), ()), self.pools, lines_in_order(self.pools, time.time()))

    def ends_after(self, most_s: float, in_flight: int = 10) -> float | None:
        """Return the seconds without a result after which it ends; None: not within so many."""
        began_s = self.now_s
        while self.now_s < began_s + most_s:
            if self.patience.is_over(lambda: ["a"], in_flight):
                return self.now_s - began_s
            self.now_s += 0.2
        return None


@pytest.mark.parametrize("opens_in_s", [60, 20 * 86_400])
@pytest.mark.parametrize("cause", sorted(set(CAUSES) - {"worker"}))
def test_a_job_ends_for_what_somebody_must_change_and_for_nothing_else(
    cause: Cause, opens_in_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Wait(cause, time.time() + opens_in_s, LIMIT, "what the provider said")
    job = Job(monkeypatch, PoolStanding("a", gate=Gate(hold=wait), backlog=waiting(10)))
    ended_s = job.ends_after(120)
    is_hopeless = cause in LASTING - {"operator"}
    assert (ended_s is not None) == is_hopeless
    assert ended_s is None or ended_s <= 5.5
    if cause != "time":
        (line, warns), *more = job.said
        assert "10 tasks wait: " in line and "what the provider said" in line
        assert ("the next in" if cause == "limit" else "UTC, in") in line
        assert (warns, more) == (is_hopeless, [])
    assert [line.cause for line in job.patience.lines] == ([cause] if is_hopeless else [])


def test_what_a_job_waits_for_is_said_within_five_seconds_and_again_only_when_it_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = Job(
        monkeypatch, PoolStanding("a", gate=Gate(hold=Wait("hold", time.time() + 400, LIMIT)), backlog=waiting(10))
    )
    job.ends_after(3)
    assert len(job.said) == 1
    job.ends_after(60)
    assert len(job.said) == 1
    job.pools = (PoolStanding("a", gate=Gate(hold=Wait("outage", None, LIMIT)), backlog=waiting(10)),)
    job.ends_after(6)
    assert [line.partition(" (")[0] for line, _ in job.said[1:]] == [
        f"10 tasks wait: {LIMIT}: the provider fails or does not answer, so calls wait"
    ]
    assert job.patience.reason == job.said[1][0]


def test_a_job_that_moves_is_not_given_up_and_says_nothing_of_ordinary_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = Wait("limit", time.time() + 9, LIMIT)
    job = Job(monkeypatch, PoolStanding("a", gate=Gate(hold=limit), backlog=waiting(10)))
    for _ in range(40):
        assert job.ends_after(1) is None
        job.patience.moved()
    assert job.said == []
    assert job.looks <= 9  # one in five seconds
    assert job.ends_after(10) is None
    assert len(job.said) == 1  # nothing comes any more


@pytest.mark.parametrize("in_lists", [0, 4])
def test_a_job_whose_tasks_wait_in_their_slots_behind_a_hold_is_told_of_it_and_ends_too(
    in_lists: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Wait("configuration", time.time() + 60, "validator checks:good", "got KeyError raised at checks.py:5")
    job = Job(monkeypatch, PoolStanding("a", gate=Gate(hold=broken), backlog=waiting(in_lists), running=10 - in_lists))
    ended_s = job.ends_after(120)
    assert ended_s is not None
    assert 40 < ended_s < 50, "those at work may be about to end"
    assert "10 tasks wait: validator checks:good" in job.said[0][0]
    assert "restart the workers" in job.patience.lines[0].advice


KEY = Wait("key", time.time() + 60, LIMIT)


@pytest.mark.parametrize(
    ("pools", "why"),
    [
        (
            (PoolStanding("a", gate=Gate(hold=KEY), backlog=waiting(4)), PoolStanding("b", backlog=waiting(6))),
            "others have a turn",
        ),
        ((PoolStanding("a", gate=Gate(hold=KEY), backlog=waiting(4)),), "six of the ten are somewhere else"),
        (
            (
                PoolStanding("a", gate=Gate(hold=KEY), backlog=waiting(4)),
                PoolStanding("b", gate=Gate(hold=Wait("outage", None, LIMIT)), backlog=waiting(6)),
            ),
            "an outage passes",
        ),
        ((PoolStanding("a", backlog=waiting(10), gate=Gate(CLOSED)),), "somebody has paused it, and will resume it"),
        ((PoolStanding("a"),), "nobody knows where they are"),
    ],
)
def test_a_job_goes_on_as_long_as_anything_else_may_help(
    pools: tuple[PoolStanding, ...], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Job(monkeypatch, *pools).ends_after(300) is None, why


def test_others_tasks_that_wait_for_a_time_of_their_own_keep_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    later = ParkedSample(3, time.time() + 90_000, (Wait("time", is_everyones=False),) * 3)
    job = Job(monkeypatch, PoolStanding("a", gate=Gate(hold=KEY), backlog=waiting(10), parked=later))
    assert job.ends_after(10) is not None


def test_bots_at_work_and_workers_that_may_come_back_get_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at_work = Job(monkeypatch, PoolStanding("a", gate=Gate(hold=KEY), backlog=waiting(10), running=2))
    assert at_work.ends_after(patience.LONG_END_S - 1) is None
    assert at_work.ends_after(3) is not None
    restarted = Job(monkeypatch, PoolStanding("a", backlog=waiting(10), workers=1))
    assert restarted.ends_after(3) is None
    restarted.patience.moved()
    restarted.pools = (PoolStanding("a", backlog=waiting(10), workers=0),)
    assert restarted.ends_after(patience.LONG_END_S - 1) is None
    assert restarted.ends_after(3) is not None


def test_wait_waits_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(monkeypatch, PoolStanding("a", backlog=waiting(10), workers=0), endless=True)
    assert job.ends_after(600) is None
    assert len(job.said) == 1


def test_a_user_of_redis_who_may_not_look_is_told_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(monkeypatch)

    def refused(pools: Iterable[str] | None) -> Standings:
        raise StoreRefused("expected other rights")

    job.patience.look = refused
    assert job.ends_after(60) is None
    assert job.said == [("10 tasks in flight; what they wait for cannot be seen: expected other rights", True)]


def test_a_redis_that_is_away_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(pools: Iterable[str] | None) -> Standings:
        raise StoreUnavailable("no answer")

    job = Job(monkeypatch)
    job.patience.look = away
    assert job.ends_after(60) is None
    assert job.said == []


# ---- the commands


@pytest.fixture
def nobody(redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Run a command of a fleet that has no worker."""
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(main, list(words))


def test_submit_ends_with_3_and_says_why_where_the_answer_will_be_and_that_the_task_is_kept(
    nobody: Callable[..., Any],
) -> None:
    began_s = time.monotonic()
    answer = nobody("submit", "x", "--pool", "review", "--json")
    assert answer.exit_code == 3
    assert time.monotonic() - began_s < 25
    assert "no live worker serves pool review" in answer.stderr
    assert "celery -A fleet worker" in answer.stderr
    found = json.loads(answer.stdout)
    assert f"fleet why {found['task_id']}" in answer.stderr
    assert [(row["pool"], row["cause"]) for row in found["waits"]] == [("review", "worker")]
    story = nobody("why", found["task_id"], "--json")
    assert json.loads(story.stdout)["cause"] == "worker"
    assert "no live worker serves pool review" in json.loads(story.stdout)["lines"][-1]


def test_run_ends_with_3_and_the_same_command_goes_on_with_the_same_tasks(
    nobody: Callable[..., Any], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("END_S", 0.5), ("IDLE_S", 0.2), ("LOOK_S", (0.2, 0.2))):
        monkeypatch.setattr(patience, name, value)
    Path("in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    command = ("run", "in.jsonl", "-o", "out.jsonl", "--pool", "review", "--quiet", "--json")
    ends = [nobody(*command), nobody(*command)]
    for end in ends:
        assert end.exit_code == 3
        assert "no live worker serves pool review" in end.stderr
        assert "Run the same command again" in end.stderr
        told = json.loads(end.stdout)
        assert (told["finished"], told["in_flight"], told["waits"][0]["cause"]) == (False, 2, "worker")
    with connect(redis_url) as client:
        assert client.llen(keys.queue("review") + "\x06\x163") == 2  # once each, priority low


def test_run_with_wait_waits_on(nobody: Callable[..., Any], redis_url: str, tmp_path: Path) -> None:
    Path("in.jsonl").write_text('{"prompt": "a"}\n')
    log = tmp_path / "log"
    command = [
        sys.executable,
        "-m",
        "fleet.cli.main",
        "run",
        "in.jsonl",
        "-o",
        "out.jsonl",
        "--pool",
        "review",
        "--wait",
    ]
    with log.open("wb") as file:
        run = subprocess.Popen(command, stderr=file)
    try:
        said = "1 task waits: no live worker serves pool review"
        wait_until(lambda: said in log.read_text(), 60, "it says what it waits for")
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(patience.END_S + 1)
    finally:
        run.terminate()
        run.wait(30)
