"""Sameness of answers in words: a class's state as the page, `fleet diversity` and Prometheus show it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.diversity import ClassState
from fleet.models import bot_name
from fleet.quoting import counted
from fleet.signals.health_view import ClassDiversity, DiversityPhase, ScoreView

#: Bots that an alarm names, in a view; `fleet diversity --json` has all of them.
CULPRITS = 8
#: What the remedies do, in few words.
REMEDIES = {1: "context reshuffled", 2: "persona drawn anew", 3: "temperature raised"}


def diversity_views(classes: Iterable[tuple[ClassState, int]]) -> tuple[ClassDiversity, ...]:
    """Return how each class stands, given with its number of answers: alarms first, then the lowest score."""
    found = [_view(state, answers) for state, answers in classes]
    return tuple(sorted(found, key=lambda one: (not one.alarm, _share(one), one.pool, one.kind)))


def phase_of(state: ClassState) -> DiversityPhase:
    """Return what is done about a class."""
    if state.phase == "watching" and not any(reading.usual_score for reading in state.readings.values()):
        return "learning"
    return state.phase


def _share(one: ClassDiversity) -> float:
    return 1.0 if one.share_of_usual is None else one.share_of_usual


def _view(state: ClassState, answers: int) -> ClassDiversity:
    trial = state.trial
    shares = [one.score / one.usual_score for one in state.readings.values() if one.usual_score]
    left = [pairs.mean / trial.alike if pairs.count and trial.alike else None
            for pairs in (trial.treated_pairs, trial.control_pairs)] if trial else [None, None]  # fmt: skip
    return ClassDiversity(
        pool=state.pool, kind=state.kind, answers=answers, phase=phase_of(state), alarm=state.alarm,
        alarm_at=state.alarm_at or None,
        scores=tuple(ScoreView(aspect=aspect, **reading.model_dump()) for aspect, reading in state.readings.items()),
        share_of_usual=round(min(shares), 3) if shares else None,
        culprits=tuple(bot_name(state.pool, bot) for bot in state.flagged[:CULPRITS]), flagged=len(state.flagged),
        remedy=_remedy(state), treated=len(state.remedies), control=len(trial.control) if trial else 0,
        treated_left=left[0], control_left=left[1], verdict=state.verdict,
        line=sentence_of(state, answers), advice=_advice(state),
    )  # fmt: skip


def _remedy(state: ClassState) -> int:
    return max((remedy.rung for remedy in state.remedies.values()), default=0)


def sentence_of(state: ClassState, answers: int) -> str:
    """Return in one sentence how a class stands."""
    bots, rung = counted(len(state.flagged), "bot"), _remedy(state)
    done = f"remedy {rung}, {REMEDIES.get(rung, 'unknown')}"
    match phase_of(state):
        case "learning":
            return f"learning what is usual: {counted(answers, 'answer')} so far"
        case "treating" if state.trial is not None:
            control, treated = len(state.trial.control), len(state.trial.treated)
            left = "is left as it is" if control == 1 else "are left as they are"
            rest = f", {control:,} {left}, to compare" if control else ""
            return f"{bots} answer alike: {treated:,} {'gets' if treated == 1 else 'get'} {done}{rest}"
        case "holding":
            treated = len(state.remedies)
            return f"{counted(treated, 'bot')} {'keeps' if treated == 1 else 'keep'} {done}: the answers differ again"
        case "exhausted":
            return f"{bots} answer alike, and no remedy has helped"
    if state.alarm:
        return f"{bots} answer alike" if state.flagged else "answers are alike, and no bot stands out"
    return "answers differ as usual" if not _is_fallen(state) else "answers have become alike: it is watched"


def _is_fallen(state: ClassState) -> bool:
    return any(reading.fallen for reading in state.readings.values())


def _advice(state: ClassState) -> str:
    if not state.alarm or state.phase == "holding":
        return ""
    relearn = f"if that is meant: `fleet diversity relearn {state.pool} {state.kind}`"
    return f"look at prompts, personas and model; {relearn}" if state.phase == "exhausted" else relearn
