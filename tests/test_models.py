"""What a producer may put into a task."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from fleet.errors import InvalidTask
from fleet.models import BotResult, BotTask


def nested(levels: int) -> list[Any]:
    return reduce(lambda inner, _: [inner], range(levels), [])


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", {1: "a key that is no text"}, nested(1000)])
def test_metadata_that_json_cannot_carry_fails_in_the_producer_without_being_quoted(value: object) -> None:
    with pytest.raises(InvalidTask) as caught:
        BotTask.parse(prompt="hi", metadata={"a private key": value})
    assert str(caught.value).startswith("metadata: ")
    assert "private" not in str(caught.value)


def test_metadata_in_a_circle_fails_in_the_producer() -> None:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    with pytest.raises(InvalidTask, match=r"metadata: .* nested too deeply"):
        BotTask.parse(prompt="hi", metadata=circle)


def test_whatever_metadata_a_task_accepts_its_result_can_give_back() -> None:
    accepted = 0
    for levels in range(200, 300):
        try:
            task = BotTask.parse(prompt="hi", metadata={"deep": nested(levels)})
        except InvalidTask:
            break
        accepted = levels
        task.model_dump(mode="json")
        result = BotResult(task_id="t", status="ok", finished_at=0, metadata=task.metadata)
        assert result.model_dump(mode="json")["metadata"] == task.metadata
        assert result.model_dump_json()
    assert 200 <= accepted < 299
