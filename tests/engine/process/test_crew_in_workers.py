"""Real workers and plain Celery clients: queues and priorities as Celery users spell them; what is said of a crew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations.overview import open_overview
from fleet.store import keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

WAIT_S = 60


def client(redis_url: str, **options: Any) -> Any:
    plain = Celery(broker=redis_url, backend=redis_url)
    plain.conf.broker_transport_options = options
    return plain


def invoke(*words: str) -> str:
    return CliRunner().invoke(main, list(words)).output


def test_plain_clients_priorities_and_queues_are_seen_while_they_wait_and_served(
    start_worker: StartWorker, redis_url: str
) -> None:
    plain, guide = client(redis_url), client(redis_url, priority_steps=list(range(10)), sep=":")
    sent = [plain.send_task("fleet.submit_task", ["hi"], queue="fleet.writing", priority=step) for step in range(10)]
    sent += [guide.send_task("fleet.submit_task", ["hi"], queue="fleet.writing", priority=step) for step in (1, 8)]
    first = plain.send_task("fleet.submit_task", ["hi"], {"priority": "critical"}, priority=9)
    rows = json.loads(invoke("pools", "--json"))["pools"]
    backlog = {row["pool"]: row["backlog"] for row in rows}
    assert sum(backlog["writing"].values()) == 12
    assert backlog["writing"]["bulk"] == 5  # 6 to 9, and 8 of the other client; the others lie where kombu put them
    assert json.loads(invoke("why", sent[7].id, "--json"))["priority"] == "bulk"
    start_worker()
    wrong = plain.send_task("fleet.submit_task", ["hi"], {"pool": "review"}, queue="fleet.writing")
    answers = [result.get(timeout=WAIT_S) for result in sent]
    assert {(answer["status"], answer["pool"]) for answer in answers} == {("ok", "writing")}
    assert first.get(timeout=WAIT_S)["status"] == "ok"
    assert wrong.get(timeout=WAIT_S)["error"]["message"].startswith("pool: expected 'writing', to which the queue")
    # kombu put 1 and 2 beside 0, and 4 and 5 beside 3: each went on to its own priority, the others stayed
    with connect(redis_url) as redis:
        moved = [bool(redis.exists(keys.passed_on(result.id))) for result in sent]
    assert moved == [step in (1, 2, 4, 5) for step in range(10)] + [False, False]


def test_what_is_wrong_with_a_crew_is_said_by_its_log_and_by_everything_that_people_ask(
    start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.engine.tasks import submit_task

    first = start_worker("-Q", "research,reviw")
    assert "fleet.research   exchange=" in first.log
    assert "queue 'reviw': no pool has it" in first.log
    twin = WorkerProcess(tmp_path, "-n", first.name, "-X", "writing", env={"FLEET_HEALTH__OPINIONS": "2"})
    try:
        twin.wait_ready()
        (task_id,) = submit_many([{"prompt": "hi", "pool": "writing"}])
        unserved = "no live worker serves pool writing"
        wait_until(lambda: f"2 workers have the same name, {first.name}" in first.log, 30, "the first sees the other")
        chosen = [result.get(timeout=WAIT_S).pool for result in [submit_task.delay("hi") for _ in range(12)]]
        assert set(chosen) == {"research", "review"}  # nobody serves the third
        said = {words: invoke(*words.split()) for words in ("stats", "doctor", f"why {task_id}")}
        (tmp_path / "in.jsonl").write_text('{"prompt": "hi"}\n')
        said["run"] = invoke("submit", "hi", "--pool", "writing", "--no-wait")
        for words, text in said.items():
            flat = " ".join(text.replace("│", " ").split())
            assert unserved in flat.lower(), words  # where it begins a sentence, too
            assert f"2 workers have the same name, {first.name}" in flat, words
            assert "run with different settings in [health]" in flat, words
        with open_overview(config.current()) as overview:
            view = overview.read()
        assert [pool.workers for pool in view.pools] == [2, 0, 1]
        assert [trouble.about for trouble in view.resources.troubles] == ["pools", "names", "settings"]
        assert len(view.resources.workers) == 2
        control = client(config.current().redis.url.get_secret_value()).control  # type: ignore[union-attr]
        control.add_consumer("writing", destination=[first.name], reply=True, timeout=5)
        wait_until(lambda: unserved not in invoke("why", task_id), 30, "it is served now")
    finally:
        twin.kill()


def test_a_plain_clients_queue_without_the_prefix_is_told_by_why_and_doctor(fleet_env: None, redis_url: str) -> None:
    task_id = client(redis_url).send_task("fleet.submit_task", ["hi"], queue="writing").id
    assert "its client means fleet.writing" in invoke("why", task_id)
    assert "no pool has the queue writing" in " ".join(invoke("doctor").split())
    with connect(redis_url) as redis:
        assert redis.llen("writing") == 1
