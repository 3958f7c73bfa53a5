"""A worker's duty for jobs that are over: the task that follows each is queued, once, whoever dies when.

That a job is due was noted in the step that ended its last member. First the task is queued under an id of the job's,
then it is noted that it was. Whoever dies in between leaves the job due; the next one queues the same id, which queues
nothing. What it lets through: a worker that stands still right there for longer than results are kept
(`results.expires_s`), and then goes on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from fleet.config import Settings
from fleet.engine.messages.broker import enqueue_each
from fleet.engine.messages.follower import Follower
from fleet.errors import FleetError
from fleet.jobs.book import SETTLE, settle_call
from fleet.store import job_keys
from fleet.store.client import Store
from fleet.store.running.brokers import AnyStore

logger = logging.getLogger("fleet.worker")

#: Seconds between two looks: one command each.
LOOK_EVERY_S = 1.0
#: Jobs that are looked at in one go (count), drawn by lot: one that cannot be followed stops none behind it.
AT_ONCE = 16


class Followers:
    """Queues what follows jobs. One per worker process.

    Args:
        settings: Pools.
        state: Where jobs are.
        broker: Where messages are.
    """

    def __init__(self, settings: Settings, state: Store, broker: AnyStore) -> None:
        self._settings, self._state, self._broker = settings, state, broker
        #: Jobs of which it was said that they cannot be followed here.
        self._said: set[str] = set()

    async def attend(self) -> None:
        """Look for jobs that are due, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                for job_id in await self._state.command("ZRANDMEMBER", job_keys.due(), AT_ONCE):
                    await self._try(bytes(job_id).decode())
            except FleetError as error:
                logger.warning("jobs not followed error=%s: %s", type(error).__name__, error)

    async def _try(self, job_id: str) -> None:
        """Queue what follows a job; what cannot be queued here, for its pool is gone, say, is said once and stays due.

        Raises:
            FleetError: When Redis does not answer.
        """
        try:
            await self.queue(job_id)
        except FleetError:
            raise
        except Exception as error:  # noqa: BLE001 - no job may stop what follows others
            if job_id not in self._said:
                logger.error("job not followed job=%s error=%s; it stays due", job_id, type(error).__name__)
            self._said.add(job_id)

    async def queue(self, job_id: str) -> None:
        """Queue what follows a job, and note that.

        Raises:
            FleetError: When Redis does not answer: it stays due.
        """
        text = cast("bytes | None", await self._state.command("GET", job_keys.then(job_id)))
        if text is not None:  # else it was erased, or another worker was first
            parts = Follower.from_json(text).parts(job_id)
            await enqueue_each(self._broker, parts, self._settings)
            logger.info("job_followed job=%s", job_id)
        await self._state.run(SETTLE, *settle_call(job_id))
