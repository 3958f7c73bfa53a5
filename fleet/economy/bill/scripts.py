"""The Lua scripts of the bill: each is one command, put behind the lines of `rows.lua` that all share."""

from __future__ import annotations

from fleet.economy.bill.rows import DAYS_KEPT, HOURS_KEPT_DAYS, MOST_ROWS, ROW
from fleet.store.client import Script

DAY_S = 86_400
#: Unknown calls that are kept one by one at most (count); those beyond are only summed.
MOST_LISTED = 100_000
#: Life of what is known of a process's last batch, in seconds: longer than that of the notes of its calls (7 days).
WRITER_LIFE_S = 8 * DAY_S

_LISTED = {"MOST_LISTED": MOST_LISTED, "WRITER_LIFE_S": WRITER_LIFE_S, "UNKNOWN_LIFE_S": DAYS_KEPT * DAY_S}
_ROWS = Script.library(
    __file__,
    "rows.lua",
    tables={"row": ROW},
    constants={
        "MOST_ROWS": MOST_ROWS,
        "HOUR_LIFE_S": (HOURS_KEPT_DAYS + 1) * DAY_S,
        "DAY_LIFE_S": (DAYS_KEPT + 1) * DAY_S,
    },
)
BILL = Script.beside(
    __file__,
    "bill.lua",
    keys="writer unknown hour day bots ever",
    argv="number ids lost rows*",
    constants=_LISTED,
    behind=_ROWS,
)
ENTER_LOST = Script.beside(
    __file__,
    "enter_lost.lua",
    keys="writer unknown hour day bots ever",
    argv="number id entry rows*",
    constants=_LISTED,
    behind=_ROWS,
)
RESOLVE = Script.beside(
    __file__, "resolve.lua", keys="unknown hour day bots ever", argv="id before mark rows*", behind=_ROWS
)
RENAME_ROW = Script.beside(__file__, "rename_row.lua", keys="rows", argv="before after", behind=_ROWS)
