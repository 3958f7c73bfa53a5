"""`benchmarks.bill`: its sums on a real Redis, its tasks, and how it judges what became of a budget."""

from __future__ import annotations

import random

import pytest
from click.testing import CliRunner

from benchmarks.bill import main
from benchmarks.bill_ahead import draw_file
from benchmarks.bill_budgets import CALLERS, CELLS, PERIODS, PICOS, SCOPES, USD, Kept, is_meant
from benchmarks.bill_mixed import mixed_tasks
from benchmarks.bill_sums import sum_up
from fleet.models import BotTask


def test_calls_sum_to_what_21_tokens_at_two_cents_a_million_cost(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    found = sum_up(2000)
    assert (found.calls, found.usd_picos) == (2000, 2000 * 420_000)


def test_mixed_tasks_are_valid_and_ask_for_every_class() -> None:
    tasks = [BotTask(**task) for task in mixed_tasks()]
    assert {task.tier for task in tasks} == {None, "flex", "priority", "standard"}
    assert {task.effort for task in tasks} >= {None, "low", "medium"}
    marked = {message.cache for task in tasks for message in task.messages or ()}
    assert {"5m", "1h"} <= marked


def test_files_differ_in_size_and_kinds() -> None:

    draw = random.Random(1)
    files = [draw_file(draw) for _ in range(10)]
    assert len({len(lines) for lines in files}) > 3
    assert len({frozenset(line["kind"] for line in lines) for lines in files}) > 2


@pytest.mark.parametrize(
    ("spent", "dearest", "waiting", "exit_code", "kept", "blocked"),
    [
        (USD - 0.0001, 0.0002, 9, None, True, 0),
        (USD - 0.0003, 0.0002, 9, None, False, 9),
        (USD * 1.05, 0.0002, 9, None, True, 0),
        (USD * 1.05 + 0.0001, 0.0002, 9, None, False, 0),
        (USD * 1.05 + CALLERS * 0.0001, 0.0003, 9, None, True, 0),
        (USD * 1.05 + CALLERS * 0.0001 + 0.0001, 0.0003, 9, None, False, 0),
        (USD - 0.0001, 0.0002, 0, None, False, 0),
        (USD - 0.0001, 0.0002, 9, 3, True, 0),
        (USD - 0.0001, 0.0002, 9, 0, False, 0),
    ],
    ids=["no call fits", "one would fit", "what is learnt", "more than that", "what was in flight",
         "more than was in flight", "nothing waits", "a run that waits", "a run that is done"],
)  # fmt: skip
def test_a_budget_is_kept_when_only_calls_in_flight_exceed_it_by_more_than_is_reserved(
    spent: float, dearest: float, waiting: int, exit_code: int | None, kept: bool, blocked: int
) -> None:
    found = Kept("pool", round(spent * PICOS), round(dearest * PICOS), round(0.0002 * PICOS), waiting, exit_code)
    assert (found.is_kept, found.falsely_blocked) == (kept, blocked)


@pytest.mark.parametrize(
    ("only", "meant"),
    [("", len(CELLS) - 1), ("tenant", 4), ("bot/hour", 1), ("pool/in-all", 1), ("run", 0)],
)
def test_one_budget_or_all_of_a_kind_can_be_tried_alone(only: str, meant: int) -> None:
    assert sum(is_meant(scope, period, only) for scope in (*SCOPES, "fleet") for period in PERIODS) == meant


@pytest.mark.parametrize("name", ["budgets:nobody", "mixed:run", "sum", ""])
def test_a_part_that_is_none_is_refused_before_any_begins(name: str) -> None:
    done = CliRunner().invoke(main, ["--only", f"mixed,{name}"])
    assert done.exit_code == 2 and "budgets:tenant/hour" in done.output
