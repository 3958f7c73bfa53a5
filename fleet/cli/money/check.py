"""`fleet bill check`: the bill beside a provider's own, and what becomes of calls of unknown cost."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.exit_codes import EXIT_FAILURE
from fleet.cli.money.times import iso, moment_of, told
from fleet.cli.terminal import fitted, say, table
from fleet.money import dollars_in_full
from fleet.quoting import cell

if TYPE_CHECKING:
    import redis

    from fleet.economy.exports.checking import Reconciliation
    from fleet.economy.exports.export import ProviderExport
    from fleet.economy.exports.matching import Cell, Finding


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of the command.

    Args:
        found: Before anything was resolved.
        left: After that.
        resolved: How many unknown calls have an amount now.
        usd_picos: What they have cost together.
        uncorrected: Those of them whose budgets keep what they were charged.
    """

    found: Reconciliation
    left: Reconciliation
    resolved: int
    usd_picos: int
    uncorrected: int


@click.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--since", callback=moment_of, help="Only from this day on (UTC): 2026-11-01, or 7d.")
@click.option("--until", callback=moment_of, help="Only until this day, which is not in it.")
@click.option("--provider", "named", multiple=True, metavar="NAME", help="Compare with this one of [providers] only.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="ID=PROVIDER[/KEY]",
    help="Whose this key of the file is; repeatable.",
)
@click.option(
    "--apply/--dry-run",
    "applies",
    default=True,
    help="Resolve the unknown calls that it explains (default); or only look.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, amounts in pico-dollars.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the lines as CSV, amounts in pico-dollars.")
def check_bill(
    file: Path,
    since: float | None,
    until: float | None,
    named: tuple[str, ...],
    keys: tuple[str, ...],
    applies: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Compare the bill with a provider's export, and settle calls of unknown cost by it.

    FILE is JSON or CSV: OpenAI's usage or costs, Anthropic's usage or cost report, the simulator's ledger, or a plain
    file with the columns day, model and input_tokens, output_tokens or usd.

    Where what the provider counts more is at most what was reserved for unknown calls, these get exactly that. Nothing
    else is changed. To run it again changes nothing.

    \b
    Examples:
      fleet bill check usage.json
      fleet bill check costs.csv --since 2026-11-01 --until 2026-12-01 --dry-run
      fleet bill check usage.json --key key_abc=openai
      curl -s http://127.0.0.1:8080/ledger > ledger.json && fleet bill check ledger.json

    Exit codes: 0 no difference is left, or none that the unknown calls do not explain; 1 one is; 2 the file or the
    command cannot be understood.
    """
    from fleet.cli.money.whose import refuse_absent
    from fleet.cli.operator import operator_name
    from fleet.economy.exports.checking import cut
    from fleet.economy.exports.reading import read_export
    from fleet.money import dollars_in_full
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.client import connect, store_errors
    from fleet.store.private.embedded import state_url

    if as_json and as_csv:
        raise click.UsageError("expected --json or --csv, got both")
    settings = config.current()
    whole = read_export(file)
    refuse_absent(whole, keys)
    export = cut(whole, since_s=since, until_s=until)
    applies = applies and not export.is_partial
    url = state_url(settings)
    with store_errors(url), connect(url, timeout_s=settings.redis.socket_timeout_s) as client:
        outcome = _checked(client, export, named, keys, exported_s=file.stat().st_mtime, applies=applies)
        if outcome.resolved:
            usd = dollars_in_full(outcome.usd_picos)
            record_deed(
                client, catalogue.BILL_RESOLVED, operator_name(), file=file.name, calls=outcome.resolved, usd=usd
            )
    _show(file, outcome, applies=applies, as_json=as_json, as_csv=as_csv)
    if export.is_partial or not outcome.left.agrees:
        sys.exit(EXIT_FAILURE)


def _checked(
    client: redis.Redis,
    export: ProviderExport,
    named: tuple[str, ...],
    keys: tuple[str, ...],
    *,
    exported_s: float,
    applies: bool,
) -> Checked:
    from fleet.cli.money.whose import scope_of
    from fleet.economy.exports import checking
    from fleet.economy.prices import PriceList

    settings = config.current()
    price = PriceList(settings)

    def look() -> Reconciliation:
        return checking.check(
            client,
            export,
            lambda limits: scope_of(export, settings, limits, named, keys),
            price,
            exported_s=exported_s,
        )

    if not applies:
        found = look()
        return Checked(found, found, 0, 0, 0)
    with checking.alone(client) as stay:
        found = look()
        resolved = checking.apply(client, found, now_s=time.time(), stay=stay)
        left = look() if resolved else found
    picos = sum(one.entry.usd_picos or 0 for one in resolved)
    return Checked(found, left, len(resolved), picos, sum(not one.is_corrected for one in resolved))


def _show(file: Path, outcome: Checked, *, applies: bool, as_json: bool, as_csv: bool) -> None:
    if as_json:
        click.echo(json.dumps(_as_data(outcome, applies=applies), indent=2))
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, fieldnames=list(_CSV), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: cell(row[name]) for name in _CSV} for row in map(_row, outcome.found.findings))
    else:
        for line in fitted(_told(file, outcome, applies=applies)):
            click.echo(line)
    if as_json or as_csv:
        for line in _verdict(outcome, applies=applies):
            say(line)


#: Columns of the CSV.
_CSV = (
    "day", "account", "model", "calls", "their_calls", "usd_picos", "their_usd_picos", "difference_usd_picos",
    "unknown_calls", "unknown_usd_picos", "verdict", "why",
)  # fmt: skip


def _as_data(outcome: Checked, *, applies: bool) -> dict[str, Any]:
    found, left = outcome.found, outcome.left
    export = found.export
    return {
        "kind": export.kind,
        "since": iso(export.since_s),
        "until": iso(export.until_s),
        "is_partial": export.is_partial,
        "notes": list(found.notes),
        "cells": [_row(finding) for finding in found.findings],
        "applied": applies,
        "resolved_calls": outcome.resolved,
        "resolved_usd_picos": outcome.usd_picos,
        "uncorrected_in_budgets": outcome.uncorrected,
        "difference_usd_picos": _difference(left),
        "left": [_row(finding) for finding in left.findings if finding.verdict != "agrees"],
    }


def _row(finding: Finding) -> dict[str, Any]:
    cell = finding.cell
    return {
        **cell.place._asdict(),
        "calls": cell.calls,
        "their_calls": cell.their_calls,
        "usd_picos": cell.usd_picos,
        "their_usd_picos": cell.their_usd_picos,
        "difference_usd_picos": cell.difference_usd_picos,
        "usage": cell.usage,
        "their_usage": cell.their_usage,
        "unknown_calls": len(cell.unknown),
        "unknown_usd_picos": cell.unknown_usd_picos,
        "verdict": finding.verdict,
        "why": finding.why,
    }


def _difference(check: Reconciliation) -> int | None:
    """Return theirs less ours over all cells; None where they tell no amounts."""
    told = [cell.difference_usd_picos for cell in (finding.cell for finding in check.findings)]
    return None if None in told else sum(amount or 0 for amount in told)


def _told(file: Path, outcome: Checked, *, applies: bool) -> Iterator[str]:
    export = outcome.found.export
    yield f"{file}: {export.kind}, {told(export.since_s)} to {told(export.until_s)}"
    for note in outcome.found.notes:
        yield f"  {note}"
    if outcome.found.findings:
        yield from table([_HEADS, *map(_cells, outcome.found.findings)], left=(0, 1, 2, 7))
    yield from _verdict(outcome, applies=applies)


_HEADS = ("DAY", "PROVIDER/KEY", "MODEL", "OURS", "THEIRS", "DIFFERENCE", "UNKNOWN", "WHAT IT IS")


def _cells(finding: Finding) -> tuple[str, ...]:
    cell = finding.cell
    place = (cell.place.day or "all", cell.place.account or "all", cell.place.model or "all")
    count = len(cell.unknown)
    unknown = f"{count:,}: {_usd(cell.unknown_usd_picos)}" if count else "."
    said = f"{finding.verdict}: {finding.why}" if finding.why else finding.verdict
    return (*place, *_sides(cell), unknown, said)


def _sides(cell: Cell) -> tuple[str, str, str]:
    """Return ours, theirs and the difference: money where they tell it, else tokens in and out."""
    amount = cell.difference_usd_picos
    if amount is not None:
        return _usd(cell.usd_picos), _usd(cell.their_usd_picos or 0), _usd(amount, signed=True)
    sides = [
        [usage.get(name, 0) for name in ("input_tokens", "output_tokens")] for usage in (cell.usage, cell.their_usage)
    ]
    more = [there - here for here, there in zip(*sides, strict=True)]
    ours, theirs = (" + ".join(f"{count:,}" for count in side) for side in sides)
    return ours, theirs, " / ".join(f"{count:+,}" if count else "0" for count in more)


def _usd(picos: int, *, signed: bool = False) -> str:
    sign = "-" if picos < 0 else "+" if signed and picos else ""
    return f"{sign}${dollars_in_full(abs(picos))}"


def _verdict(outcome: Checked, *, applies: bool) -> Iterator[str]:
    found, left = outcome.found, outcome.left
    if found.export.is_partial:
        yield "the file says of itself that more belongs to it: nothing is resolved; export all of it"
    elif found.resolutions and not applies:
        yield f"{found.resolutions:,} unknown calls are explained; without --dry-run they are resolved"
    if outcome.resolved:
        yield f"resolved {outcome.resolved:,} unknown calls: they have cost {_usd(outcome.usd_picos)}"
    if outcome.uncorrected:
        yield f"budgets keep what {outcome.uncorrected:,} of them were charged: it was exact, or is over a day old"
    differing = sum(finding.verdict == "differs" for finding in left.findings)
    if differing:
        yield f"{differing:,} of {len(left.findings):,} lines differ: nothing was changed for them"
    early = sum(finding.verdict == "too early" for finding in left.findings)
    if early:
        yield f"{early:,} of {len(left.findings):,} lines are too early to tell: export them again later"
    if not differing and not early and not left.resolutions:
        yield "no difference is left"
