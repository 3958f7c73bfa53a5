"""Dead letters of a real worker: what fails for good is kept with its result, and runs again when it is replayed."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from fleet import config
from fleet.cli.operate.why import read_story
from fleet.engine.messages.producer import submit_many
from fleet.engine.messages.queues import list_key
from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice
from fleet.models import BotResult
from fleet.signals.recorder import WorkerReport
from fleet.store import keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until

WAIT_S = 30
BOT = """\
import asyncio
from pathlib import Path

async def answer(task, context):
    while Path("slow").exists():
        await asyncio.sleep(0.02)
    if Path("broken").exists():
        raise ValueError(task.prompt)
    return "mended"
"""


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return connect(redis_url)


@pytest.fixture
def own_bot(fleet_env: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool with a bot function that fails while a file `broken` is there, and waits while `slow` is."""
    (tmp_path / "own_bot.py").write_text(BOT)
    (tmp_path / "fleet.toml").write_text('[pools.own]\nbots = 4\nfunction = "own_bot:answer"\n')
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    config.current.cache_clear()
    return tmp_path


def result_of(client: redis.Redis, task_id: str) -> BotResult | None:
    row: Any = client.get(keys.result(task_id))
    return BotResult.model_validate(json.loads(row)["result"]) if row else None


def wait_for(client: redis.Redis, task_id: str) -> BotResult:
    wait_until(lambda: result_of(client, task_id), WAIT_S, "the result is there")
    result = result_of(client, task_id)
    assert result is not None
    return result


def test_a_task_that_failed_for_good_is_kept_and_its_replay_replaces_the_failure(
    own_bot: Path, start_worker: StartWorker, client: redis.Redis
) -> None:
    (own_bot / "broken").touch()
    worker = start_worker()
    office = DeadLetterOffice(client, client, config.current())
    (task_id,) = submit_many([{"prompt": "a secret question", "kind": "math"}])
    assert wait_for(client, task_id).status == "failed"
    filed = office.find(task_id)
    assert filed is not None
    assert (filed.letter.reason, filed.letter.pool, filed.letter.kind) == ("BotFunctionFailed", "own", "math")
    assert "secret" not in filed.letter.model_dump_json()

    assert office.replay(task_id) == "queued"
    wait_until(lambda: office.find(task_id) is not None, WAIT_S, "it died again")
    again = office.find(task_id)
    assert again is not None and len(again.letter.history) == 2

    (own_bot / "broken").unlink()
    assert office.replay(task_id) == "queued"
    assert wait_for(client, task_id).answer == "mended"
    assert office.find(task_id) is None
    assert "secret" not in worker.log


def test_what_cannot_be_read_is_a_dead_letter_as_long_as_it_names_a_task(
    start_worker: StartWorker, client: redis.Redis, redis_url: str
) -> None:
    start_worker()
    office = DeadLetterOffice(client, client, config.current())
    plain = Celery(broker=redis_url, backend=redis_url)
    nowhere = plain.send_task("fleet.submit_task", args=["x"], kwargs={"pool": "nowhere"}).id
    foreign = plain.send_task("fleet.unheard_of", args=["x"]).id
    plain.close()
    no_json = {
        "body": base64.b64encode(b"{").decode(), "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"task": "fleet.submit_task", "id": "no-json"},
        "properties": {"body_encoding": "base64", "delivery_info": {}, "correlation_id": "no-json"},
    }  # fmt: skip
    client.lpush(list_key("celery", 2), json.dumps(no_json))
    for task_id in (nowhere, foreign, "no-json"):
        assert wait_for(client, task_id).status == "failed"
        filed = office.find(task_id)
        assert filed is not None and filed.letter.cause == "validation"
    letter = office.find(foreign)
    assert letter is not None and letter.letter.task == "fleet.unheard_of"
    assert office.body("no-json") == b"{"


def test_poison_is_a_dead_letter_with_its_message(start_worker: StartWorker, client: redis.Redis) -> None:
    (task_id,) = submit_many([{"prompt": "x", "pool": "review", "priority": "high"}])
    message: Any = client.rpop(list_key(keys.queue("review"), 1))
    client.lpush(keys.poison(), message)
    start_worker()
    office = DeadLetterOffice(client, client, config.current())
    assert wait_for(client, task_id).status == "failed"
    filed = office.find(task_id)
    assert filed is not None
    assert (filed.letter.cause, filed.letter.pool, filed.letter.priority.name) == ("poison", "review", "HIGH")
    client.delete(keys.result(task_id))
    assert office.replay(task_id) == "queued"
    assert wait_for(client, task_id).status == "ok"


def test_the_story_of_a_running_task_names_its_worker_and_its_bot(
    own_bot: Path, start_worker: StartWorker, client: redis.Redis
) -> None:
    (own_bot / "slow").touch()
    worker = start_worker()
    (task_id,) = submit_many([{"prompt": "x"}])
    wait_until(lambda: read_story(task_id, config.current()).state == "running", WAIT_S, "it runs")
    story = read_story(task_id, config.current())
    assert story.bot is not None and story.bot.startswith("own-")
    assert story.worker is not None and f"pid {worker.pid} " in story.worker
    (own_bot / "slow").unlink()
    wait_for(client, task_id)
    assert read_story(task_id, config.current()).state == "finished"


def test_a_worker_reports_that_its_main_thread_turns(start_worker: StartWorker, client: redis.Redis) -> None:
    worker = start_worker()

    def beat_at() -> float:
        rows: Any = client.hvals(keys.workers())
        return next((row.beat_at or 0 for row in map(WorkerReport.read, rows) if row.pid == worker.pid), 0)

    wait_until(beat_at, WAIT_S, "it beats")
    first = beat_at()
    wait_until(lambda: beat_at() > first, WAIT_S, "it beats again")
