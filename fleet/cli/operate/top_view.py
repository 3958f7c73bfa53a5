"""How `fleet top` looks: one frame out of one view, fitted into the terminal. Draws, reads nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleet.cli.operate import spans
from fleet.cli.operate.bots import against_it
from fleet.cli.operate.pools import told_gate
from fleet.cli.terminal import NARROW
from fleet.engine.operations.ladders import told_rung
from fleet.quoting import counted, duration
from fleet.signals.bot_table import ranks_of
from fleet.signals.diagnosis.finding import well
from fleet.signals.recorder import told_lent
from fleet.signals.rungs import name_of

if TYPE_CHECKING:
    from fleet.signals.ahead.budget_view import BudgetScopeView
    from fleet.signals.bot_table import BotColumn, BotTable
    from fleet.signals.limit_view import LimitView
    from fleet.signals.spans import Trends
    from fleet.signals.view import EventView, FleetView, PoolView

#: Heights of a sparkline, an eighth of a line each.
_BARS = " ▁▂▃▄▅▆▇█"
#: Seconds after which figures are marked as old.
STALE_S = 5.0
#: What each order of the bots is called.
SORT_NAMES = {
    "evidence": "evidence",
    "per_hour": "last hour", "failed": "failed", "load": "in hand", "mean_ms": "slowest", "cost_usd_micros": "cost",
}  # fmt: skip
#: Columns of a terminal from which on the bots' table has all figures beside what speaks against them.
_WIDE = 130
#: Columns from which on pools, limits and bots have all their figures, without one that is cut off.
_ROOMY = 100
#: Heads of the columns that are not called as their order.
_HEADS = {"per_hour": "last hour", "load": "in hand", "mean_ms": "mean", "cost_usd_micros": "cost"}
_VERDICT_STYLES = {"none": "green", "unclear": "yellow"}
_SEVERITY_STYLES = {"critical": "bold red", "warning": "yellow", "info": "dim"}
_MARKS = {"critical": "×", "warning": "!", "info": "i"}
#: Lines of findings at most (the page and `fleet stats` have all); a terminal with fewer lines than this has one.
MOST_FINDINGS, _TALL = 4, 24
#: Budgets that are listed, the fullest first (count), and the used share from which one is yellow.
MOST_BUDGETS, NEAR_SHARE = 3, 0.8
#: Lines that everything but pools, limits, bots and events takes, one of them the terminal's last, left free.
_FIXED_LINES = 9


def frame(
    view: FleetView | None, *, width: int, height: int, sort: BotColumn, pool: int | None, said: str = "",
    trouble: str | None = None, age_s: float | None = None, window: str = "1h",
) -> RenderableType:  # fmt: skip
    """Return a frame for a terminal of this size.

    Args:
        view: What is known; None before the first reading.
        width: Columns.
        height: Lines.
        sort: Column of the table of bots by which they are listed.
        pool: Index of the chosen pool; None: none is.
        said: What the last key did.
        trouble: Why the last reading failed.
        age_s: Age of the figures; None: as old as the view.
        window: What errors, cost and the lines of blocks are of: 15m, 1h or 24h.
    """
    if view is None:
        return Text(trouble or "asking Redis ...", "bold red" if trouble else "dim")
    findings = _findings(view, width, MOST_FINDINGS if height >= _TALL else 1)
    budgets = sorted(view.budgets, key=lambda one: -one.share)[:MOST_BUDGETS]
    left = max(4, height - _FIXED_LINES - len(view.limits[:3]) - len(budgets) - len(findings))
    left = max(4, left - bool(view.headline) - bool(view.jobs.headline))
    pools = view.pools[: max(1, left // 3)]
    events = view.events[: max(0, (left - len(pools)) // 3)]
    bots = max(1, left - len(pools) - len(events))
    return Group(
        _head(view, trouble, age_s),
        *([Text(view.neighbour, "bold red")] if view.neighbour else []),
        *(Text(one.line, "bold red") for one in view.brokers if one.away),
        *findings,
        *([Text(view.headline, "bold yellow", no_wrap=True, overflow="ellipsis")] if view.headline else []),
        *_signals(view, width, window),
        *([Text(view.jobs.headline, no_wrap=True, overflow="ellipsis")] if view.jobs.headline else []),
        _pools(pools, view, pool, narrow=width < _ROOMY),
        *(_limit(limit, narrow=width < _ROOMY) for limit in view.limits[:3]),
        *map(_budget, budgets),
        _bots(view, sort, bots, width=width),
        *_events(events, view.at),
        Text(
            said or "q quit   s sort   w window   up/down pool   p pause or resume",
            "dim",
            no_wrap=True,
            overflow="ellipsis",
        ),
    )


def _findings(view: FleetView, width: int, most: int) -> list[Text]:
    """Return the worst findings and what helps, in so many lines at most; without any that all is well."""
    if not view.diagnoses:
        calm = textwrap.wrap(f"✓ {well(view.outlook)}", max(20, width), subsequent_indent="  ", max_lines=max(1, most))
        return [Text(line, "green", no_wrap=True) for line in calm]
    lines: list[Text] = []
    for number, one in enumerate(view.diagnoses):
        more = len(view.diagnoses) - number
        if len(lines) + 1 >= most and lines:
            lines.append(Text(f"  and {counted(more, 'more finding')}: fleet stats", "dim", no_wrap=True))
            break
        whole = f"{_MARKS[one.severity]} {one.sentence}{f'  ▸ {one.help.command}' if one.help.command else ''}"
        wrapped = textwrap.wrap(
            whole,
            max(20, width),
            subsequent_indent="  ",
            break_on_hyphens=False,
            max_lines=max(1, most - len(lines) - 1),
        )
        lines += [Text(line, _SEVERITY_STYLES[one.severity], no_wrap=True, overflow="ellipsis") for line in wrapped]
    return lines


def spark(values: Sequence[float], width: int) -> str:
    """Return the last `width` values as one line of blocks."""
    shown = values[-width:] if width > 0 else []
    most = max(shown, default=0)
    if not most:
        return _BARS[0] * len(shown)
    return "".join(_BARS[0 if not value else max(1, round(value / most * 8))] for value in shown)


def _head(view: FleetView, trouble: str | None, age_s: float | None) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("fleet ", "bold").append(f"{counted(len(view.bots.name), 'bot')} ", "").append(_states(view), "dim")
    if view.simulated:
        line.append("  simulated answers", "yellow")
    if trouble or (age_s or 0) > STALE_S:
        line.append(f"  STALE, {duration(round(age_s or 0))} old: {trouble or 'Redis is slow to answer'}", "bold red")
    return line


def _states(view: FleetView) -> str:
    states = view.bots.state
    found = {name: states.count(name) for name in ("busy", "quarantined", "probation")}
    found["alike"] = sum(view.bots.alike)
    return ", ".join(f"{count:,} {name}" for name, count in found.items() if count)


def _signals(view: FleetView, width: int, window: str) -> list[RenderableType]:
    (series, part), used, trends = spans.series_of(view, window), view.resources, view.trends
    span, wide = spans.span_of(view, window), max(0, min(60, width - 66))
    spread = (
        f"per bot {view.spread.p10:,.0f}-{view.spread.p50:,.0f}-{view.spread.p90:,.0f}, {view.spread.silent:,} silent"
    )
    verdict = view.verdict
    accused = f"{verdict.verdict}{f': {verdict.culprit}' if verdict.culprit else ''}"
    tightest = max((_used(limit) for limit in view.limits), default=0.0)
    wanted = "" if view.scaling is None else f", {view.scaling.slots:,} wanted"
    slots = f"{used.busy:,}/{used.slots:,} slots{told_lent(used.workers)}{wanted}"
    load = f"{slots}, {used.rss_mb:,.0f} MB, limits {tightest:.0%}"
    failing = "" if trends is None or trends.failed_share.minute is None else f"{trends.failed_share.minute:.1%} now, "
    money = f"{_dollars(view.cost.hour_usd_micros)} last hour, {_dollars(view.cost.day_usd_micros)} today"
    lost = view.bill.day.unknown_calls
    money += f", {counted(lost, 'call')} unknown" if lost else ""
    rows = [
        ("completions", _rate(trends), spread, "", series.completions),
        (
            "errors",
            f"{span.failed:,} in {window}",
            f"{failing}{accused}",
            _VERDICT_STYLES.get(verdict.verdict, "bold red"),
            series.failed,
        ),
        ("resources", f"{used.cpu_percent / 100:.1f} cores", load, "", series.cpu_percent),
        ("cost", f"{_dollars(span.cost_usd_micros)} in {window}", money, "", series.cost_usd_micros),
    ]
    return [_signal(name, figure, text, style, spark(values[part], wide)) for name, figure, text, style, values in rows]


def _rate(trends: Trends | None) -> str:
    """Return completions of the last minute, and how that compares with the hour before."""
    if trends is None or trends.completions.minute is None:
        return ""
    change = trends.completions.change
    return f"{trends.completions.minute:,.0f}/min{'' if change is None else f' {change:+.0%}'}"


def _signal(name: str, figure: str, text: str, style: str, line: str) -> Text:
    row = Text(no_wrap=True, overflow="ellipsis")
    row.append(f"{name:<12}", "cyan").append(f"{figure:<15}", "bold").append(f"{text:<37} " if line else text, style)
    return row.append(line, "blue")


def _used(limit: LimitView) -> float:
    requests = limit.used_rpm / limit.rpm if limit.rpm else 0.0
    return max(requests, limit.used_tpm / limit.tpm if limit.tpm else 0.0)


def _pools(pools: Sequence[PoolView], view: FleetView, chosen: int | None, *, narrow: bool) -> Table:
    total = len(view.pools)
    causes: dict[str, str] = {}
    for line in view.waits:
        if line.cause != "time":
            causes.setdefault(line.pool, line.short)
    more = f" ({total} in all)" if total > len(pools) else ""
    classes = ("waits",) if narrow else ("crit", "high", "norm", "low", "bulk")
    drains = () if narrow else ("drains",)
    heads = (f"pool{more}", "busy", *classes, "oldest", *drains, "done/h", "failed", "gate")
    table = _table(*heads, left=(0, len(heads) - 1))
    for index, pool in enumerate(pools):
        waiting = [sum(pool.backlog.values())] if narrow else pool.backlog.values()
        counts = [f"{count:,}" if count else "." for count in waiting]
        oldest = "" if pool.oldest_s is None else duration(round(pool.oldest_s))
        failed = f"{pool.failed / pool.completions:.1%}" if pool.completions else ""
        style = "reverse" if index == chosen else ""
        reason = (
            causes.get(pool.pool, "open" if pool.workers else "no worker") if pool.is_open else told_gate(pool.gate)
        )
        if reason == "open" and pool.ladder is not None and pool.ladder.is_down:
            reason = name_of(pool.ladder.rung or 0) if narrow else told_rung(pool.ladder, view.at)
        gate = Text(reason, "green" if reason == "open" else "yellow")
        drain = [] if narrow else [pool.drain.short.removesuffix(" UTC") if pool.drain else ""]
        cells = [f"{pool.busy_bots:,}/{pool.bots:,}", *counts, oldest, *drain, f"{pool.completions:,}", failed]
        table.add_row(Text(pool.pool, style), *cells, gate)
    return table


def _budget(budget: BudgetScopeView) -> Text:
    """Return the fullest amount of a budget in one line."""
    line, one = Text(no_wrap=True, overflow="ellipsis"), budget.fullest
    line.append("budget ", "cyan").append(f"{budget.scope}  ")
    if one is not None:
        style = "red" if one.share >= 1 else "yellow" if one.share >= NEAR_SHARE else ""
        line.append(f"{one.share:.0%}  ", style).append(one.line, style)
    return line


def _limit(limit: LimitView, *, narrow: bool) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("limit ", "cyan").append("" if narrow else f"{limit.limit}  ")
    for name, used, allowed in (("rpm", limit.used_rpm, limit.rpm), ("tpm", limit.used_tpm, limit.tpm)):
        if allowed:
            style = "red" if used >= 0.98 * allowed else "yellow" if used >= 0.9 * allowed else ""
            line.append(f"{used:,.0f}/{allowed:,} {name}  ", style)
    for long in () if narrow else limit.long:
        if long.used is not None and (limit.paced_rpm is not None or long.used >= 0.9 * long.limit):
            line.append(f"{long.used:,}/{long.limit:,} {long.label}  ", "yellow" if limit.paced_rpm is None else "red")
    for budget in () if narrow else limit.budgets:
        line.append(f"{budget}  ", "yellow" if limit.budget_ends_at is not None else "")
    if limit.in_flight_is_learnt:
        line.append(f"{limit.in_flight:,}/{limit.most_in_flight:,} in flight  ", "yellow")
    line.append(f"{limit.waiting:,} waiting", "yellow" if limit.waiting else "dim")
    if limit.held_s:
        line.append(f"  held {duration(limit.held_s)} by a 429", "bold red")
    return line.append(f"  {limit.limit}" if narrow else "")  # what is cut off then is the name


def _bots(view: FleetView, sort: BotColumn, rows: int, *, width: int) -> Table:
    bots = view.bots
    ranks = ranks_of(bots, sort)
    order = sorted(range(len(bots.name)), key=lambda row: (ranks[row], bots.per_hour[row], -row), reverse=True)[:rows]
    said = [against_it(bots, row) for row in order]
    heads = ("in hand", "last hour", "done", "failed", "mean", "cost", "evidence")
    kept = [place for place, head in enumerate(heads) if head in _shown(heads, sort, width, has_said=any(said))]
    title = f"by {SORT_NAMES[sort]}" if width < NARROW else f"bot (by {SORT_NAMES[sort]})"
    names = [title, "state", *(heads[place] for place in kept), *(["against it"] if any(said) else [])]
    table = _table(*names, left=(0, 1, len(kept) + 2))
    lines = [(bots.name[row], bots.state[row], *(_figures_of(bots, row)[place] for place in kept)) for row in order]
    if any(said):  # what is cut off, where there is no room, is the end of the reason
        taken = sum(max(map(len, column)) + 2 for column in zip(names[:-1], *lines, strict=True))
        table.columns[-1].max_width = max(8, width - taken)
    for line, why in zip(lines, said, strict=True):
        state = Text(line[1], "red" if line[1] == "quarantined" else "")
        table.add_row(Text(line[0]), state, *line[2:], *([Text(why, "yellow")] if any(said) else []))
    return table


def _figures_of(bots: BotTable, row: int) -> list[str]:
    numbers = [bots.load[row], bots.per_hour[row], bots.completions[row], bots.failed[row]]
    mean = f"{duration(bots.mean_ms[row] / 1000)}" if bots.mean_ms[row] else "."
    evidence = f"{bots.evidence[row]:.1f}" if bots.evidence[row] else "."
    counts = [f"{number:,}" if number else "." for number in numbers]
    return [*counts, mean, _dollars(bots.cost_usd_micros[row]), evidence]


def _shown(heads: tuple[str, ...], sort: str, width: int, *, has_said: bool) -> tuple[str, ...]:
    """Return the figures of bots for which there is room beside what speaks against them."""
    by = _HEADS.get(sort, sort)
    if width < _ROOMY:
        return (by,) if has_said else ("done", "failed", "mean", by)
    return heads if width >= _WIDE or not has_said else ("done", "failed", "evidence", by)


def _events(events: Sequence[EventView], now_s: float) -> list[Text]:
    styles = {"info": "dim", "warning": "yellow", "error": "red"}
    lines = []
    for event in events:
        line = Text(f"{duration(round(max(0.0, now_s - event.at))):>7} ago  ", "dim", no_wrap=True, overflow="ellipsis")
        lines.append(line.append(event.name.replace("_", " "), styles[event.level]).append(f"  {event.whole}"))
    return lines


def _table(*columns: str, left: tuple[int, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="cyan")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index in left else "right", no_wrap=True, overflow="ellipsis")
    return table


def _dollars(micros: int) -> str:
    return f"${micros / 1e6:,.4f}" if micros < 1e6 else f"${micros / 1e6:,.2f}"
