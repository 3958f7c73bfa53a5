"""What lies in Redis is read although a later release wrote it: fields that this one does not know are left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from fleet.engine.answers.grades import Worth
from fleet.engine.asking.recent import RecentAsk
from fleet.engine.asking.record import PastAsk
from fleet.engine.outcomes.dead_letters import Death
from fleet.engine.outcomes.stored import typed_result
from fleet.errors import InvalidTask
from fleet.frozen import Lasting
from fleet.models import BotResult, BotTask, TaskError
from fleet.rollouts.book import Rollout
from fleet.scaling.wanted import WantedSlots
from fleet.signals.recorder import WorkerReport
from fleet.usage import Usage

LATER: dict[str, Any] = {"of_a_later_release": {"as": ["it", "likes"]}}


@pytest.mark.parametrize(
    "model", [Worth, RecentAsk, PastAsk, Death, TaskError, Rollout, WantedSlots, WorkerReport, Usage]
)
def test_what_is_read_from_redis_lasts(model: type[BaseModel]) -> None:
    assert issubclass(model, Lasting)


def test_a_result_of_a_later_release_is_read_as_far_as_it_is_known() -> None:
    error = TaskError(type="DeadlineExceeded", message="too late")
    result = BotResult(task_id="t", status="failed", error=error, usage=Usage(input_tokens=3), finished_at=1.0)
    told = json.loads(result.model_dump_json())
    for part in (told, told["error"], told["usage"]):
        part.update(LATER)
    assert typed_result({"status": "SUCCESS", "task_id": "t", "result": told}) == result


def test_a_task_with_a_field_that_is_not_known_is_refused_all_the_same() -> None:
    with pytest.raises(InvalidTask, match="of_a_later_release"):
        BotTask.parse({"prompt": "x", **LATER})
