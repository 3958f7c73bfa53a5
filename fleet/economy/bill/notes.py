"""The note that the limiter keeps with a grant until its call is in the bill: what to enter if nobody settles it. Pure.

`acquire.lua` puts two numbers before it: when the call may leave, in microseconds, and what is taken to be its cost, in
micro-dollars.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from fleet.entries import Entry
from fleet.money import PICOS_PER_MICRO
from fleet.usage import Usage

#: Made once: it takes as long to make one as to write a note.
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
#: Of a call of which nothing is known.
_NO_USAGE = Usage()


class Note(NamedTuple):
    """What is known of a call before it is sent.

    Args:
        writer: Id of the writer that is to enter it.
        process: Id by which its worker reports; empty: it does not report.
        is_priced: False: its model has no price.
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

    @classmethod
    def of(cls, asked: Entry, *, writer: str, process: str) -> Note:
        """Return the note of a call that is to be sent."""
        return cls(
            writer, process, asked.task, asked.pool, asked.bot, asked.tenant, asked.kind, asked.run, asked.tier,
            asked.usd_picos is not None, asked.reservation,
        )  # fmt: skip

    def packed(self) -> str:
        """Return it as text."""
        return _JSON.encode(self)

    def entry(self, *, ticket: str, limit: str, sent_us: float, usd_micros: float) -> Entry:
        """Return what is entered when nobody settles the call.

        Args:
            ticket: Of its grant.
            limit: `provider/model/key`.
            sent_us: When it could leave, in microseconds of Redis time.
            usd_micros: What is taken to be its cost.
        """
        picos = round(usd_micros * PICOS_PER_MICRO) if self.is_priced else None
        return Entry(
            ticket, self.task, self.pool, self.bot, self.tenant, self.kind, self.run, limit, self.tier, _NO_USAGE,
            picos, "unknown", sent_us / 1e6, self.reservation,
        )  # fmt: skip


def read_note(text: bytes) -> tuple[Note, float, float] | None:
    """Return a note as it lies in Redis, when its call could leave (us), its cost (micro-dollars); None: unreadable."""
    sent_us, _, rest = text.partition(b" ")
    usd_micros, _, packed = rest.partition(b" ")
    try:
        return Note(*json.loads(packed)), float(sent_us), float(usd_micros)
    except (ValueError, TypeError):
        return None
