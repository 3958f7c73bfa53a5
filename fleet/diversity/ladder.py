"""What is done about a class that has fallen: name the culprits, try one rung on half of them, compare, go on.

Pure: a state and one look at the newest answers in, the next state and what happened out.

The ladder is reshuffled context, a persona drawn anew, a raised temperature; each rung keeps those below it. Half of
the flagged bots are held back as a control, so that a recovery can be told from one that would have come anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from zlib import crc32

from fleet.diversity.fingerprint import Fingerprint
from fleet.diversity.likeness import ASPECTS, Aspect, Comparison, Likeness
from fleet.diversity.norm import culprits, is_fallen, is_healthy
from fleet.diversity.state import ClassState, Norm, Pairs, Reading, Trial
from fleet.models import Remedy

#: Looks per window: each window is a quarter further on than the one before.
LOOKS_PER_WINDOW = 4
#: Fallen looks in a row that are an alarm: the last of them is half a window behind the first. So are calm ones.
ALARM_LOOKS = 3
#: The last rung.
TOP_RUNG = 3
#: Flagged bots below which none is held back: a control of one bot says nothing.
MIN_FLAGGED = 4
#: Likeness of a group, as a share of that at the alarm, below which it has recovered.
RECOVERED_SHARE = 1 / 3
#: Pairs of answers in each group that a verdict needs, windows it waits for them, and windows it waits in all.
MIN_PAIRS, MAX_WINDOWS, LONGEST_WINDOWS = 30, 4, 100
#: Windows that a rung is held before it is taken back: at first, and at most after relapses.
HOLD_WINDOWS, LONGEST_HOLD_WINDOWS = 4, 64


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that an operator may want to know: its name, and its facts in words and numbers."""

    name: str
    facts: dict[str, str | int | float] = field(default_factory=dict)


class Look:
    """One look at the newest answers of a class, the oldest first.

    Args:
        answers: Numbered answers; those of bots whose remedy has changed since are left out.
        size: Answers of a full window.
        seen: Number of the newest answer, counted also when it was left out.
        may_treat: False when remedies are switched off, or another class of the pool is being treated.
    """

    def __init__(
        self, answers: Sequence[tuple[int, Fingerprint]], *, size: int, seen: int, may_treat: bool = True
    ) -> None:
        self.numbers = [number for number, _ in answers]
        self.compared = Comparison([answer for _, answer in answers])
        self.size = size
        self.seen = seen
        self.may_treat = may_treat

    def among(self, trial_aspect: Aspect, norm: Norm, bots: Sequence[int], *, after: int = 0) -> tuple[float, int]:
        """Return summed likeness and number of pairs among some bots' answers with a number above `after`."""
        counts = [number > after for number in self.numbers]
        return self.compared.among(trial_aspect, norm.scale, frozenset(bots), counts)


def advance(state: ClassState, look: Look) -> tuple[ClassState, list[Happening]]:
    """Take one look into account.

    Args:
        state: The class as it was.
        look: The newest answers.

    Returns:
        The class as it is now, and what happened.
    """
    state, fallen = _read(state, look)
    streak = (state.fallen + 1, 0) if fallen else (0, state.calm + 1)
    state = state.but(fallen=streak[0], calm=streak[1], seen=look.seen)
    if state.phase == "treating":
        return _try(state, look)
    if state.phase == "holding":
        return _hold(state, look, fallen)
    return _watch(state, look, fallen)


# -- measuring


def _read(state: ClassState, look: Look) -> tuple[ClassState, dict[Aspect, Likeness]]:
    """Measure each aspect; return the fallen ones. Healthy windows are learnt from, each answer once."""
    norms, readings, fallen = dict(state.norms), dict[Aspect, Reading](), dict[Aspect, Likeness]()
    calm = state.phase == "watching" and not state.alarm
    due = calm and look.seen - state.learnt >= look.size
    for aspect in ASPECTS:
        if not look.compared.has(aspect):
            continue
        norm = norms.get(aspect) or Norm(scale=look.compared.gauge(aspect))
        seen = look.compared.likeness(aspect, norm.scale, size=look.size)
        if norm.is_ready and is_fallen(norm.typical, seen):
            fallen[aspect] = seen
        readings[aspect] = _reading(norm, seen, aspect in fallen)
        if due and (not norm.is_ready or is_healthy(norm.typical, seen)):
            norm = norm.learn(seen)
        if calm or aspect in norms:
            norms[aspect] = norm
    learnt = look.seen if due and not fallen else state.learnt
    return state.but(norms=norms, readings=readings, learnt=learnt), fallen


def _reading(norm: Norm, seen: Likeness, fallen: bool) -> Reading:
    usual = norm.typical if norm.is_ready else None
    return Reading(
        score=round(seen.score, 1),
        near_share=round(seen.near_share, 3),
        usual_score=round(usual.score, 1) if usual else None,
        usual_near_share=round(usual.near_share, 3) if usual else None,
        fallen=fallen,
    )


def _worst(state: ClassState, fallen: dict[Aspect, Likeness]) -> Aspect:
    """Return the aspect that has fallen furthest."""
    return min(fallen, key=lambda aspect: fallen[aspect].score / state.norms[aspect].typical.score)


def _culprits(state: ClassState, fallen: dict[Aspect, Likeness]) -> tuple[int, ...]:
    found = (culprits(state.norms[aspect].typical, seen) for aspect, seen in fallen.items())
    return tuple(sorted({bot for bots in found for bot in bots}))


# -- watching, and when the ladder has not helped


def _watch(state: ClassState, look: Look, fallen: dict[Aspect, Likeness]) -> tuple[ClassState, list[Happening]]:
    if state.alarm and state.calm >= ALARM_LOOKS:
        return state.but(alarm=False, phase="watching", flagged=()), [Happening("diversity_recovered")]
    if state.fallen < ALARM_LOOKS or state.phase == "exhausted":
        return state, []
    flagged = _culprits(state, fallen)
    happened = [] if state.alarm else [_alarm(state, fallen, flagged)]
    state = state.but(alarm=True, flagged=flagged)
    if not flagged or not look.may_treat:
        return state, happened
    state, started = _start(state, look, _worst(state, fallen), 1)
    return state, happened + started


def _alarm(state: ClassState, fallen: dict[Aspect, Likeness], flagged: Sequence[int]) -> Happening:
    aspect = _worst(state, fallen)
    seen, usual = fallen[aspect], state.norms[aspect].typical
    return Happening(
        "diversity_alarm",
        {
            "aspect": aspect,
            "score": round(seen.score, 1),
            "usual_score": round(usual.score, 1),
            "near_share": round(seen.near_share, 3),
            "usual_near_share": round(usual.near_share, 3),
            "flagged": len(flagged),
            "answer": state.seen,
        },
    )


# -- treating


def _start(state: ClassState, look: Look, aspect: Aspect, rung: int) -> tuple[ClassState, list[Happening]]:
    """Begin a trial: the rung for half of the flagged bots, drawn by chance that can be repeated."""
    order = sorted(state.flagged, key=lambda bot: crc32(f"{look.seen}:{bot}".encode()))
    half = -(-len(order) // 2) if len(order) >= MIN_FLAGGED else len(order)
    treated, control = tuple(sorted(order[:half])), tuple(sorted(order[half:]))
    fresh = look.seen - look.size // 2  # the first fallen look was half a window ago: all that came since is alike
    total, count = look.among(aspect, state.norms[aspect], state.flagged, after=fresh)
    trial = Trial(
        aspect=aspect, rung=rung, since=look.seen, counted=look.seen,
        treated=treated, control=control, alike=total / max(1, count),
    )  # fmt: skip
    return _prescribe(state, trial)


def _prescribe(state: ClassState, trial: Trial) -> tuple[ClassState, list[Happening]]:
    remedy = Remedy(rung=trial.rung, generation=_generation(trial.since))
    remedies = state.remedies | dict.fromkeys(trial.treated, remedy)
    facts: dict[str, str | int | float] = {
        "remedy": trial.rung, "treated": len(trial.treated), "control": len(trial.control)
    }  # fmt: skip
    return state.but(phase="treating", trial=trial, remedies=remedies), [Happening("diversity_treatment", facts)]


def _generation(number: int) -> int:
    return number % (2**30 - 1) + 1


def _try(state: ClassState, look: Look) -> tuple[ClassState, list[Happening]]:
    """Count the answers of both groups, each once; decide when there are enough."""
    trial = state.trial
    assert trial is not None
    if look.seen - trial.counted < look.size:
        return state, []
    norm = state.norms[trial.aspect]
    treated = trial.treated_pairs.plus(*look.among(trial.aspect, norm, trial.treated, after=trial.counted))
    control = trial.control_pairs.plus(*look.among(trial.aspect, norm, trial.control, after=trial.counted))
    windows = trial.windows + (treated.count > trial.treated_pairs.count)
    trial = trial.model_copy(
        update={"treated_pairs": treated, "control_pairs": control, "counted": look.seen, "windows": windows}
    )
    state = state.but(trial=trial)
    enough = treated.count >= MIN_PAIRS and (not trial.control or control.count >= MIN_PAIRS)
    waited = windows >= MAX_WINDOWS or look.seen - trial.since >= LONGEST_WINDOWS * look.size
    return _decide(state, trial, look) if enough or waited else (state, [])


def _decide(state: ClassState, trial: Trial, look: Look) -> tuple[ClassState, list[Happening]]:
    verdict = _verdict(trial)
    state = state.but(verdict=f"remedy {trial.rung}: {verdict}", trial=None)
    happened = [Happening("diversity_verdict", {"remedy": trial.rung, "verdict": verdict, **_shares(trial)})]
    if verdict in ("helped", "recovered"):
        remedy = Remedy(rung=trial.rung, generation=_generation(trial.since))
        remedies = state.remedies | dict.fromkeys(trial.control, remedy)
        hold = state.hold or HOLD_WINDOWS
        state = state.but(phase="holding", remedies=remedies, good_rung=trial.rung, hold=hold, fallen=0, calm=0)
    elif verdict == "did not help":
        if trial.rung == TOP_RUNG:
            return _exhaust(state, happened)
        groups = {"treated": trial.treated, "control": trial.control, "aspect": trial.aspect, "alike": trial.alike}
        up = Trial.model_validate({**groups, "rung": trial.rung + 1, "since": look.seen, "counted": look.seen})
        state, started = _prescribe(state, up)
        happened += started
    else:
        return end(state, happened)
    return state, happened


def _verdict(trial: Trial) -> str:
    """Compare treated and control: only a difference between them is the remedy's doing."""
    treated_well = _has_recovered(trial.treated_pairs, trial.alike)
    if not trial.control:
        return "recovered" if treated_well else "did not help"
    if _has_recovered(trial.control_pairs, trial.alike):
        return "passed by itself" if treated_well else "others recovered without it"
    return "helped" if treated_well else "did not help"


def _has_recovered(pairs: Pairs, alike: float) -> bool:
    return pairs.count > 0 and pairs.mean <= RECOVERED_SHARE * alike


def _shares(trial: Trial) -> dict[str, float]:
    """Likeness of both groups as a share of that at the alarm."""
    alike = max(trial.alike, 1e-9)
    groups = {"treated_share": trial.treated_pairs, "control_share": trial.control_pairs}
    return {name: round(pairs.mean / alike, 3) for name, pairs in groups.items() if pairs.count}


# -- holding what works, and taking it back


def _hold(state: ClassState, look: Look, fallen: dict[Aspect, Likeness]) -> tuple[ClassState, list[Happening]]:
    rung = max((remedy.rung for remedy in state.remedies.values()), default=0)
    if state.fallen >= ALARM_LOOKS:
        return _relapse(state, look, fallen, rung)
    if state.calm < state.hold * LOOKS_PER_WINDOW:
        return state, []
    if rung <= 1:
        return end(state, [])
    return _step(state, rung - 1), [Happening("diversity_step_down", {"remedy": rung - 1})]


def _relapse(
    state: ClassState, look: Look, fallen: dict[Aspect, Likeness], rung: int
) -> tuple[ClassState, list[Happening]]:
    """Go back to the rung that works, or spread it to bots that were not seen before; else try the next one.

    In a pool of thousands one window shows a part of the culprits only; the others come here, window by window.
    """
    if rung < state.good_rung:
        state = _step(state, state.good_rung).but(hold=min(2 * state.hold, LONGEST_HOLD_WINDOWS))
        return state, [Happening("diversity_relapse", {"remedy": state.good_rung, "hold_windows": state.hold})]
    flagged = _culprits(state, fallen)
    if not flagged:
        return state, []
    new = [bot for bot in flagged if bot not in state.remedies]
    if 2 * len(new) >= len(flagged):
        return _spread(state, look, new)
    if rung == TOP_RUNG:
        return _exhaust(state, [])
    return _start(state.but(flagged=flagged), look, _worst(state, fallen), rung + 1)


def _spread(state: ClassState, look: Look, new: Sequence[int]) -> tuple[ClassState, list[Happening]]:
    """Give the rung that works to further bots, without a trial."""
    remedy = Remedy(rung=state.good_rung, generation=_generation(look.seen))
    state = state.but(
        remedies=state.remedies | dict.fromkeys(new, remedy), fallen=0, calm=0,
        flagged=tuple(sorted({*state.flagged, *new})),
    )  # fmt: skip
    return state, [Happening("diversity_treatment", {"remedy": remedy.rung, "treated": len(new), "control": 0})]


def _step(state: ClassState, rung: int) -> ClassState:
    """Put all treated bots on one rung. What was drawn for them stays drawn."""
    remedies = {bot: Remedy(rung=rung, generation=old.generation) for bot, old in state.remedies.items()}
    return state.but(remedies=remedies, fallen=0, calm=0)


def _exhaust(state: ClassState, happened: list[Happening]) -> tuple[ClassState, list[Happening]]:
    """Give up: nothing helped, so nothing is kept up, and an operator has to look."""
    state = state.but(phase="exhausted", remedies={}, trial=None, good_rung=0, hold=0, fallen=0, calm=0)
    return state, [*happened, Happening("diversity_exhausted", {"flagged": len(state.flagged)})]


def end(state: ClassState, happened: list[Happening]) -> tuple[ClassState, list[Happening]]:
    """Take all remedies of a class back."""
    state = state.but(
        phase="watching", remedies={}, alarm=False, flagged=(), good_rung=0, hold=0, fallen=0, calm=0, learnt=state.seen
    )
    return state, [*happened, Happening("diversity_ended")]
