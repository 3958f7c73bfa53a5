"""`fleet stats`: the three signals on a terminal or as JSON.

`render_signals` is what other commands show at their end. rich and redis are imported on use only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.operate import spans
from fleet.quoting import duration, named, noun_for

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from fleet.signals.money.bill_view import BillView
    from fleet.signals.reader import BudgetRow, Completions, Errors, PoolCompletions, Resources, Snapshot
    from fleet.signals.view import FleetView

#: Error rows shown on a terminal; `--json` has more.
ERROR_ROWS = 10
#: Workers shown on a terminal; `--json` has all.
WORKER_ROWS = 16


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option("--bots", "with_bots", is_flag=True, help="With --json: every bot too, in columns.")
@spans.option
def stats(as_json: bool, with_bots: bool, window: str | None) -> None:
    """Show the three signals: completions, errors, resources.

    Without --window: since counting began.

    \b
    Examples:
      fleet stats
      fleet stats --window 15m
      fleet stats --json | jq .completions.total
      fleet stats --json | jq '.recent.failed_share, .error_matrix.verdict.verdict'
      fleet stats --json --bots | jq '[.bots.name, .bots.per_hour] | transpose'
    """
    if with_bots and not as_json:
        raise click.UsageError("expected --json together with --bots")
    settings = config.current()
    if window is not None and not as_json:
        _show_window(settings, window)
        return
    snapshot = take_snapshot(settings)
    if as_json:
        click.echo(json.dumps({**snapshot.model_dump(mode="json"), **_view(settings, with_bots, window)}, indent=2))
        return
    from rich.console import Console

    from fleet.engine.operations.overview import open_overview

    with open_overview(settings) as overview:
        view = overview.read()
    console = Console()
    for line in _findings(view):
        console.print(line)
    console.print(render_signals(snapshot))
    if (compute := view.cost.compute) is not None and compute.usd_micros is not None:
        console.print(_plain(f"compute, last {compute.hours} hours: {compute.line}"))


def _findings(view: FleetView) -> list[Text]:
    """Return what is wrong, worst first, each with what helps; or that all is well."""
    from fleet.signals.diagnosis.finding import well

    found, verdict = view.diagnoses, view.verdict
    if not found:
        return [_plain(f"✓ {well(view.outlook)}", "green"), *_of_bill(view.bill)]
    styles = {"critical": "bold red", "warning": "yellow", "info": ""}
    lines = []
    for one in found:
        helps = "; ".join(filter(None, (one.help.advice, one.help.command)))
        lines.append(_plain(f"{one.severity}: {one.sentence}", styles[one.severity]).append(f"  ({helps})", "dim"))
    if verdict.verdict != "none":
        whose = f" {verdict.culprit}" if verdict.culprit else ""
        lines.append(_plain(f"what fails now: {verdict.verdict}{whose}").append(f"  {verdict.reason}", "dim"))
    return [*lines, *_of_bill(view.bill)]


def _of_bill(bill: BillView) -> Iterator[Text]:
    """Yield what is not known of today's bill, and what will be on it later."""
    from fleet.money import PICOS_PER_MICRO, dollars_in_full, dollars_of
    from fleet.quoting import counted, stamp

    day, later = bill.day, bill.batches
    if later.tasks or later.gathering:
        by = "" if later.latest_by is None else f", the first needed by {stamp(later.latest_by)}"
        line = f"{counted(later.tasks, 'task')} in {counted(later.batches, 'batch', 'batches')}{by}"
        yield _plain(f"{line}; {later.gathering:,} more wait for one").append("  (fleet lanes)", "dim")
    read = bill.contexts.lately
    if calls := read.hit + read.cold + read.missed:
        share = f"{read.hit / calls:.0%} of {calls:,} calls of late have read their documents from a cache"
        saved = f"{'-' if read.saved_picos < 0 else ''}${dollars_of(abs(read.saved_picos)):,.4f} saved"
        yield _plain(f"{share}, {saved}").append("  (fleet context)", "dim")
    if hits := sum(row.hits for row in bill.cache):
        saved = dollars_in_full(sum(row.saved_usd_micros for row in bill.cache) * PICOS_PER_MICRO)
        yield _plain(f"{counted(hits, 'task')} got the answer of an equal one: ${saved} saved").append(
            "  (fleet cache)", "dim"
        )
    if day.unknown_calls:
        line = f"bill of today: {day.unknown_calls:,} of {day.calls:,} calls are unknown"
        reserved = f"  ${dollars_in_full(day.unknown_usd_picos)} is reserved for them (fleet bill unknown)"
        yield _plain(line, "yellow").append(reserved, "dim")
    if day.unpriced_calls:
        line = f"bill of today: {day.unpriced_calls:,} of {day.calls:,} calls have no price"
        yield _plain(line, "yellow").append("  (set [prices] in fleet.toml)", "dim")


def _show_window(settings: config.Settings, window: str) -> None:
    from rich.console import Console

    from fleet.engine.operations.overview import open_overview

    with open_overview(settings) as overview:
        view, pools = overview.read(), overview.spans(window)
    Console().print(spans.render_span(view, window, pools))


def _view(settings: config.Settings, with_bots: bool, window: str | None) -> dict[str, Any]:
    """Return what the Fleet tab shows, beside the snapshot: what both have is the snapshot's."""
    from fleet.engine.operations.overview import open_overview

    with open_overview(settings) as overview:
        view = overview.read().model_dump(mode="json", exclude=None if with_bots else {"bots"})
        pools = {} if window is None else overview.spans(window)
    view["error_matrix"] = view.pop("errors")
    if window is not None:
        whole = next(span for span in view["spans"] if span["name"] == window)
        view["window"] = {**whole, "pools": {pool: span.model_dump(mode="json") for pool, span in pools.items()}}
    return {name: part for name, part in view.items() if name not in ("at", "simulated", "resources")}


def take_snapshot(settings: config.Settings) -> Snapshot:
    """Read the three signals from the state Redis.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    from fleet.cli.operate.budget_rows import read_budgets
    from fleet.signals import Signals
    from fleet.store.client import connect, store_errors
    from fleet.store.private.embedded import state_url

    url = state_url(settings)
    client = connect(url, timeout_s=settings.redis.socket_timeout_s)
    try:
        with store_errors(url):
            return Signals(client, settings).read(budgets=read_budgets(settings, url))
    finally:
        client.close()


def render_signals(snapshot: Snapshot) -> RenderableType:
    """Return the three signals as three panels, under a line that says so when the simulator answers."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    panels: list[RenderableType] = []
    if snapshot.simulated:
        done = snapshot.completions
        text = (
            f"Answers come from the simulator, not from a real provider: {done.simulated:,} of {done.total:,} so far."
        )
        panels.append(Text(text, style="bold yellow"))
    bodies = {
        "Completions, since counting began": _completions(snapshot.completions),
        "Errors, since counting began": _errors(snapshot.errors),
        "Resources, now and since counting began": _resources(snapshot.resources, snapshot.at),
    }
    panels += [Panel(body, title=title, title_align="left", border_style="cyan") for title, body in bodies.items()]
    return Group(*panels)


def _completions(done: Completions) -> RenderableType:
    from rich.console import Group

    from fleet.cli.figures import Figures, figures

    of_fallbacks = [("of a fallback", done.fallbacks, "yellow")] if done.fallbacks else []
    head = figures(
        ("done", done.total, ""),
        ("ok", done.ok, "green"),
        ("degraded", done.degraded, "yellow" if done.degraded else ""),
        ("failed", done.failed, "red" if done.failed else ""),
        (noun_for(done.duplicates, "discarded duplicate"), done.duplicates, "yellow" if done.duplicates else ""),
        *of_fallbacks,
    )
    table = Figures("pool", "bots", "done", "min/median/max", "even", "idle", "busiest", left=(0, 6))
    for pool in done.pools:
        table.add_row(*_pool_row(pool))
    if done.without_bot:
        table.add_row("(no bot)", "", f"{done.without_bot:,}")
    return Group(head, table)


def _pool_row(pool: PoolCompletions) -> list[str | Text]:
    spread = pool.spread
    busiest = f"{spread.top[0].bot} {spread.top[0].completions:,}" if spread.top else ""
    middle = f"{spread.min:,} / {spread.median:,g} / {spread.max:,}"
    jain = "-" if spread.jain is None else f"{spread.jain:.3f}"
    idle = _plain(str(spread.idle), "yellow" if spread.idle and pool.total >= spread.bots else "")
    return [_plain(pool.pool), f"{spread.bots:,}", f"{pool.total:,}", middle, jain, idle, _plain(busiest)]


def _errors(errors: Errors) -> RenderableType:
    from rich.console import Group

    from fleet.cli.figures import Figures, figures

    verdict = errors.verdict
    culprit = f" {verdict.culprit}" if verdict.culprit else ""
    style = {"none": "green", "spread": "yellow"}.get(verdict.verdict, "bold red")
    head = _plain(f"{verdict.verdict}{culprit}", style).append(f"  {verdict.reason}", "dim")
    if not errors.rows:
        return head
    counts = figures(
        (noun_for(errors.failures, "failed task"), errors.failures, ""),
        (noun_for(errors.calls, "failed provider call"), errors.calls, ""),
    )
    table = Figures("bot", "API", "error", "tasks", "calls", left=(0, 1, 2))
    for row in errors.rows[:ERROR_ROWS]:
        who = _plain(named(row.bot, "bot")), _plain(named(row.api, "API"))
        table.add_row(*who, _plain(row.type), f"{row.failures:,}", f"{row.calls:,}")
    more = len(errors.rows) + errors.rows_left_out - ERROR_ROWS
    return Group(
        head, counts, table, *([_plain(f"and {more:,} more {noun_for(more, 'row')}", "dim")] if more > 0 else [])
    )


def _resources(used: Resources, now_s: float) -> RenderableType:
    from rich.console import Group

    from fleet.cli.figures import Figures, figures
    from fleet.signals.recorder import told_lent
    from fleet.store.clock import NAMED_FROM_S, told

    apart = sum(worker.apart for worker in used.workers)
    cost = "-" if not used.cost_usd_micros else f"${used.cost_usd_micros / 1e6:,.4f}"
    parts: list[RenderableType] = [
        figures(
            (noun_for(len(used.workers), "worker"), len(used.workers), "" if used.workers else "yellow"),
            ("busy slots", f"{used.busy:,} of {used.slots:,}{told_lent(used.workers)}", ""),
            *([(noun_for(apart, "suspect") + " apart", apart, "yellow")] if apart else []),
            ("CPU", f"{used.cpu_percent:.0f}%", ""),
            ("memory", f"{used.rss_mb:,.0f} MB", ""),
        ),
        figures(
            (noun_for(used.calls, "call"), used.calls, ""),
            (noun_for(used.rate_limited, "429"), used.rate_limited, "yellow" if used.rate_limited else ""),
            (f"{noun_for(used.input_tokens, 'token')} in", used.input_tokens, ""),
            *([("of them cached", f"{used.cached_tokens / used.input_tokens:.0%}", "")] if used.cached_tokens else []),
            ("out", used.output_tokens, ""),
            *(
                [("of them thinking", f"{used.reasoning_tokens / used.output_tokens:.0%}", "")]
                if used.reasoning_tokens
                else []
            ),
            ("cost", cost, ""),
        ),
    ]
    if used.workers:
        table = Figures("worker", "pid", "CPU", "memory", "busy", "slots", "", left=(0, 6))
        for row in used.workers[:WORKER_ROWS]:
            numbers = [f"{row.cpu_percent:.0f}%", f"{row.rss_mb:,.0f} MB", str(row.busy), str(row.slots)]
            off = f"its clock is {told(row.clock_ahead_s)}" if abs(row.clock_ahead_s) >= NAMED_FROM_S else ""
            table.add_row(_plain(row.name), str(row.pid), *numbers, _plain(off, "yellow"))
        parts.append(table)
    if used.budgets:
        table = Figures("API limits", "requests/min", "tokens/min", "", left=(0, 3))
        for budget in used.budgets:
            table.add_row(*_budget_row(budget, now_s))
        parts.append(table)
    return Group(*parts)


def _budget_row(row: BudgetRow, now_s: float) -> list[str | Text]:
    held_s = 0.0 if row.held_until is None else row.held_until - now_s
    held = _plain(f"held for {duration(held_s)} after a 429" if held_s > 0 else "", "red")
    return [_plain(row.limit), _share(row.used_rpm, row.rpm), _share(row.used_tpm, row.tpm), held]


def _share(used: float | None, limit: int | None) -> str:
    if limit is None:
        return "no limit"
    return f"{limit:,}" if used is None else f"{used:,.0f} of {limit:,} ({used / limit:.0%})"


def _plain(text: str, style: str = "") -> Text:
    """Names come from outside: as `Text` their brackets are not read as markup."""
    from rich.text import Text

    return Text(text, style=style)
