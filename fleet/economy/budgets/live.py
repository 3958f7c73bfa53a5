"""Budgets that are set while the fleet runs. `reserve.lua` reads them, so they hold for all workers at once."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from fleet.config import BudgetSettings, WhenFull
from fleet.config.budgets import AMOUNTS, RUN
from fleet.economy.budgets.keeper import FILE, VERSION
from fleet.economy.budgets.layouts import LIFE_S, STATE, settings_in, terms_text
from fleet.economy.budgets.scopes import each_of
from fleet.economy.budgets.scripts import FORGET
from fleet.errors import ConfigurationError
from fleet.quoting import quote
from fleet.store import bill_keys
from fleet.store.client import run_script

#: Most US dollars that an amount may be.
MOST_USD = 1e9
#: What is set for a scope whose budget in fleet.toml is not to hold: nothing is limited.
_UNLIMITED = " ".join(["-1"] * len(AMOUNTS) + ["0"])


def change_budget(
    client: redis.Redis,
    scope: str,
    amounts: Mapping[str, float],
    *,
    configured: Mapping[str, BudgetSettings],
    when_full: WhenFull | None = None,
) -> BudgetSettings | None:
    """Set amounts of a scope for the whole fleet, at once; what is not named stays as it holds now, also what each has.

    Args:
        client: State Redis.
        scope: Whose.
        amounts: US dollars by name in `AMOUNTS`; 0: not limited.
        configured: Budgets in fleet.toml, by scope.
        when_full: What it does when it is used up; None: as before.

    Returns:
        The budget that holds now; None: nothing is limited any more.

    Raises:
        ConfigurationError: When an amount is not 0, and not between a micro-dollar and a billion; when something is to
            be done once it is used up, and nothing is limited.
    """
    check_amounts(amounts)
    before = in_force(scope, configured, read_live(client))
    now: dict[str, object] = {} if before is None else before[0].model_dump()
    now |= {name: usd or None for name, usd in amounts.items()}
    if when_full is not None:
        now["when_full"] = when_full
    found = BudgetSettings.model_validate(now) if any(now.get(name) for name in AMOUNTS) else None
    if found is None and when_full is not None:
        raise ConfigurationError(
            f"when_full: expected a budget that can be used up, got none for {quote(scope)}; name an amount, such as "
            "--usd-per-day 5"
        )
    _write(client, {scope: terms_text(found) or _UNLIMITED})
    return found


def check_amounts(amounts: Mapping[str, float]) -> None:
    """Refuse an amount that no budget can have.

    Raises:
        ConfigurationError: Naming it.
    """
    for name, usd in amounts.items():
        if usd and not 0.000001 <= usd <= MOST_USD:
            raise ConfigurationError(
                f"{name}: expected 0, for not limited, or $0.000001 to ${MOST_USD:,.0f}, got {quote(usd)}"
            )


def drop_budget(client: redis.Redis, scope: str) -> bool:
    """Let what fleet.toml says of a scope hold again; False when it did."""
    was_set = bool(client.hdel(bill_keys.budgets_live(), scope))
    client.zrem(
        bill_keys.budget_shares(scope.partition(":")[0]), scope
    )  # its next call puts it back where it still has one
    _write(client, {})
    return was_set


def reset_budget(client: redis.Redis, scope: str) -> int:
    """Forget what a scope has spent, in all periods; return the micro-dollars that it had spent in all."""
    had = int(run_script(client, FORGET, *FORGET.call(spent=bill_keys.spent(scope))))
    _write(client, {})
    return had


def read_live(client: redis.Redis) -> dict[str, BudgetSettings | None]:
    """Return what is set while the fleet runs, by scope; None: what fleet.toml limits is not limited."""
    rows: Mapping[bytes, bytes] = client.hgetall(bill_keys.budgets_live())  # type: ignore[assignment]
    return live_of(rows)


def live_of(rows: Mapping[bytes, bytes]) -> dict[str, BudgetSettings | None]:
    """Return the same from the fields of the hash; what cannot be read is skipped."""
    found: dict[str, BudgetSettings | None] = {}
    for field, text in rows.items():
        scope = field.decode("utf-8", "replace")
        try:
            if scope not in (VERSION, FILE):
                found[scope] = None if text.decode() == _UNLIMITED else settings_in(text)
        except ValueError:  # of a release that writes it otherwise
            continue
    return found


def in_force(
    scope: str, configured: Mapping[str, BudgetSettings], live: Mapping[str, BudgetSettings | None]
) -> tuple[BudgetSettings, bool] | None:
    """Return the budget of a scope, and whether it was set while the fleet runs; None: it has none."""
    each = each_of(scope)
    for name in dict.fromkeys((scope, each)):
        if name in live:
            settings = live[name]
            return None if settings is None else (settings, True)
        if name in configured:
            return configured[name], False
    return None


def _write(client: redis.Redis, live: Mapping[str, str]) -> None:
    """Set what is live, and let every process know that something has changed."""
    with client.pipeline(transaction=True) as pipe:
        for scope, text in live.items():
            pipe.hset(bill_keys.budgets_live(), scope, text)
            if scope.startswith(f"{RUN}:"):  # its life says when the run was last resumed, or used (`runs.py`)
                pipe.set(bill_keys.spent(scope), STATE.pack(STATE.unpack(b"")[1:]), ex=LIFE_S, nx=True)
                pipe.expire(bill_keys.spent(scope), LIFE_S)
        pipe.hincrby(bill_keys.budgets_live(), VERSION, 1)
        pipe.expire(bill_keys.budgets_live(), LIFE_S)
        pipe.execute()
