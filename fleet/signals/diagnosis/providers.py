"""Findings about providers, keys and accounts: what their breakers, holds and last calls say. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from fleet.config import tool_of
from fleet.quoting import brief, clock, counted, duration
from fleet.signals.diagnosis.finding import ALL_APIS, Diagnosis, Help, Kind, diagnosis
from fleet.signals.diagnosis.symptoms import RECENT_MIN, BreakerFacts, Case, api_of, called
from fleet.signals.limit_view import LimitView
from fleet.signals.recorder import doubted_in
from fleet.waits import SENTENCES, UNUSUAL, Cause, provider_without_key

#: Failed calls of the last minutes, and their share, from which an API is told although its breaker is closed.
FAILING_CALLS, FAILING_SHARE = 8, 0.2
#: 429s within five minutes, and their share of the calls, from which an API is told; seconds after the last of them.
REFUSED_CALLS, REFUSED_SHARE, STILL_REFUSED_S = 10, 0.1, 60.0
#: Seconds without any answer, the last 429 within them, and tasks that wait, from which "all calls" are refused.
REFUSED_NOW_S, WAITING_TASKS = 6.0, 3
#: Calls under way without an answer from which an API that answers nothing is told.
SILENT_CALLS = 5
#: Seconds after which a call is overdue at least, and how many times the time in which 99 of 100 tasks of the hour were
#: done; share of the calls under way that must be overdue, and tasks from which their time is known (count).
OVERDUE_S, OVERDUE_TIMES, OVERDUE_SHARE, TIMED_TASKS = 10.0, 3.0, 0.2, 20
#: Share of a worker's silence in which nobody else may have been answered: it tells of silence when that has lasted
#: three times the slowest answer, and a call may have been under way for one of these when the last answer came.
SILENT_SHARE = 2 / 3
#: Seconds for which a 429 must hold the fleet to be told on its own.
LONG_HOLD_S = 10.0


#: Of what the other side said, so much stands in a sentence (bytes); events and `fleet why` have it all.
MOST_SAID = 160

#: What to do about a tool where that is not what is done about a model: no pool has another way.
_OF_TOOLS: dict[Cause, str] = {
    "outage": "see the status page of its API; what needs it waits in its slot, and the rest goes on",
}
#: What is said instead of "is down" of an API that hangs: its calls are accepted, and not answered.
_SILENT = "{api} answers nothing"
#: What is said of a provider none of whose keys may be used for what waits: out of scope, revoked, missing.
_NO_KEY = "No key of {api} serves the tasks that wait"


class _Broken(NamedTuple):
    kind: Kind
    head: str
    advice: str
    command: str


#: By the cause for which calls wait; `{api}` is filled in.
_BROKEN: dict[Cause, _Broken] = {
    "outage": _Broken(
        "provider_down", "{api} is down", "see the provider's status page; Fleet tries it all the time, and a fallback "
        "gives its pools another way", "fleet breakers show {api}",
    ),
    "key": _Broken(
        "key_refused", "The key of {api} is not taken",
        "give it a key that works; workers that run use it within seconds, one from a variable when they start again",
        "fleet keys",
    ),
    "credit": _Broken(
        "out_of_money", "The account of {api} is out of money or quota",
        "fill the account up at the provider, then try at once", "fleet limits reset-breaker {api}",
    ),
    "configuration": _Broken(
        "misconfigured", "{api} is configured wrongly", "correct what it names, and start the workers again",
        "fleet doctor",
    ),
}  # fmt: skip


def broken(case: Case) -> Iterator[Diagnosis]:
    """Yield APIs whose calls wait because their breaker is open, or their pools cannot be served; all as one."""
    opened = {
        limit: facts for limit, facts in case.symptoms.breakers.items() if facts.is_open and facts.cause in _BROKEN
    }
    downs = {limit: facts for limit, facts in opened.items() if facts.cause == "outage" and not tool_of(limit)}
    if len(downs) > 1 and downs.keys() >= case.models_in_use:
        yield _all_down(case, downs)
        opened = {limit: facts for limit, facts in opened.items() if limit not in downs}
    for limit, facts in opened.items():
        cause = facts.cause or "outage"
        yield _one_broken(case, _BROKEN[cause], limit, cause, since=facts.since, told=_why(facts))
    for cause in _BROKEN:
        known = {*opened, *downs, *(one.limit for one in silences(case))} if cause == "outage" else {*opened}
        waiting = [line for line in case.view.waits if line.cause == cause and line.tasks]
        for about, line in {line.about: line for line in reversed(waiting)}.items():
            if about not in known and UNUSUAL not in line.told:  # which is told as that
                words = _BROKEN[cause]
                if cause == "key" and provider_without_key(about):
                    words = words._replace(head=_NO_KEY, advice=line.advice)
                yield _one_broken(case, words, about, cause, since=None, told=line.told or SENTENCES[cause])


def _one_broken(case: Case, words: _Broken, limit: str, cause: Cause, *, since: float | None, told: str) -> Diagnosis:
    name = api_of(limit) or limit
    called_so = provider_without_key(limit) or name
    if (facts := case.symptoms.breakers.get(limit)) is not None and facts.is_silent:
        words = words._replace(head=_SILENT)
    advice = _OF_TOOLS.get(cause, words.advice) if tool_of(limit) else words.advice
    has_way = bool(pools := case.pools_on(name)) and all(
        (pool.ladder is not None and pool.ladder.is_down) for pool in case.view.pools if pool.pool in pools
    )
    also: tuple[Cause, ...] = ("retry",) if cause == "outage" else ()  # whose last try has failed
    tasks = case.waiting(cause, *also, about=limit)
    rest = ", its pools are served by their fallbacks" if has_way and not tasks else ""
    return diagnosis(
        words.kind, "warning" if rest else "critical", _head(words, called_so),
        cause=f"{brief(told, MOST_SAID)}{rest}",
        now_s=case.now_s, about=name, since=since, tasks=tasks,
        help=Help(advice=advice, command=words.command.format(api=called_so)),
    )  # fmt: skip


def _head(words: _Broken, api: str) -> str:
    """Return who is in which state; a tool is called one also in the middle of a sentence."""
    head = words.head.format(api=called(api))
    return head if head.startswith(called(api)) else head.replace(" The tool ", " the tool ")


def _all_down(case: Case, downs: dict[str, BreakerFacts]) -> Diagnosis:
    since = max((facts.since for facts in downs.values() if facts.since is not None), default=None)
    told = next((facts.told for facts in downs.values() if facts.told), "no call is answered")
    models = [limit for limit in case.view.limits if not tool_of(limit.limit)]
    which = "APIs" if len(downs) == len(models) else "APIs in use"
    return diagnosis(
        "provider_down", "critical", f"All {len(downs)} {which} are down", cause=told, now_s=case.now_s, about=ALL_APIS,
        since=since, tasks=case.waiting("outage", "retry"),
        help=Help(
            advice="see whether this network reaches them (proxy, DNS, firewall), then the providers' status pages",
            command="fleet doctor",
        ),
    )  # fmt: skip


def _why(facts: BreakerFacts) -> str:
    told = facts.told or "its calls fail"
    return f"{told} ({counted(facts.timed_out, 'call')} had no answer in time)" if facts.timed_out > 1 else told


def failing(case: Case) -> Iterator[Diagnosis]:
    """Yield APIs on which many calls fail, but not so many that the breaker opens."""
    for limit, facts in case.symptoms.breakers.items():
        late_calls, calls = facts.calls.get("late", 0), sum(facts.calls.values())
        failed = late_calls + facts.calls.get("outage", 0)
        is_many = failed >= FAILING_CALLS and failed >= FAILING_SHARE * calls
        if facts.is_open or not is_many or not facts.still_fails(failed, case.now_s):
            continue
        late = f", {late_calls:,} of them had no answer in time" if late_calls else ""
        of = max(calls, case.calls_on(api_of(limit)))  # breakers leave out some calls that do well
        yield diagnosis(
            "provider_failing", "warning", f"{called(api_of(limit))} fails on many calls", now_s=case.now_s,
            cause=f"{failed:,} of {of:,} calls of the last {RECENT_MIN} minutes{late}", about=api_of(limit),
            tasks=case.waiting("retry", about=limit),
            help=Help(advice="see the provider's status page; calls are tried again, tasks only take longer",
                      command="fleet stats"),
        )  # fmt: skip


class Silence(NamedTuple):
    """An API that has answered nothing for far longer than usual, while calls are under way: it hangs."""

    limit: str
    calls: int
    longest_s: float

    @property
    def told(self) -> str:
        """What it goes by."""
        under_way = f"{counted(self.calls, 'call')} have been under way"
        return f"{under_way} for up to {duration(self.longest_s)}, far longer than usual"


def silences(case: Case) -> Iterator[Silence]:
    """Yield APIs that hang.

    A worker of few slots hears little: its calls count only where the others were not answered either.
    """
    calls: Counter[str] = Counter()
    longest_s: dict[str, float] = {}
    for worker in case.view.resources.workers:
        for limit, (under_way, told_s) in worker.unanswered.items():
            silent_s = told_s + case.now_s - worker.at
            if case.now_s - case.symptoms.answered_at.get(api_of(limit), 0.0) >= SILENT_SHARE * silent_s:
                calls[limit] += under_way
                longest_s[limit] = max(longest_s.get(limit, 0.0), silent_s)
    for limit, under_way in calls.items():
        facts = case.symptoms.breakers.get(limit)
        if under_way >= SILENT_CALLS and not (facts is not None and facts.is_open):
            yield Silence(limit, under_way, longest_s[limit])


def silent(case: Case) -> Iterator[Diagnosis]:
    """Yield that they do."""
    for one in silences(case):
        api = api_of(one.limit)
        since = max(case.now_s - one.longest_s, case.symptoms.answered_at.get(api, 0.0))
        yield diagnosis(
            "provider_failing", "critical", f"{called(api)} answers nothing", now_s=case.now_s, since=since,
            cause=one.told, about=api, tasks=case.waiting("outage", "retry", about=one.limit),
            help=Help(advice="see the provider's status page; tasks whose calls time out are tried again",
                      command="fleet breakers"),
        )  # fmt: skip


def doubted(case: Case) -> Iterator[Diagnosis]:
    """Yield APIs that may have fallen silent a moment ago: workers hold calls until one is answered.

    It passes with the first answer, or the breaker opens after 12 s of silence; `silent` and `down` tell that.
    """
    told = {one.limit for one in silences(case)}
    for limit, calls in doubted_in(case.view.resources.workers).items():
        facts, api = case.symptoms.breakers.get(limit), api_of(limit)
        if limit in told or (facts is not None and facts.is_open):
            continue
        yield diagnosis(
            "provider_failing", "warning", f"{called(api)} may answer nothing", now_s=case.now_s, about=api,
            cause=f"{counted(calls, 'call')} wait in their slots until a first one is answered: those under way have "
            "had no answer for longer than nearly all of the last took",
            help=Help(advice="see the provider's status page; calls go on with its next answer",
                      command="fleet breakers"),
        )  # fmt: skip


def overdue(case: Case) -> Iterator[Diagnosis]:
    """Yield APIs that leave some calls without an answer for far longer than tasks take, though they answer others.

    Weakness: where calls have hung for long already, that is what is usual; they time out then, which `failing` tells.
    """
    silent_ones = {one.limit for one in silences(case)}
    for limit, open_calls in case.symptoms.under_way.items():
        facts, api = case.symptoms.breakers.get(limit), api_of(limit)
        usual = [pool.durations.ran for pool in case.view.pools if pool.api == api]
        usual_ms = max((ran.p99 for ran in usual if ran.p99 is not None and ran.count >= TIMED_TASKS), default=None)
        if usual_ms is None or limit in silent_ones or (facts is not None and facts.is_open):
            continue
        late_s = max(OVERDUE_S, OVERDUE_TIMES * usual_ms / 1000)
        late = open_calls.older_than(late_s)
        if late < SILENT_CALLS or late < OVERDUE_SHARE * open_calls.calls:
            continue
        yield diagnosis(
            "provider_failing", "warning", f"{called(api)} leaves calls without an answer", now_s=case.now_s, about=api,
            cause=f"{late:,} of {open_calls.calls:,} under way have had none for more than {duration(late_s)}; 99 of "
            f"100 tasks of the last hour took less than {duration(usual_ms / 1000)}",
            help=Help(advice="see the provider's status page; tasks whose calls time out are tried again",
                      command="fleet breakers"),
        )  # fmt: skip


def refusals(case: Case) -> Iterator[tuple[LimitView, float]]:
    """Yield limits under which all calls are answered 429 just now, and since when."""
    for limit in case.view.limits:
        if (since := _none_answered_since(case, limit)) is not None:
            yield limit, since


def refusing(case: Case) -> Iterator[Diagnosis]:
    """Yield APIs that answer 429 although the fleet keeps to the limits it knows."""
    for limit in case.view.limits:
        api = api_of(limit.limit)
        sums = [case.recent(pool) for pool in case.pools_on(api)]
        calls, refused = sum(one.calls for one in sums), sum(one.rate_limited for one in sums)
        is_many = refused >= REFUSED_CALLS and refused >= REFUSED_SHARE * calls and still_refuses(limit, case.now_s)
        none_since = _none_answered_since(case, limit)
        if not is_many and _hold_s(case, limit) < LONG_HOLD_S and none_since is None:
            continue
        held = f"it asked to wait until {clock(case.now_s + limit.held_s, case.now_s)}" if limit.held_s > 0 else ""
        none = f"none was answered for {duration(case.now_s - none_since)}" if none_since is not None else ""
        counts = f"{refused:,.0f} of {calls:,.0f} calls of the last {RECENT_MIN} minutes" if is_many else ""
        head = f"{called(api)} refuses {'all ' if none else ''}calls (429)"
        yield diagnosis(
            "provider_refusing", "warning", head, now_s=case.now_s, about=api, since=none_since,
            cause=", ".join(filter(None, (none, counts, held))),
            tasks=_behind_a_hold(case, limit),
            help=Help(
                advice="somebody else uses the key, or its limit here is above what the account allows: lower it",
                command=f"fleet limits set {api} --rpm {max(1, round(0.8 * limit.rpm))}" if limit.rpm
                else "fleet limits list",
            ),
        )  # fmt: skip


def still_refuses(limit: LimitView, now_s: float) -> bool:
    """True while an API that has answered 429 may still do: what is over is told no more."""
    return limit.held_s > 0 or (limit.refused_at is not None and limit.refused_at > now_s - STILL_REFUSED_S)


def _hold_s(case: Case, limit: LimitView) -> float:
    """Return the whole length of the hold after a 429, not what is left of it; 0: none is."""
    since_s = 0.0 if limit.refused_at is None else max(0.0, case.now_s - limit.refused_at)
    return limit.held_s + since_s if limit.held_s > 0 else 0.0


def _behind_a_hold(case: Case, limit: LimitView) -> int:
    """Return how many tasks wait behind a hold, in their queues or in the limiter."""
    return case.waiting("hold", about=limit.limit) + (limit.waiting if limit.refused_at is not None else 0)


def _none_answered_since(case: Case, limit: LimitView) -> float | None:
    """Return since when an API has answered 429 and nothing else, while tasks wait for it; None: it does not."""
    is_now = limit.refused >= REFUSED_CALLS and (limit.refused_at or 0.0) > case.now_s - REFUSED_NOW_S
    api, symptoms = api_of(limit.limit), case.symptoms
    answered_at = max(symptoms.answered_at.get(api, 0.0), symptoms.known_from.get(api, 0.0))
    facts = case.symptoms.breakers.get(limit.limit)
    is_silent = answered_at < case.now_s - REFUSED_NOW_S and (facts is None or not facts.is_open)
    if not (is_now and is_silent and answered_at and _behind_a_hold(case, limit) >= WAITING_TASKS):
        return None
    return answered_at
