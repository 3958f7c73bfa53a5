"""What is expected of tasks, in lines for people and as JSON: for `fleet run --dry-run` and `fleet simulate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from fleet.cli.run.dry_run import DryRun, Inventory
from fleet.cli.run.lanes import LaneRow, lane_lines, lanes_json
from fleet.cli.terminal import fitted, say
from fleet.economy.duration import EarlyEnd
from fleet.economy.estimate import Estimate
from fleet.economy.habits import DEFAULT_KIND, Experience, Range
from fleet.economy.prices import told_unpriced
from fleet.money import PICOS, PICOS_PER_MICRO
from fleet.quoting import counted, duration, listed, noun_for

#: Budgets that end before the last line of which people are told, those of the fewest lines (count).
MOST_STOPS = 10


def tell(wanted: DryRun, *, as_json: bool) -> None:
    """Portion out what a run would take, and print it: JSON or lines, on stdout.

    Raises:
        ConfigurationError: When OUT isn't one of a run, or IN isn't made of JSON lines.
        StoreUnavailable: When Redis stops answering meanwhile.
    """
    found = wanted.survey()
    known = wanted.known(found)
    expected = wanted.estimate(found, known)
    rows = wanted.lanes(found, expected, known)
    if told := wanted.line_format.told_unused():
        say(told)
    if names := sorted({one.pool for one in found.asked if wanted.settings.pools[one.pool].fallback}):
        say(
            f"not in the figures: what rungs of the fallback ladder of {listed(names, len(names))} cost, if it is taken"
        )
    if as_json:
        click.echo(json.dumps({**json_of(found, expected, known), "lanes": lanes_json(rows)}))
        return
    for line in fitted(lines(found, expected, known, rows)):
        click.echo(line)


def json_of(found: Inventory, expected: Estimate, known: Experience) -> dict[str, Any]:
    """Return all of it, JSON-ready; each range holds in 19 of 20 runs."""
    duration = expected.duration
    return {
        "lines": found.lines,
        "answered": found.answered,
        "wrong": found.wrong.total(),
        "wrong_by_field": dict(found.wrong.most_common()),
        "tasks": expected.tasks,
        "input_tokens": _whole(expected.input_tokens),
        "output_tokens": _whole(expected.output_tokens),
        "cost_usd_picos": _whole(expected.usd_picos),
        "cost_usd_micros": _whole(Range(*(one / PICOS_PER_MICRO for one in expected.usd_picos))),
        "seconds": None if duration.seconds is None else _rounded(duration.seconds),
        "work_seconds": _rounded(duration.work_s),
        "binds": duration.binds,
        "waiting_before": duration.backlog,
        "stops": [
            {"about": stop.about, "after": stop.after, "of": stop.of, "opens_in_s": stop.opens_in_s}
            for stop in duration.stops
        ],
        "unpriced": [
            {"model": model, "tier": tier, "tasks": count} for (model, tier), count in expected.unpriced.items()
        ],
        "too_expensive": expected.too_dear,
        "guessed": [{"model": api, "kind": kind, "tasks": count} for (api, kind), count in expected.guessed.items()],
        "learnt": known.is_learnt,
        "slots": known.slots,
    }


def lines(found: Inventory, expected: Estimate, known: Experience, rows: Sequence[LaneRow] = ()) -> Iterator[str]:
    """Yield all of it for a person."""
    yield f"lines     {found.lines:,}: {_shares_of(found)}"
    if found.wrong:
        yield f"          no tasks: {found.example}"
    if expected.tasks:
        yield f"tokens    {_count(expected.input_tokens)} in, {_count(expected.output_tokens)} out"
        yield f"cost      {_cost(expected)}"
        yield from _time(expected)
    yield from lane_lines(rows, usd, duration)
    for (model, tier), count in expected.unpriced.items():
        yield f"unpriced  {counted(count, 'line')}: {told_unpriced(model, tier)}"
    for stop in expected.duration.stops[:MOST_STOPS]:
        yield f"stops     {_stop(stop)}"
    if more := expected.duration.stops[MOST_STOPS:]:
        yield f"stops     at {len(more):,} more of these, after more lines (--json has all)"
    if expected.too_dear:
        yield (
            f"dear      {counted(expected.too_dear, 'line')} will probably end as TooExpensive: max_cost_usd is less "
            "than such a call is expected to cost"
        )
    for (api, kind), count in expected.guessed.items():
        yield f"guessed   {_guess(api, kind, count)}"
    if not known.is_learnt:
        yield "          no Redis of this fleet answers: nothing is learnt, and what waits before is not known"
    yield "nothing was sent or queued; in 19 of 20 runs like it the figures lie in their ranges"


def usd(picos: float) -> str:
    """Return 10^-12 dollars for people."""
    dollars = picos / PICOS
    return f"${dollars:,.2f}" if dollars >= 10 else f"${dollars:,.4f}" if dollars >= 0.01 else f"${dollars:,.6f}"


def _shares_of(found: Inventory) -> str:
    parts = [f"{found.answered:,} answered before"] if found.answered else []
    if found.wrong:
        parts.append(f"{found.wrong.total():,} {noun_for(found.wrong.total(), 'is no task', 'are no tasks')}")
    return ", ".join([*parts, f"{len(found.asked):,} to ask"])


def _whole(figure: Range) -> dict[str, int]:
    return {name: round(value) for name, value in figure._asdict().items()}


def _rounded(figure: Range) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figure._asdict().items()}


def _count(figure: Range) -> str:
    return f"{figure.expected:,.0f} ({figure.low:,.0f} to {figure.high:,.0f})"


def _cost(expected: Estimate) -> str:
    unpriced = sum(expected.unpriced.values())
    if unpriced == expected.tasks:
        return "unknown: no line has a price"
    figure = expected.usd_picos
    beside = f" and {counted(unpriced, 'line')} without a price" if unpriced else ""
    return f"{usd(figure.expected)} ({usd(figure.low)} to {usd(figure.high)}){beside}"


def _time(expected: Estimate) -> Iterator[str]:
    how_long = expected.duration
    work, ends = how_long.work_s, how_long.seconds
    figure = f"{duration(work.expected)} ({duration(work.low)} to {duration(work.high)})"
    before = f", {counted(how_long.backlog, 'task')} before it" if how_long.backlog else ""
    decides = "decides" if how_long.binds.startswith(("the ", "Fleet")) else "decide"
    yield f"time      {figure}{before}; {how_long.binds} {decides}"
    if ends is None:
        yield "          it does not end by itself: a budget that does not open again is used up before"
    elif ends.expected > work.expected * 1.5 + 1:
        yield f"          with its waits for what opens again: {duration(ends.expected)} (up to {duration(ends.high)})"


def _stop(stop: EarlyEnd) -> str:
    opens = "" if stop.opens_in_s is None else f"; it goes on in {duration(stop.opens_in_s)}"
    return f"at {stop.about} after about {stop.after:,} of {counted(stop.of, 'line')}{opens}"


def _guess(api: str, kind: str, count: int) -> str:
    if kind == DEFAULT_KIND:
        why = "tasks without a kind may be anything; name one (--kind)"
    else:
        why = f"too few answers of kind {kind} from {api} are known"
    return (
        f"how long {counted(count, 'answer')} will be ({why}): the range is from one token to the longest allowed. "
        "Once a few of these lines are answered in OUT, those tell"
    )
