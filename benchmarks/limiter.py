"""python -m benchmarks.limiter: every permitted call and none more, for Fleet's limiter and for what else there is.

4 processes x 25 callers in a closed loop against the simulator over HTTP, its minute compressed to 6 s: 300 requests
and 180,000 tokens a minute, 200-1200 tokens a call, so tokens bind at 43 calls/s. A pause of the machine weighs ten
times what it does under a real minute: run it where nothing else runs. One run a cell: compare ratios.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec

import click

from benchmarks.bench import private_home
from benchmarks.limiter_candidates import CANDIDATES, MODULES
from benchmarks.limiter_figures import FIGURES, Row
from benchmarks.limiter_run import Bench, quantile

FIELD_COLUMNS = [
    "candidate", "tokens used", "429s", "wait p50 / p99 s", "Jain of calls", "trips", "questions", "CPU s/1,000",
]  # fmt: skip
FIELD_WIDTHS = [34, 12, 7, 17, 14, 8, 10, 12]
FIGURE_WIDTHS = [66, 17, 34]


def _field(bench: Bench, only: str) -> Iterator[Row]:
    """Compare the candidates, in both modes of the provider."""
    for name in CANDIDATES:
        if only not in ("", "field", name):
            continue
        if name in MODULES and find_spec(MODULES[name]) is None:
            yield [f"{name} (not installed)", *["-"] * 7]
            continue
        for mode in ("bucket", "sliding"):
            run = bench.run(name, mode=mode)
            waits, acquired = run.waits(), max(1, run.acquired)
            yield [
                f"{name}, {mode}", f"{run.used():.3f}", str(len(run.refused)),
                f"{quantile(waits, 0.5):.2f} / {quantile(waits, 0.99):.2f}", f"{run.jain(tokens=False):.3f}",
                f"{run.round_trips / acquired:.2f}" if run.round_trips else "-",
                f"{run.questions / acquired:.2f}" if run.questions else "-",
                f"{run.cpu_s / max(1, len(run.sent)) * 1000:.2f}",
            ]  # fmt: skip


def _figures(bench: Bench, only: str) -> Iterator[Row]:
    for name, figure in FIGURES.items():
        if only in ("", "figures", name):
            yield from figure(bench)


def _print(title: str, columns: Row, widths: list[int], rows: Iterable[Row]) -> None:
    """Print each row as soon as it is known: all of them take a quarter of an hour."""
    print(f"\n{title}", flush=True)
    for row in itertools.chain([columns, ["-" * (width - 2) for width in widths]], rows):
        print("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), flush=True)


@click.command()
@click.option("--seconds", default=40.0, show_default=True, help="Length of a run, warm-up included.")
@click.option(
    "--only", default="", help=f"field, figures, a candidate, or one of {', '.join(FIGURES)}. Empty: everything."
)
def main(seconds: float, only: str) -> None:
    """Measure Fleet's limiter and what else there is."""
    from fleet.config import load
    from fleet.store.private.embedded import ensure_redis

    with private_home() as home:
        bench = Bench(ensure_redis(home, load().redis.server), seconds)
        if only in ("", "field", *CANDIDATES):
            _print(f"the field, {seconds:.0f} s a run", FIELD_COLUMNS, FIELD_WIDTHS, _field(bench, only))
        if only in ("", "figures", *FIGURES):
            _print("Fleet's limiter", ["figure", "bar", "measured"], FIGURE_WIDTHS, _figures(bench, only))
    print(f"load of the machine in the last minutes: {os.getloadavg()}", file=sys.stderr)


if __name__ == "__main__":
    main()
