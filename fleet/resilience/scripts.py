"""The breakers' Lua scripts: each is one command, put behind the lines of `breaker.lua` that all share."""

from __future__ import annotations

from typing import Any

from fleet.resilience import layouts, rules
from fleet.resilience.layouts import FAILURE, STATE, SUCCESSES, TALLY
from fleet.store.client import Script


def _numbers(module: Any, names: str) -> dict[str, float]:
    """Return numbers of a module by name."""
    return {name: vars(module)[name] for name in names.split()}


_BREAKER = Script.library(
    __file__,
    "breaker.lua",
    tables={"state": STATE, "successes": SUCCESSES, "tally": TALLY},
    constants=_numbers(
        rules,
        "BUCKETS BUCKET_US RETRY_FLOOR RETRY_SHARE BUDGET_S KEPT_MS LIFT_AGAIN_US CALL_MINUTES SORTS WELL_SORT "
        "PROBE_US FIRST_LASTING_US LONGEST_LASTING_US FAR_US RUN_SHARE UNLIKELY PRIOR_FAILED PRIOR_CALLS MOST_IN_A_ROW",
    ),
)  # fmt: skip
_TURNED = _numbers(layouts, "WAS_CLOSED")

FAILED = Script.beside(
    __file__,
    "failed.lua",
    keys="breaker",
    argv="fingerprint successes by failure who cause told",
    tables={"failure": FAILURE},
    constants={
        **_numbers(layouts, "NOTHING ALONE WITH_OTHERS WAS_OPENED WAS_CLOSED"),
        **_numbers(
            rules,
            "IN_A_ROW YOUNG_IN_A_ROW YOUNG_US SHARE_CALLS SHARE_FAILED GOOD_US WINDOW_S LONGEST_DEBT_S",
        ),
    },
    behind=_BREAKER,
)
PROBED = Script.beside(
    __file__,
    "probe.lua",
    keys="breaker",
    argv="fingerprint wants silent_us left_us",
    constants={
        **_numbers(layouts, "PROBE RAMPING TRIES UNHEARD"),
        **_numbers(rules, "RAMP_US DOUBLING_US PROBES_AT_PACE PROBE_SLOWER SLOWEST_PROBE_US"),
        **_TURNED,
    },
    behind=_BREAKER,
)
SILENT = Script.beside(
    __file__,
    "silent.lua",
    keys="breaker",
    argv="fingerprint successes by lasted_us process calls_here enough cause told",
    constants={**_numbers(layouts, "WAS_OPENED WAS_CLOSED"), **_numbers(rules, "SILENT_US QUIET_US QUIET_PROCESSES")},
    behind=_BREAKER,
)
COMMON = Script.beside(
    __file__,
    "common.lua",
    keys="breaker",
    argv="fingerprint others cause told",
    constants={
        **_numbers(layouts, "WAS_OPENED WAS_CLOSED"),
        **_numbers(rules, "ROW_IN_COMMON YOUNG_IN_A_ROW"),
    },
    behind=_BREAKER,
)
DID_WELL = Script.beside(
    __file__, "did_well.lua", keys="breaker", argv="fingerprint successes by", constants=_TURNED, behind=_BREAKER
)
CLOSE = Script.beside(__file__, "close.lua", keys="breaker", constants=_TURNED, behind=_BREAKER)
LIFTED = Script.beside(__file__, "lifted.lua", keys="breaker", argv="lift_at", behind=_BREAKER)
SHOW = Script.beside(__file__, "show.lua", keys="breaker", behind=_BREAKER)
