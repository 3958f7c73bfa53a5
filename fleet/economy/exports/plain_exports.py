"""Files that anybody can write: the simulator's ledger, and plain CSV or JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fleet.economy.exports.export import (
    CLASSES,
    DAY_S,
    Billed,
    ProviderExport,
    UnreadableExport,
    day_of,
    evenly_rounded,
)
from fleet.economy.exports.fields import ExportRow, objects
from fleet.money import PICOS, PICOS_PER_MICRO
from fleet.quoting import quote

#: Columns of a plain file that tell an amount, and in how many of them a dollar is.
AMOUNTS = {"usd": 1, "usd_micros": PICOS // PICOS_PER_MICRO, "usd_picos": PICOS}
#: All columns of a plain file.
COLUMNS = ("day", "model", "key", "provider", "calls", *CLASSES, *AMOUNTS)
#: What of a line of the ledger is added up for one class of usage: calls that were cut are billed, too.
_LEDGER = {
    "input_tokens": ("input_tokens", "cut_input_tokens"), "output_tokens": ("output_tokens", "cut_output_tokens"),
}  # fmt: skip


def read_ledger(ledger: Mapping[str, Any]) -> ProviderExport:
    """Return an export of the simulator's ledger: what was served, and what was cut.

    Of calls that were cut the ledger has no classes beside input and output, so only these two are compared.

    Raises:
        UnreadableExport: A value cannot be.
    """
    whole = ExportRow(ledger, "ledger")
    period = whole.inner("period")
    if not isinstance(ledger.get("usage"), list):
        raise UnreadableExport("usage: expected the ledger's lines, got none; export it anew: GET /ledger")
    lines = []
    for number, told in enumerate(objects(ledger["usage"], "usage"), 1):
        row = ExportRow(told, f"usage {number}")
        usage = {name: sum(map(row.count, parts)) for name, parts in _LEDGER.items()}
        calls = row.count("served") + row.count("cut")
        amount = row.picos("billed_usd_picos", per_dollar=PICOS) + row.picos("cut_billed_usd_picos", per_dollar=PICOS)
        day = day_of(row.time("day")) if row.has("day") else ""
        line = Billed(day, row.text("model"), row.text("key"), calls=calls, usage=usage, usd_picos=amount)
        lines.append(line)
    since_s, until_s = period.time("since_s"), period.time("until_s")
    in_flight = whole.inner("total").count("in_flight")
    notes = (f"calls are in flight there: {in_flight}; export it again when they have ended",) if in_flight else ()
    return ProviderExport("the simulator's ledger", "simulator", since_s, until_s, tuple(lines), notes, bool(in_flight))


def read_plain(rows: Sequence[ExportRow], columns: Iterable[str]) -> ProviderExport:
    """Return an export of plain rows, CSV or JSON lines.

    Args:
        rows: With the columns of `COLUMNS`: `day`, and at least one count or amount.
        columns: Of the file.

    Raises:
        UnreadableExport: A column that must be there is not, or a value cannot be.
    """
    known = list(columns)
    amounts = [name for name in AMOUNTS if name in known]
    if "day" not in known or not (amounts or set(CLASSES) & set(known)):
        raise UnreadableExport(
            f"expected an export of OpenAI or Anthropic, the simulator's ledger, or columns among {', '.join(COLUMNS)} "
            f"with `day` and a count or an amount, got columns {quote(', '.join(known))}"
        )
    lines, days = [], []
    for row in rows:
        days.append(row.time("day") // DAY_S * DAY_S)
        lines.append(_plain(row, day_of(days[-1]), known, amounts[:1]))
    notes = [f"column {quote(name)}: not known, not compared" for name in known if name not in COLUMNS]
    if len(amounts) > 1:
        notes.append(f"{', '.join(amounts)}: of several amounts the first is taken")
    since_s, until_s = min(days, default=0.0), max(days, default=-DAY_S) + DAY_S
    return ProviderExport("a plain file", "", since_s, until_s, evenly_rounded(lines), tuple(notes))


def _plain(row: ExportRow, day: str, known: Sequence[str], amounts: Sequence[str]) -> Billed:
    amount, rounding = None, 0
    for name in amounts:
        if row.has(name):
            amount = row.picos(name, per_dollar=AMOUNTS[name])
            rounding = row.rounding_picos(name) if name == "usd" else 0
    usage = {name: row.count(name) for name in CLASSES if name in known}
    calls = row.count("calls") if row.has("calls") else None
    return Billed(
        day, row.text("model"), row.text("key"), row.text("provider"), calls, usage, amount, rounding
    )  # fmt: skip
