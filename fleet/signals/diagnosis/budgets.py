"""Findings about what the fleet may use: its budgets, the day of each limit, and limits without room. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from statistics import fmean
from typing import NamedTuple

from fleet.quoting import clock, listed
from fleet.signals.ahead.budget_view import AmountView, BudgetScopeView
from fleet.signals.ahead.outlook import length, usd
from fleet.signals.diagnosis.finding import Diagnosis, Help, Severity, diagnosis
from fleet.signals.diagnosis.long_waits import LONG_WAIT_S, long_wait
from fleet.signals.diagnosis.symptoms import Case, api_of
from fleet.signals.limit_view import LimitView
from fleet.signals.series import minutes_in
from fleet.waits import Cause

#: Share of a day's budget from which it is told.
NEAR = 0.8
#: Share of the allowance that so many minutes on average must have used until a limit is told to be full (count), and
#: that the last two must have used so that it still is: minutes differ, for calls count when their task ends.
FULL, FULL_MINUTES, STILL_FULL = 0.9, 5, 0.7
#: Share of the allowance that no minute uses: the limit has been lowered since.
OVER_FULL = 1.5
#: Used-up budgets of pools, of tenants, of bots or of runs that are told one by one (count).
MOST_APART = 3
#: Minutes that are looked at for the first full one (count).
LOOKED_BACK = 60
_DAY_S = 86_400.0
_RATES = {"rpm", "tpm", "input_tpm", "output_tpm", "in_flight"}


class _Budget(NamedTuple):
    """A day's budget: in dollars, or in requests."""

    cause: Cause
    used: float
    allowed: float
    shown: str
    ends_at: float | None
    option: str


def budgets(case: Case) -> Iterator[Diagnosis]:
    """Yield budgets of the day that are used up, or will be."""
    for limit in case.view.limits:
        for budget in _of_day(case, limit):
            if budget.used >= budget.allowed:
                yield _used_up(case, limit, budget)
            elif budget.used >= NEAR * budget.allowed:
                yield _near(case, limit, budget)


def scopes(case: Case) -> Iterator[Diagnosis]:
    """Yield budgets of fleet, pools, tenants, bots and runs that are used up, or nearly: each by its fullest amount."""
    full: dict[str, list[Diagnosis]] = {}
    for budget in case.view.budgets:
        one = budget.fullest
        if one is not None and one.share >= NEAR:
            found = _of_scope(case, budget, one)
            kind, _, name = budget.scope.partition(":")
            if found.kind == "budget_used" and name:
                full.setdefault(kind, []).append(found)
            else:
                yield found
    for kind, each in full.items():
        yield from each if len(each) <= MOST_APART else [_of_many(case, kind, each)]


def _of_many(case: Case, kind: str, each: list[Diagnosis]) -> Diagnosis:
    """Return in one finding that the budgets of many pools, tenants, bots or runs are used up."""
    each = sorted(each, key=lambda one: -one.tasks)
    tasks = sum(one.tasks for one in each)
    names = listed((one.about.partition(":")[2] for one in each), len(each))
    return diagnosis(
        "budget_used", "critical" if tasks else "warning", f"The budgets of {len(each):,} {kind}s are used up",
        now_s=case.now_s, about=f"{kind}:*", tasks=tasks, cause=names,
        help=Help(advice="raise those that ought to go on, or let the tasks wait for new ones (UTC)",
                  command="fleet budgets"),
    )  # fmt: skip


def _of_scope(case: Case, budget: BudgetScopeView, one: AmountView) -> Diagnosis:
    tasks = case.waiting("money", "budget", about=f"budget {budget.scope}, {one.word}")
    is_full, is_run = one.share >= 1 or tasks > 0, budget.scope.startswith("run:")
    option = "--usd-in-all" if one.period == "in all" else f"--usd-per-{one.period}"
    wait = "" if one.closes_at is None else ", or let the tasks wait for the new one (UTC)"
    severity: Severity = "critical" if tasks else "warning" if is_full or one.ends_at is not None else "info"
    return diagnosis(
        "budget_used" if is_full else "budget_near", severity,
        f"The budget {budget.scope} is {'used up' if is_full else f'used to {one.share:.0%}'}",
        now_s=case.now_s, about=budget.scope, tasks=tasks, cause=one.line,
        help=Help(
            advice="run it again with a higher --max-usd" if is_run else f"raise it{wait}",
            command="" if is_run else f"fleet budgets set {budget.scope} {option} {2 * one.allowed_usd:g}",
        ),
    )  # fmt: skip


def _of_day(case: Case, limit: LimitView) -> Iterator[_Budget]:
    ends = iter(limit.budget_ends)  # in this order, each that is set; as the card of the limits has them
    if limit.usd_per_day:
        shown = f"{usd(limit.used_usd)} of {usd(limit.usd_per_day)}"
        yield _Budget("money", limit.used_usd, limit.usd_per_day, shown, next(ends, None), "--usd-per-day")
    if limit.requests_per_day:
        used, allowed = limit.used_requests, limit.requests_per_day
        shown = f"{used:,} of {allowed:,} requests"
        yield _Budget("requests", used, allowed, shown, next(ends, None), "--requests-per-day")


def _midnight(now_s: float) -> float:
    return (now_s // _DAY_S + 1) * _DAY_S


def _raise(api: str, budget: _Budget) -> str:
    more = f"{float(f'{2 * budget.allowed:.2g}'):g}" if budget.cause == "money" else f"{2 * budget.allowed:.0f}"
    return f"fleet limits set {api} {budget.option} {more}"


def _used_up(case: Case, limit: LimitView, budget: _Budget) -> Diagnosis:
    api, opens = api_of(limit.limit), clock(_midnight(case.now_s), case.now_s)
    since = next(
        (event.at for event in reversed(case.view.events) if event.name == "budget_warning"
         and event.fields.get("limit") == limit.limit and event.fields.get("percent") == "100"
         and event.at >= _midnight(case.now_s) - _DAY_S),
        None,
    )  # fmt: skip
    tasks = case.waiting(budget.cause, about=limit.limit)
    return diagnosis(
        "budget_used", "critical" if tasks else "warning", f"Our budget of {api} is used up", now_s=case.now_s,
        about=api, since=since, tasks=tasks, cause=f"{budget.shown} of the day; it opens at {opens}",
        help=Help(advice="raise it, or let the tasks wait for the new day (UTC)", command=_raise(api, budget)),
    )  # fmt: skip


def _near(case: Case, limit: LimitView, budget: _Budget) -> Diagnosis:
    api, ends_at = api_of(limit.limit), budget.ends_at
    pace = (
        "at this pace it lasts the day" if ends_at is None else f"at this pace it ends at {clock(ends_at, case.now_s)}"
    )
    head = f"Our budget of {api} is used to {budget.used / budget.allowed:.0%}"
    return diagnosis(
        "budget_near", "info" if ends_at is None else "warning", head, now_s=case.now_s, about=api,
        cause=f"{budget.shown} of the day, {pace}",
        help=Help(advice="raise it, or let bulk wait", command=_raise(api, budget)),
    )  # fmt: skip


def saturated(case: Case) -> Iterator[Diagnosis]:
    """Yield limits that have been full for minutes while tasks wait for them, and since when."""
    held = {name for alarm in case.symptoms.unusual for name in alarm.held}  # which is told as unusual use
    for limit in case.view.limits:
        full, own = _full_minutes(case, limit) if limit.limit not in held and _is_waited_for(case, limit) else (0, 0)
        if not full:
            continue
        tasks = case.waiting("limit", about=limit.limit)
        api, since = api_of(limit.limit), max((case.now_s // 60 - own) * 60, _set_at(case, limit)) if own else None
        numbers = (("rpm", limit.rpm), ("tpm", limit.tpm), ("in_flight", limit.most_in_flight))
        allowed = ", ".join(f"{name} = {number:,}" for name, number in numbers if number is not None)
        wait = long_wait(case.view, limit)
        ahead = f"; so they take {length(wait.takes_s)}" if wait.takes_s >= LONG_WAIT_S else ""
        option = f"--rpm {2 * limit.rpm}" if limit.rpm else f"--tpm {2 * limit.tpm}" if limit.tpm else ""
        yield diagnosis(
            "limit_saturated", "info", f"{api} runs at our limit", now_s=case.now_s, about=api, since=since,
            tasks=tasks, cause=f"{allowed}{ahead}",
            help=Help(advice="raise it, if the account allows more; else it only takes time",
                      command=f"fleet limits set {api} {option}".strip()),
        )  # fmt: skip


def _full_minutes(case: Case, limit: LimitView) -> tuple[int, int]:
    """Return for how many whole minutes, up to the last one, nearly all has been used that is allowed; 0: it is not.

    Also how many of these the limit was what it is now: when more was used, it was a higher one.
    """
    series = [one for pool in case.pools_on(api_of(limit.limit)) if (one := case.symptoms.series.get(pool))]
    minutes, last = minutes_in(series, case.now_s), int(case.now_s // 60)
    shares, full, own = deque[float](maxlen=FULL_MINUTES), 0, 0
    for number in range(last - LOOKED_BACK + 1, last):
        sums = minutes[number]
        tokens = sums.input_tokens + sums.output_tokens
        shares.append(max(sums.calls / limit.rpm if limit.rpm else 0.0, tokens / limit.tpm if limit.tpm else 0.0))
        own = own + 1 if shares[-1] <= OVER_FULL else 0
        if fmean(islice(reversed(shares), 2)) < STILL_FULL:
            full = 0
        elif full:
            full += 1
        elif len(shares) == FULL_MINUTES and fmean(shares) >= FULL:
            full = FULL_MINUTES
    return full, min(full, own)


def _set_at(case: Case, limit: LimitView) -> float:
    """Return when an operator set the rates of a limit last, as far as the newest events tell; 0: they do not."""
    return next(
        (event.at for event in case.view.events if event.fields.get("limit") == limit.limit
         and (event.name == "limit_reset" or (event.name == "limit_changed" and _RATES & event.fields.keys()))),
        0.0,
    )  # fmt: skip


def _is_waited_for(case: Case, limit: LimitView) -> bool:
    """True while tasks wait for a limit, or did at the last two looks at the backlogs: between two calls none may."""
    if case.waiting("limit", about=limit.limit):
        return True
    last = int(case.now_s // 60)
    return any(
        tasks for pool in case.pools_on(api_of(limit.limit))
        for minute, tasks in case.symptoms.backlogs.get(pool, ())[-2:] if minute >= last - 2
    )  # fmt: skip
