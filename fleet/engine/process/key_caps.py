"""The daily caps of keys and delegations, kept as budgets are: requests and tokens count as micro-dollars do.

Who has no cap asks nothing.

Weakness: what a worker that dies had reserved under a cap is given back within a minute, also where the provider had
served the call; the bill and the budgets charge it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from fleet.config import BudgetSettings, tool_of
from fleet.config.scopes import CAPPED, ScopeAsk, ScopeSettings
from fleet.economy.budgets import BudgetKeeper, Reached
from fleet.economy.budgets.caps import caps_of
from fleet.errors import NotSoon
from fleet.models import Priority
from fleet.money import PICOS_PER_MICRO
from fleet.store.client import Store
from fleet.vault.key_scopes import KeyScopes, provider_of

#: What stands for no reservation, and between two.
_NONE, _BETWEEN = "-", " "


class KeyCaps:
    """Whom keys serve, and how much a day. One per process, on its loop. Implements `fleet.workers.roads.Scopes`, and
    `fleet.workers.keys.ScopedKeys`.

    Args:
        store: State Redis.
        scopes: Of keys.
        delegated: Returns the scope of each link of the delegation that a task under way came by, by its name.
        process: Id by which this process reports.
        on_reached: Told when 80% and 100% of a cap are used.
    """

    def __init__(
        self, store: Store, scopes: KeyScopes, delegated: Callable[[str], Mapping[str, ScopeSettings]], *, process: str,
        on_reached: Callable[[Reached], None],
    ) -> None:  # fmt: skip
        self._scopes = scopes
        self._delegated = delegated
        self._caps: dict[str, BudgetSettings] = {}
        self.keeper = BudgetKeeper(store, self._caps, process=process, on_reached=on_reached)

    def concerns(self, task: str) -> bool:
        """As `KeyScopes.concerns`."""
        return self._scopes.concerns(task)

    def check(self, limit: str, ask: ScopeAsk, task: str) -> None:
        """As `KeyScopes.check`."""
        self._scopes.check(limit, ask, task)

    def tells_apart(self, provider: str) -> bool:
        """As `KeyScopes.tells_apart`."""
        return self._scopes.tells_apart(provider)

    def among(self, limits: Sequence[str], ask: ScopeAsk, task: str, *, full_too: bool = False) -> Collection[str]:
        """As `fleet.workers.keys.ScopedKeys.among`; a key whose day is known to be used up is left out."""
        served = self._scopes.among(limits, ask, task)
        if full_too or not self.keeper.is_any_full:
            return served
        waits = {limit: self.keeper.standing_in(dict(self._of_key(limit)), 0) for limit in served}
        free = [limit for limit, wait in waits.items() if wait is None]
        if free:
            return free
        full = [wait for wait in waits.values() if wait is not None]
        soonest = min(full, key=lambda wait: math.inf if wait.opens_at is None else wait.opens_at)
        raise NotSoon(replace(soonest, is_everyones=len(served) == len(limits)))

    async def reserve(self, limit: str, task: str, tokens: int, usd_micros: float, priority: Priority) -> str:
        """As `fleet.workers.roads.Scopes.reserve`; each unit that is capped takes a round trip."""
        return await self._reserved(dict(self._capping(limit, task)), tokens, usd_micros, priority)

    async def reserve_of_key(self, limit: str, tokens: int, usd_micros: float, priority: Priority) -> str:
        """As `fleet.workers.roads.Scopes.reserve_of_key`; each unit that is capped takes a round trip."""
        return await self._reserved(dict(self._of_key(limit)), tokens, usd_micros, priority)

    async def _reserved(self, capped: dict[str, str], tokens: int, usd_micros: float, priority: Priority) -> str:
        """Reserve in caps by their names, which each count one unit."""
        if not capped:
            return ""
        held: list[str] = []
        try:
            for (what, _), amount in zip(CAPPED, (1.0, float(tokens), usd_micros), strict=True):
                names = tuple(name for name, unit in capped.items() if unit == what) if amount > 0 else ()
                held.append(await self.keeper.reserve(names, amount, priority=priority) if names else _NONE)
        except BaseException:
            for one in held:
                self.keeper.settle(one, 0)
            raise
        return _BETWEEN.join(held)

    def settle(self, capped: str, usd_picos: int | None, tokens: int, *, is_sent: bool = True) -> None:
        """As `fleet.workers.roads.Scopes.settle`."""
        held = capped.split(_BETWEEN)
        for at in range(0, len(held), len(CAPPED)):
            requests, used, dollars = held[at : at + len(CAPPED)]
            self.keeper.settle(requests, PICOS_PER_MICRO if is_sent else 0)
            self.keeper.settle(used, tokens * PICOS_PER_MICRO)
            self.keeper.settle(dollars, usd_picos)

    def _capping(self, limit: str, task: str) -> Iterator[tuple[str, str]]:
        """Yield the name of each cap that counts a call whichever key it goes with, and its unit."""
        provider = provider_of(limit)
        if tool_of(provider):  # no delegation's: it goes by a key of its own
            yield from self._known(f"key:{provider}", self._scopes.scope_of(provider))
            return
        for about, scope in ((f"key:{provider}", self._scopes.scope_of(provider)), *self._of_delegation(task)):
            yield from self._known(about, scope)

    def _of_key(self, limit: str) -> Iterator[tuple[str, str]]:
        """Yield the name of each cap of one of several keys, and its unit."""
        provider, _, rest = limit.partition("/")
        if self._scopes.tells_apart(provider):
            name = f"{provider}/{rest.rpartition('/')[2]}"
            yield from self._known(f"key:{name}", self._scopes.scope_of(name))

    def _known(self, about: str, scope: ScopeSettings) -> Iterator[tuple[str, str]]:
        """Yield caps, and let the keeper know of them."""
        for cap in caps_of(about, scope):
            self._caps[cap.scope] = cap.settings
            yield cap.scope, cap.what

    def _of_delegation(self, task: str) -> Iterator[tuple[str, ScopeSettings]]:
        for name, scope in self._delegated(task).items():
            yield f"delegation:{name}", scope
