"""Writes the entries of a process into the bill: collected for a moment, summed, sent once. No prices here.

Of each batch Redis keeps the number, so that one that is sent again counts once. If the process dies before its batch
is answered, the notes of its calls (`notes.py`) tell which they were.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fleet.economy.bill import unknown
from fleet.economy.bill.export import Export
from fleet.economy.bill.notes import packed_note
from fleet.economy.bill.rows import arguments_of, hour_of, summed
from fleet.economy.bill.scripts import BILL, RESOLVE
from fleet.economy.bill.unknown import Unknown
from fleet.entries import Entry
from fleet.store import bill_keys, keys
from fleet.store.client import Script, Store
from fleet.store.patience import surely

#: Longest time that an entry waits for others to go with, in seconds.
EVERY_S = 0.25
#: Entries of a batch at most (count).
MOST_ENTRIES = 200
#: Entries that wait for a Redis that takes none (count). Those beyond are given up: their notes tell of them.
MOST_WAITING = 20_000
#: Seconds that a process which ends waits for its last batch.
CLOSE_S = 5.0

logger = logging.getLogger("fleet.bill")
_surely = partial(surely, what="bill not written")

#: A script with its KEYS and ARGV.
ScriptCall = tuple[Script, Sequence[Any], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that are sent together, all of one hour.

    Args:
        writer: Random id of who sends it.
        number: Each of a writer has one more than the one before.
        entries: In the order in which they came.
    """

    writer: str
    number: int
    entries: tuple[Entry, ...]


#: Returns what else is to hear of a batch: a script call that counts a batch once, however often it is sent; None: not.
Book = Callable[[Batch], ScriptCall | None]


def batch_call(batch: Batch) -> ScriptCall:
    """Return what enters a batch into the bill, once, however often it is sent. All its calls are of one hour."""
    entries = batch.entries
    hashes, rows = arguments_of(summed(entries))
    lost = [f"{entry.id} {unknown.written(entry)}" for entry in entries if entry.state == "unknown" and entry.id]
    call = BILL.call(
        writer=bill_keys.writer(batch.writer), unknown=bill_keys.unknown(), number=batch.number,
        ids=f",{','.join(entry.id for entry in entries)},", lost="\n".join(lost), rows=rows, **hashes,
    )  # fmt: skip
    return BILL, *call


class Writer:
    """Implements `fleet.workers.ports.Bill`. One per process, on its loop.

    Args:
        store: Redis of the fleet's state.
        process: Returns the id by which workers report; empty: this one does not, so nobody learns of its death.
        books: Who else hears of each batch.
        is_urgent: True while entries should leave at once.
        export: Where entries go one by one as well, once they are in the bill; None: nowhere.
        before: Awaited before each batch: budgets have counted its calls. Whoever dies after that leaves at most a note
            of a call whose reservation is gone; to charge it again does nothing.
    """

    def __init__(
        self,
        store: Store,
        *,
        process: Callable[[], str] = str,
        books: Sequence[Book] = (),
        is_urgent: Callable[[], bool] = lambda: False,
        export: Export | None = None,
        before: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._store = store
        self._process = process
        self._books = tuple(books)
        self._is_urgent = is_urgent
        self._export = export
        self._before = before
        #: Random id of this writer.
        self.id = secrets.token_hex(8)
        self._number = 0
        self._entries: list[Entry] = []
        self._void: dict[str, list[str]] = defaultdict(list)
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        #: Entries that were given up, for Redis took none.
        self.given_up = 0

    def opened(self, asked: Entry) -> str:
        """Return the note that the limiter keeps with the grant of a call until it is entered."""
        return packed_note(asked, writer=self.id, process=self._process())

    def enter(self, entry: Entry) -> None:
        """Enter a call. Never waits, never raises."""
        if len(self._entries) >= MOST_WAITING:
            self.given_up += 1
            return
        self._entries.append(entry)
        self._plan()

    def void(self, limit: str, ticket: str) -> None:
        """Forget a call that had its grant and was not sent after all. Never waits, never raises.

        Of more than `MOST_WAITING` while Redis takes none, the notes stay, and are taken for lost.
        """
        if ticket and len(self._void[limit]) < MOST_WAITING:
            self._void[limit].append(ticket)
            self._plan()

    async def flush(self, within_s: float) -> None:
        """Send what has been entered by now, and wait until it is answered: so many seconds at most."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + within_s
        for _ in range(3 + len(self._entries) // MOST_ENTRIES):  # one is under way; one ends with its hour
            self._start()
            if self._sending is None or loop.time() >= ends:
                return
            await asyncio.wait([self._sending], timeout=ends - loop.time())

    async def close(self) -> None:
        """Send what is left; a Redis that does not answer is not waited for: the notes tell of those calls."""
        await self.flush(CLOSE_S)
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
        if self._timer is not None:
            self._timer.cancel()

    def _plan(self) -> None:
        if self._sending is not None:
            return
        if len(self._entries) >= MOST_ENTRIES or self._is_urgent():
            self._start()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._start)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sending is None and (self._entries or self._void):
            self._sending = asyncio.get_running_loop().create_task(self._send())
            self._sending.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("bill not written error=%s: %s", type(error).__name__, error)
        if self._entries or self._void:
            self._plan()

    async def _send(self) -> None:
        """Send one batch, and take the notes of its calls away."""
        void, self._void = self._void, defaultdict(list)
        entries = self._next()
        if self._before is not None:
            await self._before()
        if entries:
            self._number += 1
            batch = Batch(self.id, self._number, entries)
            await _surely(partial(self._enter, batch))
            for book in self._books:
                if (call := book(batch)) is not None:
                    await _surely(partial(self._store.run, *call))
            for entry in entries:
                if entry.id:
                    void[entry.limit].append(entry.id)
            if self._export is not None:
                await asyncio.to_thread(self._export.write, entries)
        for limit, tickets in void.items():
            name = keys.limit_keys(limit).open
            await _surely(partial(self._store.command, "HDEL", name, *tickets))

    def _next(self) -> tuple[Entry, ...]:
        """Take the entries of the next batch: all of one hour, as the keys of a script must be known before."""
        some = self._entries[:MOST_ENTRIES]
        batch = tuple(entry for entry in some if hour_of(entry.at_s) == hour_of(some[0].at_s))
        if len(batch) == len(self._entries):
            self._entries = []
        else:
            taken = set(map(id, batch))
            self._entries = [entry for entry in self._entries if id(entry) not in taken]
        return batch

    async def _enter(self, batch: Batch) -> None:
        """Enter a batch; first replace what was taken for lost meanwhile, for this process had been cut off."""
        entries = batch.entries
        while entries:
            found = await self._store.run(*self._call(batch.number, entries))
            if not found:
                return
            lost = {name.decode(): text for name, text in zip(found[::2], found[1::2], strict=True)}
            for entry in entries:
                before = unknown.read(lost[entry.id]) if entry.id in lost else None
                if before is not None and entry.state == "settled":  # else neither knows more than the other
                    told = unknown.resolve_call(Unknown(before, lost[entry.id]), entry)
                    await self._store.run(RESOLVE, *told)
            entries = tuple(entry for entry in entries if entry.id not in lost)

    def _call(self, number: int, entries: Sequence[Entry]) -> ScriptCall:
        return batch_call(Batch(self.id, number, tuple(entries)))
