"""Who is behind what fails just now: provider, key, our limit, our budget, our bots, or prompts. Pure.

Calls are asked first, API by API and class of error: a total outage ends no task at all. Tasks come second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import comb
from typing import NamedTuple

from fleet.config import models_among
from fleet.quoting import counted, duration
from fleet.signals.diagnosis.bots import is_of_prompts
from fleet.signals.diagnosis.finding import ALL_APIS, CallVerdict, Culprit
from fleet.signals.diagnosis.providers import Silence, refusals, silences, still_refuses
from fleet.signals.diagnosis.symptoms import OUTAGE_WINDOW_S, RECENT_MIN, Case, Symptoms, api_of
from fleet.signals.view import FleetView
from fleet.waits import Cause

#: Failures below which nobody is accused: one or two tell nothing.
FEWEST = 3
#: Share of the failed tasks from which one bot is behind them, if it is as improbable as this that by chance any has
#: as many.
ON_ONE_BOT, BY_CHANCE = 0.5, 0.001
#: Share of an API's failures from which all APIs that fail are accused together.
ON_ALL = 0.5
#: Seconds that calls are counted over, but for those of an open breaker.
WINDOW_S = 60.0 * RECENT_MIN
#: Who answers for what became of a call.
_OF_SORT: dict[str, Culprit] = {
    "outage": "provider", "late": "provider", "key": "key", "credit": "key", "configuration": "configuration",
    "429": "our limit",
}  # fmt: skip
#: What became of most of them, in words.
_SAID = {
    "outage": "failed", "late": "had no answer in time", "key": "were refused for their key",
    "credit": "were refused for money or quota", "configuration": "were refused as configured wrongly",
    "429": "were refused with a 429",
}  # fmt: skip
#: Who answers for what all calls of an API wait for.
_OF_CAUSE: dict[Cause, Culprit] = {
    "outage": "provider", "key": "key", "credit": "key", "configuration": "configuration",
}  # fmt: skip


class _Cell(NamedTuple):
    """Failures of one API in one class of error."""

    api: str
    sort: str
    failed: int
    of: int
    is_over: bool


def judge(view: FleetView, symptoms: Symptoms) -> CallVerdict:
    """Return who is behind what fails now.

    Args:
        view: The fleet at one time.
        symptoms: What the view does not show, of the same time.
    """
    case = Case(view, symptoms)
    if (standing := _of_breakers(case)) is not None:
        return standing
    if silent := list(silences(case)):
        return _of_silence(max(silent, key=lambda one: one.calls))
    counted_now = list(_cells(case))
    cells = [cell for cell in counted_now if not cell.is_over]
    by_calls, by_tasks = _of_cells(case, cells), _of_tasks(case)
    if by_calls is not None and by_calls.failed >= max(FEWEST, by_tasks.failed if by_tasks is not None else 0):
        return by_calls
    if by_tasks is not None and by_tasks.failed >= FEWEST:
        return by_tasks
    if (refused := _of_refusals(case)) is not None:
        return refused
    if (budget := _of_budget(case)) is not None:
        return budget
    failed = sum(cell.failed for cell in cells) + (by_tasks.failed if by_tasks is not None else 0)
    if not failed:
        return _of_nobody(case) or _of_what_is_over(case, counted_now)
    few = f"{counted(failed, 'failure')} in {RECENT_MIN} minutes, fewer than {FEWEST} of a kind: too few to tell"
    return CallVerdict(verdict="unclear", failed=failed, reason=few)


def _of_what_is_over(case: Case, cells: list[_Cell]) -> CallVerdict:
    """Return that nothing fails now, and what did a moment ago: nobody need be looked for."""
    was = _of_cells(case, cells)
    if was is None or was.failed < FEWEST:
        return CallVerdict()
    reason = f"{was.reason} on {was.culprit}; none fails now"
    return CallVerdict(failed=was.failed, of=was.of, error=was.error, reason=reason)


def _of_silence(one: Silence) -> CallVerdict:
    """Judge by calls that have no answer at all: none of them has failed yet."""
    return CallVerdict(
        verdict="provider", culprit=api_of(one.limit), error="late", of=one.calls, window_s=one.longest_s,
        reason=f"{one.told}; none has failed yet",
    )  # fmt: skip


def _of_refusals(case: Case) -> CallVerdict | None:
    """Judge by APIs that answer nothing but 429s: their tasks wait, so that none of these calls is counted yet."""
    found = list(refusals(case))
    if not found:
        return None
    limit, since = max(found, key=lambda one: one[0].waiting)
    lasts_s = case.now_s - since
    return CallVerdict(
        verdict="our limit", culprit=api_of(limit.limit), error="429", window_s=lasts_s,
        reason=f"all calls of the last {duration(lasts_s)} {_SAID['429']}",
    )  # fmt: skip


def _of_nobody(case: Case) -> CallVerdict | None:
    """Return what is said of tasks that failed by nobody's fault: at their deadline, in their function."""
    types = [one.type for one in case.symptoms.failures if one.at > case.now_s - WINDOW_S and one.type != "Revoked"]
    if len(types) < FEWEST:
        return None
    done = max(len(types), round(sum(case.recent(pool.pool).completions for pool in case.view.pools)))
    reason = (
        f"{len(types):,} of {done:,} tasks of the last {RECENT_MIN} minutes failed, most with "
        f"{Counter(types).most_common(1)[0][0]}, which tells of no provider, bot or prompt"
    )
    return CallVerdict(verdict="unclear", failed=len(types), of=done, reason=reason)


def _of_breakers(case: Case) -> CallVerdict | None:
    """Judge by what all calls wait for: the provider, its key, its address."""
    opened = {
        limit: facts for limit, facts in case.symptoms.breakers.items() if facts.is_open and facts.cause in _OF_CAUSE
    }
    if not opened:
        return None
    by_cause = Counter(facts.cause for facts in opened.values())
    cause = by_cause.most_common(1)[0][0] or "outage"
    limits = [limit for limit, facts in opened.items() if facts.cause == cause]
    failed = sum(opened[limit].failed for limit in limits)
    calls = failed + sum(opened[limit].well for limit in limits)
    is_all = len(models_among(limits)) > 1 and case.models_in_use <= {*limits}
    told = next((facts.told for facts in opened.values() if facts.told and facts.cause == cause), "")
    return CallVerdict(
        verdict=_OF_CAUSE[cause], culprit=ALL_APIS if is_all else ", ".join(map(api_of, limits)), error=cause,
        failed=failed, of=calls, window_s=OUTAGE_WINDOW_S,
        reason=f"{failed:,} of {calls:,} calls failed in the last {OUTAGE_WINDOW_S:.0f} s"
        f"; calls wait until one does well{f': {told}' if told else ''}",
    )  # fmt: skip


def _cells(case: Case) -> Iterator[_Cell]:
    for limit in case.view.limits:
        api, facts = api_of(limit.limit), case.symptoms.breakers.get(limit.limit)
        sums = [case.recent(pool) for pool in case.pools_on(api)]
        refused = round(sum(one.rate_limited for one in sums))
        calls = facts.calls if facts is not None else {}
        of = max(sum(calls.values()) + refused, case.calls_on(api))
        for sort, failed in {**calls, "429": refused}.items():
            if not failed or sort not in _OF_SORT:
                continue
            if sort == "429":
                is_over = not still_refuses(limit, case.now_s)
            else:
                is_over = facts is not None and not facts.still_fails(failed, case.now_s)
            yield _Cell(api, sort, failed, of, is_over)


def _of_cells(case: Case, cells: list[_Cell]) -> CallVerdict | None:
    """Judge by the failed calls of the last minutes."""
    sums: Counter[Culprit] = Counter()
    for cell in cells:
        sums[_OF_SORT[cell.sort]] += cell.failed
    if not sums:
        return None
    (who, failed), *_ = sums.most_common(1)
    mine = [cell for cell in cells if _OF_SORT[cell.sort] == who]
    worst = max(mine, key=lambda cell: cell.failed)
    apis: Counter[str] = Counter()
    for cell in mine:
        apis[cell.api] += cell.failed
    is_all = (
        len(models_among(apis)) > 1
        and {*map(api_of, case.models_in_use)} <= apis.keys()
        and min(apis.values()) >= ON_ALL * max(apis.values())
    )
    culprit = ALL_APIS if is_all else max(apis, key=lambda api: apis[api])
    told = failed if is_all else apis[culprit]
    of = sum({cell.api: cell.of for cell in mine if is_all or cell.api == culprit}.values())
    return CallVerdict(
        verdict=who, culprit=culprit, error=worst.sort, failed=told, of=max(of, told), window_s=WINDOW_S,
        reason=f"{told:,} of {max(of, told):,} calls of the last {RECENT_MIN} minutes {_SAID[worst.sort]}",
    )  # fmt: skip


def _of_tasks(case: Case) -> CallVerdict | None:
    """Judge by the tasks of the last minutes that failed for a reason of their own: one bot's, or the prompts'."""
    failures = [
        one for one in case.symptoms.failures if one.at > case.now_s - WINDOW_S and is_of_prompts(one.type)
    ]  # fmt: skip
    if not failures:
        return None
    done = max(len(failures), round(sum(case.recent(pool.pool).completions for pool in case.view.pools)))
    (bot, on_bot), *_ = Counter(one.bot for one in failures).most_common(1)
    error = Counter(one.type for one in failures).most_common(1)[0][0]
    is_its = on_bot > ON_ONE_BOT * len(failures) and _by_chance(on_bot, len(failures), case) < BY_CHANCE
    if is_its and bot != "-":
        reason = f"{on_bot:,} of {len(failures):,} failed tasks of the last {RECENT_MIN} minutes are {bot}'s"
        return CallVerdict(verdict="our bots", culprit=bot, error=error, failed=on_bot, of=done, reason=reason)
    pool = Counter(one.pool for one in failures).most_common(1)[0][0]
    bots = len({one.bot for one in failures})
    reason = (
        f"{len(failures):,} of {done:,} tasks of the last {RECENT_MIN} minutes failed on {counted(bots, 'bot')}, most "
        f"with {error}"
    )
    return CallVerdict(verdict="prompts", culprit=pool, error=error, failed=len(failures), of=done, reason=reason)


def _by_chance(on_bot: int, failed: int, case: Case) -> float:
    """Return how probable it is at most that some bot has so many of the failures, if all are alike."""
    bots = len(case.view.bots.name)
    share = 1 / max(1, bots)
    tail = (comb(failed, k) * share**k * (1 - share) ** (failed - k) for k in range(on_bot, failed + 1))
    return bots * sum(tail)


def _of_budget(case: Case) -> CallVerdict | None:
    """Judge by what tasks wait for: a day that is used up lets no call fail."""
    lines = [line for line in case.view.waits if line.cause in ("money", "requests") and line.tasks]
    if not lines:
        return None
    tasks, line = sum(line.tasks for line in lines), lines[0]
    return CallVerdict(
        verdict="our budget", culprit=api_of(line.about) or line.pool, error=line.cause, of=tasks,
        reason=f"no call fails, but {counted(tasks, 'task')} wait: {line.told or line.line}",
    )  # fmt: skip
