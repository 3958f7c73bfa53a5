"""What follows a call that could not leave, or failed through no fault of its task. Pure.

How the waiting is done, in the slot or parked, is `asker.py`'s; what a breaker makes of a failure comes with the error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fleet.errors import (
    MachineExhausted,
    NotSoon,
    OutOfTries,
    ProviderUnavailable,
    RateLimited,
    StoreRefused,
    StoreUnavailable,
    Waits,
)
from fleet.waits import LASTING, Wait
from fleet.workers.backoff import SPREAD_S, full_jitter, spread

#: Seconds until the next look at what nobody knows the end of.
UNKNOWN_S = 15.0
#: Shortest wait for what ought to be over by now, in seconds: clocks differ, and nothing may spin.
LEAST_S = 0.05
#: Failures (count) after which pauses grow no more: where the provider said not to try again, the first is as long.
LAST_PAUSE = len(SPREAD_S)


@dataclass(frozen=True, slots=True)
class Sequel:
    """What follows.

    Args:
        wait: What the task waits for.
        pause_s: For how long, from now on.
        counts: How much the failure counts against `max_attempts`; nothing unless others did well meanwhile.
        is_shut: The road is shut: it is no pause of this task's own.
        in_slot: It waits where it is: nothing else could be done with its slot.
    """

    wait: Wait
    pause_s: float
    counts: float = 0.0
    is_shut: bool = False
    in_slot: bool = False

    def until(self, wait: Wait, now_s: float) -> Sequel:
        """Return the same for what the whole ladder waits for."""
        return self if wait is self.wait else replace(self, wait=wait, pause_s=_pause_of(wait, now_s))


def sequel_of(error: Waits, *, failures: int, share: float, now_s: float, about: str) -> Sequel:
    """Return what follows a call that did not come to an answer.

    Args:
        error: Why.
        failures: Calls of the task that failed in a row by now, this one included.
        share: A fresh random number, 0 to 1.
        now_s: Unix time in seconds.
        about: `provider/model/key`.
    """
    ruling = error.ruling
    if isinstance(error, NotSoon) or (ruling is not None and ruling.wait is not None):
        wait = error.wait(about=about) if ruling is None or ruling.wait is None else ruling.wait
        return Sequel(wait, _pause_of(wait, now_s), counts=_counts(error), is_shut=True)
    if isinstance(error, StoreUnavailable | StoreRefused | MachineExhausted):
        pause_s = full_jitter(failures, share=share)
        return Sequel(error.wait(about=about, opens_at=now_s + pause_s), pause_s, in_slot=True)
    if isinstance(error, RateLimited):  # the limiter holds; this only keeps from spinning
        pause_s = full_jitter(failures, share=share)
    else:
        asked_s = max(getattr(error, "retry_after_s", None) or 0.0, (error.passes_at or 0.0) - now_s)
        promised_s = 0.0 if ruling is None else ruling.retry_at - now_s
        is_told_not_to = isinstance(error, ProviderUnavailable) and not error.passes
        pause_s = spread(LAST_PAUSE if is_told_not_to else failures, share=share, floor_s=max(0.0, asked_s, promised_s))
    cause = error.cause if error.cause in LASTING else "retry"
    found, at = error.wait(), now_s + pause_s
    wait = Wait(cause, at, error.about or about, found.told, is_everyones=False, advice=found.advice)
    return Sequel(wait, pause_s, counts=_counts(error))


def _pause_of(wait: Wait, now_s: float) -> float:
    return max(LEAST_S, UNKNOWN_S if wait.opens_at is None else wait.opens_at - now_s)


def _counts(error: Waits) -> float:
    """Return how much a failed call is the task's own: nothing unless it was sent, and others did well meanwhile."""
    is_sent, ruling = isinstance(error, ProviderUnavailable) and error.sent, error.ruling
    return ruling.counts if is_sent and ruling is not None else 0.0


def out_of_tries(tries: float, error: BaseException) -> OutOfTries:
    """Return how a task ends whose calls keep failing while others do well."""
    return OutOfTries(f"expected an answer within {tries:.0f} tries that others had no trouble with, got: {error}")
