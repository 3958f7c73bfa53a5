"""Tasks that go on in slots that were lent meanwhile, without a worker around them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.workers.occupants import Occupants
from fleet.workers.silence.under_way import Hanging


class AtWork:
    """As much of an `Asker` as is asked for."""

    pool = "a"
    is_begun = True
    deadline = SimpleNamespace(standing_s=0.0)


def asker() -> Any:
    return AtWork()


@pytest.mark.parametrize(
    ("slots", "others", "hanging", "goes_on"), [(4, 3, 0, True), (4, 4, 0, False), (8, 7, 0, True), (4, 9, 6, True)]
)
def test_a_task_that_has_rested_goes_on_when_fewer_others_are_at_work_and_do_not_hang_than_there_are_slots_now(
    slots: int, others: int, hanging: int, goes_on: bool
) -> None:
    async def body() -> bool:
        now = 4  # the worker began with so many
        occupants = Occupants(lambda: now, lambda: {"sick": Hanging(hanging, frozenset())})
        mine = asker()
        for one in (mine, *(asker() for _ in range(others))):
            occupants.enter(one)
        now = slots
        try:
            async with asyncio.timeout(0.3):
                await occupants.rest(mine, 0)
        except TimeoutError:
            return False
        return True

    assert asyncio.run(body()) is goes_on
