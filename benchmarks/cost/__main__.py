"""python -m benchmarks.cost [--check] [--only cell,live,...]: what each lever against the cost of answers saves.

All bills are the simulator's. The levers are off, on one by one, and all on, over the same tasks, whose answers must be
the same. `cell` and `lanes` run in virtual time (`world.py`), `live` with real workers, `traces` replays Mooncake's.
With --check the exit code is 1 when a figure is not the wanted one.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks import batch_deaths, cost_contexts
from benchmarks.bench import print_table
from benchmarks.cost import cell, lane_choice, live, traces
from benchmarks.cost.cell import Case, Levers, Run
from benchmarks.cost.processes import processes
from benchmarks.cost.tables import GPT_5, O3, SONNET
from benchmarks.cost.world import PriceTable

#: Shares of tasks that repeat an earlier one, and what is to be saved then by prefixes and by asking equal tasks once.
WANTED = {0.35: 0.55, 0.10: 0.40}
#: What lanes of eight hours must save of the rest.
WANTED_OF_REST = 0.40
#: Share of what an ideal cache saves.
WANTED_OF_IDEAL = 0.9
#: Tasks of the cell in virtual time and of live ones, and of those rows of either that have one lever each.
TASKS, TASKS_ALONE = 60_000, 3000
TASKS_LIVE, TASKS_LIVE_ALONE = 5000, 1000
#: Price lists that are billed by the same calls: their vendors speak the same wire and sell the same lanes.
WIRES: tuple[tuple[PriceTable, ...], ...] = ((GPT_5, O3), (SONNET,))
ALONE = {
    "pasted in front": Levers(pasted_first=True), "prefix": Levers(prefix=True), "lanes": Levers(lanes=True),
    "answers": Levers(answers=True),
}  # fmt: skip
ALONE_LIVE = {what: levers for what, levers in ALONE.items() if not levers.pasted_first}
OFF, ONCE, ALL = Levers(), Levers(answers=True, prefix=True), Levers(answers=True, prefix=True, lanes=True)


class Row(NamedTuple):
    """One figure: what it is of, what was found, what is wanted, whether it is so."""

    what: str
    found: str
    wanted: str
    is_so: bool


def _at_least(what: str, found: float, wanted: float) -> Row:
    return Row(what, f"{found:.3f}", f">={wanted:.2f}", found >= wanted)


def _saved(run: Run, of: Run, name: str) -> float:
    return 1 - run.usd[name] / of.usd[name]


def _together(told: str, runs: Sequence[Run], name: str, stream: Sequence[Case]) -> Iterator[Row]:
    """Yield what comes of no lever, of one more, and with lanes, by a price list."""
    less, least = runs[1:]
    bill = " -> ".join(f"${one.usd[name]:,.2f}" for one in runs)
    yield _at_least(f"{told}: lanes of 8 h save of the rest", _saved(least, less, name), WANTED_OF_REST)
    yield Row(f"{told}: answers", bill, "the same", _are_right(less, stream) and _are_right(least, stream))


def _are_right(run: Run, stream: Sequence[Case]) -> bool:
    """True when each task has its recorded answer."""
    return run.answers == tuple(cell.answer(case.question) for case in stream)


def _cell(scale: float) -> Iterator[Row]:
    """Yield the rows of the cell in virtual time; two processes share the runs.

    With no lever, tasks that repeat one cost what others do, but for the few whose prompt is in the cache still. So the
    bill without levers of the tasks with more repeats, which is not the higher one, is that of the others, too.
    """
    tasks, alone = round(TASKS * scale), round(TASKS_ALONE * scale)
    with tempfile.TemporaryDirectory(prefix="fleet-cost-") as folder, processes() as pool:
        recorded = cell.record(Path(folder) / "answers.jsonl", tasks)
        streams = {share: cell.cases(tasks, share) for share in WANTED}
        most = streams[max(WANTED)]
        offs = {tables: pool.submit(cell.run, tables, most, OFF, recorded) for tables in WIRES}
        runs = {
            (tables, share, levers): pool.submit(cell.run, tables, streams[share], levers, recorded)
            for share in WANTED for levers in (ONCE, ALL) for tables in WIRES
        }  # fmt: skip
        few = cell.cases(alone, max(WANTED))
        ones = {
            (tables, levers): pool.submit(cell.run, tables, few, levers, recorded)
            for levers in (OFF, *ALONE.values()) for tables in WIRES
        }  # fmt: skip
        for tables, table in [(wire, one) for wire in WIRES for one in wire]:
            off = offs[tables].result()
            yield Row(
                f"{table.name}: {tasks:,} tasks, no lever: answers",
                f"${off.usd[table.name]:,.2f}",
                "as recorded",
                _are_right(off, most),
            )
            for share, wanted in WANTED.items():
                three = [off, *(runs[tables, share, levers].result() for levers in (ONCE, ALL))]
                told = f"{table.name}: {tasks:,} tasks, {share:.0%} repeat"
                saved = _saved(three[1], off, table.name)
                yield _at_least(f"{told}: prefix and answers save", saved, wanted)
                yield from _together(told, three, table.name, streams[share])
            off = ones[tables, OFF].result()
            for what, levers in ALONE.items():
                found = ones[tables, levers].result()
                told = f"{table.name}: {alone:,} tasks, {max(WANTED):.0%} repeat: {what} alone"
                yield Row(told, f"{_saved(found, off, table.name):.3f}", "-", _are_right(found, few))


def _live(scale: float) -> Iterator[Row]:
    stream = cell.cases(round(TASKS_LIVE * scale), max(WANTED))
    three = [live.run(stream, levers) for levers in (OFF, ONCE, ALL)]
    told = f"live, {GPT_5.name}: {len(stream):,} tasks, {max(WANTED):.0%} repeat"
    yield Row(
        f"{told}, no lever: answers", f"${three[0].usd[GPT_5.name]:,.2f}", "as recorded", _are_right(three[0], stream)
    )
    yield _at_least(f"{told}: prefix and answers save", _saved(three[1], three[0], GPT_5.name), max(WANTED.values()))
    yield from _together(told, three, GPT_5.name, stream)
    few = cell.cases(round(TASKS_LIVE_ALONE * scale), max(WANTED))
    off = live.run(few, OFF)
    for what, levers in ALONE_LIVE.items():
        found = live.run(few, levers)
        told = f"live, {GPT_5.name}: {len(few):,} tasks, {max(WANTED):.0%} repeat: {what} alone"
        yield Row(told, f"{_saved(found, off, GPT_5.name):.3f}", "-", _are_right(found, few))


def _lanes(scale: float) -> Iterator[Row]:
    for one in lane_choice.choices():
        warm = "warm" if one.is_warm else "cold"
        costs = ", ".join(f"{lane} ${picos / 1e9:.2f}" for lane, picos in one.picos.items())
        told = f"{one.model}, prefix of {one.prefix_tokens:,}, {warm}: 1,000 calls by {costs}"
        yield Row(told, one.taken, "cheapest", one.is_cheapest)


def _traces(scale: float) -> Iterator[Row]:
    folder = Path(os.environ.get("FLEET_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))
    found = {name: traces.requests(path) for name, path in traces.present(folder)}
    if not found:
        yield Row("Mooncake's traces: not there, set FLEET_DATA_DIR", "skipped", "-", True)
        return
    cut = {name: trace[: round(len(trace) * scale)] for name, trace in found.items()}
    with processes() as pool:
        kept = {name: pool.submit(traces.replay, trace) for name, trace in cut.items()}
        unkept = {name: pool.submit(traces.replay, trace, traces.KEYS, traces.UNKEPT) for name, trace in cut.items()}
        for name, trace in cut.items():
            told = f"Mooncake {name}, {len(trace):,} calls, {len(traces.KEYS)} keys: of what an ideal cache saves"
            yield _at_least(f"{told}, kept a day", kept[name].result().of_ideal, WANTED_OF_IDEAL)
            yield Row(f"{told}, kept 5 minutes", f"{unkept[name].result().of_ideal:.3f}", "-", True)


def _contexts(scale: float) -> Iterator[Row]:
    for kind in cost_contexts.KINDS:
        pasted, named = cost_contexts.rows(kind)
        told = f"{kind}: {cost_contexts.BOTS} bots on one cold document of 20,000 tokens"
        yield Row(f"{told}: cold reads", str(named.cold), "<=2", named.cold <= 2)
        is_so = named.usd < pasted.usd and pasted.answers == named.answers
        yield Row(f"{told}: saved, answers the same", f"{1 - named.usd / pasted.usd:.2f}", ">0", is_so)


def _deaths(_: float, *, found: Future[list[tuple[str, str, int, int, int, int]]]) -> Iterator[Row]:
    deaths, twice, lost = (sum(int(row[at]) for row in found.result()) for at in (2, 4, 5))
    is_so = deaths >= batch_deaths.DEATHS and not twice and not lost
    yield Row(f"a batch killed at every step, {deaths} deaths: paid twice, lost", f"{twice}, {lost}", "0, 0", is_so)


PARTS: dict[str, Callable[[float], Iterator[Row]]] = {
    "cell": _cell, "live": _live, "lanes": _lanes, "traces": _traces, "contexts": _contexts,
}  # fmt: skip
#: The part that waits more than it works: it runs beside the others, in a process of its own.
ASIDE = "deaths"


@click.command()
@click.option("--check", is_flag=True, help="Exit code 1 when a figure is not the wanted one.")
@click.option("--only", default=",".join((*PARTS, ASIDE)), show_default=True, help="Parts, with commas between them.")
@click.option("--scale", default=1.0, show_default=True, help="Share of the tasks, for a quick look.")
def main(check: bool, only: str, scale: float) -> None:
    """Bill all of it and print one table."""
    names = only.split(",")
    unknown = [name for name in names if name not in (*PARTS, ASIDE)]
    if unknown:
        raise click.UsageError(f"--only: expected some of {', '.join((*PARTS, ASIDE))}, got {', '.join(unknown)}")
    rows: list[Row] = []
    with processes(1) as aside:
        parts = dict(PARTS)
        if ASIDE in names:
            parts[ASIDE] = partial(_deaths, found=aside.submit(batch_deaths.rows))
        for name in names:
            began = time.monotonic()
            for row in parts[name](scale):
                rows.append(row)
                print(" | ".join((*row[:3], "yes" if row.is_so else "NO")), file=sys.stderr, flush=True)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    shown = [[*row[:3], "yes" if row.is_so else "NO"] for row in rows]
    print_table("What each lever saves, by the simulator's ledger", ["question", "found", "wanted", "so?"], shown)
    if check and not all(row.is_so for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
