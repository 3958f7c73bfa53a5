"""What is known of one task class: what is normal for it, how it stands, and what is being done about it.

Frozen values that live in Redis as JSON, so that any process can take the lead over. Decisions are `ladder.py`.
"""

from __future__ import annotations

from statistics import median
from typing import Literal

from pydantic import Field

from fleet.diversity.likeness import Aspect, Likeness, Scale
from fleet.frozen import Frozen
from fleet.models import Remedy

#: Healthy windows that a class must have shown before one can be called fallen.
LEARN_WINDOWS = 3
#: Newest healthy windows that make up what is normal.
KEEP_WINDOWS = 16
#: Score below which a class is alike by nature (one right answer, temperature 0): it cannot fall and is not judged.
MIN_SCORE = 3.0

Phase = Literal["watching", "treating", "holding", "exhausted"]


class Sample(Frozen):
    """One healthy window, as far as it is remembered. Fields as in `Likeness`; `crowd`: its most alike bots."""

    score: float
    mean: float
    spread: float
    near_share: float
    crowd: float


class Norm(Frozen):
    """What is normal for one aspect of a class."""

    scale: Scale
    samples: tuple[Sample, ...] = ()

    @property
    def is_ready(self) -> bool:
        """True when there is something to compare with, and room to fall."""
        return len(self.samples) >= LEARN_WINDOWS and self.typical.score >= MIN_SCORE

    @property
    def typical(self) -> Sample:
        """The median of the healthy windows, field by field."""
        fields = Sample.model_fields
        return Sample(**{name: median(getattr(sample, name) for sample in self.samples) for name in fields})

    def learn(self, seen: Likeness) -> Norm:
        """Return the norm with one more healthy window."""
        fields = {name: float(f"{getattr(seen, name):.4g}") for name in Sample.model_fields}
        return Norm(scale=self.scale, samples=(*self.samples, Sample(**fields))[-KEEP_WINDOWS:])


class Reading(Frozen):
    """The newest window of one aspect, for people."""

    score: float
    near_share: float
    usual_score: float | None = None
    usual_near_share: float | None = None
    fallen: bool = False


class Pairs(Frozen):
    """Summed likeness of pairs of answers, and how many they are."""

    total: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def plus(self, total: float, count: int) -> Pairs:
        return Pairs(total=self.total + total, count=self.count + count)


class Trial(Frozen):
    """One rung of the ladder on half of the flagged bots; the other half is the control.

    Args:
        aspect: In which aspect they were alike.
        since: Number of the class's answer at its start.
        alike: Mean likeness among all of them at the alarm.
        counted: Number of the answer up to which answers are counted.
        windows: Windows counted.
    """

    aspect: Aspect
    rung: int
    since: int
    treated: tuple[int, ...]
    control: tuple[int, ...]
    alike: float
    counted: int
    windows: int = 0
    treated_pairs: Pairs = Pairs()
    control_pairs: Pairs = Pairs()


class ClassState(Frozen):
    """One task class of one pool.

    Args:
        seen: Number of the last answer that was looked at.
        looked_at: Unix time of that look, in seconds.
        learnt: Number of the last answer that was learnt from.
        fallen: Windows in a row, each a quarter further on, that were fallen.
        calm: The same of windows that were not.
        alarm: True from an alarm until the class is back to normal.
        alarm_at: Unix time of that alarm, in seconds.
        flagged: Bots named by the last alarm.
        remedies: What each bot is under now.
        hold: Windows to hold a rung that works before stepping down.
        good_rung: The rung that works; 0: none yet.
        verdict: What came of the last trial.
    """

    pool: str
    kind: str
    seen: int = 0
    looked_at: float = 0.0
    learnt: int = 0
    norms: dict[Aspect, Norm] = Field(default_factory=dict)
    readings: dict[Aspect, Reading] = Field(default_factory=dict)
    phase: Phase = "watching"
    fallen: int = 0
    calm: int = 0
    alarm: bool = False
    alarm_at: float = 0.0
    flagged: tuple[int, ...] = ()
    remedies: dict[int, Remedy] = Field(default_factory=dict)
    trial: Trial | None = None
    hold: int = 0
    good_rung: int = 0
    verdict: str = ""

    def but(self, **changes: object) -> ClassState:
        """Return this state with some fields changed."""
        return self.model_copy(update=changes)
