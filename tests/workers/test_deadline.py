"""How long a task has been waiting, by its deadline's clock."""

from __future__ import annotations

import asyncio

from fleet.workers.deadline import Deadline

WAITED_S = 0.02


def test_a_task_waits_on_through_calls_that_fail_until_one_is_answered() -> None:
    async def work() -> None:
        deadline = Deadline(asyncio.get_running_loop().time() + 60)

        def call(*, is_answered: bool) -> None:
            out = deadline.sends(lambda: False)
            assert deadline.standing_s == 0
            deadline.came(out, counts=is_answered)

        with deadline.standing():
            await asyncio.sleep(WAITED_S)
            assert deadline.standing_s >= WAITED_S
        assert deadline.standing_s == 0
        call(is_answered=False)
        with deadline.standing():
            assert deadline.standing_s >= WAITED_S
        call(is_answered=True)
        with deadline.standing():
            assert deadline.standing_s < WAITED_S

    asyncio.run(work())
