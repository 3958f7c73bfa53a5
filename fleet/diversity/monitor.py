"""The leader's work: look at the classes that have new answers, decide, write states and remedies.

Comparing runs in a thread: the loop of the worker that leads goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleet.config import Settings
from fleet.diversity.fingerprint import Fingerprint
from fleet.diversity.ladder import LOOKS_PER_WINDOW, Happening, Look, advance, end
from fleet.diversity.state import ClassState
from fleet.diversity.window import Stored, Windows
from fleet.models import Remedy, bot_name

#: Looks at one class in one turn at most; older answers are passed over then.
MAX_LOOKS = 4
#: Share of a window that must be left to look at when answers of bots with another remedy are left out.
LEAST_SHARE = 0.75
#: Seconds without a look after which a class's remedies end: its tasks have stopped, and nobody would take them back.
IDLE_END_S = 3600.0
#: Seconds between two looks for classes whose answers have expired.
DROP_EVERY_S = 3600.0


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened to a class."""

    pool: str
    kind: str
    what: Happening


class Monitor:
    """Watches all classes. Only the leader uses one.

    Args:
        windows: Where answers, states and remedies are.
        settings: Whether bots may be treated.
        now_s: The wall clock.
    """

    def __init__(self, windows: Windows, settings: Settings, *, now_s: Callable[[], float] = time.time) -> None:
        self._windows = windows
        self._settings = settings
        self._now_s = now_s
        self._version = 0
        self._prescribed: dict[str, Remedy] | None = None
        self._dropped_at = -DROP_EVERY_S

    async def turn(self, version: int) -> list[Notice]:
        """Look at everything that is new, and return what happened.

        Args:
            version: Of the remedies in Redis: when they are not those of the last turn, they are written anew.

        Raises:
            StoreUnavailable: When Redis does not answer; the next turn goes on from what was saved.
        """
        if self._now_s() - self._dropped_at > DROP_EVERY_S:
            await self._windows.drop_silent()
            self._dropped_at = self._now_s()
        stored = await self._windows.states()
        notices: list[Notice] = []
        for (pool, kind), count in (await self._windows.classes()).items():
            before = stored.get((pool, kind), Stored(ClassState(pool=pool, kind=kind)))
            others = [one.state for at, one in stored.items() if at[0] == pool and at[1] != kind]
            after, happened = await self._class(before.state, count, others)
            if after is not before.state and await self._windows.save(before, after):
                stored[pool, kind] = Stored(after)
                notices += [Notice(pool, kind, one) for one in happened]
        await self._prescribe([one.state for one in stored.values()], version)
        return notices

    async def _class(
        self, state: ClassState, count: int, others: Sequence[ClassState]
    ) -> tuple[ClassState, list[Happening]]:
        """Bring one class up to date: the same state comes back when there is nothing new."""
        if state.seen > count:  # Redis has lost its data, and the class counts from 1 again
            state = ClassState(pool=state.pool, kind=state.kind, norms=state.norms)
        if ends := _ends(state.seen, count, self._windows.size(state.pool)):
            answers = await self._windows.answers(state.pool, state.kind)
            return await asyncio.to_thread(self._look, state, answers, count, ends, others)
        if state.remedies and self._now_s() - state.looked_at > IDLE_END_S:
            return end(state, [])
        return state, []

    def _look(
        self,
        state: ClassState,
        answers: Sequence[Fingerprint],
        count: int,
        ends: Sequence[int],
        others: Sequence[ClassState],
    ) -> tuple[ClassState, list[Happening]]:
        """Take the looks that are due, each at the answers up to one of `ends`."""
        size = self._windows.size(state.pool)
        elsewhere = {bot: remedy for other in others for bot, remedy in other.remedies.items()}
        may_treat = self._settings.diversity.treat and not elsewhere
        numbered = list(enumerate(answers, start=count - len(answers) + 1))
        happened: list[Happening] = []
        for last in ends:
            marks = {bot: remedy.mark for bot, remedy in (elsewhere | state.remedies).items()}
            window = [(number, one) for number, one in numbered if last - size < number <= last]
            current = [(number, one) for number, one in window if one.mark == marks.get(one.bot, 0)]
            if len(window) < size or len(current) < LEAST_SHARE * size:
                continue
            had_alarm = state.alarm
            state, new = advance(state, Look(current, size=size, seen=last, may_treat=may_treat))
            alarm_at = state.alarm_at if had_alarm else self._now_s()
            state = state.but(looked_at=self._now_s(), alarm_at=alarm_at if state.alarm else 0.0)
            happened += new
        return state, happened

    async def _prescribe(self, states: Sequence[ClassState], version: int) -> None:
        """Write the remedies of all classes, when they are not what stands in Redis."""
        wanted = remedies_of(states)
        if wanted != self._prescribed or version != self._version:
            self._version = await self._windows.prescribe(wanted)
            self._prescribed = wanted


def remedies_of(states: Sequence[ClassState]) -> dict[str, Remedy]:
    """Return the remedy of each bot by name; of two, the higher rung."""
    found: dict[str, Remedy] = {}
    for state in states:
        for bot, remedy in state.remedies.items():
            name = bot_name(state.pool, bot)
            if name not in found or found[name].rung < remedy.rung:
                found[name] = remedy
    return found


def _ends(seen: int, count: int, size: int) -> list[int]:
    """Return the numbers of the answers up to which to look: a quarter of a window apart, the newest few."""
    step = size // LOOKS_PER_WINDOW
    first = max(size, seen + step)
    ends = list(range(first, count + 1, step))
    return ends[-MAX_LOOKS:]
