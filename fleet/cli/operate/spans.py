"""`--window`: the last 15 minutes, hour or day, as `fleet stats` shows them. rich is imported on use only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import click

from fleet.quoting import noun_for

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleet.signals.spans import Span
    from fleet.signals.view import FleetView, Series

#: Names of the windows, and how many entries of the view's minutes or hours each has.
WINDOWS = {"15m": 15, "1h": 60, "24h": 24}
#: Pools shown on a terminal; `--json` has all.
POOL_ROWS = 20


def series_of(view: FleetView, window: str) -> tuple[Series, slice]:
    """Return the series that a window is made of, and which part of it."""
    return view.hours if window == "24h" else view.minutes, slice(-WINDOWS[window], None)


def span_of(view: FleetView, window: str) -> Span:
    """Return the sums of the whole fleet over a window."""
    return next(span for span in view.spans if span.name == window)


def render_span(view: FleetView, window: str, pools: Mapping[str, Span]) -> RenderableType:
    """Return the three signals over one window as three panels, each of which says so."""
    from rich.console import Group
    from rich.panel import Panel

    from fleet.signals.spans import SPAN_WORDS

    whole = span_of(view, window)
    words = SPAN_WORDS[whole.name]
    bodies = {
        "Completions": [_completions(whole), _pool_table(pools)],
        "Errors": [_errors(whole)],
        "Resources": [_used(view, window), _spent(whole)],
    }
    titled = {f"{title}, {words}": Group(*parts) for title, parts in bodies.items()}
    return Group(*(Panel(body, title=title, title_align="left", border_style="cyan") for title, body in titled.items()))


def _completions(span: Span) -> RenderableType:
    from fleet.cli.figures import figures

    return figures(
        ("done", span.completions, ""),
        ("ok", span.ok, "green"),
        ("degraded", span.degraded, "yellow" if span.degraded else ""),
        ("failed", span.failed, "red" if span.failed else ""),
    )


def _pool_table(pools: Mapping[str, Span]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from fleet.cli.figures import Figures

    table = Figures("pool", "done", "failed", "calls", "failed calls", "429s", "tokens", "cost")
    busiest = sorted(pools.items(), key=lambda item: -item[1].calls)
    for pool, span in busiest[:POOL_ROWS]:
        numbers = (span.completions, span.failed, span.calls, span.calls_failed, span.rate_limited)
        tokens = f"{span.input_tokens + span.output_tokens:,}"
        table.add_row(pool, *(f"{number:,}" for number in numbers), tokens, _dollars(span.cost_usd_micros))
    more = len(busiest) - POOL_ROWS
    return Group(table, Text(f"and {more:,} more {noun_for(more, 'pool')}", "dim")) if more > 0 else table


def _errors(span: Span) -> RenderableType:
    from fleet.cli.figures import figures

    share = f"{span.failed / span.completions:.1%} of the tasks" if span.completions else "no task ended"
    calls = f"{span.calls_failed / span.calls:.1%} of the calls" if span.calls else "no call was sent"
    return figures(
        (f"{noun_for(span.failed, 'failed task')} ({share})", span.failed, "red" if span.failed else ""),
        (f"{noun_for(span.calls_failed, 'failed call')} ({calls})", span.calls_failed, ""),
        (noun_for(span.rate_limited, "429"), span.rate_limited, "yellow" if span.rate_limited else ""),
        (noun_for(span.dead_letters, "dead letter"), span.dead_letters, "red" if span.dead_letters else ""),
    )


def _used(view: FleetView, window: str) -> RenderableType:
    from fleet.cli.figures import figures

    series, part = series_of(view, window)
    return figures(
        ("busy slots on average", f"{_mean(series.busy[part]):,.1f}", ""),
        ("CPU", f"{_mean(series.cpu_percent[part]):.0f}%", ""),
        ("memory", f"{_mean(series.rss_mb[part]):,.0f} MB", ""),
    )


def _spent(span: Span) -> RenderableType:
    from fleet.cli.figures import figures

    return figures(
        (noun_for(span.calls, "call"), span.calls, ""),
        (f"{noun_for(span.input_tokens, 'token')} in", span.input_tokens, ""),
        ("out", span.output_tokens, ""),
        ("cost", _dollars(span.cost_usd_micros), ""),
    )


def _mean(values: Sequence[float]) -> float:
    """Return the average from the first entry on in which a worker ran."""
    first = next((place for place, value in enumerate(values) if value), len(values) - 1)
    return fmean(values[first:])


def _dollars(micros: int) -> str:
    return "-" if not micros else f"${micros / 1e6:,.4f}"


#: The option itself.
option = click.option(
    "--window", type=click.Choice(list(WINDOWS)), help="Only the last 15 minutes, hour or 24 hours."
)  # fmt: skip
