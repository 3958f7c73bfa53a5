"""What lies under a result's key, as every reader of Fleet takes it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fleet import config
from fleet.cli.run.collector import result_of
from fleet.config import ResultSettings, Settings
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.engine.outcomes.stored import failure_of, read_result
from fleet.errors import GiveUp, KeySpent, RateLimited
from fleet.models import BotResult, TaskError
from fleet.store import keys
from fleet.store.client import Store, connect

FAILED = BotResult(
    task_id="t", status="failed", error=TaskError(type="RateLimited", message="429", blame="provider"), finished_at=1.0
)


@pytest.mark.parametrize(("strict", "state"), [(False, "SUCCESS"), (True, "FAILURE")])
def test_a_strict_fleet_stores_failures_that_fleet_run_and_fleet_why_read_like_any_result(
    redis_url: str, strict: bool, state: str
) -> None:
    async def finish() -> bool:
        store = Store(redis_url)
        try:
            return await Finisher(store, Settings(results=ResultSettings(strict=strict))).finish(Finish(FAILED))
        finally:
            await store.close()

    assert asyncio.run(finish())
    raw = connect(redis_url).get(keys.result("t"))
    assert isinstance(raw, bytes)
    assert json.loads(raw)["status"] == state
    assert read_result(raw) == FAILED
    assert result_of(json.loads(raw)) == FAILED.model_dump(mode="json")


def test_strict_is_a_setting_that_a_variable_can_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not config.current().results.strict
    monkeypatch.setenv("FLEET_RESULTS__STRICT", "true")
    config.current.cache_clear()
    assert config.current().results.strict


def test_a_failed_result_is_an_exception_of_its_own_type() -> None:
    assert isinstance(failure_of(FAILED), RateLimited) and str(failure_of(FAILED)) == "429"
    spent = TaskError.of(KeySpent("no money", passes_at=1.5))
    error = failure_of(FAILED.model_copy(update={"error": spent}))
    assert (type(error), error.blame, error.passes, error.passes_at) == (KeySpent, "key", True, 1.5)
    foreign = FAILED.model_copy(update={"error": TaskError(type="NewerError", message="m")})
    assert isinstance(failure_of(foreign), GiveUp) and str(failure_of(foreign)) == "NewerError: m"
