"""Every bot of the fleet in columns, and a part of them sorted and filtered.

Columns are tuples of equal length, one entry per bot. Times are Unix seconds, money is micro-dollars.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field

from fleet.frozen import Frozen

BotState = Literal["idle", "busy", "probation", "quarantined", "leaving"]
#: The sequential tests on a bot; "": none has any evidence against it.
TestName = Literal["", "bad answers", "avoids work", "slow", "wrong answers", "answers otherwise"]


class HealthColumns(NamedTuple):
    """The columns of `BotTable` that say how healthy each bot is, as they are read."""

    evidence: tuple[float, ...]
    test: tuple[TestName, ...]
    bad_percent: tuple[int, ...]
    avoids_percent: tuple[int, ...]
    slow_percent: tuple[int, ...]
    reason: tuple[str, ...]
    until: tuple[float | None, ...]
    alike: tuple[bool, ...]


class BotTable(Frozen):
    """Every bot, in columns, in the order of the pools and of the bots' numbers."""

    name: tuple[str, ...]
    pool: tuple[str, ...]
    state: tuple[BotState, ...]
    load: tuple[int, ...] = Field(description="Tasks in hand now.")
    completions: tuple[int, ...] = Field(description="Since counting began.")
    failed: tuple[int, ...] = Field(description="Those of the completions that failed.")
    calls_failed: tuple[int, ...] = Field(description="Provider calls that failed, retried or not.")
    per_hour: tuple[int, ...] = Field(description="Completions of the last hour; its older part is interpolated.")
    last_at: tuple[float, ...] = Field(description="Time of the last completion; 0: none.")
    cost_usd_micros: tuple[int, ...]
    tokens: tuple[int, ...]
    mean_ms: tuple[int, ...] = Field(description="Mean time that its tasks ran; 0 without tasks.")
    evidence: tuple[float, ...] = Field(
        description="The most that one of its tests has against it, faults of providers left out: see `FleetHealth`."
    )
    test: tuple[TestName, ...] = Field(description="Which test that is.")
    bad_percent: tuple[int, ...] = Field(description="Share of its last tasks with a bad answer.")
    avoids_percent: tuple[int, ...] = Field(description="The same: answers that avoid work, short and fast.")
    slow_percent: tuple[int, ...] = Field(description="The same: slow ones.")
    reason: tuple[str, ...] = Field(description="Why it is out; of one that is suspected, what speaks against it.")
    until: tuple[float | None, ...] = Field(
        description="End of its quarantine; None: it is not out, or (state quarantined) until it is released."
    )
    alike: tuple[bool, ...] = Field(description="Named by an alarm, because it answers like others.")


#: Columns that a page of bots can be sorted by.
BotColumn = Literal[
    "name", "pool", "state", "load", "completions", "failed", "calls_failed", "per_hour", "last_at",
    "cost_usd_micros", "tokens", "mean_ms", "evidence", "test", "bad_percent", "avoids_percent", "slow_percent",
    "reason", "until", "alike",
]  # fmt: skip


class BotPage(Frozen):
    """A part of the bots, sorted and filtered: see `bot_page`."""

    total: int = Field(description="Bots that the filter lets through.")
    offset: int
    bots: BotTable


def bot_page(
    table: BotTable,
    *,
    sort: BotColumn = "name",
    descending: bool = False,
    pool: str | None = None,
    state: BotState | None = None,
    search: str = "",
    offset: int = 0,
    limit: int = 100,
) -> BotPage:
    """Return bots `offset` to `offset + limit` of those that the filter lets through, in the order asked for. Pure.

    Args:
        table: Every bot.
        sort: Column to sort by; equals stay in the order of their names.
        descending: The largest first.
        pool: Only bots of this pool.
        state: Only bots in this state.
        search: Only bots with this text in their name.
        offset: First bot of the page, from 0.
        limit: Bots on a page, at most 10,000.
    """
    names, pools, states = table.name, table.pool, table.state
    rows = [
        row
        for row in range(len(names))
        if (pool is None or pools[row] == pool)
        and (state is None or states[row] == state)
        and (not search or search in names[row])
    ]
    if sort != "name" or descending:
        rows.sort(key=ranks_of(table, sort).__getitem__, reverse=descending)
    shown = rows[max(0, offset) : max(0, offset) + min(max(0, limit), 10_000)]
    columns = {name: tuple(getattr(table, name)[row] for row in shown) for name in BotTable.model_fields}
    return BotPage(total=len(rows), offset=max(0, offset), bots=BotTable.model_validate(columns))


def ranks_of(table: BotTable, sort: BotColumn) -> Sequence[Any]:
    """Return what bots are sorted by: mostly the column itself.

    States go by their severity, and no end of a quarantine comes before any. By evidence those that are out come last,
    for an operator may take out a bot that has none, and of equals those that are alike.
    """
    match sort:
        case "state":
            return [get_args(BotState).index(state) for state in table.state]
        case "until":
            return [end or 0.0 for end in table.until]
        case "evidence":
            rows = zip(table.state, table.evidence, table.alike, strict=True)
            return [(state == "quarantined", found, is_alike) for state, found, is_alike in rows]
    column: Sequence[Any] = getattr(table, sort)
    return column
