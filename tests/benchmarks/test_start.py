"""`benchmarks.start`: a small fleet is measured from end to end, and its figures stand in their rows."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from benchmarks.start.__main__ import ROWS, busy_slots, kept, measured, rows
from benchmarks.start.fleets import Size


def test_a_small_fleet_is_measured_in_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_QUICK", "1")
    found = measured(Size(bots=20, pools=2, queued=40), rounds=1)
    cells = dict(rows([found["figures"]]))
    empty = {said.strip() for said, cell in cells.items() if not cell}
    only_without_a_queue = {
        "idle, % of a core",
        "Redis: a finished task, B",
        "to its log on disk, B",
        "to a worker's log, B",
    }
    assert empty - {"dramatiq: first task, ms"} == only_without_a_queue
    assert ("dramatiq: first task, ms" in empty) == (find_spec("dramatiq") is None)
    assert "(" in cells["worker ready, ms"]  # over bare Celery's
    whats = [what for what, *_ in found["longest"]]
    assert "fleet cancel --pool POOL" in whats
    assert json.dumps(found)


def test_what_a_busy_slot_takes_stands_under_the_first_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_QUICK", "1")
    told = {said: cells for said, *cells in busy_slots(3)}
    assert set(told) == {"A busy slot, KB", "A busy slot, files"}
    assert float(told["A busy slot, files"][0]) >= 1  # the connection of its call
    assert told["A busy slot, KB"][1:] == ["", ""]


def test_bytes_are_told_by_what_fleets_differ_in_from_the_first() -> None:
    mb = 2**20
    sizes = [Size(100, 3), Size(1_100, 103), Size(1_100, 103, 1_000)]
    found = [
        {"redis seeded, MB": seeded / mb, "redis queued, MB": queued / mb}
        for seeded, queued in ((5_000, 0), (55_000, 0), (55_000, 900_000))
    ]
    told = {said.strip(): cells for said, *cells in kept(sizes, found)}
    assert told == {
        "a bot, B": ["", "50", "50"], "a pool and its bots, B": ["", "500", "500"], "a queued task, B": ["", "", "900"],
    }  # fmt: skip


def test_each_row_has_a_name_of_its_own_figure() -> None:
    names = [name for _, name, _ in ROWS]
    assert len({*names}) == len(names)
