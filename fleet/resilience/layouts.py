"""What a breaker's scripts pack: its state, what a process says of its successes, and of one failure.

Times are microseconds of Redis time, ages microseconds before now.
"""

from __future__ import annotations

from typing import NamedTuple

from fleet.resilience.rules import BUCKETS, CALL_MINUTES, OTHER_SORT, SORTS
from fleet.store.layouts import Layout, Place, Places


class BreakerAt(Places):
    """Places of the state of one breaker."""

    #: When this was written: tells that the clock was set back.
    WRITTEN_AT = Place()
    #: Since when it is open (0: closed), when the next probe may go, and from then on how often one more.
    OPENED_AT = Place()
    OPENS_AT = Place()
    EVERY_US = Place()
    #: Probes that failed in a row, the opening among them.
    TRIES = Place()
    #: When it was closed last, and the calls that asked since then; of an open one, probes that have not ended.
    CLOSED_AT = Place()
    RAMPED = Place()
    #: 0, or since when the pools' gates wait to be opened after a closing.
    LIFT_AT = Place()
    #: Failures in a row, when the first of them came, the places of the first and the last grant among them, and calls
    #: between that failed too and are not counted.
    RUN = Place()
    RUN_AT = Place()
    RUN_FROM = Place()
    RUN_TO = Place()
    RUN_BESIDES = Place()
    #: The last success, and the last one of another task than that one's.
    WELL_AT = Place()
    OTHER_WELL_AT = Place()
    FAILED_AT = Place()
    #: The retry budget: what is left (below 0: promised already), as of when.
    TOKENS = Place()
    TOKENS_AT = Place()
    #: The newest bucket of the window (in bucket lengths since 1970); by bucket: failures, successes, time-outs.
    BUCKET = Place()
    FAILED = Place(BUCKETS)
    WELL = Place(BUCKETS)
    LATE = Place(BUCKETS)


class TallyAt(Places):
    """Places of the calls of the last minutes, a ring. They stand beside the state, which older workers read too."""

    #: By slot: its minute (since 1970); by slot and sort of `CALL_SORTS`: calls.
    MINUTE = Place(CALL_MINUTES, first=0)
    COUNTED = Place(CALL_MINUTES * SORTS, first=0)


class Successes(NamedTuple):
    """What a process says of its calls that were answered since it said so last.

    Args:
        calls: How many, those of the last seconds.
        place: Of the latest grant among them; 0: not known.
        age_us: Of the last of them.
        other_age_us: Of the last one of another task than that one's; -1: there is none.
        began_age_us: Since the one that was sent last was sent.
        is_probe: 1: one of them was the probe.
    """

    calls: float = 0
    place: float = 0
    age_us: float = -1
    other_age_us: float = -1
    began_age_us: float = -1
    is_probe: float = 0


class FailedCall(NamedTuple):
    """One call that failed.

    Args:
        weight: 0: it counts for nothing; 1: it opens alone; 2: only with others.
        is_late: 1: no answer came in time.
        is_probe: 1: it was the probe.
        place: Of its grant; 0: not known.
        since_us: So long ago its task began, or failed last.
        passes_at: Not before this time; 0: nobody said.
        sort: Place in `CALL_SORTS` of what became of it.
        lasted_us: So long ago it was sent; 0: not known.
    """

    weight: float = 2
    is_late: float = 0
    is_probe: float = 0
    place: float = 0
    since_us: float = 0
    passes_at: float = 0
    sort: float = OTHER_SORT
    lasted_us: float = 0


class BreakerReply(NamedTuple):
    """What a script answered: whole numbers and two texts.

    Args:
        code: Where the breaker stands: 0 closed, 1 open, 2 open and this one is the probe, 3 closed just now: go at
            `go_at`; to who doubts: 0 others are answered, 4 it may try, 5 the fleet tries again at `opens_at`.
        turned: 1: it was opened by this; 2: closed by this.
        opens_at: Time of the next probe.
        every_us: From one probe to the next.
        go_at: When this call may go, while the road fills again.
        retry_at: When the retry budget has room for this task; 0: it has.
        counts: How much the failure counts against its task (thousandths): 0 unless others did well since it failed
            or began.
        lift_at: Not 0: open the pools' gates and say so with this number.
        failed_at: The last failure; 0: none.
        late: Time-outs in the window.
        row: Failures in a row; 0 while many of the calls that were sent since the first of them are under way.
        now: Time of Redis.
        cause: Why it is open.
        told: What the other side said.
    """

    code: int
    turned: int
    opens_at: int
    every_us: int
    go_at: int
    retry_at: int
    counts: int
    lift_at: int
    failed_at: int
    late: int
    row: int
    now: int
    cause: bytes
    told: bytes


STATE, SUCCESSES, FAILURE = Layout.of(BreakerAt), Layout.of(Successes), Layout.of(FailedCall)
TALLY = Layout.of(TallyAt)
#: Codes of `BreakerReply`.
CLOSED, OPEN, PROBE, RAMPING, TRIES, UNHEARD = 0, 1, 2, 3, 4, 5
#: What `BreakerReply.turned` says.
NOT_TURNED, WAS_OPENED, WAS_CLOSED = 0, 1, 2
#: Weights of `FailedCall`.
NOTHING, ALONE, WITH_OTHERS = 0, 1, 2
