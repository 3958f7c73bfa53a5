"""The tables of [budgets] in fleet.toml: what a scope may spend, and what a used-up budget does (docs/budgets.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, StringConstraints, model_validator

from fleet.config.sections import LimitSettings, PoolSettings, Section
from fleet.quoting import nearest, quote

#: What a budget is for. All but the last begin anew by the calendar, in UTC.
Period = Literal["hour", "day", "month", "in all"]
PERIODS: tuple[Period, ...] = get_args(Period)
#: What a used-up budget does.
WhenFull = Literal["wait", "degrade", "stop bulk"]
#: The one scope without a name, and those that have one.
FLEET, NAMED = "fleet", ("pool", "tenant", "bot")
#: Scope of one run of a file, which `fleet run --max-usd` makes.
RUN = "run"
#: Those of which one budget may stand for each by itself: `tenant:*`.
EACH = ("tenant", "bot")
#: Names of pools, tenants, bots and runs.
_NAME = r"[A-Za-z0-9_.-]{1,80}"
#: How scopes are written in fleet.toml.
SPELLINGS = ("fleet", "pool:NAME", "tenant:NAME", "tenant:*", "bot:NAME", "bot:*")


#: Of tenants, as tasks name them.
TenantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class TenantSettings(Section):
    """What is known of a tenant: its share of a queue that others wait in (docs/tenants.md). Others weigh 1."""

    weight: float = Field(
        1.0, ge=0.01, le=1000, description="Takes it gets for one of a tenant that weighs 1, within a priority."
    )


class BudgetSettings(Section):
    """What may be spent in one scope: `fleet`, `pool:NAME`, `tenant:NAME`, `bot:NAME`; `tenant:*`, `bot:*`: each."""

    usd_per_hour: float | None = Field(None, ge=0.000001, le=1e9, description="US dollars per hour (UTC).")
    usd_per_day: float | None = Field(None, ge=0.000001, le=1e9, description="US dollars per day (UTC).")
    usd_per_month: float | None = Field(None, ge=0.000001, le=1e9, description="US dollars per calendar month (UTC).")
    usd_in_all: float | None = Field(None, ge=0.000001, le=1e9, description="US dollars in all, until it is raised.")
    when_full: WhenFull = Field(
        "wait",
        description="What a used-up one does: all wait, go down the pool's ladder, or low and bulk tasks wait from 80% "
        "on.",
    )

    @model_validator(mode="after")
    def _allows_something(self) -> Self:
        if self.allowed == (None,) * len(PERIODS):
            raise ValueError(f"expected at least one of {', '.join(AMOUNTS)}, got none")
        return self

    @property
    def allowed(self) -> tuple[float | None, ...]:
        """US dollars of each of `PERIODS`; None: not limited."""
        return self.usd_per_hour, self.usd_per_day, self.usd_per_month, self.usd_in_all


#: Names of the amounts, in the order of `PERIODS`.
AMOUNTS = tuple(name for name in BudgetSettings.model_fields if name.startswith("usd_"))


def wrong_scope(scope: str, pools: Collection[str], *, live: bool = False) -> str | None:
    """Return what is wrong with how a scope is written; None: nothing.

    Args:
        scope: As in fleet.toml.
        pools: Names of the pools that there are.
        live: It is set while the fleet runs, where a run has one too.
    """
    kind, colon, name = scope.partition(":")
    spellings = (*SPELLINGS, f"{RUN}:ID") if live else SPELLINGS
    kinds = (*NAMED, RUN) if live else NAMED
    if scope == FLEET:
        return None
    if kind not in kinds or not colon or not ((name == "*" and kind in EACH) or re.fullmatch(_NAME, name)):
        near = nearest(kind, (FLEET, *kinds))
        hint = f"; {near}" if near.startswith("the nearest") else ""
        return f"expected a scope of {', '.join(spellings)}, got {quote(scope)}{hint}"
    if kind == "pool" and name not in pools:
        return f"expected a pool that there is, got {quote(name)}; {nearest(name, pools)}"
    if kind == "bot" and name != "*" and name.rpartition("-")[0] not in pools:
        return (
            f"expected a bot of a pool that there is (such as {next(iter(pools), 'research')}-001), got {quote(name)}"
        )
    return None


def pools_of(scope: str, pools: Collection[str]) -> tuple[str, ...]:
    """Return the pools whose calls a scope counts."""
    kind, _, name = scope.partition(":")
    own = name if kind == "pool" else name.rpartition("-")[0] if kind == "bot" else ""
    return (own,) if own in pools else tuple(pools)


def budgeted(
    limits: Mapping[str, LimitSettings],
    budgets: Mapping[str, BudgetSettings],
    pools: Mapping[str, PoolSettings],
    apis_of: Callable[[str], Iterable[tuple[str, str]]],
) -> Iterator[tuple[str, str]]:
    """Yield each model that has a budget, as `provider/model`, and the setting that gives it one.

    Args:
        limits: By `provider/model`.
        budgets: By scope.
        pools: By name.
        apis_of: Returns provider and model of all that a pool may call.

    Raises:
        ValueError: When a scope is not written as one.
    """
    for name, limit in limits.items():
        if limit.usd_per_day is not None:
            yield name, f'limits."{name}".usd_per_day'
    for scope in budgets:
        if wrong := wrong_scope(scope, pools):
            raise ValueError(f"budgets.{quote(scope)}: {wrong}")
        for pool in pools_of(scope, pools):
            for provider, model in apis_of(pool):
                yield f"{provider}/{model}", f'budgets."{scope}"'
    for name, own in pools.items():
        if own.max_cost_usd is not None:
            for provider, model in apis_of(name):
                yield f"{provider}/{model}", f"pools.{name}.max_cost_usd"
