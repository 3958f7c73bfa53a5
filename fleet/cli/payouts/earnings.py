"""`fleet payouts report` and `revoke`: the ledger of earnings, by payee, asset and day."""

from __future__ import annotations

import csv
import json
import sys
import time
from typing import Any

import click

from fleet import config
from fleet.cli.money.times import iso, moment_of, told
from fleet.cli.terminal import say, table
from fleet.config.payouts.tables import tokens_in_full
from fleet.quoting import cell

#: Seconds of a report when nobody says from when on (30 days).
USUAL_S = 30 * 86_400.0


@click.command()
@click.option(
    "--since", callback=moment_of, help="From that day (UTC) on: 7d, 2026-11-01; the last 30 days by default."
)
@click.option("--until", callback=moment_of, help="Until that day; now by default.")
@click.option("--by-day", is_flag=True, help="A line for each day.")
@click.option("--payee", help="Of one payee only.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def report(
    since: float | None, until: float | None, by_day: bool, payee: str | None, as_csv: bool, as_json: bool
) -> None:
    """Show what each payee has earned in a time, what was taken back, and what was paid; exact to the smallest unit.

    Whole days (UTC), which are kept for 400 days. What is paid counts on the day on which it was settled.

    \b
    Examples:
      fleet payouts report --since 2026-11-01 --until 2026-12-01 --csv
      fleet payouts report --payee alice --by-day --json
    """
    from fleet.payouts.reports import read_report
    from fleet.store.private.two_redis import state_client

    if as_csv and as_json:
        raise click.UsageError("expected --csv or --json, got both")
    now_s = time.time()
    since_s, until_s = now_s - USUAL_S if since is None else since, now_s if until is None else until
    if since_s >= until_s:
        raise click.UsageError(f"expected --since before --until, got {told(since_s)} and {told(until_s)}")
    with state_client(config.current()) as client:
        found = read_report(client, since_s=since_s, until_s=until_s, by_day=by_day, payee=payee)
    rows = [line.as_data() for line in found.lines]
    if as_json:
        data = {"since": iso(found.since_s), "until": iso(found.until_s), "lines": rows, "is_whole": found.is_whole}
        click.echo(json.dumps(data, indent=2))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_HEADS)
        writer.writerows([[cell(row[name]) for name in _HEADS] for row in rows])
    else:
        for line in table([_TITLES, *(_cells(row) for row in rows)], left=(0, 1, 2)):
            click.echo(line)
        if not rows:
            say("nobody has earned anything in that time")
    if not found.is_whole:
        say(f"the days before {told(found.kept_from_s)} are not kept any more: sums of all time have them")


_HEADS = (
    "payee",
    "network",
    "day",
    "tasks",
    "earned",
    "taken_back",
    "paid",
    "units_earned",
    "units_taken_back",
    "units_paid",
)
_TITLES = ("PAYEE", "NETWORK", "DAY", "TASKS", "EARNED", "TAKEN BACK", "PAID")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["payee"],
        row["network"],
        row["day"] or "all",
        f"{row['tasks']:,}",
        row["earned"],
        row["taken_back"],
        row["paid"],
    )


@click.command()
@click.argument("task_id")
@click.option("--why", required=True, help="Why, for who asks later; no words of the task.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def revoke(task_id: str, why: str, as_json: bool) -> None:
    """Take back what a task has earned, by a counter-entry: the next payout of its payee is less by that.

    The entry itself stays. It is known for payouts.revocable_days which task has earned what.

    \b
    Examples:
      fleet payouts revoke 0b0c3a5e-1d8f-4a52-9d38-0c1f0a3b7c11 --why "copied its answer"
    """
    from fleet.cli.operator import operator_name
    from fleet.earnings.ledger import take_back
    from fleet.earnings.rows import Asset
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import state_client

    settings = config.current()
    with state_client(settings) as client:
        done, row = take_back(client, task_id, settings, by=operator_name(), why=why)
        if done == "taken back":
            record_deed(client, catalogue.EARNING_REVOKED, operator_name(), task=task_id, payee=row.payee, why=why)
    amount = tokens_in_full(row.units, Asset.of(row.asset).decimals)
    if as_json:
        click.echo(json.dumps({"task_id": task_id, "payee": row.payee, "bot": row.bot, "tokens": amount, "done": done}))
    else:
        click.echo(f"{amount} {done} from {row.payee}, earned by {row.bot}")
