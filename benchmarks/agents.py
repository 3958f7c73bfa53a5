"""Agents under a fleet, beside the same ones in a bare loop: python -m benchmarks.agents [--check] [--runs 200].

100 bots run a pydantic-ai agent with three tools for five turns and an answer. The provider's limit binds, and 15% of
its answers are errors. The peer is the same agent in plain asyncio behind the best bucket that one process can have.
Then 20 runs go in circles. With --check the exit code is 1 when a bar is missed. It takes about four minutes.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import click

from benchmarks.agents_fleet import (
    BOTS,
    ERROR_RATE,
    LOOPS,
    RPM,
    TURNS,
    Governed,
    Side,
    provider_of,
    run_bare,
    run_fleet,
)
from benchmarks.bench import print_table

#: Calls a second that Fleet must have, of what the bare loop has.
LEAST_SHARE = 0.95
#: A line of the table: what, the bare loop's, Fleet's, the bar, whether it is met (None: there is none).
Row = tuple[str, str, str, str, bool | None]


def rows_of(bare: Side, ours: Governed, runs: int) -> Iterator[Row]:
    """Return the lines of the table."""
    failed = runs - ours.ends["ok"]
    share, limit = ours.calls_per_s / bare.calls_per_s, RPM / 60
    yield "runs that ended well", f"{bare.ends['good']} of {runs}", f"{ours.ends['ok']} of {runs}", "", None
    yield "failed_for_provider", str(runs - bare.ends["good"]), _with(failed, _told(ours.ends)), "0", failed == 0
    yield "accused", "-", _with(len(ours.accused), ", ".join(ours.accused[:3])), "0", not ours.accused
    yield "usage_diff", "-", str(ours.usage_diff), "0", ours.usage_diff == 0
    over = ours.ledger["refused_429"]
    yield "over_limit", str(bare.ledger["refused_429"]), str(over), "0", over == 0
    foreign = _with(len(ours.foreign), ", ".join(ours.foreign[:3]))
    if ours.unwatched:
        foreign = f"{ours.unwatched} workers were not watched"
    yield "foreign_connections", "-", foreign, "0", not ours.foreign and not ours.unwatched
    stopped = ours.loops["NoProgress"]
    others = _told(Counter({name: count for name, count in ours.loops.items() if name != "NoProgress"}))
    yield "loops_stopped", "-", _with(f"{stopped}/{LOOPS}", others), f"{LOOPS}/{LOOPS}", stopped == LOOPS
    rates = f"{bare.calls_per_s:.2f}", f"{ours.calls_per_s:.2f} ({share:.3f} of it)"
    yield f"calls/s where {limit:.0f}/s bind", *rates, f">= {LEAST_SHARE}", share >= LEAST_SHARE
    yield "seconds for all runs", f"{bare.seconds:.0f}", f"{ours.seconds:.0f}", "", None
    yield "CPU ms a turn", f"{bare.cpu_ms:.1f}", f"{ours.cpu_ms:.1f} + {ours.redis_cpu_ms:.1f} of Redis", "", None


def _with(figure: object, more: str) -> str:
    return f"{figure} ({more})" if more else str(figure)


def _told(ends: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(ends.items()) if name != "ok")


@click.command()
@click.option("--check", is_flag=True, help="Exit code 1 when a bar is missed.")
@click.option("--runs", type=click.IntRange(20), default=2 * BOTS, show_default=True, help="Runs of each side.")
def main(check: bool, runs: int) -> None:
    """Run both sides and print one table."""
    with provider_of() as provider:
        bare = run_bare(provider, runs)
        print(f"bare: {bare}", file=sys.stderr, flush=True)
        ours = run_fleet(provider, runs)
    found = list(rows_of(bare, ours, runs))
    told = {None: "", True: "yes", False: "NO"}
    print_table(
        f"{runs} runs of {TURNS} turns with tools, {BOTS} bots, {RPM} calls a minute, {ERROR_RATE:.0%} errors",
        ["figure", "bare loop", "fleet", "bar", "met"],
        [[*row[:4], told[row[4]]] for row in found],
    )
    if check and any(row[4] is False for row in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
