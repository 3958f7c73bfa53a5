"""The pool's slots, without a worker around them."""

from __future__ import annotations

import asyncio
from typing import Any

from fleet.engine.app import app
from fleet.engine.pool import Slot, SlotPool


def test_a_slot_that_was_cancelled_before_it_began_does_no_work() -> None:
    worked = []

    class Task:
        async def work(self, task_id: str, request: dict[str, Any]) -> None:
            worked.append(task_id)

    pool = SlotPool(1, app=app, initargs=(app, "w1@test"))
    pool._woken = True  # nobody is to be woken
    slot = Slot(Task(), "id", "tag", {}, 0.0, print, print, is_cancelled=True)

    async def begin() -> None:
        pool._begin(slot)
        assert slot.job is not None
        await asyncio.wait([slot.job])

    asyncio.run(begin())
    assert slot.job is not None and slot.job.cancelled()
    assert worked == []
