"""Whether a conversation goes round in circles: the same steps with the same results, again and again. Pure; no I/O.

A step is a turn that called tools, with what came of them. What steps are made of: `steps.py`.
"""

from __future__ import annotations

from typing import NamedTuple

#: Steps of the longest circle that is seen.
LONGEST_CIRCLE = 4
#: Circles of which one conversation is warned; the next one ends it: it only finds new ones.
MOST_WARNINGS = 3


class ToolStep(NamedTuple):
    """What one turn called, and what came of it: equal when tools, arguments and results are.

    Args:
        digest: Of all of it, whatever the order.
        tools: Names of the tools, for people.
    """

    digest: bytes
    tools: tuple[str, ...] = ()


class Circle(NamedTuple):
    """The steps that go round.

    Args:
        period: How many steps one round has.
        tools: Names of their tools.
        is_told: True when the model was warned of it, and has gone one more round since.
    """

    period: int
    tools: tuple[str, ...]
    is_told: bool


class Track(NamedTuple):
    """Where a conversation stands. A value: who goes on from it twice has two conversations.

    Args:
        last: Its latest steps, at most `LONGEST_CIRCLE`.
        same: By period, from 1 up: steps in a row, up to the last, that each equal the one a period before.
        told: The circles of which the model was warned.
        grace: Steps that it has left since the last warning, to read it.
    """

    last: tuple[ToolStep, ...] = ()
    same: tuple[int, ...] = (0,) * LONGEST_CIRCLE
    told: frozenset[frozenset[ToolStep]] = frozenset()
    grace: int = 0


def advance(track: Track, step: ToolStep, *, rounds: int) -> tuple[Track, Circle | None]:
    """Add a step; tell of a circle that has just been closed.

    A circle of period p has gone n rounds when the last (n - 1) * p steps each equal the one p before: a run with that
    period, in the words of Main and Lorentz (An O(n log n) algorithm for finding all repetitions in a string, 1984).
    Theirs finds runs of any period in a whole text; ours hears one step at a time and keeps a counter for each of the
    few periods that matter. So a step costs the same however long the conversation is.

    Weakness: one argument or result that changes each time (a counter, a clock) makes every step a new one.

    Args:
        track: Where the conversation stands.
        step: What it has done now.
        rounds: Rounds of the same that make a circle, from 2; 0: nothing does.

    Returns:
        Where it stands now; and the circle that it goes round in, when it is to be told of it, or was and goes on.
    """
    same = tuple(
        run + 1 if len(track.last) >= period and track.last[-period] == step else 0
        for period, run in enumerate(track.same, 1)
    )
    moved = Track((*track.last, step)[-LONGEST_CIRCLE:], same, track.told, max(0, track.grace - 1))
    period = next((p for p, run in enumerate(same, 1) if run >= (rounds - 1) * p), 0) if rounds > 1 else 0
    if not period:
        return moved, None
    steps = moved.last[-period:]
    tools = tuple(dict.fromkeys(name for one in steps for name in one.tools))
    circle = frozenset(steps)
    if circle in moved.told or len(moved.told) >= MOST_WARNINGS:
        return moved, None if moved.grace else Circle(period, tools, is_told=True)
    return moved._replace(told=moved.told | {circle}, grace=period), Circle(period, tools, is_told=False)
