"""A worker's duty for what is over while it waits: tasks whose end has passed, and those that were revoked.

They end within seconds, also while parked or behind a closed gate, in small steps. One worker of all walks through a
queue, and only when something in it is known to be over (`keys.ends`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import redis
from celery.app.task import Context
from celery.signals import task_revoked

from fleet.config import Settings
from fleet.engine.app import app
from fleet.engine.messages.broker import broker
from fleet.engine.messages.envelope import TASK_NAME, is_usable
from fleet.engine.messages.expiry import end_in, expired
from fleet.engine.outcomes.cancelling import Canceller
from fleet.engine.outcomes.dead_letters import parts_of
from fleet.engine.outcomes.follow_ups import FollowUps, request_of
from fleet.engine.outcomes.results import Done
from fleet.engine.outcomes.revocation import state_here
from fleet.engine.transport.withdrawal.withdrawn import (
    CLAIM_S,
    LONGEST_PAUSE_S,
    Stretch,
    Withdrawn,
    acknowledge,
    claim,
    finish,
    renew,
    seek_end,
    withdraw,
    withdraw_over,
)
from fleet.errors import FleetError
from fleet.quoting import quote
from fleet.store import keys
from fleet.store.clock import CLOCK
from fleet.store.running.brokers import each, main_of

logger = logging.getLogger("fleet.worker")

#: Seconds between two looks whether something is over: one command each.
LOOK_EVERY_S = 2.0
#: Seconds between two looks for ends that only plain clients' messages tell, behind closed gates, over all workers.
SEEK_EVERY_S = 15.0
#: Seconds that such a look takes, a step more at most: 1.3% of Redis, until each message was looked at once.
SEEK_FOR_S = 0.2
#: Seconds for which it is known where that stopped.
PLACE_LIFE_S = 600.0
#: A queue is not walked through again for so many times as long as the last walk took: at most 0.5% of Redis goes on
#: it, unless that were longer than the longest pause.
PAUSE_PER_WALK = 200
#: Fewest seconds between two walks through one queue.
PAUSE_S = 1.0
#: What Redis found to be over is over, if its clock is known here only to so many seconds.
SLACK_S = 1.0
#: Stands for all queues whose gate is closed: a revoked task may wait in any of them.
EVERYWHERE = "*"


class Overdue:
    """Ends what is over. One per worker process.

    Args:
        settings: Pools.
        refuse: Gives a task a failed result: (task id, why, headers, body).
    """

    def __init__(
        self,
        settings: Settings,
        refuse: Callable[[str, FleetError, Mapping[str, Any], bytes], Awaitable[Done]],
    ) -> None:
        self._settings = settings
        self._refuse = refuse
        self._follow_ups = FollowUps(app)

    async def attend(self) -> None:
        """Look for what is over, and end it, for ever."""
        seek_at_s = 0.0
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                is_due = time.monotonic() >= seek_at_s
                if is_due:
                    seek_at_s = time.monotonic() + SEEK_EVERY_S
                for client in each(broker().client):
                    await self._look(client, seeks=is_due)
            except FleetError as error:
                logger.warning("overdue tasks not ended error=%s: %s; in a minute again", type(error).__name__, error)

    async def _look(self, client: redis.Redis, *, seeks: bool) -> None:
        """Look at one broker; one that is away keeps nobody from looking at the others."""
        try:
            if seeks:
                await asyncio.to_thread(self._seek, client)
            await self._end_put_aside(client)
            while (claimed := await asyncio.to_thread(claim, client)) is not None:
                await self._walk(client, claimed)
        except (FleetError, redis.RedisError) as error:
            logger.warning("overdue tasks not ended error=%s: %s; in a minute again", type(error).__name__, error)

    async def _end_put_aside(self, client: redis.Redis) -> None:
        """End what takes have met that was over, and put aside; all workers do."""
        ended = 0
        steps = withdraw_over(client)
        while (stretch := await asyncio.to_thread(_next, steps)) is not None:
            ended += await self._end(client, stretch.found)
        if ended:
            logger.info("ended expired tasks=%d: their end had passed before their turn came", ended)

    async def _walk(self, client: redis.Redis, claimed: tuple[str, str]) -> None:
        """Walk through a queue once."""
        queues = await asyncio.to_thread(self._closed, client) if claimed[0] == EVERYWHERE else [claimed[0]]
        ended, next_end, walked_s, renewed_s = 0, None, 0.0, time.monotonic()
        for queue in queues:
            walk = withdraw(client, queue, "over")
            while True:
                began = time.monotonic()
                stretch = await asyncio.to_thread(_next, walk)
                walked_s += time.monotonic() - began
                if stretch is None:
                    break
                ended += await self._end(client, stretch.found)
                if time.monotonic() - renewed_s > CLAIM_S / 3:
                    claimed, renewed_s = await asyncio.to_thread(renew, client, claimed), time.monotonic()
                if stretch.next_end is not None:
                    next_end = min(next_end or stretch.next_end, stretch.next_end)
        pause_s = min(LONGEST_PAUSE_S, max(PAUSE_S, PAUSE_PER_WALK * walked_s))
        await asyncio.to_thread(finish, client, claimed, None if claimed[0] == EVERYWHERE else next_end, pause_s)
        if ended:
            logger.info(
                "ended overdue queue=%s tasks=%d: their end had passed, or they were revoked", claimed[0], ended
            )

    def _seek(self, client: redis.Redis) -> None:
        """Have closed queues walked through in which tasks of plain clients with an end are seen. One worker of all."""
        if not client.set(keys.turn("ends"), "1", nx=True, px=round(SEEK_EVERY_S * 900)):
            return
        place = keys.turn("ends:place")
        shut, last = sorted(self._closed(client, wholly=True)), cast("bytes | None", client.get(place))
        behind = bisect_right(shut, last.decode()) if last else 0
        queue, until_s = None, time.monotonic() + SEEK_FOR_S
        for queue in [*shut[behind:], *shut[:behind]]:
            for _ in seek_end(client, queue):
                if time.monotonic() >= until_s:
                    break
            if time.monotonic() >= until_s:
                break
        if queue is not None:
            client.set(place, queue, ex=round(PLACE_LIFE_S))

    def _closed(self, client: redis.Redis, *, wholly: bool = False) -> list[str]:
        """Return the queues that nothing, or not everything, is taken from now, or that no worker serves.

        Those that only wait for room in a limit, or have parked tasks, are left out if `wholly`: what lies in their
        lists is met by takes.
        """
        names = [*map(keys.queue, self._settings.pools), self._settings.worker.inbox]
        with client.pipeline(transaction=False) as pipe:
            for name in names:
                beside = () if wholly else (keys.room(name), keys.parked_order(name))
                pipe.exists(keys.gate(name), keys.hold(name), *beside)
            closed = pipe.execute()
        text = cast("bytes | None", main_of(broker().client).get(keys.unserved()))
        unserved = {keys.queue(pool) for pool in (json.loads(text) if text else ())}
        return [name for name, is_closed in zip(names, closed, strict=True) if is_closed or name in unserved]

    async def _end(self, client: redis.Redis, found: Sequence[Withdrawn]) -> int:
        """End what was withdrawn; what cannot be ended now comes back with its lease."""
        now_s, revoked, others, refused = CLOCK.now_s(), [], [], []
        for one in found:
            headers, body = parts_of(one.message)
            end = end_in(headers)
            if end is None or end >= now_s + SLACK_S or not is_usable(headers.get("id")):
                revoked.append(one)
            elif headers.get("task") != TASK_NAME:
                others.append(one)
            else:
                refused.append((one, self._refuse(headers["id"], expired(end, max(end, now_s)), headers, body)))
        replies = await asyncio.gather(*(refusal for _, refusal in refused), return_exceptions=True)
        done = []
        for (one, _), reply in zip(refused, replies, strict=True):
            if isinstance(reply, BaseException):
                logger.warning("overdue task not ended error=%s: %s", type(reply).__name__, quote(reply))
            else:
                done.append(one)
        await asyncio.to_thread(acknowledge, client, done)
        canceller = Canceller(client, state_here(), self._settings, self._follow_ups)
        if revoked:
            await asyncio.to_thread(canceller.end, revoked)
        if others:  # of the app beside bots: they end as Celery ends what is taken too late
            await asyncio.to_thread(canceller.end, others, reason="expired")
            await asyncio.to_thread(_signal_expired, others)
        return len(found)


def _signal_expired(found: Sequence[Withdrawn]) -> None:
    """Send Celery's signal for tasks that expired, as a worker does that takes one."""
    for one in found:
        headers, body = parts_of(one.message)
        context = Context(request_of(headers, body), called_directly=False)
        task = app.tasks.get(headers.get("task"))
        task_revoked.send(sender=task, request=context, terminated=False, signum=None, expired=True)


def _next(walk: Iterator[Stretch]) -> Stretch | None:
    return next(walk, None)
