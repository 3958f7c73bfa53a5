"""Searches of whole queues: not on the threads on which actions are carried out."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.dashboard import handlers
from fleet.engine.operations.story import Story
from fleet.engine.operations.task_page import TaskPage


@pytest.mark.parametrize("is_thorough", [True, False])
def test_a_search_of_whole_queues_keeps_no_action_waiting(is_thorough: bool) -> None:
    asked: list[object] = []

    async def in_thread(work: object) -> Any:
        asked.append(handler.threads)
        return TaskPage(story=Story(task_id="t1", state="unknown"))

    handler: Any = SimpleNamespace(
        get_argument=lambda name, default: "1" if is_thorough else default,
        threads="those of actions",
        why_hidden="it is not shown",
        source=SimpleNamespace(),
        in_thread=in_thread,
        answer=lambda text: None,
    )
    get: Any = handlers.OneTask.get
    asyncio.run(get.__wrapped__(handler, "t1"))
    assert asked == [handlers._searches if is_thorough else "those of actions"]
