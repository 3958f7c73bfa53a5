"""`fleet bill`: what calls have cost, by whatever they are told apart by; and those of which nobody knows."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.money.check import check_bill
from fleet.cli.money.times import iso, moment_of, told
from fleet.cli.terminal import fitted, say, table
from fleet.money import dollars_in_full
from fleet.quoting import cell

if TYPE_CHECKING:
    import redis

    from fleet.economy.bill.reader import Bill, BillLine
    from fleet.economy.bill.rows import Sums
    from fleet.economy.compute import Compute
    from fleet.entries import Entry

#: Seconds of the bill when nobody says from when on (30 days).
USUAL_S = 30 * 86_400.0
#: Columns of tokens beside input and output, shown where there are any: class -> head.
MORE_TOKENS = {
    "cached_tokens": "CACHED",
    "cache_write_tokens": "WRITTEN",
    "reasoning_tokens": "THINKING",
    "web_searches": "SEARCHES",
}


@click.group(invoke_without_command=True)
@click.option("--by", default="pool,model", show_default=True, help="What to tell apart, with commas between.")
@click.option("--since", callback=moment_of, help="From then on: 24h, 7d, 2026-11-01; the last 30 days by default.")
@click.option("--until", callback=moment_of, help="Until then; now by default.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead: amounts in dollars, every digit of them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead: also amounts in 10^-12 dollars.")
@click.pass_context
def bill(ctx: click.Context, by: str, since: float | None, until: float | None, as_csv: bool, as_json: bool) -> None:
    """Show what every call has cost: by pool, bot, tenant, kind, provider, model, key, tier, day, hour.

    Hours are kept for 14 days and days for 400, both UTC. By bot there are days only, without tenant and kind.

    \b
    Examples:
      fleet bill
      fleet bill --by tenant,day --since 7d
      fleet bill --by bot --since 2026-11-01 --until 2026-12-01 --csv
      fleet bill unknown
      fleet bill check usage.json
    """
    if ctx.invoked_subcommand is not None:
        return
    if as_csv and as_json:
        raise click.UsageError("expected --csv or --json, got both")
    found = _read(by, since, until)
    compute = None if as_csv else _compute(found)
    if as_json:
        click.echo(json.dumps({**_as_data(found), "compute": compute and compute._asdict()}, indent=2))
    elif as_csv:
        _write_csv(found)
    else:
        for line in _shown(found):
            click.echo(line)
        if compute is not None:
            from fleet.engine.operations.idle import bill_line

            click.echo(bill_line(compute, since_s=found.since_s, until_s=found.until_s))
    for line in _remarks(found, since):
        say(line)


def _read(by: str, since: float | None, until: float | None) -> Bill:
    from fleet.economy.bill.reader import check_by, read_bill
    from fleet.errors import InvalidTask

    names = tuple(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))
    try:
        check_by(names)
    except InvalidTask as error:
        raise click.BadParameter(str(error), param_hint="--by") from None
    now_s = time.time()
    since_s, until_s = now_s - USUAL_S if since is None else since, now_s if until is None else until
    if since_s >= until_s:
        raise click.UsageError(f"expected --since before --until, got {told(since_s)} and {told(until_s)}")
    with _state() as client:
        return read_bill(client, since_s=since_s, until_s=until_s, by=names)


def _compute(found: Bill) -> Compute | None:
    """Return what the slots of workers did in the time of the bill."""
    from fleet.engine.operations.idle import read_compute

    with _state() as client:
        return read_compute(client, config.current(), since_s=found.since_s, until_s=found.until_s)


@contextmanager
def _state() -> Iterator[redis.Redis]:
    from fleet.store.client import connect, store_errors
    from fleet.store.private.embedded import state_url

    settings = config.current()
    url = state_url(settings)
    with store_errors(url), connect(url, timeout_s=settings.redis.socket_timeout_s) as client:
        yield client


def _shown(found: Bill) -> Iterator[str]:
    if not found.total.calls:
        yield f"no call from {told(found.since_s)} to {told(found.until_s)}: the bill is empty"
        return
    more = [name for name in MORE_TOKENS if getattr(found.total.usage, name)]
    heads = (*(name.upper() for name in found.by), "CALLS", "UNKNOWN", "UNPRICED", "TOKENS IN", "OUT",
             *(MORE_TOKENS[name] for name in more), "COST", "UNKNOWN COST")  # fmt: skip
    rows = [(*line.values, *_cells(line.sums, more)) for line in found.lines]
    if found.by:
        rows.append(("total", *[""] * (len(found.by) - 1), *_cells(found.total, more)))
    yield f"from {told(found.since_s)} to {told(found.until_s)}"
    yield from table([heads, *rows], left=range(len(found.by)), nothing=("", ".", "0"))


def _cells(sums: Sums, more: Sequence[str]) -> tuple[str, ...]:
    usage = sums.usage
    counts = (sums.calls, sums.unknown_calls, sums.unpriced_calls, usage.input_tokens, usage.output_tokens)
    numbers = (*counts, *(getattr(usage, name) for name in more))
    money = sums.usd_picos, sums.unknown_usd_picos
    return *(f"{number:,}" for number in numbers), *(f"${dollars_in_full(picos)}" for picos in money)


def _remarks(found: Bill, since: float | None) -> Iterator[str]:
    from fleet.economy.bill.rows import DAY_S, DAYS_KEPT, OTHER

    if since is not None and since < found.since_s - DAY_S:
        yield f"days are kept for {DAYS_KEPT}: what was before {told(found.since_s)} is not in it"
    total, settings = found.total, config.current()
    if total.unknown_calls:
        yield (
            f"of {total.unknown_calls:,} of {total.calls:,} calls nobody knows what was counted, at most about "
            f"${dollars_in_full(total.unknown_usd_picos)}: `fleet bill unknown` lists them"
        )
    if total.unpriced_calls:
        yield f"{total.unpriced_calls:,} of {total.calls:,} calls have no price: set [prices] in fleet.toml"
    if any(OTHER in line.values for line in found.lines):
        yield f"the line `{OTHER}` sums what is beyond the rows that are kept apart"
    if found.has_whole_days:
        yield "hours are kept for 14 days: lines before them, whose hour is a date, are whole days"
    if total.calls and settings.simulated:
        yield "answers of the simulator are not billed by anybody"


def _as_data(found: Bill) -> dict[str, Any]:
    return {
        "since": iso(found.since_s),
        "until": iso(found.until_s),
        "by": list(found.by),
        "lines": [dict(zip(found.by, line.values, strict=True)) | _sums_as_data(line.sums) for line in found.lines],
        "total": _sums_as_data(found.total),
    }


def _sums_as_data(sums: Sums) -> dict[str, Any]:
    return {
        "calls": sums.calls,
        "unknown_calls": sums.unknown_calls,
        "unpriced_calls": sums.unpriced_calls,
        "usage": sums.usage.model_dump(),
        "usd_picos": sums.usd_picos,
        "usd": dollars_in_full(sums.usd_picos),
        "unknown_usd_picos": sums.unknown_usd_picos,
        "unknown_usd": dollars_in_full(sums.unknown_usd_picos),
    }


def _write_csv(found: Bill) -> None:
    from fleet.economy.bill.rows import CLASSES

    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow([*found.by, "calls", "unknown_calls", "unpriced_calls", *CLASSES, "usd", "unknown_usd"])
    for line in found.lines or ([] if found.by else [_total_line(found)]):
        sums = line.sums
        counts = [getattr(sums.usage, name) for name in CLASSES]
        money = dollars_in_full(sums.usd_picos), dollars_in_full(sums.unknown_usd_picos)
        out.writerow([*map(cell, line.values), sums.calls, sums.unknown_calls, sums.unpriced_calls, *counts, *money])


def _total_line(found: Bill) -> BillLine:
    from fleet.economy.bill.reader import BillLine

    return BillLine((), found.total)


bill.add_command(check_bill)


@bill.command()
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Calls at most.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def unknown(limit: int, as_json: bool) -> None:
    """List the calls of which nobody knows what was counted: they were cut off, or their worker died.

    Each stands in the bill at what was reserved for it, until `fleet bill check` or its own worker tells more.

    \b
    Examples:
      fleet bill unknown
      fleet bill unknown --json | jq '.calls[].task'
    """
    from fleet.economy.bill.unknown import read_unknown

    with _state() as client:
        some = [one.entry for one in islice(read_unknown(client), limit + 1)]
    entries = sorted(some[:limit], key=lambda entry: entry.at_s, reverse=True)
    if as_json:
        listed = {"calls": [_entry_as_data(entry) for entry in entries], "are_all": len(some) <= limit}
        click.echo(json.dumps(listed, indent=2))
        return
    if not entries:
        click.echo("no call is unknown")
        return
    heads = ("TIME", "TASK", "POOL", "BOT", "LIMIT", "RESERVED")
    for line in table([heads, *map(_unknown_cells, entries)], left=range(5)):
        click.echo(line)
    if len(some) > limit:
        click.echo("\n".join(fitted([f"and more: `--limit` shows more than {limit:,}"])))


def _unknown_cells(entry: Entry) -> tuple[str, ...]:
    reserved = "no price" if entry.usd_picos is None else f"${dollars_in_full(entry.usd_picos)}"
    return told(entry.at_s), entry.task, entry.pool, entry.bot, entry.limit, reserved


def _entry_as_data(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": iso(entry.at_s),
        "task": entry.task,
        "pool": entry.pool,
        "bot": entry.bot,
        "tenant": entry.tenant,
        "kind": entry.kind,
        "limit": entry.limit,
        "tier": entry.tier,
        "usage": entry.usage.model_dump(),
        "reserved_usd_picos": entry.usd_picos,
        "reserved_usd": None if entry.usd_picos is None else dollars_in_full(entry.usd_picos),
    }
