"""What models have taught: what they refuse, how many tokens our estimate of one really is, how much they take.

This is a process's own copy, asked on every call and never waiting for anybody. How requests are changed by it:
`workers/providers/taught/student.py`; how the fleet shares it: `engine/answers/lessons.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

#: Seconds after which one call of the fleet tries what a model refuses once more (a day).
PROBE_AFTER_S = 24 * 3600.0
#: Things that one model may be known to refuse (count); single schemas make room first, the oldest of all.
MOST_LESSONS = 200
#: What the names of refused schemas begin with, each followed by the form in which it is refused.
SCHEMAS = "schema:"
#: What the names begin with of what a model was not sent, because its wire or its SDK has no such field.
UNSENT = "unsent:"
#: Names of what is learnt of a model's sizes, beside what it refuses; `=` stands in no name of a field.
RATIO, WINDOW = "=ratio", "=window"
#: True tokens per estimated one that are believed at most and at least.
RATIO_BOUNDS = 0.5, 4.0
#: Share by which one answer, and one refusal with figures, moves the ratio.
SLOW, FAST = 0.05, 0.5
#: Shortest input that teaches a ratio, in estimated tokens: below it the chat's own format weighs too much.
TEACHING_TOKENS = 400
#: Change of a ratio that is worth telling the fleet.
TOLD_CHANGE = 0.02


class Lesson(NamedTuple):
    """One thing learnt of one model.

    Args:
        api: `provider/model`.
        what: What it refuses: a field of the request's body (dots lead inside), `role:NAME`, `schema` (any) or
            `schema:NAME:FORM`; `UNSENT` and the name of a wish; or `RATIO`, `WINDOW`.
        learnt_at: Unix time (s).
        value: The ratio, or the window in tokens; 0 for what is refused.
    """

    api: str
    what: str
    learnt_at: float
    value: float = 0.0

    @property
    def probe_at(self) -> float:
        """Unix time (s) from which it is tried once more; a window is then forgotten."""
        return self.learnt_at + PROBE_AFTER_S

    @property
    def is_refusal(self) -> bool:
        """True unless it is about sizes."""
        return not self.what.startswith("=")


class Measure(NamedTuple):
    """How a model counts.

    Args:
        ratio: True tokens per token of our estimate, at least 1: an estimate that is too high costs nothing.
        window_tokens: The most that it takes, input and output together; None when it never complained.
    """

    ratio: float = 1.0
    window_tokens: int | None = None


#: Of a model that has taught nothing.
UNMEASURED = Measure()
_NOTHING: frozenset[str] = frozenset()


class Notebook:
    """What this process knows. Belongs to one event loop; also good alone, without a fleet.

    Args:
        clock: Unix time (s).

    Attributes:
        on_change: Called when there is something to tell the fleet.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lessons: dict[tuple[str, str], Lesson] = {}
        self._refused: dict[str, frozenset[str]] = {}
        self._measures: dict[str, Measure] = {}
        #: Moves with every answer; the lesson of that name is what the fleet was told of it last.
        self._ratios: dict[str, float] = {}
        self._probes: set[tuple[str, str]] = set()
        self._untold: dict[tuple[str, str], Lesson | None] = {}
        self.on_change: Callable[[], None] = lambda: None

    def refused(self, api: str) -> frozenset[str]:
        """Return what a model refuses."""
        return self._refused.get(api, _NOTHING)

    def measure(self, api: str) -> Measure:
        """Return how a model counts."""
        return self._measures.get(api, UNMEASURED)

    def learn(self, api: str, what: str) -> None:
        """Note that a model refuses something. What was known is renewed for another day."""
        if (api, what) not in self._lessons:
            own = [each for each in self._lessons.values() if each.api == api]
            own.sort(key=lambda one: (not one.what.startswith(SCHEMAS), one.learnt_at))
            for oldest in own[: max(0, len(own) - MOST_LESSONS + 1)]:
                self.forget(api, oldest.what)
        self._note(Lesson(api, what, self._clock()))

    def age_s(self, api: str, what: str) -> float | None:
        """Return for how long something has been known; None when it isn't."""
        known = self._lessons.get((api, what))
        return None if known is None else self._clock() - known.learnt_at

    def forget(self, api: str, what: str) -> None:
        """A model takes it after all."""
        if self._lessons.pop((api, what), None) is not None:
            self._untold[api, what] = None
            self._read_again(api)
            self.on_change()

    def may_probe(self, api: str, what: str) -> bool:
        """True once for what the fleet let this process try again: the caller sends it."""
        if (api, what) not in self._probes:
            return False
        self._probes.discard((api, what))
        return True

    def counted(self, api: str, *, estimated: int, true: int, weight: float = SLOW) -> None:
        """Learn from the true input tokens of a call how far our estimate is off. Bounded and slow.

        Args:
            api: `provider/model`.
            estimated: By `count_message_tokens`; short inputs teach nothing.
            true: As the provider counted.
            weight: Share by which this moves the ratio.
        """
        if estimated < TEACHING_TOKENS or true <= 0:
            return
        told = self._lessons.get((api, RATIO))
        before, told_ratio = self._ratios.get(api, 1.0), told.value if told else 1.0
        low, high = RATIO_BOUNDS
        after = self._ratios[api] = before + weight * (min(high, max(low, true / estimated)) - before)
        if abs(after - told_ratio) >= TOLD_CHANGE * told_ratio:
            self._note(Lesson(api, RATIO, self._clock(), round(after, 4)))
        elif before > 1 or after > 1:
            self._measures[api] = self.measure(api)._replace(ratio=max(1.0, after))

    def overflowed(self, api: str, *, window_tokens: int) -> None:
        """Note the most tokens that a model says it takes."""
        self._note(Lesson(api, WINDOW, self._clock(), window_tokens))

    def untold(self) -> dict[tuple[str, str], Lesson | None]:
        """Return what the fleet isn't told yet, and take it as told; None: forgotten."""
        untold, self._untold = self._untold, {}
        return untold

    def tell_again(self, untold: Mapping[tuple[str, str], Lesson | None]) -> None:
        """Take back what could not be told, unless there is newer."""
        self._untold = {**untold, **self._untold}

    def replace(self, lessons: Mapping[tuple[str, str], Lesson]) -> None:
        """Take over what the fleet knows; what it isn't told yet stays."""
        before = self._lessons
        self._lessons = {key: lesson for key, lesson in {**lessons, **self._untold}.items() if lesson is not None}
        if before == self._lessons:
            return
        for api in {api for api, _ in (*before, *self._lessons)}:
            told = self._lessons.get((api, RATIO))
            if told != before.get((api, RATIO)):
                self._ratios[api] = told.value if told else 1.0
            self._read_again(api)

    def due(self) -> list[Lesson]:
        """Return the refusals that are to be tried once more."""
        now = self._clock()
        return [each for each in self._lessons.values() if each.is_refusal and each.probe_at <= now]

    def let_probe(self, lessons: set[tuple[str, str]]) -> None:
        """Let the next call that would go without one of these send it; what was let before is over."""
        self._probes = lessons

    def _note(self, lesson: Lesson) -> None:
        self._lessons[lesson.api, lesson.what] = self._untold[lesson.api, lesson.what] = lesson
        self._read_again(lesson.api)
        self.on_change()

    def _read_again(self, api: str) -> None:
        """Make what is asked on every call, out of the lessons."""
        own = [lesson for lesson in self._lessons.values() if lesson.api == api]
        refused = frozenset(lesson.what for lesson in own if lesson.is_refusal)
        sizes = {lesson.what: lesson for lesson in own if not lesson.is_refusal}
        window = sizes.get(WINDOW)
        is_fresh = window is not None and window.probe_at > self._clock()
        self._refused[api] = refused
        self._measures[api] = Measure(
            max(1.0, self._ratios.get(api, 1.0)), int(window.value) if window is not None and is_fresh else None
        )
