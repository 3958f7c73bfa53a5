"""Diversity in a worker process: fingerprints out, remedies in, and the leader's watch when this process leads.

One round trip every few seconds asks for both the lead and new remedies; a task costs one command nobody waits for.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any

from fleet.config import Settings
from fleet.diversity import Fingerprint, Monitor, Notice, Windows, bins_of, prompt_mark
from fleet.errors import FleetError
from fleet.models import Bot, BotResult, BotTask, Remedy
from fleet.signals.catalogue import EVENTS
from fleet.signals.events import record_event
from fleet.store.client import Store

logger = logging.getLogger("fleet.diversity")

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class LikenessWatch:
    """One per process, on its loop.

    Args:
        store: State Redis.
        settings: Pools, and how classes are watched.
        on_change: Called with the names of the bots whose remedy has changed.
    """

    def __init__(self, store: Store, settings: Settings, on_change: Callable[[set[str]], None]) -> None:
        self._store = store
        self._settings = settings
        self._windows = Windows(store, settings)
        self._on_change = on_change
        self._me = uuid.uuid4().hex
        self._monitor: Monitor | None = None
        self._version = 0
        self._remedies: dict[str, Remedy] = {}

    def remedy_of(self, bot: str) -> Remedy | None:
        """Return what is done about a bot, as known since the last turn."""
        return self._remedies.get(bot)

    def note(self, task: BotTask, bot: Bot, result: BotResult) -> None:
        """Keep the fingerprint of a result that stands. Only answers that a provider gave as asked count.

        About 50 us; never waits, never raises.
        """
        if (
            not self._settings.diversity.watch
            or result.status != "ok"
            or result.served_by != "call"
            or not result.answer
        ):
            return
        bins = bins_of(result.answer)
        if bins is not None:
            texts = [task.prompt or ""] if task.messages is None else [message.text for message in task.messages]
            prompt = prompt_mark(texts)
            place = int(bot.name.rpartition("-")[2])
            mark = bot.remedy.mark if bot.remedy else 0
            self._windows.record(bot.pool, task.kind, Fingerprint(place, prompt, mark, bins))

    async def attend(self) -> None:
        """Learn new remedies and, when this process leads, watch the classes. For ever."""
        while self._settings.diversity.watch:
            try:
                await self._turn()
            except FleetError as error:
                logger.warning("diversity turn failed error=%s", error)
            await asyncio.sleep(self._settings.diversity.every_s)

    def close(self) -> None:
        """Give up the lead."""
        if self._monitor is not None:
            self._windows.resign(self._me)

    async def _turn(self) -> None:
        duty = await self._windows.attend(self._me, self._version)
        if duty.version != self._version:
            self._version = duty.version
            self._change(duty.remedies)
        if not duty.leads:
            self._monitor = None
            return
        if self._monitor is None:
            self._monitor = Monitor(self._windows, self._settings)
        for notice in await self._monitor.turn(duty.version):
            self._tell(notice)

    def _change(self, remedies: dict[str, Remedy]) -> None:
        before, self._remedies = self._remedies, remedies
        changed = {bot for bot in before.keys() | remedies.keys() if before.get(bot) != remedies.get(bot)}
        self._on_change(changed)

    def _tell(self, notice: Notice) -> None:
        event = EVENTS[notice.what.name]
        facts = " ".join(f"{name}={value}" for name, value in notice.what.facts.items())
        logger.log(_LEVELS[event.level], "%s pool=%s kind=%s %s", event.name, notice.pool, notice.kind, facts)
        fields: dict[str, Any] = notice.what.facts
        record_event(self._store, event, pool=notice.pool, kind=notice.kind, **fields)
