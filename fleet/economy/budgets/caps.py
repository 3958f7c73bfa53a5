"""Daily caps of keys and delegations as budgets: a request or a token counts as a micro-dollar does."""

from __future__ import annotations

from typing import NamedTuple

import redis

from fleet.config import BudgetSettings
from fleet.config.scopes import CAPPED, ScopeSettings
from fleet.economy.budgets.reader import read_budgets
from fleet.economy.budgets.scopes import cap_scope

#: Micro-dollars of a dollar.
_MICROS = 1_000_000


class Cap(NamedTuple):
    """One number a day.

    Args:
        what: Its field: `requests_per_day`, `tokens_per_day` or `usd_per_day`.
        scope: Under which it is counted.
        settings: What it allows.
    """

    what: str
    scope: str
    settings: BudgetSettings


def caps_of(about: str, scope: ScopeSettings) -> list[Cap]:
    """Return the caps of a key or a delegation.

    Args:
        about: `key:PROVIDER` or `delegation:ID.ID`.
        scope: What it serves.
    """
    return [
        Cap(
            what, cap_scope(about, what),
            BudgetSettings.model_construct(usd_per_day=number if what == "usd_per_day" else number / _MICROS),
        )
        for what, _ in CAPPED if (number := getattr(scope, what)) is not None
    ]  # fmt: skip


def used_today(client: redis.Redis, about: str, scope: ScopeSettings) -> dict[str, float]:
    """Return how much of each cap of a key or a delegation is used today, by its field. Two round trips."""
    caps = {cap.scope: cap for cap in caps_of(about, scope)}
    if not caps:
        return {}
    found = read_budgets(client, {name: cap.settings for name, cap in caps.items()}, scopes=caps)
    used = {caps[one.scope].what: one.amounts[0].spent_usd for one in found}
    return {what: usd if what == "usd_per_day" else round(usd * _MICROS) for what, usd in used.items()}
