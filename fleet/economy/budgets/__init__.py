"""Budgets of fleet, pools, tenants, bots and runs: reserved before a call, settled after it (docs/budgets.md).

Which budgets count a call is `scopes.py`, the scripts' side `layouts.py`, a worker's side `keeper.py`, people's side
`live.py` and `reader.py`.
"""

from fleet.economy.budgets.book import charge_batch, settlement_of
from fleet.economy.budgets.keeper import BudgetKeeper, Freed, Reached, Settlement, ended_in, settle_call
from fleet.economy.budgets.live import change_budget, check_amounts, drop_budget, reset_budget
from fleet.economy.budgets.reader import BudgetReading, PeriodReading, read_budgets
from fleet.economy.budgets.scopes import Payer, about, about_bots, abouts, capped_by, raises, scope_in, usd

__all__ = [
    "BudgetKeeper", "BudgetReading", "Freed", "Payer", "PeriodReading", "Reached", "Settlement", "about", "about_bots",
    "abouts", "capped_by", "change_budget", "charge_batch", "check_amounts", "drop_budget", "ended_in", "raises",
    "read_budgets", "reset_budget", "scope_in", "settle_call", "settlement_of", "usd",
]  # fmt: skip
