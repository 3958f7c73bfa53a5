"""A budget as it is told: when it ends at its pace, what is found of it, and what Prometheus hears. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from fleet.config import Period
from fleet.signals.ahead.budget_view import BudgetScopeView, amount_view
from fleet.signals.diagnosis.engine import diagnose
from fleet.signals.metrics import exposition
from tests.signals.played_fleet import NOW_S, symptoms_of, view_of, wait_line

HOUR = 3600.0
MIDNIGHT = (NOW_S // 86_400 + 1) * 86_400


def amount(spent: float, *, period: Period = "day", closes_at: float | None = MIDNIGHT, **fields: Any) -> Any:
    known = {"began_at": NOW_S - HOUR, "per_s": None, "now_s": NOW_S, **fields}
    return amount_view(period, spent, 10.0, closes_at=closes_at, **known)


def budget(scope: str, *amounts: Any, reserved: float = 0.25) -> BudgetScopeView:
    return BudgetScopeView(scope=scope, when_full="wait", is_live=False, reserved_usd=reserved, amounts=amounts)


@pytest.mark.parametrize(
    ("spent", "fields", "ends_in_s", "told"),
    [
        (0.0, {}, None, "$0.00 of $10.00 a day, lasts at this pace"),
        (8.0, {}, 900.0, "$8.00 of $10.00 a day, at this pace ends "),
        (8.0, {"per_s": 0.0}, None, "lasts at this pace"),
        (8.0, {"per_s": 2 / 60}, 60.0, "at this pace ends "),
        (10.0, {}, 0.0, "used up until "),
        (5.0, {"period": "in all", "closes_at": None}, HOUR, "$5.00 of $10.00 in all, at this pace ends "),
        (0.001, {"period": "in all", "closes_at": None}, None, "no end in sight"),
        (10.5, {"period": "in all", "closes_at": None}, 0.0, "used up until it is raised"),
    ],
)
def test_when_a_budget_ends_is_told_by_its_pace_and_by_its_period(
    spent: float, fields: dict[str, Any], ends_in_s: float | None, told: str
) -> None:
    found = amount(spent, **fields)
    assert told in found.line
    assert found.ends_at == (None if ends_in_s is None else pytest.approx(NOW_S + ends_in_s))


def found_of(one: BudgetScopeView, *, tasks: int = 0, cause: str = "money") -> Any:
    waits = [wait_line("research", cause, tasks, about=f"budget {one.scope}, {one.amounts[0].word}")] if tasks else []
    (found,) = diagnose(view_of(budgets=(one,), waits=waits), symptoms_of())
    return found


def test_a_budget_is_a_finding_at_80_percent_and_when_it_is_used_up() -> None:
    assert diagnose(view_of(budgets=(budget("fleet", amount(7.9)),)), symptoms_of()) == ()
    near, used = found_of(budget("pool:research", amount(8.0))), found_of(budget("fleet", amount(10.0)))
    assert (near.kind, near.severity, near.about) == ("budget_near", "warning", "pool:research")
    assert near.help.command == "fleet budgets set pool:research --usd-per-day 20"
    assert found_of(budget("fleet", amount(8.0, per_s=0.0))).severity == "info"  # it lasts
    assert (used.kind, used.severity) == ("budget_used", "warning")
    waits = found_of(budget("tenant:ann", amount(9.9, period="in all", closes_at=None)), tasks=7, cause="budget")
    assert (waits.kind, waits.severity, waits.tasks) == ("budget_used", "critical", 7)
    assert waits.help.command == "fleet budgets set tenant:ann --usd-in-all 20"
    run = found_of(budget("run:a1", amount(10.0, period="in all", closes_at=None)))
    assert (run.help.command, run.help.advice) == ("", "run it again with a higher --max-usd")


def test_prometheus_hears_of_fleet_and_pools_and_of_the_fullest_of_many_without_their_names() -> None:
    many = [budget(f"tenant:t{n}", amount(n / 10)) for n in range(100)]
    view = view_of(budgets=(budget("fleet", amount(5.0)), budget("pool:research", amount(2.0)), *many))
    text = exposition(view.model_copy(update={"totals": defaultdict(int)})).decode()
    assert 'fleet_budget_usd{period="day",scope="fleet",which="spent"} 5.0' in text
    assert 'fleet_budget_usd{period="day",scope="pool:research",which="reserved"} 0.25' in text
    assert 'fleet_budget_fullest_ratio{scope="tenant"} 0.99' in text
    assert "tenant:t" not in text
