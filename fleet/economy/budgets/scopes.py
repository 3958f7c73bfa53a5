"""Which budgets count a call, and what is told when one of them has no room. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fleet.config import PERIODS, BudgetSettings, Period
from fleet.config.budgets import EACH, FLEET, RUN
from fleet.economy.budgets.layouts import MODES, NOTHING, BudgetReply, terms_text
from fleet.waits import Wait

#: How periods are told of.
TOLD: Mapping[Period, str] = {"hour": "an hour", "day": "a day", "month": "a month", "in all": "in all"}
#: How the amount of a period is set: in fleet.toml, and with `--` and dashes by `fleet budgets set`.
OPTIONS: Mapping[Period, str] = {
    "hour": "usd_per_hour", "day": "usd_per_day", "month": "usd_per_month", "in all": "usd_in_all",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Payer:
    """For whom a call is made: what may have a budget.

    Args:
        pool: Its pool.
        bot: Its bot.
        tenant: Its tenant; empty: none.
        run: Its run of a file; empty: none that has a budget.
    """

    pool: str
    bot: str = ""
    tenant: str = ""
    run: str = ""

    @property
    def scopes(self) -> tuple[str, ...]:
        """All scopes that it belongs to, whether they have a budget or not."""
        named = (("pool", self.pool), ("tenant", self.tenant), ("bot", self.bot), (RUN, self.run))
        return (FLEET, *(f"{kind}:{name}" for kind, name in named if name))


def each_of(scope: str) -> str:
    """Return the scope that stands for each of its kind, `tenant:*`; empty where there is none."""
    kind = scope.partition(":")[0]
    return f"{kind}:*" if kind in (*EACH, RUN) else ""


def counting(payer: Payer, known: Collection[str]) -> tuple[str, ...]:
    """Return the scopes that may count a call: those with a budget, and its run.

    Args:
        payer: For whom it is made.
        known: Scopes that have a budget.
    """
    if not known and not payer.run:
        return ()
    return tuple(
        scope for scope in payer.scopes
        if scope in known or each_of(scope) in known or scope.startswith(f"{RUN}:")
    )  # fmt: skip


def asked_of(scopes: Iterable[str], configured: Mapping[str, BudgetSettings]) -> list[str]:
    """Return what `reserve.lua` is told of each scope; a run whose budget is gone (`runs.py`) may spend nothing."""
    told: list[str] = []
    for scope in scopes:
        each = each_of(scope)
        of_each = NOTHING if each == f"{RUN}:*" else terms_text(configured.get(each))
        told += (scope, each, terms_text(configured.get(scope)), of_each)
    return told


def about(scope: str, period: Period) -> str:
    """Return what is told of a budget: `budget pool:research, a day`."""
    return f"budget {scope}, {TOLD[period]}"


def abouts(scope: str) -> tuple[str, ...]:
    """Return what may be told of the budgets of a scope, one for each period."""
    return tuple(about(scope, period) for period in PERIODS)


def about_bots(pool: str) -> str:
    """Return what is told of a pool that waits because its bots have spent their budgets."""
    return f"budget bot:*, pool {pool}"


def scope_in(told: str) -> str:
    """Return the scope of which `about` tells; empty: it tells of something else."""
    head, _, rest = told.partition(" ")
    return rest.rpartition(", ")[0] if head == "budget" else ""


def wait_of(reply: BudgetReply, scopes: Iterable[str], usd_micros: float) -> Wait:
    """Return why a call waits.

    Args:
        reply: Of `reserve.lua`, which had no room.
        scopes: Those that were asked, in order.
        usd_micros: What the call is taken to cost.
    """
    scope, period = tuple(scopes)[reply.scope - 1], PERIODS[reply.period - 1]
    is_shared = scope.partition(":")[0] in (FLEET, "pool", "key")
    return Wait(
        "money" if reply.opens_s else "budget",
        opens_at=float(reply.opens_s) if reply.opens_s else None,
        about=about(scope, period),
        told=_told(reply, scope, usd_micros),
        is_everyones=is_shared and not reply.is_own,
        lowest=reply.lowest,
        degrades=MODES[reply.mode] == "degrade",
    )


def _told(reply: BudgetReply, scope: str, usd_micros: float) -> str:
    used, allowed = amount(scope, reply.used), amount(scope, reply.allowed)
    left = reply.allowed - reply.used - reply.reserved
    if not reply.allowed:
        return "it was left unfinished for weeks, and its budget is gone"
    if reply.is_own:
        call, rest = amount(scope, usd_micros), amount(scope, max(0, left))
        return f"this call, of about {call}, is dearer than what is left: {rest} of {allowed}"
    if reply.returns:
        return f"{used} of {allowed} spent, and calls in flight have reserved the rest"
    share = "80% of it are used, and the rest is kept for more urgent tasks; " if reply.lowest >= 0 else ""
    next_one = f"; the next call is taken to cost {amount(scope, usd_micros)}" if reply.used < reply.allowed else ""
    return f"{share}{used} of {allowed} spent{next_one}"


def cap_scope(about: str, what: str) -> str:
    """Return the scope under which a daily cap of a key or a delegation is counted.

    Args:
        about: `key:PROVIDER` or `delegation:ID.ID`.
        what: `requests_per_day`, `tokens_per_day` or `usd_per_day`.
    """
    unit = what.removesuffix("_per_day")
    return about if unit == "usd" else f"{about}:{unit}"


def capped_by(scope: str) -> str | None:
    """Return whose daily cap a scope is, as `fleet keys scope` names keys; empty: a delegation's; None: a budget."""
    kind, _, rest = scope.partition(":")
    if kind == "delegation":
        return ""
    return rest.partition(":")[0] if kind == "key" else None


def amount(scope: str, micros: float) -> str:
    """Return an amount in the unit that a scope counts, for people."""
    unit = scope.rpartition(":")[2] if scope.startswith(("key:", "delegation:")) else ""
    return f"{micros:,.0f} {unit}" if unit in ("requests", "tokens") else usd(micros)


def raises(scope: str) -> str:
    """Return what raises the budget in all of a scope."""
    if scope.startswith(f"{RUN}:"):
        return "the same `fleet run` with a higher --max-usd"
    return f"`fleet budgets set {scope} --usd-in-all USD`"


def usd(micros: float) -> str:
    """Return micro-dollars for people: cents, and more digits where cents say nothing."""
    dollars = micros / 1_000_000
    return f"${dollars:,.6f}" if 0 < dollars < 0.01 else f"${dollars:,.4f}" if dollars < 1 else f"${dollars:,.2f}"
