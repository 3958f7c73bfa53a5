"""The numbers that breakers and retry budgets go by, declared once for Lua and Python. No Redis here.

What they do is told in `breaker.lua` and `docs/resilience.md`.
"""

from __future__ import annotations

from typing import Literal

from fleet.errors import Waits
from fleet.waits import Cause

#: Causes for which a breaker opens: the provider, the key, the account, what is configured.
BREAKING: tuple[Cause, ...] = ("outage", "key", "credit", "configuration")

#: Failures in a row that open a breaker; more where failures are usual, and in a run that is younger than a second.
IN_A_ROW, MOST_IN_A_ROW, YOUNG_IN_A_ROW = 5, 20, 10
#: How old (us) a run of failures is believed with the fewest: successes are reported up to half a second late.
YOUNG_US = 1_000_000
#: A run opens when it is less likely than this at the share of failures before it; what that share is taken from before
#: anything is known: so many failures among so many calls.
UNLIKELY, PRIOR_FAILED, PRIOR_CALLS = 1e-6, 0.6, 10
#: Rows of failures under several limits are one where each is so long, and began within so many seconds: what they have
#: in common may be down. A process looks at so many others at most.
ROW_IN_COMMON, COMMON_S, COMMON_LIMITS = 2, 10.0, 8
#: Share of the calls sent since a run began that must have failed by now: the others are still under way.
RUN_SHARE = 0.9
#: The window: so many buckets of so many microseconds. It opens from so many calls on, when this share of them failed.
BUCKETS, BUCKET_US = 10, 3_000_000
WINDOW_S = BUCKETS * BUCKET_US / 1e6
SHARE_CALLS, SHARE_FAILED = 20, 0.5
#: A key or an address that was good so lately (us) takes several failures in a row: one may be about its own prompt.
GOOD_US = 5_000_000

#: From one probe to the next (us): of an outage, so that the first answer comes within 2 s of its end (it may take
#: 0.3 s), and probes stay few; of what does not pass by itself, doubling up to the longest.
PROBE_US, FIRST_LASTING_US, LONGEST_LASTING_US = 1_700_000, 60_000_000, 900_000_000
#: Probes that have not ended and may hang: so many go at that pace, then each one so many times as late as the one
#: before, at most this (us). At a time-out of two minutes all go at that pace and keep 71 slots, which are lent; at ten
#: minutes they keep 114, not 353.
PROBES_AT_PACE, PROBE_SLOWER, SLOWEST_PROBE_US = 90, 1.25, 30_000_000
#: An API of which nobody has told an answer for so long (us) may be silent: in health each process tells every ten
#: seconds.
SILENT_US = 12_000_000
#: Calls without an answer that make it silent (count), those of one process or of all that said so within the last
#: seconds (us, each says it once a second); fewer where one has fewer slots. So many processes are counted.
SILENT_CALLS = 3
QUIET_US, QUIET_PROCESSES = 3_000_000, 16
#: A time that a provider names is believed for so long at most (us): 31 days.
FAR_US = 31 * 86_400_000_000

#: After closing, calls leave at a pace that doubles so often (us), until so long after it (us).
DOUBLING_US, RAMP_US = 250_000, 5_000_000
#: Whoever closed a breaker and has not opened the pools' gates by then (us) is taken for dead: the next one does it.
LIFT_AGAIN_US = 2_000_000

#: The retry budget, as Finagle's: each success pays for this share of a retry, so many a second are free, and what is
#: not used is forgotten over so many seconds. Finagle has 0.2, 10 and 10 for each process; here it is for the fleet,
#: and a burst of 30% errors, which takes 0.43 retries a success, must not be held up.
RETRY_SHARE, RETRY_FLOOR, BUDGET_S = 0.5, 1.0, 10.0
#: Nobody is sent away for longer by the budget (s).
LONGEST_DEBT_S = 60.0

#: What becomes of calls, as they are counted minute by minute for people; `late`: no answer in time. 429s are not among
#: them, the limiter has those.
CALL_SORTS: tuple[str, ...] = ("well", "outage", "late", "key", "credit", "configuration", "other")
WELL_SORT, LATE_SORT, OTHER_SORT = 0, 2, 6
#: How many minutes of them are kept, and how many sorts there are.
CALL_MINUTES, SORTS = 6, len(CALL_SORTS)

#: Life of a breaker that nobody touches (ms): a day.
KEPT_MS = 86_400_000

#: Seconds between two reports of successes by one process: while failures are about, and in health.
REPORT_S, QUIET_REPORT_S = 0.5, 10.0
#: Failures are about for so long after the last one, in seconds.
TROUBLED_S = 60.0
#: So long a process believes that a breaker is open without asking again, in seconds: it may have been closed.
BELIEVED_S = 1.0

#: A failure that counts less than so many thousandths against its task is one of many: more than about 8% of the calls
#: fail. That is told so often, in seconds.
USUAL_COUNTS, TROUBLE_TOLD_S = 900, 1.0

#: How a failure counts: not at all, in a row, or alone.
Weight = Literal["none", "lasting", "at once"]


def weight_of(error: Waits) -> Weight:
    """Return how a failed call counts for the breaker of its limit.

    A 429 never opens one: the limiter holds the fleet. Neither does what is about this machine or this very call.
    """
    if error.cause not in BREAKING or error.parks == "never":
        return "none"
    return "at once" if error.parks == "at once" else "lasting"
