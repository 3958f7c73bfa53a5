"""Sending what follows tasks, beside the loop: threads, patience with Redis, and chords that another worker claimed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from fleet.engine.app import app
from fleet.engine.messages.envelope import NO_CANVAS
from fleet.engine.outcomes.backend import CLAIM_LOOK_S, ChordClaimed, never_wait
from fleet.engine.outcomes.follow_ups import Ending, FollowUps, canvas_in, has_canvas, hears
from fleet.engine.outcomes.stored import ending_in
from fleet.engine.process.threads import Threads
from fleet.models import BotResult
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.patience import patiently

logger = logging.getLogger("fleet.worker")

#: Threads that send what follows (count): each waits for Redis most of its time.
THREADS_AT_MOST = 8


class Canvas:
    """Sends what follows the tasks of this process. Tasks without a canvas cost nothing.

    Args:
        state: Where results are.
    """

    def __init__(self, state: Store) -> None:
        self._state = state
        self._follow_ups = FollowUps(app)
        self._threads = Threads(THREADS_AT_MOST, "fleet-canvas")

    async def follow(self, task_id: str, request: Mapping[str, Any], result: BotResult | None) -> None:
        """Send what follows a task. Its message must not be acknowledged before this is done.

        Args:
            task_id: The task.
            request: Its headers, and what follows it.
            result: What was stored just now; None when it had ended before, and nobody knows what was sent.
        """
        if not has_canvas(request):
            return
        ending: Ending | None = result
        if ending is None:
            ending = ending_in(await patiently(partial(self._state.command, "GET", keys.result(task_id))))
        if ending is None or not hears(request, ending):  # none: it has lost its lease, and whoever has it sees to this
            return
        send = partial(self._follow_ups.send_once, task_id, request, ending, is_repeat=result is None)
        while True:
            try:
                await patiently(lambda: self._in_thread(send))
                return
            except ChordClaimed as claimed:
                logger.info("chord claimed group=%s task=%s: another worker sends its body", claimed, task_id)
                await asyncio.sleep(CLAIM_LOOK_S)

    async def _in_thread(self, send: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        sent: asyncio.Future[None] = loop.create_future()

        def run() -> None:
            never_wait()
            error: Exception | None = None
            try:
                send()
            except Exception as raised:  # noqa: BLE001 - whoever waits gets it
                error = raised
            with suppress(RuntimeError):  # the loop has ended with the worker: the message is delivered again
                loop.call_soon_threadsafe(_settle, sent, error)

        self._threads.run(run)
        await sent


def _settle(sent: asyncio.Future[None], error: Exception | None) -> None:
    if sent.done():  # cancelled: the worker stops
        return
    if error is None:
        sent.set_result(None)
    else:
        sent.set_exception(error)


def without_canvas(body: bytes) -> bytes:
    """Return a message body from which its task can be queued again without what follows it: that heard of its end."""
    if not canvas_in(body):
        return body
    args, kwargs, *_ = json.loads(body)
    return json.dumps([args, kwargs, NO_CANVAS]).encode()
