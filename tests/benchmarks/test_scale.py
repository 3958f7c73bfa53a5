"""`benchmarks.scale`: what is met, and that what could not be measured is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import transport
from benchmarks.scale import WANTED, Row, drain_rows, missed
from fleet.store.client import connect


def test_a_figure_is_met_on_its_side_of_what_is_wanted() -> None:
    assert Row("spread", 1.3, "").is_met and not Row("spread", 1.31, "").is_met
    assert Row("drain1", 1.0, "").is_met and not Row("drain1", 0.99, "").is_met
    assert Row("commands", 33.0, "").is_met is None  # told, nothing is wanted of it


def test_what_was_not_measured_is_not_met() -> None:
    rows = [
        Row(name, None if name == "road" else 1.0 if sign == ">=" else 0.1, "") for name, (sign, _) in WANTED.items()
    ]
    assert missed(rows) == ["road"]
    assert missed([]) == [*WANTED]
    assert "yes" not in Row("road", None, "no peer").cells


def test_without_its_peer_a_drain_has_no_figure(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "is_installed", lambda system: False)
    with connect(redis_url) as client:
        rows = list(drain_rows(client, tmp_path, 10, 1))
    assert [(row.name, row.measured, row.is_met) for row in rows] == [("drain1", None, None), ("drain2", None, None)]
