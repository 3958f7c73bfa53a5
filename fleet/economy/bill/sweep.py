"""Calls that were granted and whose process is gone: they are entered from the notes beside their limits.

One that was settled is entered as that, the others as unknown.

A sweep may die anywhere, and several may run at once: `enter_lost.lua` enters a call once. What a process sends late,
because it was only cut off, takes the place of its unknown entry (`writer.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleet.config import Settings
from fleet.economy.bill import unknown
from fleet.economy.bill.export import Export
from fleet.economy.bill.notes import Note, lives, read_note
from fleet.economy.bill.rows import DAY_S, DAYS_KEPT, HOURS_KEPT_DAYS, arguments_of, summed
from fleet.economy.bill.scripts import ENTER_LOST
from fleet.economy.bill.writer import Batch, Book
from fleet.entries import Entry
from fleet.money import dollars_of
from fleet.store import bill_keys, keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK

#: Seconds between two looks at who lives, and between two sweeps without a death.
LOOK_EVERY_S, SWEEP_EVERY_S = 2.0, 60.0
#: Age of a note, in seconds, below which its process may only be too new to have reported.
GRACE_S = 10.0
#: Age of a note, in seconds, from which its call is lost even though its process lives, or never reports: longer than
#: any provider's answer (`longest_call_s`). The reply to its question was lost, and it was never sent.
LONGEST_CALL_S = 600.0
#: A call may take so many times the longest `timeout_s` of a provider until it is taken for lost.
TIMEOUTS = 1.5
#: Seconds for which one process has the turn to sweep after a death; the others need not.
TURN_S = 10
#: Notes and unknown entries that are read in one step (count).
STEP = 500
#: Seconds between two looks for resolved and old entries.
TIDY_EVERY_S = 3600.0
#: Life of the list of limits that have notes, in seconds.
LIMITS_LIFE_S = 30 * DAY_S
#: What is logged of calls that were entered, by their state.
_EVENTS = {"unknown": "calls_unknown", "settled": "calls_entered_late"}

logger = logging.getLogger("fleet.bill")


def longest_call_s(settings: Settings) -> float:
    """Return the age, in seconds, from which a call that nobody has settled is lost, whatever a provider may take."""
    longest_s = [api.timeout_s for api in settings.providers.values()]
    longest_s += [tool.timeout_s for tool in settings.tools.values()]
    return max([LONGEST_CALL_S, *(TIMEOUTS * seconds for seconds in longest_s)])


@dataclass(frozen=True, slots=True)
class Left:
    """A note that its process has left behind."""

    ticket: str
    note: Note
    entry: Entry


class Sweeper:
    """Looks for calls that were left behind. One per process, on its loop; one of them sweeps for all.

    Args:
        store: Redis of the fleet's state.
        limits: `provider/model/key` of the calls of this process.
        living: Returns the ids of the processes that report; None: not known yet.
        books: Who else hears of each such call, as of a batch of its own.
        clock: Unix time in seconds, as Redis has it.
        export: Where entries go one by one as well; None: nowhere.
        longest_call_s: Age of a note from which its call is lost though its process lives.
        gone: Ids of child processes of this one that have ended, of which nobody else knows; changes.
    """

    def __init__(
        self,
        store: Store,
        limits: Iterable[str],
        living: Callable[[], Collection[str] | None],
        *,
        books: Sequence[Book] = (),
        clock: Callable[[], float] = CLOCK.now_s,
        export: Export | None = None,
        longest_call_s: float = LONGEST_CALL_S,
        gone: Collection[str] = (),
    ) -> None:
        self._store = store
        self._limits = frozenset(limits)
        self._living = living
        self._books = tuple(books)
        self._now_s = clock
        self._export = export
        self._longest_call_s = longest_call_s
        self._gone = gone

    async def attend(self) -> None:
        """Sweep after each death that is known, and now and then, for ever."""
        loop = asyncio.get_running_loop()
        known, done_with = frozenset[str](), frozenset[str]()
        is_due, swept_s, tidied_s = True, loop.time(), loop.time()
        await self._list_limits()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            found = self._living()
            if found is None:
                continue
            living = frozenset(found)
            is_due = is_due or bool(known - living) or loop.time() - swept_s >= SWEEP_EVERY_S
            known, gone = living, frozenset(self._gone)
            if gone - done_with and not await self.sweep(living):
                done_with, is_due = gone, False
            elif is_due and await self._has_turn(living):
                is_due = bool(await self.sweep(living))
            elif is_due:
                is_due = False  # the one that has the turn knows of the same deaths
            swept_s = swept_s if is_due else loop.time()
            if loop.time() - tidied_s >= TIDY_EVERY_S:
                tidied_s = loop.time()
                await self._list_limits()  # it expires, and Redis may have lost it
                if await self._may_tidy():
                    await self.tidy()

    async def _list_limits(self) -> None:
        """Let all who sweep know where notes of this process's calls may lie. It keeps what others have listed."""
        if self._limits:
            await self._store.command("SADD", bill_keys.limits(), *sorted(self._limits))
            await self._store.command("EXPIRE", bill_keys.limits(), LIMITS_LIFE_S)

    async def _has_turn(self, living: Collection[str]) -> bool:
        """Return whether this process sweeps; False when another one does that goes by the same living processes."""
        crew = hashlib.sha256(",".join(sorted(living)).encode()).hexdigest()[:16]
        if await self._store.command("SET", bill_keys.turn(), crew, "NX", "EX", TURN_S):
            return True
        return bool(await self._store.command("GET", bill_keys.turn()) != crew.encode())

    async def sweep(self, living: Collection[str]) -> int:
        """Enter what was left behind.

        Args:
            living: Ids of the processes that report.

        Returns:
            How many notes of processes that are not known are too young to be judged.
        """
        young, entered = 0, list[Entry]()
        async for limit, notes in _notes(self._store, self._limits):
            left, too_young = self._left(limit, notes, living)
            young += too_young
            entered += await self._enter_all(limit, left)
        if entered and self._export is not None:
            await asyncio.to_thread(self._export.write, entered)
        for state, event in _EVENTS.items():
            some = [entry.usd_picos or 0 for entry in entered if entry.state == state]
            if some:
                usd = dollars_of(sum(some))
                logger.warning("%s count=%d usd=%.6f: their workers are gone", event, len(some), usd)
        return young

    def _left(
        self, limit: str, notes: Mapping[bytes, bytes], living: Collection[str]
    ) -> tuple[dict[str, list[Left]], int]:
        """Return the notes that were left behind, by their writers, and how many are too young to be judged."""
        left, young, now_s = defaultdict[str, list[Left]](list), 0, self._now_s()
        for ticket, text in notes.items():
            found = read_note(text)
            if found is None:
                logger.warning("note not readable limit=%s: of another version of Fleet", limit)
                continue
            note, sent_us, usd_micros = found
            age_s, is_gone = now_s - sent_us / 1e6, bool(note.process) and not lives(note.process, living, self._gone)
            if age_s >= (GRACE_S if is_gone else self._longest_call_s):
                name = ticket.decode()
                entry = note.entry(ticket=name, limit=limit, sent_us=sent_us, usd_micros=usd_micros)
                left[note.writer].append(Left(name, note, entry))
            else:
                young += is_gone
        return left, young

    async def _enter_all(self, limit: str, left: Mapping[str, Sequence[Left]]) -> list[Entry]:
        entered: list[Entry] = []
        for writer, calls in left.items():
            # The number first, then the notes: a batch that is sent between the two has another number.
            last = await self._store.command("GET", bill_keys.writer(writer))
            number = (last or b"0").partition(b"\n")[0].decode()
            name = keys.limit_keys(limit).open
            still = await self._store.command("HMGET", name, *(call.ticket for call in calls))
            some = [call for call, note in zip(calls, still, strict=True) if note is not None]
            codes = await asyncio.gather(*(self._enter(call, number) for call in some))
            done = [call for call, code in zip(some, codes, strict=True) if code >= 0]
            for book in self._books:
                for told in (book(Batch(f"lost-{call.ticket}", 1, (call.entry,))) for call in done):
                    if told is not None:
                        await self._store.run(*told)
            if done:
                await self._store.command("HDEL", name, *(call.ticket for call in done))
            entered += [call.entry for call, code in zip(some, codes, strict=True) if code == 1]
        return entered

    async def _enter(self, call: Left, number: str) -> int:
        hashes, rows = arguments_of(summed([call.entry]))
        entry, settled = call.entry, f"{unknown.RESOLVED}{call.entry.at_s:.0f}"  # its own process may only be late
        told = ENTER_LOST.call(
            writer=bill_keys.writer(call.note.writer), unknown=bill_keys.unknown(), number=number, id=call.ticket,
            entry=unknown.written(entry) if entry.state == "unknown" else settled, rows=rows, **hashes,
        )  # fmt: skip
        return int(await self._store.run(ENTER_LOST, *told))

    async def _may_tidy(self) -> bool:
        """Return whether this process is the one that tidies this time: it walks through all that is listed."""
        life_s = round(0.9 * TIDY_EVERY_S)
        return bool(await self._store.command("SET", keys.turn("bill"), "1", "NX", "EX", life_s))

    async def tidy(self) -> None:
        """Forget entries that were resolved two weeks ago, longer than any note lives, and those of expired days."""
        cursor, now_s = b"0", self._now_s()
        while True:
            cursor, flat = await self._store.command("HSCAN", bill_keys.unknown(), cursor, "COUNT", STEP)
            old = [name for name, text in zip(flat[::2], flat[1::2], strict=True) if _is_over(text, now_s)]
            if old:
                await self._store.command("HDEL", bill_keys.unknown(), *old)
            if cursor == b"0":
                return


async def noted_reservations(store: Store) -> set[str]:
    """Return the ids of reservations whose calls had their grants and are not in the bill yet, as their notes tell."""
    found: set[str] = set()
    async for _, notes in _notes(store):
        found.update(note[0].reservation for note in map(read_note, notes.values()) if note is not None)
    return found


async def _notes(store: Store, limits: Iterable[str] = ()) -> AsyncIterator[tuple[str, dict[bytes, bytes]]]:
    """Yield some notes of a limit, by ticket, until all of these limits and of the fleet's were told."""
    names = await store.command("SMEMBERS", bill_keys.limits())
    for limit in sorted({name.decode() for name in names}.union(limits)):
        cursor = b"0"
        while True:
            cursor, flat = await store.command("HSCAN", keys.limit_keys(limit).open, cursor, "COUNT", STEP)
            yield limit, dict(zip(flat[::2], flat[1::2], strict=True))
            if cursor == b"0":
                break


def _is_over(text: bytes, now_s: float) -> bool:
    if text.startswith(unknown.RESOLVED.encode()):
        return float(text[1:]) < now_s - HOURS_KEPT_DAYS * DAY_S
    entry = unknown.read(text)
    return entry is not None and entry.at_s < now_s - DAYS_KEPT * DAY_S
