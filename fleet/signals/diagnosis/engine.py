"""The diagnosis: every rule is asked once, and the findings are told worst first. Pure: no Redis, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from fleet.signals.diagnosis import bills, bots, budgets, crew, keys, payouts, providers, queues, rollouts, slowness
from fleet.signals.diagnosis.finding import ALL_APIS, Diagnosis, Kind, worst_first
from fleet.signals.diagnosis.symptoms import Case, Symptoms, api_of
from fleet.signals.view import FleetView, WaitLine
from fleet.waits import CAUSES, Cause

#: Share of the waiting tasks that findings must be about, so that the line that sums up their waits is left out.
NEARLY_ALL = 0.9
#: All rules.
RULES: tuple[Callable[[Case], Iterator[Diagnosis]], ...] = (
    providers.broken, providers.silent, providers.doubted, providers.failing, providers.overdue, providers.refusing,
    slowness.slow,
    budgets.budgets, budgets.scopes, budgets.saturated, bills.unknown, bills.caches,
    payouts.stuck, payouts.guards, queues.schedules, queues.jobs,
    keys.unusual, keys.shared,
    bots.bots_out, bots.alike, bots.prompts,
    crew.workers, crew.unserved, crew.clocks, crew.redis, crew.machines, crew.paused,
    queues.backlogs, queues.dead_letters, rollouts.went_back,
)  # fmt: skip

#: What the tasks of a finding wait for, where it says so. Missing: its tasks have failed, or it does not say.
_TELLS: dict[Kind, frozenset[Cause]] = {
    "provider_down": frozenset({"outage", "retry"}),
    "key_refused": frozenset({"key"}),
    "out_of_money": frozenset({"credit"}),
    "misconfigured": frozenset({"configuration"}),
    "no_worker": frozenset(CAUSES),
    "budget_used": frozenset({"money", "budget", "requests"}),
    "bots_out": frozenset({"bots"}),
    "pool_unserved": frozenset({"worker", "key", "credit", "configuration"}),
    "machine_full": frozenset({"machine"}),
    "function_blocks": frozenset({"function"}),
    "provider_failing": frozenset({"retry", "outage"}),
    "provider_refusing": frozenset({"hold"}),
    "limit_saturated": frozenset({"limit"}),
    "use_unusual": frozenset({"key", "limit"}),
    "pool_paused": frozenset({"operator"}),
}


def untold(
    waits: Iterable[WaitLine], found: Iterable[Diagnosis], *, nearly: float = NEARLY_ALL
) -> tuple[WaitLine, ...]:
    """Return the reasons to wait that no finding tells, none where that is nearly all: nobody need be told twice."""
    lines = [line for line in waits if line.cause != "time"]
    about: dict[Cause, set[str]] = {}
    for one in found:
        if one.tasks:
            for cause in _TELLS.get(one.kind, ()):
                about.setdefault(cause, set()).update((one.about, *one.about.split(", ")))
    left = tuple(line for line in lines if not about.get(line.cause, set()) & _names_of(line))
    is_little = sum(line.tasks for line in left) <= (1 - nearly) * sum(line.tasks for line in lines)
    return () if about and is_little else left


def _names_of(line: WaitLine) -> set[str]:
    """Return what a finding about this may be called by: the API, the pool, the budget, or everything."""
    budget = line.about.removeprefix("budget ").rpartition(", ")[0]
    many = f"{budget.partition(':')[0]}:*"
    return {"", ALL_APIS, line.pool, line.about, api_of(line.about), budget, many, keys.resumed_in(line)}


def diagnose(view: FleetView, symptoms: Symptoms) -> tuple[Diagnosis, ...]:
    """Return what is wrong with the fleet, worst first; nothing when all is well.

    Args:
        view: The fleet at one time; its own `diagnoses` are not looked at.
        symptoms: What the view does not show, of the same time.
    """
    case = Case(view, symptoms)
    found = [one for rule in RULES for one in rule(case)]
    failing = {one.about for one in found if one.kind == "prompts_fail"}
    troubled = {one.about for one in found if one.kind in ("provider_down", "provider_failing")}
    stopped = _stopped(view, found)
    return once_each(
        one for one in found
        if not (one.kind == "dead_letters" and one.about in failing)
        and not (one.kind == "provider_slow" and one.about in troubled)
        and not (one.kind == "backlog_grows" and one.about in stopped)
    )  # fmt: skip


def _stopped(view: FleetView, found: Iterable[Diagnosis]) -> set[str]:
    """Return the pools of which a finding tells what most tasks wait for, but for a limit: their backlog must grow."""
    lines = [line for line in view.waits if line.cause not in ("time", "limit")]
    left = {id(line) for line in untold(lines, found, nearly=1.0)}
    told = Counter[str]()
    for line in lines:
        told[line.pool] += line.tasks if id(line) not in left else 0
    waiting = {pool.pool: pool.waiting + pool.parked for pool in view.pools}
    return {pool for pool, tasks in told.items() if tasks and tasks >= waiting.get(pool, 0) / 2}


def once_each(found: Iterable[Diagnosis]) -> tuple[Diagnosis, ...]:
    """Return findings worst first, of one kind about one thing the worst: pages and messages know them by these."""
    by_name: dict[tuple[Kind, str], Diagnosis] = {}
    for one in worst_first(found):
        by_name.setdefault((one.kind, one.about), one)
    return tuple(by_name.values())
