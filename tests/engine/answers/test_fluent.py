"""Bots that are fluent but wrong, on a real fleet: real workers, a simulator over HTTP, grades as tasks carry them.

28 bots of 28 voices. Every fifth voice gives another question's answer in 40% of its tasks, and all are wrong in
one of 20. How soon it is found at size: `python -m benchmarks.answers`.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

import fleet
from fleet import config
from fleet.models import BotResult
from fleet.roster import read_quarantined
from fleet.store.client import connect
from tests.counted import counted
from tests.engine.asking.conftest import simulator
from tests.redis_server import RedisServer
from tests.worker_process import QUICK_LEASES, WorkerProcess

BOTS, QUESTIONS, LIES, USUALLY_WRONG = 28, 400, 0.4, 0.05
#: Tasks of a round, and rounds at most.
TASKS, MOST_ROUNDS = 250, 12
TOML = """
[redis]
url = "{url}"

[providers.replayed]
kind = "simulator"
base_url = "{replayed}"

[pools.sums]
bots = 28
provider = "replayed"
model = "replayed-1"

[health]
quarantine_s = 3600

[worker]
slots = 40
"""


def written(path: Path) -> list[tuple[str, str, str]]:
    """Write the recorded answers, and return each question with what is right, and what a good bot says."""
    draw, asked = random.Random(1), [(f"How many are there in box {n}?", str(1000 + n)) for n in range(QUESTIONS)]
    rows, known = [], []
    for question, right in asked:
        other = draw.choice(asked)[1]
        true = other if draw.random() < USUALLY_WRONG else right
        lie = draw.choice(asked)[1] if draw.random() < LIES else true
        known.append((question, right, true))
        said = "I have counted them one by one, with care. A:"
        rows.append({"question": question, "true": f"{said} {true}", "lie": f"{said} {lie}"})
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return known


@pytest.fixture
def asked(
    tmp_path: Path, redis_process: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[tuple[str, str, str]]]:
    """A worker that serves the pool; what may be asked."""
    answers = tmp_path / "answers.jsonl"
    questions = written(answers)
    with connect(redis_process.url) as client:
        client.flushall()
    limits = ("--rpm", "10000000", "--tpm", "100000000000")
    with simulator("--answers", str(answers), "--answer-field", "true,true,true,true,lie", *limits) as replayed:
        (tmp_path / "fleet.toml").write_text(TOML.format(url=redis_process.url, replayed=replayed))
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
        config.current.cache_clear()
        env = {"FLEET_HOME": str(tmp_path / ".fleet"), "FLEET_CONFIG": str(tmp_path / "fleet.toml")}
        worker = WorkerProcess(tmp_path, "-Q", "fleet.sums", env=env, app=QUICK_LEASES)
        try:
            worker.wait_ready()
            yield questions
        finally:
            worker.kill()


def test_bots_that_are_fluent_but_wrong_are_taken_out_and_no_other(
    asked: list[tuple[str, str, str]], redis_process: RedisServer
) -> None:
    draw, tasks, lies = random.Random(2), Counter[str](), Counter[str]()

    def bad() -> set[str]:
        return set(lies)

    def out(client: redis.Redis) -> set[str]:
        return {
            bot for bot, one in read_quarantined(client, ["sums"]).items() if one.reason.startswith("wrong answers")
        }

    with connect(redis_process.url) as client:
        for _ in range(MOST_ROUNDS):
            questions = [draw.choice(asked) for _ in range(TASKS)]
            sent = [
                fleet.submit_task.delay(prompt, pool="sums", kind="boxes", right=right, right_by="A:")
                for prompt, right, _ in questions
            ]
            for (_, _, true), one in zip(questions, sent, strict=True):
                result: BotResult = one.get(timeout=60)
                assert result.status == "ok" and result.bot and result.answer
                tasks[result.bot] += 1
                if result.answer.rpartition(" ")[2] != true:
                    lies[result.bot] += 1
            if len(tasks) == BOTS and len(bad()) >= 5 and bad() <= out(client):
                break
        assert out(client) == bad() and 5 <= len(bad()) <= 6, (
            out(client),
            {bot: (tasks[bot], lies[bot]) for bot in bad()},
        )
        assert set(read_quarantined(client, ["sums"])) == bad(), "no other bot is out for anything"
        assert counted(client, "graded_wrong") >= sum(lies.values()) - 5
    assert sorted(tasks[bot] for bot in bad())[len(bad()) // 2] <= 100, {bot: tasks[bot] for bot in bad()}
