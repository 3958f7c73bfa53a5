"""The limiter's Lua scripts: each is one command, put behind the lines of `limit.lua` that all share."""

from __future__ import annotations

from fleet.limiter import limits
from fleet.limiter.layouts import ASKED, BESIDE, HEARD, LEARNT, REPLY, SEEN, SETTLED, STATE, TERMS
from fleet.store.client import Script
from fleet.store.limit_keys import LimitKeys


def _numbers(names: str) -> dict[str, float]:
    """Return numbers of `limits.py` by name."""
    return {name: vars(limits)[name] for name in names.split()}


_LIMIT = Script.library(
    __file__,
    "limit.lua",
    tables={"state": STATE, "beside": BESIDE, "terms old new before wanted": TERMS, "learnt": LEARNT},
    constants=_numbers(
        "MINUTE_US NEWEST_CALL IN_FLIGHT_GROWTH IN_FLIGHT_STEP_US IN_FLIGHT_FADES CALM_BURST_US CALM_GROWTH RESERVED_US"
    ),
)
_LEARNING = Script.library(__file__, "learning.lua", tables={"seen": SEEN}, constants=_numbers("DAY_US"), behind=_LIMIT)

_STANDING = Script.library(
    __file__,
    "standing.lua",
    constants=_numbers(
        "DAY_US LONG_US SHORT_US URGENT_MEMORY_MS GRACE_US FIRST DEAD_STEPS SWEEP_US LOG_STEPS LEAVE "
        "MOST_SHARE FIRST_FLIGHT_US CLASS BY_REQUESTS BY_MONEY FULL_SHARE LOWEST_ON_RESERVE"
    ),
    behind=_LIMIT,
)
ACQUIRE = Script.beside(
    __file__,
    "acquire.lua",
    keys=" ".join(LimitKeys._fields),
    argv="terms calls*",
    tables={"asked": ASKED, "reply": REPLY},
    constants={
        "KEYS_OF_ONE": len(LimitKeys._fields),
        **_numbers(
            "NOTED_EVERY_MS FAR_SHARE EARLY_SHARE EARLY_SPREAD MIN_SLEEP_US MAX_SLEEP_US SLEEP_SPREAD HOPELESS "
            "MOST_CREDIT NEWEST_GRANT NOW_AND_THEN BY_LIMIT BY_HOLD RETURNS_US EARLY_PATIENCE NOTED_DEVIATIONS "
            "NOTED_US"
        ),
    },
    behind=_STANDING,
)
SETTLE = Script.beside(
    __file__,
    "settle.lua",
    keys="state facts log leases open",
    argv="terms calls*",
    tables={"settled": SETTLED},
    constants=_numbers("QUICK NEWEST_FLIGHT NEWEST_USE FIRST_DEVIATION MOST_KINDS"),
    behind=_LIMIT,
)
PENALISE = Script.beside(
    __file__, "penalise.lua", keys="state facts", argv="retry_after_us held_by terms", behind=_LEARNING
)
CALM = Script.beside(__file__, "calm.lua", keys="state facts", behind=_LIMIT)
OBSERVE = Script.beside(
    __file__, "observe.lua", keys="state facts", argv="heard terms", tables={"heard": HEARD}, behind=_LEARNING
)
NARROW = Script.beside(__file__, "narrow.lua", keys="state facts leases", argv="most flying terms", behind=_LEARNING)
SET = Script.beside(__file__, "set.lua", keys="state facts log leases", argv="set terms", behind=_LIMIT)
FORGET = Script.beside(__file__, "forget.lua", keys="queue due leases", argv="ticket", behind=_LIMIT)
SHOW = Script.beside(__file__, "show.lua", keys="state facts queue leases", behind=_LIMIT)
