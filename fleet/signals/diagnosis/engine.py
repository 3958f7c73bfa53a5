"""The diagnosis: every rule is asked once, and the findings are told worst first. Pure: no Redis, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fleet.signals.diagnosis import bills, bots, budgets, crew, providers, queues
from fleet.signals.diagnosis.finding import Diagnosis, worst_first
from fleet.signals.diagnosis.symptoms import Case, Symptoms
from fleet.signals.view import FleetView, WaitLine

#: Share of the waiting tasks that findings must be about, so that the line that sums up their waits is left out.
NEARLY_ALL = 0.9
#: All rules.
RULES: tuple[Callable[[Case], Iterator[Diagnosis]], ...] = (
    providers.broken, providers.silent, providers.failing, providers.refusing, providers.slow,
    budgets.budgets, budgets.scopes, budgets.saturated, bills.unknown,
    bots.bots_out, bots.alike, bots.prompts,
    crew.workers, crew.unserved, crew.clocks, crew.redis, crew.machines, crew.paused,
    queues.backlogs, queues.dead_letters,
)  # fmt: skip

#: Findings whose tasks have failed, or wait without saying what for.
_OF_OTHERS = ("prompts_fail", "backlog_grows")


def are_told(waits: Iterable[WaitLine], found: Iterable[Diagnosis]) -> bool:
    """Return whether findings say of nearly all waiting tasks what they wait for: nobody need be told twice."""
    waiting = sum(line.tasks for line in waits if line.cause != "time")
    return sum(one.tasks for one in found if one.kind not in _OF_OTHERS) >= NEARLY_ALL * waiting


def diagnose(view: FleetView, symptoms: Symptoms) -> tuple[Diagnosis, ...]:
    """Return what is wrong with the fleet, worst first; nothing when all is well.

    Args:
        view: The fleet at one time; its own `diagnoses` are not looked at.
        symptoms: What the view does not show, of the same time.
    """
    case = Case(view, symptoms)
    found = [one for rule in RULES for one in rule(case)]
    told = {one.about for one in found if one.kind == "prompts_fail"}
    return worst_first(one for one in found if one.kind != "dead_letters" or one.about not in told)
