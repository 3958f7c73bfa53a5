"""The documents of a worker process: read from Redis once, kept for the next task, looked for again in a while."""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleet.economy.contexts.documents import read_facts
from fleet.errors import FleetError, InvalidTask, NotStored
from fleet.store import context_keys
from fleet.store.client import Store

#: Seconds after which a document is looked for again, named or not: one that was removed is gone from workers by then.
LOOK_AGAIN_S = 30.0
#: Bytes of documents that a process keeps; those named least lately go first.
KEPT_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of one task.

    Args:
        text: What they say, one after the other, as it stands in the prompt.
        tokens: Of it, by estimate.
    """

    text: str
    tokens: int


@dataclass(slots=True)
class _Held:
    text: str
    size: int
    tenant: str
    looked_at: float


class Shelf:
    """Hands out what documents say. One per process, on its loop.

    Args:
        state: Where they are stored.
        count: Estimates the tokens of a text.
        clock: Seconds that only grow.
    """

    def __init__(
        self, state: Store, count: Callable[[str], int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state = state
        self._count = count
        self._clock = clock
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._joined: OrderedDict[tuple[str, ...], Documents] = OrderedDict()
        #: The next look at all that is held, and the one that goes on; None: nothing is held.
        self._next_look: asyncio.TimerHandle | asyncio.Task[None] | None = None

    async def opened(self, ids: Sequence[str], tenant: str) -> Documents:
        """Return the documents that a task names, in its order; one round trip when this process has not all of them.

        Args:
            ids: Theirs.
            tenant: The task's.

        Raises:
            NotStored: One is not there: the task waits for it.
            InvalidTask: One is another tenant's.
            StoreUnavailable: Redis does not answer.
        """
        now = self._clock()
        mine = {one: held for one in ids if (held := self._held.get(one)) is not None}
        old = [one for one in ids if one not in mine or now - mine[one].looked_at > LOOK_AGAIN_S]
        if old:
            found = await self._look(old, now)
            mine = {one: held for one, held in mine.items() if one not in old} | found
        for one in ids:
            held = mine.get(one)
            if held is None:
                raise _not_stored(one)
            if held.tenant not in ("", tenant):
                raise InvalidTask(f"context: expected documents of the task's own tenant, got {one}, which is not")
            self._held[one] = held  # another task may have made room for its own meanwhile
            self._held.move_to_end(one)
        known = self._joined.get(tuple(ids))
        if known is not None:
            self._joined.move_to_end(tuple(ids))
            return known
        self._watch()
        text = "\n\n".join(f"<document>\n{mine[one].text}\n</document>" for one in ids)
        known = self._joined[tuple(ids)] = Documents(text, self._count(text))
        self._bound()
        return known

    async def _look(self, ids: Sequence[str], now: float) -> dict[str, _Held]:
        """Return those that are stored, read where they are new here, and drop those that are stored no longer."""
        facts = await self._state.command("HMGET", context_keys.documents(), *ids)
        found: dict[str, _Held] = {}
        for one, raw in zip(ids, facts, strict=True):
            known = read_facts(raw)
            held = self._held.get(one)
            if known is not None and held is not None:
                held.looked_at = now
                found[one] = held
            elif known is None:
                self._drop(one)
            else:
                text = await self._state.command("GET", context_keys.text(one))
                if text is not None:
                    found[one] = self._held[one] = _Held(text.decode("utf-8", "replace"), len(text), known.tenant, now)
        return found

    def _watch(self) -> None:
        """Look again in a while for all that is held, named or not: what was erased must not stay in this memory."""
        if self._next_look is None and self._held:
            loop = asyncio.get_running_loop()
            self._next_look = loop.call_later(LOOK_AGAIN_S * random.uniform(0.8, 1.0), self._look_again)

    def _look_again(self) -> None:
        self._next_look = asyncio.get_running_loop().create_task(self._let_go())

    async def _let_go(self) -> None:
        """Drop what is stored no longer; one command. While Redis is away, what is held stays."""
        ids, now = list(self._held), self._clock()
        try:
            facts = await self._state.command("HMGET", context_keys.documents(), *ids) if ids else []
            for one, raw in zip(ids, facts, strict=True):
                if read_facts(raw) is None:
                    self._drop(one)
                elif (held := self._held.get(one)) is not None:
                    held.looked_at = now
        except FleetError:
            pass
        finally:
            self._next_look = None
            self._watch()

    def _drop(self, context_id: str) -> None:
        self._held.pop(context_id, None)
        for ids in [ids for ids in self._joined if context_id in ids]:
            del self._joined[ids]

    def _bound(self) -> None:
        """Keep no more than fits; the newest stays, however large."""
        while len(self._joined) > 1 and sum(len(one.text) for one in self._joined.values()) > KEPT_BYTES:
            self._joined.popitem(last=False)
        while len(self._held) > 1 and sum(one.size for one in self._held.values()) > KEPT_BYTES:
            self._drop(next(iter(self._held)))


def _not_stored(context_id: str) -> NotStored:
    error = NotStored("`fleet context add` stores it again; `fleet context list` has the others")
    error.about = context_id
    return error
