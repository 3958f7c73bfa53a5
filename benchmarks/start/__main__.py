"""python -m benchmarks.start: what it takes to start, and what Redis keeps, with up to 100,000 bots in 1,000 pools.

One table: a worker until it takes tasks, an import, a producer's first call, commands, the page's figures, and memory,
for each fleet. A figure that bare Celery has too stands with its ratio, measured a moment later on the same machine.
With queued tasks comes a second table: which command holds Redis up longest while operators look into them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from benchmarks.bench import print_table
from benchmarks.start.fleets import SIZES, Size
from benchmarks.start.spent import spent

#: Rows: what they say, the figure, and the figure of bare Celery that it is compared with.
ROWS = (
    ("worker ready, ms", "worker ready, ms", "bare ready, ms"),
    ("  CPU of it, ms", "worker CPU, ms", "bare CPU, ms"),
    ("  its first task done, ms", "worker first task, ms", "bare first task, ms"),
    ("  dramatiq: first task, ms", "dramatiq first task, ms", None),
    ("  RSS, MB", "worker RSS, MB", "bare RSS, MB"),
    ("  most memory, MB", "worker peak, MB", "bare peak, MB"),
    ("  idle, % of a core", "worker idle, %", None),
    ("  open files", "worker files", "bare files"),
    ("  connections to Redis", "worker connections", "bare connections"),
    ("import fleet, CPU ms", "import, CPU ms", None),
    ("delay(): first call, ms", "delay first_ms", "bare first_ms"),
    ("  next calls, ms", "delay again_ms", "bare again_ms"),
    ("  that name no pool, ms", "delay any_ms", None),
    ("fleet doctor, ms", "doctor, ms", None),
    ("  CPU of it, ms", "doctor, CPU ms", None),
    ("fleet stats, CPU ms", "stats, CPU ms", None),
    ("fleet pools, CPU ms", "pools, CPU ms", None),
    ("fleet top --once, CPU ms", "top --once, CPU ms", None),
    ("page: first reading, ms", "page first_ms", None),
    ("  a reading, CPU ms", "page again_cpu_ms", None),
    ("  whole, KB", "page bytes", None),
    ("  whole, compressed, KB", "page gzip_bytes", None),
    ("  an update, KB", "page changed_bytes", None),
    ("  Flower's share of it, MB", "page peak_mb", None),
    ("Redis: bots and pools, MB", "redis seeded, MB", None),
    ("Redis: queued tasks, MB", "redis queued, MB", None),
    ("Redis: a finished task, B", "finished, bytes", None),
    ("  to its log on disk, B", "written, bytes", None),
    ("  to a worker's log, B", "logged, bytes", None),
)

Figures = dict[str, float]


@click.command()
@click.option("--rounds", default=3, show_default=True, help="The median of so many counts; a queue is filled once.")
@click.option(
    "--share", default=1.0, show_default=True, help="Share of the queued tasks: a million take 1 GB of memory."
)
@click.option("--only", type=int, default=None, help="The fleet of this number alone, 1 to 5.")
def main(rounds: int, share: float, only: int | None) -> None:
    """Start everything with each fleet, and print one table."""
    chosen = SIZES if only is None else SIZES[only - 1 : only]
    sizes = [Size(size.bots, size.pools, round(size.queued * share)) for size in chosen]
    found = [measured(size, rounds) for size in sizes]
    figures = [one["figures"] for one in found]
    print_table(
        f"Median of {rounds}; (n): times bare Celery",
        ["", *(size.title for size in sizes)],
        [*rows(figures), *kept(sizes, figures), *busy_slots(len(sizes))],
    )
    for size, one in zip(sizes, found, strict=True):
        if one["longest"]:
            print_table(
                f"Longest command of Redis, {size.queued:,} tasks in {size.pools:,} pools",
                ["while", "ms", "which", "all took, s"],
                [[what, f"{ms:.1f}", which, f"{all_s:.1f}"] for what, ms, which, all_s in one["longest"]],
            )


def measured(size: Size, rounds: int) -> dict[str, Any]:
    """Measure a fleet in a process of its own: settings and clients are bound to one Redis."""
    words = map(str, (size.bots, size.pools, size.queued, rounds))
    found: dict[str, Any] = json.loads(spent("-m", "benchmarks.start.cell", *words).out)
    return found


def rows(found: list[Figures]) -> Iterator[list[str]]:
    """Yield the rows of figures."""
    for said, name, bare in ROWS:
        yield [said, *(_cell(figures, name, bare) for figures in found)]


def _cell(figures: Figures, name: str, bare: str | None) -> str:
    value = figures.get(name)
    if value is None:
        return ""
    value /= 1024 if name.startswith("page ") and name.endswith("bytes") else 1
    ratio = f" ({value / figures[bare]:.1f})" if bare is not None and figures.get(bare) else ""
    return f"{value:,.{0 if value >= 100 else 1}f}{ratio}"


def kept(sizes: list[Size], found: list[Figures]) -> Iterator[list[str]]:
    """Yield the bytes that Redis keeps of a bot and a pool beyond the first fleet's, and of a queued task."""
    more = [(one["redis seeded, MB"] - found[0]["redis seeded, MB"]) * 2**20 for one in found]
    bots = [size.bots - sizes[0].bots for size in sizes]
    yield ["  a bot, B", *(f"{kept / count:,.0f}" if count else "" for kept, count in zip(more, bots, strict=True))]
    pools = [size.pools - sizes[0].pools for size in sizes]
    each = zip(more, pools, strict=True)
    yield ["  a pool and its bots, B", *(f"{kept / count:,.0f}" if count else "" for kept, count in each)]
    tasks = [(size.queued, one["redis queued, MB"] * 2**20) for size, one in zip(sizes, found, strict=True)]
    yield ["  a queued task, B", *(f"{size / count:,.0f}" if count else "" for count, size in tasks)]


def busy_slots(fleets: int) -> Iterator[list[str]]:
    """Yield what one more slot that waits for its answer takes of a worker."""
    found = json.loads(spent("-m", "benchmarks.start.slots").out)
    for what, value in found.items():
        yield [f"A busy {what}", f"{value:.1f}", *[""] * (fleets - 1)]


if __name__ == "__main__":
    main()
