"""The budgets' Lua scripts: each is one command, put behind the lines of `budget.lua` that both share."""

from __future__ import annotations

from fleet.config import PERIODS
from fleet.economy.budgets import layouts
from fleet.economy.budgets.layouts import MODES, REPLY, STATE, TERMS
from fleet.models import Priority
from fleet.money import PICOS_PER_MICRO
from fleet.store.client import Script

#: Share of a budget from which low and bulk tasks wait where it stops bulk; at the same share it is told of.
FULL_SHARE = 0.8
#: Seconds after which it is tried again where only calls in flight have reserved what is left; tasks of a tenant or run
#: take longer (`keeper.py`).
RETURNS_S = 1

_BUDGET = Script.library(
    __file__,
    "budget.lua",
    tables={"state": STATE, "terms": TERMS},
    constants={"PERIODS": len(PERIODS), "LIFE_S": layouts.LIFE_S, "PICOS_PER_MICRO": PICOS_PER_MICRO},
)
RESERVE = Script.beside(
    __file__,
    "reserve.lua",
    keys="live reserved_by of_tenants of_bots of_runs spent*",
    argv="id process micros_asked priority is_learnt scopes*",
    tables={"reply": REPLY},
    constants={
        "FULL_SHARE": FULL_SHARE,
        "RETURNS_S": RETURNS_S,
        "WAITED_S": layouts.WAITED_S,
        "STAND_STEP_S": layouts.STAND_STEP_S,
        "STOPS_BULK": MODES.index("stop bulk"),
        "LOWEST_ON_RESERVE": Priority.NORMAL.value,
        "RESERVED_CODE": layouts.RESERVED,
        "FULL": layouts.FULL,
        "NONE": layouts.NONE,
    },
    behind=_BUDGET,
)
SETTLE = Script.beside(
    __file__,
    "settle.lua",
    keys="reserved_by lapsed spent*",
    argv="count names*",
    constants={"LAPSED_S": layouts.LAPSED_S},
    behind=_BUDGET,
)
FORGET = Script.beside(__file__, "forget.lua", keys="spent", behind=_BUDGET)
FORGET_RUNS = Script.beside(__file__, "forget_runs.lua", keys="live shares spent*", argv="least_s names*")
