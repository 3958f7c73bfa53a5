"""Finishing and earning in one step. Imported only where tasks earn something: others pay nothing for it."""

from __future__ import annotations

from fleet.earnings.ledger import ACCRUE, Accrual
from fleet.engine.outcomes.completion import FINISH, FINISH_MEMBER
from fleet.store.client import Script

__all__ = ["ACCRUE", "FINISH_EARNING", "FINISH_EARNING_MEMBER", "Accrual"]


def _earning(finish: Script) -> Script:
    return Script.beside(
        __file__,
        "finish_earning.lua",
        keys=f"{ACCRUE.keys} finish_keys*",
        argv=f"{ACCRUE.argv} finish_argv*",
        behind=Script.of("finish.lua", f"local function finish(KEYS, ARGV) {finish.text}\nend "),
        using=[ACCRUE],
    )


FINISH_EARNING, FINISH_EARNING_MEMBER = _earning(FINISH), _earning(FINISH_MEMBER)
