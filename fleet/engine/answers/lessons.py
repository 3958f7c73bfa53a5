"""How the fleet shares what models have taught: one hash of the state Redis, read by every process once a second.

The notebook itself is `fleet/lessons.py`; on a task's road nothing here is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import cast

import redis

from fleet.errors import FleetError
from fleet.lessons import UNSENT, Lesson, Notebook
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.store import keys
from fleet.store.client import Store

logger = logging.getLogger("fleet.worker")

#: Seconds between two readings. What is news here is written at once.
READ_EVERY_S = 1.0
#: Seconds after which lessons that nothing was added to are gone (30 days).
LIFE_S = 30 * 24 * 3600
#: Seconds for which one process may try once more what a model refuses.
PROBE_S = 60
#: Seconds for which the same lesson is no event again: a window and a ratio are learnt anew every day.
QUIET_S = 3600.0


class SharedLessons:
    """Keeps a process's notebook and the fleet's in step. Lives on the process's loop.

    Args:
        store: State Redis.
        notebook: This process's.
    """

    def __init__(self, store: Store, notebook: Notebook) -> None:
        self._store = store
        self._notebook = notebook
        self._news = asyncio.Event()
        self._probe_until_s = 0.0
        notebook.on_change = self._news.set

    async def keep(self) -> None:
        """Tell the fleet what is learnt here, and learn what others found out. For ever."""
        in_outage = False
        while True:
            try:
                await self._turn()
                in_outage = False
            except FleetError as error:
                if not in_outage:
                    logger.warning("lessons not shared error=%s", error)
                in_outage = True
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_EVERY_S):
                    await self._news.wait()
            if in_outage:
                await asyncio.sleep(READ_EVERY_S)

    async def load(self) -> None:
        """Learn what the fleet knows.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        self._notebook.replace(read_rows(await self._store.command("HGETALL", keys.lessons())))

    async def close(self) -> None:
        """Tell what is not told yet; what cannot be told is learnt again by others."""
        with suppress(FleetError):
            await self._tell()

    async def _turn(self) -> None:
        self._news.clear()
        await self._tell()
        await self.load()
        if time.monotonic() >= self._probe_until_s:
            await self._claim()

    async def _tell(self) -> None:
        untold = self._notebook.untold()
        try:
            if gone := [_field(*key) for key, lesson in untold.items() if lesson is None]:
                await self._store.command("HDEL", keys.lessons(), *gone)
            if new := [lesson for lesson in untold.values() if lesson is not None]:
                pairs = [part for lesson in new for part in (_field(lesson.api, lesson.what), _spelt(lesson))]
                await self._store.command("HSET", keys.lessons(), *pairs)
                await self._store.command("EXPIRE", keys.lessons(), LIFE_S)
        except FleetError:
            self._notebook.tell_again(untold)
            raise
        for (api, what), told in untold.items():
            self._say(api, what, told)

    def _say(self, api: str, what: str, lesson: Lesson | None) -> None:
        if lesson is not None and not lesson.is_refusal:
            return
        event = catalogue.LESSON_FORGOTTEN if lesson is None else catalogue.LESSON_LEARNT
        logger.info("%s api=%s what=%s", event.name, api, what)
        record_event(self._store, event, quiet_s=QUIET_S, about=f"{api} {what}", api=api, what=what)

    async def _claim(self) -> None:
        """Let this process try once more what is a day old, unless another one does."""
        claimed = set()
        for lesson in self._notebook.due():
            digest = hashlib.sha1(_field(lesson.api, lesson.what).encode(), usedforsecurity=False).hexdigest()
            if await self._store.command("SET", keys.probe(digest), 1, "NX", "EX", PROBE_S):
                claimed.add((lesson.api, lesson.what))
        self._notebook.let_probe(claimed)
        self._probe_until_s = time.monotonic() + (PROBE_S if claimed else READ_EVERY_S)


def read_lessons(client: redis.Redis) -> list[Lesson]:
    """Return what the fleet knows, by model, for commands and pages.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    raw = cast("dict[bytes, bytes]", client.hgetall(keys.lessons()))
    return sorted(read_rows([part for pair in raw.items() for part in pair]).values())


def forget_lessons(client: redis.Redis, api: str, what: str | None = None) -> list[Lesson]:
    """Forget what a model has taught, all of it or one thing; workers hear of it within a second.

    Args:
        client: Plain client of the state Redis.
        api: `provider/model`.
        what: As `read_lessons` names it, or the wish that is not sent; None: everything.

    Returns:
        What was known until now.
    """
    known = [
        lesson
        for lesson in read_lessons(client)
        if lesson.api == api and what in (None, lesson.what, lesson.what.removeprefix(UNSENT))
    ]
    if known:
        client.hdel(keys.lessons(), *(_field(lesson.api, lesson.what) for lesson in known))
    return known


def read_rows(flat: list[bytes]) -> Mapping[tuple[str, str], Lesson]:
    """Return the lessons of the hash; rows that cannot be read are skipped."""
    lessons = {}
    for field, value in zip(flat[::2], flat[1::2], strict=True):
        api, _, what = field.decode("utf-8", "replace").rpartition("|")
        learnt_at, _, size = value.decode("utf-8", "replace").partition(" ")
        with suppress(ValueError):
            lessons[api, what] = Lesson(api, what, float(learnt_at), float(size or 0))
    return lessons


def _field(api: str, what: str) -> str:
    return f"{api}|{what}"


def _spelt(lesson: Lesson) -> str:
    return f"{lesson.learnt_at:.0f} {lesson.value:g}"
