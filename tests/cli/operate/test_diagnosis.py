"""All faces tell the same findings in the same words: `stats`, its JSON, `top`, `doctor`, and Prometheus."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.cli.setup.diagnosis_checks import alert_checks, diagnosis_checks, read_diagnoses
from fleet.engine.operations.overview import open_overview
from fleet.signals.metrics import exposition
from fleet.signals.recorder import WorkerReport
from fleet.store import keys
from fleet.store.client import connect
from fleet.waits import Wait

SENTENCE = "The key of openai/gpt-5 is not taken, 4 tasks wait: 401: bad key"


def said(*arguments: str) -> str:
    done = CliRunner().invoke(main, list(arguments), catch_exceptions=False, env={"COLUMNS": "200"})
    assert done.exit_code == 0
    return done.output


@pytest.fixture
def ill(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker lives; four tasks of two pools wait for a key."""
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    queues = ("fleet.tasks", *map(keys.queue, config.current().pools))
    report = WorkerReport(name="w@h", pid=1, cpu_percent=1, rss_mb=1, slots=1, busy=0, at=time.time(), queues=queues)
    with connect(redis_url) as client:
        client.hset(keys.workers(), "w@h", report.model_dump_json())
        wait = Wait("key", time.time() + 60, "openai/gpt-5/default", "401: bad key")
        for pool in ("research", "writing"):
            client.lpush(keys.queue(pool), "{}", "{}")
            client.set(keys.hold(keys.queue(pool)), wait.to_json(), px=60_000)


@pytest.mark.usefixtures("ill")
def test_all_faces_say_the_same_sentence() -> None:
    (found,) = [one for one in json.loads(said("stats", "--json"))["diagnoses"] if one["kind"] == "key_refused"]
    assert (found["sentence"], found["severity"], found["tasks"]) == (SENTENCE, "critical", 4)
    assert f"critical: {SENTENCE}" in said("stats")
    assert f"× {SENTENCE}" in said("top", "--once")
    settings = config.current()
    (check,) = [one for one in diagnosis_checks(read_diagnoses(settings)) if one.name == "fleet: key refused"]
    assert (check.level, check.found) == ("warn", SENTENCE)
    assert check.advice == (
        "Give it a key that works; workers that run use it within seconds, one from a variable when they start again; "
        "fleet keys."
    )
    with open_overview(settings) as overview:
        told = exposition(overview.read()).decode()
    assert 'fleet_diagnosis{kind="key_refused"} 3.0' in told
    assert 'fleet_diagnosis_tasks{kind="key_refused"} 4.0' in told
    assert 'fleet_diagnosis{kind="provider_down"} 0.0' in told


def test_nothing_wrong_is_all_well_and_an_idle_fleet_without_workers_no_fault() -> None:
    (well,) = diagnosis_checks(())
    assert (well.level, well.found) == ("ok", "all well")
    assert list(diagnosis_checks(None)) == []


def test_the_doctor_calls_no_worker_a_fault_only_when_something_waits(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    (idle,) = diagnosis_checks(read_diagnoses(config.current()))
    assert (idle.level, idle.found) == ("ok", "No worker runs: the next tasks will wait")
    with connect(redis_url) as client:
        client.lpush(keys.queue("research"), "{}")
    (waiting,) = diagnosis_checks(read_diagnoses(config.current()))
    assert (waiting.level, waiting.found) == (
        "warn", "No worker runs, 1 task waits: they stay in Redis until one starts"
    )  # fmt: skip


def test_doctor_says_whether_the_webhook_can_be_told() -> None:
    named = config.load(alerts={"webhook_env": "OPS_WEBHOOK"})
    assert [check.level for check in alert_checks(named, {"OPS_WEBHOOK"})] == ["ok"]
    (missing,) = alert_checks(named, {"PATH"})
    assert (missing.level, missing.found) == ("warn", "no variable OPS_WEBHOOK here")
    assert list(alert_checks(config.load(), {"OPS_WEBHOOK"})) == [], "nobody is to be told"
