"""Validators that raise, in several worker processes of one slot each: what no answer is to blame for fails no task."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet import config
from fleet.engine.admission.gates import read_gates
from fleet.engine.messages.producer import submit_many
from fleet.store import keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.engine.process.test_worker import results
from tests.waiting import wait_until

WAIT_S = 60.0
QUEUE = keys.queue("checked")
CHECKS = """
import os

def check(task, answer):
    if "OLD_CODE" in os.environ or os.path.exists("broken") or task.metadata.get("odd"):
        raise KeyError(answer)
    return True
"""


@pytest.fixture
def start(start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartWorker:
    """Start workers of one slot, whose validator raises on odd tasks, in old code, and while a file is there."""
    (tmp_path / "checks.py").write_text(CHECKS)
    monkeypatch.setenv("FLEET_POOLS", '{"checked": {"bots": 9, "validator": "checks:check"}}')
    monkeypatch.setenv("FLEET_WORKER__SLOTS", "1")
    config.current.cache_clear()
    return start_worker


def ask(number: int) -> list[str]:
    return list(submit_many([{"prompt": "What is 2+2?", "pool": "checked"}] * number))


def test_a_broken_validator_fails_no_task_whichever_worker_dies_restarts_or_has_old_code_and_bad_answers_fail_alone(
    redis_url: str, start: StartWorker, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    old, dying = start(env={"OLD_CODE": "1"}), start()
    ids = ask(8)
    with connect(redis_url) as client:
        wait_until(
            lambda: read_gates(client, [QUEUE])[0].hold is not None, WAIT_S, lambda: f"it waits; log:\n{old.log}"
        )
        hold = read_gates(client, [QUEUE])[0].hold
        assert hold is not None and (hold.cause, hold.about) == ("configuration", "validator checks:check")
        assert client.pttl(keys.hold(QUEUE)) < 70_000, "it opens by itself, whoever has died"
    dying.kill()  # between what it raised and any verdict
    broken.unlink()
    new = start()  # opens the pool, and does better than the old one
    mixed = [{"prompt": "What is 2+2?", "pool": "checked", "metadata": {"odd": n == 3}} for n in range(20)]
    ids += submit_many(mixed)
    odd = ids[11]
    wait_until(lambda: len(results(redis_url, ids)) == 28, WAIT_S, lambda: f"all are done; log:\n{old.log}\n{new.log}")
    errors = {one.task_id: one.error.type for one in results(redis_url, ids) if one.error is not None}
    assert errors == {odd: "ValidatorFailed"}
    assert "KeyError raised at checks.py:6" in old.log and "others do better" in old.log
