from __future__ import annotations

import pytest

from benchmarks import take_cost
from fleet.store.client import connect


def test_what_a_take_costs_is_measured_of_the_last_list_with_few_and_with_many_queues(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(take_cost, "CALLS", 5)
    with connect(redis_url) as client:
        rows = take_cost.take_costs(client, backlogs=(400,))
        assert client.dbsize() == 0
    assert [(row[0].partition(" ")[0], row[1]) for row in rows] == [
        ("4", "1"),
        ("4", "16"),
        ("200", "1"),
        ("200", "16"),
        ("200", "0"),
    ]
