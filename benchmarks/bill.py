"""The bill beside the truth: python -m benchmarks.bill [--check] [--only mixed,sums,budgets,ahead].

One budget alone: --only budgets:tenant/hour; all of a kind: --only budgets:tenant.

Four questions, one table: is mixed usage through real workers what the provider's ledger has, to the last pico-dollar;
what do a million of the cheapest calls sum to; how much do 100 callers at once overspend a budget; does the range of a
dry-run hold. With --check the exit code is 1 when an answer is not the wanted one. It takes less than 10 minutes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from benchmarks.bench import print_table, private_home
from benchmarks.bill_ahead import FILES, try_files
from benchmarks.bill_budgets import CALLERS, CELLS, USD, Kept, try_all, try_litellm
from benchmarks.bill_mixed import TASKS, compare
from benchmarks.bill_sums import CALLS, sum_up

#: What a row tells: the question, what was found, what is wanted, whether it is so.
Row = tuple[str, str, str, bool]
#: Files whose ranges must hold, of 20.
HELD = 19
PICOS = 10**12


def _usd(picos: float) -> str:
    return f"${picos / PICOS:.6f}"


def _mixed() -> Iterator[Row]:
    for one in compare():
        yield f"{TASKS:,} mixed tasks: {one.what}", f"{one.ours:,}", f"{one.theirs:,}", one.ours == one.theirs


def _sums() -> Iterator[Row]:
    from fleet import config

    with private_home():
        config.current.cache_clear()
        found = sum_up()
    is_right = (found.calls, found.usd_picos) == (CALLS, 42 * PICOS // 100)
    yield (
        f"{CALLS:,} calls of 21 tokens at $0.02 a million, {found.seconds:.0f} s",
        _usd(found.usd_picos),
        "$0.420000",
        is_right,
    )


def _budgets(only: str = "") -> Iterator[Row]:
    for kept in try_all(only):
        yield _kept(kept)


def _kept(kept: Kept) -> Row:
    found = f"{_usd(kept.spent_picos)}, {kept.over_picos / (USD * PICOS):.2%} over, {kept.falsely_blocked} false blocks"
    most = f"{_usd(USD * PICOS)} + {_usd(kept.most_over_picos)} in flight, 0"
    return f"{CALLERS} callers, budget: {kept.what} ({kept.waiting} wait)", found, most, kept.is_kept


def _ahead() -> Iterator[Row]:
    told = list(try_files())
    held = sum(not one.outside for one in told)
    outside = ", ".join(sorted({name for one in told for name in one.outside})) or "none"
    ratios = sorted(one.cost_ratio for one in told)
    yield (
        "dry-run: files whose tokens and cost lie in their ranges",
        f"{held} of {len(told)}",
        f"{HELD} of {FILES}",
        held >= HELD,
    )
    yield (
        f"dry-run: cost of its expectation, least and most (outside: {outside})",
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
        "-",
        True,
    )


PARTS: dict[str, Callable[[], Iterator[Row]]] = {"mixed": _mixed, "sums": _sums, "budgets": _budgets, "ahead": _ahead}


def _part(name: str) -> Iterator[Row]:
    """Return the rows of a part, or of the budgets that one names: `budgets:tenant/hour`."""
    part, _, cell = name.partition(":")
    if cell and part == "budgets" and any(one.startswith(cell) for one in CELLS):
        return _budgets(cell)
    if cell or part not in PARTS:
        named = ", ".join((*PARTS, *(f"budgets:{one}" for one in CELLS)))
        raise click.UsageError(f"--only: expected some of {named}, got {name!r}")
    return PARTS[part]()


@click.command()
@click.option("--check", is_flag=True, help="Exit code 1 when an answer is not the wanted one.")
@click.option("--only", default=",".join(PARTS), show_default=True, help="Parts, with commas between them.")
@click.option("--litellm", default="", help="Path of LiteLLM's program, to try its proxy's budget beside.")
def main(check: bool, only: str, litellm: str) -> None:
    """Ask all of it and print one table."""
    rows: list[Row] = []
    for part in [_part(name) for name in only.split(",")]:
        for row in part:
            rows.append(row)
            print(" | ".join((*row[:3], "yes" if row[3] else "NO")), file=sys.stderr, flush=True)
    shown = [[*row[:3], "yes" if row[3] else "NO"] for row in rows]
    if litellm:
        with tempfile.TemporaryDirectory() as home:
            shown.append([*_kept(try_litellm(litellm, Path(home)))[:3], "-"])
    print_table("The bill beside the truth", ["question", "found", "wanted", "so?"], shown)
    if check and not all(row[3] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
