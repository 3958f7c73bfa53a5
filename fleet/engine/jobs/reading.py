"""The results of a job's members, in the order in which they end, each once. Memory: a bit for each member.

What was read is known by a cursor, so that a reader that died goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self, cast

from celery.exceptions import TaskRevokedError

from fleet import config
from fleet.engine.outcomes.revocation import results_here, state_here
from fleet.engine.outcomes.stored import Cancelled, ending_in
from fleet.errors import GiveUp, StoreUnavailable
from fleet.jobs import JobLedger, member_id
from fleet.models import BotResult, TaskError
from fleet.store import job_keys, keys
from fleet.store.client import store_errors

logger = logging.getLogger("fleet.jobs")

#: Results that are read in one round trip (count).
AT_ONCE = 256
#: Seconds that one command waits for the next member to end, at most; after it the job itself is looked at.
WAIT_S = 1.0
#: Seconds until a Redis that does not answer is asked again.
AWAY_S = 0.5
#: Where a job's order begins.
BEGINNING = "0-0"


class JobResults(Iterator[BotResult], AsyncIterator[BotResult]):
    """Iterates over the results of a job, also asynchronously; ends when the job is sealed and all have ended.

    A member that was cancelled, or whose result is not kept any more, is a failed result that says so. While Redis is
    away it waits.

    Args:
        job_id: Of the job.
        after: `cursor` of an earlier one: only what ended since.

    Attributes:
        cursor: Where the result that was returned last stands in the order.
    """

    def __init__(self, job_id: str, *, after: str = BEGINNING) -> None:
        self.cursor = after
        self._job_id = job_id
        self._read = after
        self._seen = bytearray()
        self._ready = deque[tuple[str, BotResult]]()
        self._is_over = self._is_away = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BotResult:
        while not self._ready:
            if self._is_over:
                raise StopIteration
            self._read_on()
        return self._next()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BotResult:
        while not self._ready:
            if self._is_over:
                raise StopAsyncIteration
            await asyncio.to_thread(self._read_on)
        return self._next()

    def _next(self) -> BotResult:
        self.cursor, result = self._ready.popleft()
        return result

    def _read_on(self) -> None:
        """Read what has ended since, or wait a while for it; note when there will be no more.

        Raises:
            GiveUp: When the job is not known any more.
        """
        settings = config.current()
        try:
            with store_errors(results_here().url):
                state = JobLedger(state_here()).read(self._job_id)
                if state is None:
                    raise GiveUp(f"expected job {self._job_id}, got none: it is forgotten 30 days after its last end")
                # Looked at before the order is read: what had ended by then stands in it.
                block_ms = (
                    None if state.is_over else max(1, round(min(WAIT_S, settings.redis.socket_timeout_s / 2) * 1e3))
                )
                found: Any = state_here().xread(
                    {job_keys.order(self._job_id): self._read}, count=AT_ONCE, block=block_ms
                )
                entries = found[0][1] if found else []
                self._is_over = state.is_over and not entries
                self._take([(at.decode(), int(fields[b"m"])) for at, fields in entries])
        except StoreUnavailable as error:
            if not self._is_away:
                logger.warning("redis_away job=%s: %s; it is read when Redis answers again", self._job_id, error)
            self._is_away = True
            time.sleep(AWAY_S)
        else:
            self._is_away = False

    def _take(self, ended: list[tuple[str, int]]) -> None:
        new = list({position: at for at, position in ended if not self._has_seen(position)}.items())
        stored = (
            cast("list[bytes | None]", state_here().mget([keys.result(self._id(p)) for p, _ in new])) if new else []
        )
        for (position, at), raw in zip(new, stored, strict=True):
            ending = ending_in(raw) or self._gone(position)
            if ending is None:
                continue  # it was queued again since: it comes once more
            self._see(position)
            if isinstance(ending, Cancelled):
                ending = _failed(self._id(position), TaskError(type=TaskRevokedError.__name__, message=ending.reason))
            self._ready.append((at, ending))
        if ended:
            self._read = ended[-1][0]

    def _gone(self, position: int) -> BotResult | Cancelled | None:
        """Return what to say of a member whose result was not there; None: it has not ended.

        It may have ended anew since it was looked for, so it is looked for once more.
        """
        how = JobLedger(state_here()).ended_as(self._job_id, position, 1)
        if how in (b"", b"\0"):
            return None
        error = GiveUp("expected a stored result, got none: results are kept for a while only (results.expires_s)")
        raw = cast("bytes | None", state_here().get(keys.result(self._id(position))))
        return ending_in(raw) or _failed(self._id(position), TaskError.of(error))

    def _id(self, position: int) -> str:
        return member_id(self._job_id, position)

    def _has_seen(self, position: int) -> bool:
        byte = position >> 3
        return byte < len(self._seen) and bool(self._seen[byte] & 1 << (position & 7))

    def _see(self, position: int) -> None:
        byte = position >> 3
        if byte >= len(self._seen):
            self._seen.extend(bytes(byte + 1 - len(self._seen)))
        self._seen[byte] |= 1 << (position & 7)


def _failed(task_id: str, error: TaskError) -> BotResult:
    """Return the result of a member that has none of its own."""
    return BotResult(task_id=task_id, status="failed", error=error, finished_at=time.time())
