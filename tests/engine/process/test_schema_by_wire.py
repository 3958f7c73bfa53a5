"""Questions with a schema through a real worker, against the simulator's strict mode: valid at the first call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet import config
from fleet.engine.messages.producer import submit_many
from fleet.models import BotResult
from tests.engine.conftest import StartWorker
from tests.every import every
from tests.workers.simulator.running import running, total

WAIT_S = 120
QUESTIONS = 200
KINDS = ("openai", "anthropic")
#: As `fleet_env` has it: so many calls may be in flight when a refusal is learnt.
SLOTS = 20
STRICT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answer": {"type": "integer"},
        "why": {"type": "string"},
        "steps": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["answer", "why", "steps"],
    "additionalProperties": False,
}
#: What strict mode refuses: a key that may be missing.
LOOSE: dict[str, Any] = {**STRICT, "required": ["answer"]}


CONFIG = """
[providers.{kind}]
kind = "{kind}"
base_url = "{url}"
api_key_env = "STRICT_KEY"

[pools.{kind}]
bots = 10
provider = "{kind}"
model = "simulated-1"

[limits."{kind}/simulated-1"]
rpm = 1000000
"""


def answers(pool: str, schema: dict[str, Any]) -> list[BotResult]:
    """Ask all questions, and return their results in order."""
    from fleet.engine.app import app

    tasks = ({"prompt": f"What is {n} + {n}?", "pool": pool, "answer_schema": schema} for n in range(QUESTIONS))
    return [app.AsyncResult(task_id).get(timeout=WAIT_S) for task_id in list(submit_many(tasks))]


def test_200_questions_with_a_schema_are_valid_at_the_first_call_without_a_repair(
    start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRICT_KEY", "test-key")
    with running() as url:
        (tmp_path / "fleet.toml").write_text("".join(CONFIG.format(kind=kind, url=url) for kind in KINDS))
        config.current.cache_clear()
        start_worker()
        for number, kind in enumerate(KINDS, 1):
            results = answers(kind, STRICT)
            assert every(result.status == "ok" and result.attempts == 1 for result in results)
            said = [json.loads(result.answer or "") for result in results]
            assert [value["answer"] for value in said] == [2 * n for n in range(QUESTIONS)]
            counters = total(url)
            assert counters["calls"] == counters["served"] == number * QUESTIONS
            assert counters["bad_requests"] == 0

        # Strict mode refuses a key that may be missing: learnt once, and then asked in the form that is taken.
        results = answers("openai", LOOSE)
        assert every(result.status == "ok" for result in results)
        counters = total(url)
        assert counters["served"] == 3 * QUESTIONS
        assert 1 <= counters["bad_requests"] <= SLOTS
