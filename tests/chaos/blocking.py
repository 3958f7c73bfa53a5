"""A bot function that stalls its worker for longer than a lease, in each of two ways in turn."""

from __future__ import annotations

import time

from fleet.engine.process.wiring import PROCESS
from fleet.engine.transport.leases import LEASE_S
from fleet.models import BotTask
from fleet.workers.bot.elsewhere import LoopBotContext

#: Seconds that it stalls.
STALL_S = LEASE_S + 1.0


async def stall(task: BotTask, bot: LoopBotContext) -> str:
    """Block the loop that it runs on, as a careless function does, or the data plane's own, as a bug of ours would."""
    answer = await bot.chat(task.prompt or "")
    if sum(map(ord, answer)) % 2:
        time.sleep(STALL_S)
    else:
        PROCESS.runtime.call_soon(time.sleep, STALL_S)
    return answer + await bot.chat(answer)
