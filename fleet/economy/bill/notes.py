"""The note that the limiter keeps with a grant until its call is in the bill: what to enter if its process dies. Pure.

`acquire.lua` puts two numbers before it: when the call may leave, in microseconds, and what is taken to be its cost, in
micro-dollars. `settle.lua` adds what its provider has counted, once that is known.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from functools import lru_cache
from json.encoder import encode_basestring as _text
from typing import NamedTuple

from fleet.entries import Entry
from fleet.money import PICOS_PER_MICRO
from fleet.usage import Usage

#: Made once: it takes as long to make one as to write a note.
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
#: Callers whose part of a note is kept written (count).
MOST_CALLERS = 10_000
#: Of a call of which nothing is known.
_NO_USAGE = Usage()


#: Between the id of a worker and what tells one of its children from the others.
_OF = "/"


def child_of(process: str) -> str:
    """Return an id for a new child process of a worker."""
    return f"{process}{_OF}{secrets.token_hex(4)}"


def lives(process: str, living: Collection[str], gone: Collection[str] = ()) -> bool:
    """True when a process may settle its calls still: a child lives at most as long as its worker.

    Args:
        process: Its id.
        living: Ids of the workers that report.
        gone: Ids of children that are known to have ended.
    """
    return process.partition(_OF)[0] in living and process not in gone


class CameTo(NamedTuple):
    """What a call was settled at: `entries.py: packed_end`."""

    usd_picos: int | None
    tier: str
    at_s: float
    usage: Usage


class Note(NamedTuple):
    """What is known of a call before it is sent, and what its provider has counted.

    Args:
        writer: Id of the writer that is to enter it.
        process: Id by which its worker reports, or of a child of it; empty: it does not report.
        is_priced: False: its model has no price.
        came: What it was settled at; None: it is under way, or nobody knows.
    """

    writer: str
    process: str
    task: str
    pool: str
    bot: str
    tenant: str
    kind: str
    run: str
    tier: str
    is_priced: bool
    reservation: str
    came: CameTo | None = None

    def entry(self, *, ticket: str, limit: str, sent_us: float, usd_micros: float) -> Entry:
        """Return what is entered when its process does not enter the call.

        Args:
            ticket: Of its grant.
            limit: `provider/model/key`.
            sent_us: When it could leave, in microseconds of Redis time.
            usd_micros: What is taken to be its cost.
        """
        picos = round(usd_micros * PICOS_PER_MICRO) if self.is_priced else None
        entry = Entry(
            ticket, self.task, self.pool, self.bot, self.tenant, self.kind, self.run, limit, self.tier, _NO_USAGE,
            picos, "unknown", sent_us / 1e6, self.reservation,
        )  # fmt: skip
        return entry if self.came is None else entry._replace(state="settled", **self.came._asdict())


def packed_note(asked: Entry, *, writer: str, process: str) -> str:
    """Return the note of a call that is to be sent, as text. About 1 us: most of it stands for all calls of a bot."""
    caller = _packed_caller(
        asked.pool, asked.bot, asked.tenant, asked.kind, asked.run, asked.tier, asked.usd_picos is not None
    )
    task, reservation = _text(asked.task), _text(asked.reservation)
    return f"[{_text(writer)},{_text(process)},{task},{caller},{reservation}]"


@lru_cache(maxsize=MOST_CALLERS)
def _packed_caller(*parts: str | bool) -> str:
    return _JSON.encode(parts)[1:-1]


def read_note(text: bytes) -> tuple[Note, float, float] | None:
    """Return a note as it lies in Redis, when its call could leave (us), its cost (micro-dollars); None: unreadable."""
    sent_us, _, rest = text.partition(b" ")
    usd_micros, _, packed = rest.partition(b" ")
    try:
        note = Note(*json.loads(packed))
        if note.came is not None:
            usd_picos, tier, at_s, usage = note.came
            note = note._replace(came=CameTo(usd_picos, tier, at_s, Usage.model_validate(usage)))
        return note, float(sent_us), float(usd_micros)
    except (ValueError, TypeError):
        return None
