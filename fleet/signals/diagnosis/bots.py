"""Findings about bots and prompts: who is out, who answers alike, what fails whoever answers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from fleet import errors
from fleet.faults import SAID, Fault
from fleet.quoting import clock, counted, listed
from fleet.signals.diagnosis.finding import Diagnosis, Help, diagnosis
from fleet.signals.diagnosis.symptoms import RECENT_MIN, Case, OutBot
from fleet.signals.health_view import ClassDiversity
from fleet.signals.spread import is_providers_fault
from fleet.signals.view import PoolView
from fleet.signals.windows import Failure

#: Share of a pool's bots from which it is bad that they are out: Fleet takes out 35% at most.
MANY_OUT = 0.25
#: Failed tasks of a pool within five minutes, their share of its tasks, and bots that they must lie on (count).
PROMPT_FAILURES, PROMPT_SHARE, PROMPT_BOTS = 10, 0.2, 3
#: Share of those failures that one bot may have at most.
MOST_ON_ONE = 0.5
#: Error types that say nothing of a prompt: time, place, or a bot function.
_NOT_OF_PROMPTS = (
    "Expired",
    "DeadlineExceeded",
    "OutOfTries",
    "BotFunctionFailed",
    "Revoked",
    "Other",
    "NotDelegated",
    "OutOfScope",
)
#: Who takes bots out when nobody else does.
HEALTH = "health"
#: What helps where most of a bot's bad answers have one fault.
_OF_FAULTS = {
    Fault.EMPTY: "see whether max_output_tokens leaves room for an answer",
    Fault.REFUSED: "see what their personas and prompts ask: the model refuses it",
    Fault.SCHEMA: "see whether max_output_tokens leaves room for the JSON, and whether the model keeps to schemas",
    Fault.REPEATED: "give them another persona or a higher temperature",
    Fault.REJECTED: "see what the validator rejects",
    Fault.CIRCLING: "correct the tool that says the same again and again, or the prompt",
    Fault.FAN_OUT: "raise max_tool_calls_per_turn, or let them ask for less at once",
    Fault.CRASHED: "correct the function: the log of their workers names the line",
}
#: What helps where it is not the prompt, or not that alone, by error type.
_REMEDIES = {
    "CapReached": "raise the cap that it names or ask for less",
    "NoProgress": _OF_FAULTS[Fault.CIRCLING],
}


def bots_out(case: Case) -> Iterator[Diagnosis]:
    """Yield pools whose bots are all in quarantine, and those in which some are."""
    for pool in case.view.pools:
        out = [bot for bot in case.symptoms.out.get(pool.pool, ()) if bot.until is None or bot.until > case.now_s]
        if out:
            yield _all_out(case, pool, out) if len(out) >= pool.bots else _some_out(case, pool, out)


def _all_out(case: Case, pool: PoolView, out: list[OutBot]) -> Diagnosis:
    ends = [bot.until for bot in out if bot.until is not None]
    back = f"the first is back at {clock(min(ends), case.now_s)}" if ends else "none comes back by itself"
    since = max((bot.since for bot in out if bot.since), default=None)
    return diagnosis(
        "bots_out", "critical", f"All {counted(pool.bots, 'bot')} of {pool.pool} are quarantined", now_s=case.now_s,
        about=pool.pool, since=since, tasks=case.waiting("bots", pool=pool.pool),
        cause=f"{_reason(out)}; {back}",
        help=Help(advice=f"{_help_for_all(out)}, then release them all",
                  command=f"fleet bots release --pool {pool.pool}", action={"do": "release", "pool": pool.pool}),
    )  # fmt: skip


def _help_for_all(out: list[OutBot]) -> str:
    by = Counter(bot.by for bot in out).most_common(1)[0][0]
    return _remedy(out) or (
        "find out what made them all bad" if by == HEALTH else "see that whoever took them out agrees"
    )


def _some_out(case: Case, pool: PoolView, out: list[OutBot]) -> Diagnosis:
    names = listed((bot.name for bot in sorted(out, key=lambda bot: bot.name)), len(out))
    is_many = len(out) >= MANY_OUT * pool.bots and len(out) > 1
    ends = [bot.until for bot in out if bot.until is not None]
    back = f"; the first is back at {clock(min(ends), case.now_s)}" if ends else ""
    since = min((bot.since for bot in out if bot.since), default=None)
    return diagnosis(
        "bots_bad", "warning" if is_many else "info",
        f"{len(out):,} of {counted(pool.bots, 'bot')} of {pool.pool} {'is' if len(out) == 1 else 'are'} quarantined",
        now_s=case.now_s, about=pool.pool, since=since,
        cause=f"{names} ({_reason(out)}){back}",
        help=_help_for_some(out, is_many=is_many),
    )  # fmt: skip


def _help_for_some(out: list[OutBot], *, is_many: bool) -> Help:
    """Return what to do about some bots that are out: those that a person took out for good come back by hand only."""
    stay = [bot.name for bot in out if bot.until is None]
    if is_many and len(stay) < len(out):
        advice = f"many at once: {_remedy(out) or 'a prompt or a model has changed, more than bots'}"
    else:
        some = (
            f"{len(stay):,} of these {'stays' if len(stay) == 1 else 'stay'}" if len(stay) < len(out) else "these stay"
        )
        back = f"{some} out until released" if stay else "these are tried again by themselves"
        alone = "it stays out until it is released" if stay else "it is tried again by itself"
        advice = f"the others do their work; {alone if len(out) == 1 else back}"
    if len(out) == 1:
        return Help(advice=advice, command=f"fleet bots {'release' if stay else 'show'} {out[0].name}")
    return Help(advice=advice, command="fleet bots list --state quarantined")


def _remedy(out: list[OutBot]) -> str:
    """Return what helps against what most of them do; empty: nobody knows."""
    said = _reason(out).partition(":")[0]
    return next((remedy for fault, remedy in _OF_FAULTS.items() if said.endswith(f", {SAID[fault]}")), "")


def _reason(out: list[OutBot]) -> str:
    """Return the reason that most of them have, and by whom when that is a person."""
    differ = len({bot.reason for bot in out}) > 1  # in their figures, which are those of one bot each
    told = Counter((bot.reason.partition(":")[0] if differ and bot.by == HEALTH else bot.reason, bot.by) for bot in out)
    ((reason, by), count), *_ = told.most_common(1)
    most = "" if count == len(out) else "most of them: "
    return f"{most}{reason or 'no reason given'}{f', by {by}' if by and by != HEALTH else ''}"


def alike(case: Case) -> Iterator[Diagnosis]:
    """Yield task classes whose bots answer alike."""
    for one in case.view.diversity:
        if not one.alarm:
            continue
        scores = [score for score in one.scores if score.fallen and score.usual_score is not None]
        fallen = f"{scores[0].score:.0f} different answers, usually {scores[0].usual_score:.0f}" if scores else ""
        names = f"{counted(one.flagged, 'bot')}: {listed(one.culprits, one.flagged)}" if one.culprits else ""
        yield diagnosis(
            "bots_alike", "warning", f"Bots of {one.pool} answer alike ({one.kind})", now_s=case.now_s, about=one.pool,
            since=one.alarm_at, cause="; ".join(filter(None, (fallen, names))),
            help=Help(advice=_help_for_alike(one), command=f"fleet diversity show {one.pool} {one.kind}"),
        )  # fmt: skip


def _help_for_alike(one: ClassDiversity) -> str:
    """Return what to do: Fleet tries remedies by itself, until none is left."""
    now = "a remedy is being tried" if one.phase == "treating" else "look at prompts, personas and model"
    none_left = "no remedy has helped: " if one.phase == "exhausted" else ""
    return f"{none_left}{now}; if the answers ought to be alike: `fleet diversity relearn {one.pool} {one.kind}`"


def prompts(case: Case) -> Iterator[Diagnosis]:
    """Yield pools in which many tasks of the last minutes failed alike, whichever bot took them."""
    by_pool: dict[str, list[Failure]] = {}
    for failure in case.symptoms.failures:
        if failure.at > case.now_s - 60 * RECENT_MIN and is_of_prompts(failure.type):
            by_pool.setdefault(failure.pool, []).append(failure)
    bots = {pool.pool: pool.bots for pool in case.view.pools}
    for pool, failures in by_pool.items():
        done = max(len(failures), case.recent(pool, RECENT_MIN + 1).completions)
        if len(failures) < PROMPT_FAILURES or len(failures) < PROMPT_SHARE * done:
            continue
        on = Counter(failure.bot for failure in failures)
        if len(on) < min(PROMPT_BOTS, bots.get(pool, PROMPT_BOTS)) or max(on.values()) > max(
            1, MOST_ON_ONE * len(failures)
        ):
            continue
        earlier = (one.at for one in case.symptoms.failures if one.pool == pool and is_of_prompts(one.type))
        yield _failing(case, pool, failures, len(on), done, since=_unbroken_since(earlier, case.now_s))


def _unbroken_since(times: Iterable[float], now_s: float) -> float:
    """Return when what has happened at these times began, if it has not paused for some minutes since."""
    since = now_s
    for at in sorted(times, reverse=True):
        if since - at > 60 * RECENT_MIN:
            break
        since = at
    return since


def _failing(case: Case, pool: str, failures: list[Failure], bots: int, done: float, *, since: float) -> Diagnosis:
    (kind, of_kind), *_ = Counter(failure.type for failure in failures).most_common(1)
    return diagnosis(
        "prompts_fail", "warning", f"Prompts of {pool} fail on every bot that takes them", now_s=case.now_s, about=pool,
        since=since, tasks=len(failures), has_failed=True,
        cause=f"{of_kind:,} of {done:,.0f} tasks of the last {RECENT_MIN} minutes ended with {kind}, on "
        f"{counted(bots, 'bot')}: no bot and no provider is to blame",
        help=Help(advice=f"look at one of them, {_REMEDIES.get(kind, 'correct the prompt')}, then replay them",
                  command=f"fleet dead list --pool {pool}"),
    )  # fmt: skip


def is_of_prompts(type_name: str) -> bool:
    """True when an error of this type is no provider's, key's or clock's fault: a prompt's, or its answer's."""
    kind = getattr(errors, type_name, None)
    is_own = isinstance(kind, type) and issubclass(kind, errors.GiveUp)
    return is_own and not is_providers_fault(type_name) and type_name not in _NOT_OF_PROMPTS
