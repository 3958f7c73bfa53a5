"""Answers that must fit a schema or please a validator, from a producer's process through a worker and back."""

from __future__ import annotations

from pathlib import Path

from fleet.models import BotResult
from tests.engine.conftest import StartWorker
from tests.engine.process.test_worker import python

POOLS = """
[pools.plain]
bots = 3

[pools.by_prompt]  # the simulator takes no schema for this model, so it says what it would say
bots = 3
model = "odd-refused-response-format"

[pools.checked]
bots = 3
validator = "checks:is_even"
"""
CHECKS = """
async def is_even(task, answer):
    return int(answer) % 2 == 0 or "it is odd"
"""
PRODUCER = """
from fleet import submit_many, submit_task
from pydantic import RootModel

class Number(RootModel[int]):
    root: int

ids = [submit_task.delay("What is 2+2?", pool="plain", answer_schema=Number).id]
ids += submit_many([
    {"prompt": "What is 2+3?", "pool": "by_prompt", "answer_schema": {"type": "string"}},
    {"prompt": "What is 2+4?", "pool": "checked"},
    {"prompt": "What is 2+5?", "pool": "checked"},
])
print([submit_task.AsyncResult(task_id).get(timeout=30).model_dump_json() for task_id in ids])
"""


def test_schemas_travel_with_tasks_and_validators_are_found_beside_fleet_toml(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "fleet.toml").write_text(POOLS)
    (tmp_path / "checks.py").write_text(CHECKS)
    worker = start_worker()
    fits, unfit, even, odd = (BotResult.model_validate_json(row) for row in eval(python(PRODUCER, tmp_path)))
    assert (fits.status, fits.answer, fits.attempts) == ("ok", "4", 1)
    assert (unfit.status, unfit.answer) == ("failed", None) and unfit.attempts >= 2
    assert unfit.error is not None and unfit.error.type == "BadAnswer"
    assert (even.status, even.answer) == ("ok", "6")
    assert odd.error is not None and odd.error.message.endswith("takes: it is odd")
    assert "it is odd" not in worker.log
