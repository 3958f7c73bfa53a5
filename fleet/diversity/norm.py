"""When a window has fallen below what is normal for its class, and which bots stand out in it. Pure."""

from __future__ import annotations

from fleet.diversity.likeness import Likeness
from fleet.diversity.state import Sample

#: Score of a fallen window, as a share of the usual one.
FALLEN_SHARE = 0.7
#: Rise of the mean likeness that chance does not explain, in standard errors.
SIGMAS = 4.0
#: Rise of the nearest-neighbour share in a fallen window: a class that only gets narrower has none.
NEAR_RISE = 0.02
#: Share of answers with a near neighbour that cannot rise any further.
NEAR_FULL = 0.9
#: Score of a window that may be learnt from, as a share of the usual one.
HEALTHY_SHARE = 0.85
#: A culprit is this many times more alike to others than a bot is on average, ...
TIMES_MEAN = 4.0
#: ... than 95% of the bots are in a healthy window, ...
TIMES_CROWD = 1.2
#: ... and than the most alike bot of this window.
SHARE_OF_TOP = 0.25


def is_fallen(usual: Sample, seen: Likeness) -> bool:
    """True when a window is less diverse than it should be, by more than chance, and with more near neighbours."""
    return (
        seen.score <= FALLEN_SHARE * usual.score
        and seen.mean >= usual.mean + SIGMAS * usual.spread
        and seen.near_share >= min(usual.near_share + NEAR_RISE, NEAR_FULL)
    )


def is_healthy(usual: Sample, seen: Likeness) -> bool:
    """True when a window may become part of what is normal."""
    return seen.score >= HEALTHY_SHARE * usual.score


def culprits(usual: Sample, seen: Likeness) -> tuple[int, ...]:
    """Return the bots whose answers are far more alike to others' than is normal, in order. Fewer than 2 are none."""
    top = max(seen.bots.values(), default=0.0)
    least = max(TIMES_MEAN * usual.mean, TIMES_CROWD * usual.crowd, SHARE_OF_TOP * top)
    found = tuple(sorted(bot for bot, likeness in seen.bots.items() if likeness > least))
    return found if len(found) > 1 else ()
