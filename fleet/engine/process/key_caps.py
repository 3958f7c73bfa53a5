"""The daily caps of keys and delegations, kept as budgets are: requests and tokens count as micro-dollars do.

Who has no cap asks nothing.

Weakness: what a worker that dies had reserved under a cap is given back within a minute, also where the provider had
served the call; the bill and the budgets charge it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from fleet.config import TOOLS, BudgetSettings
from fleet.config.scopes import CAPPED, ScopeAsk, ScopeSettings
from fleet.economy.budgets import BudgetKeeper, Reached
from fleet.economy.budgets.caps import caps_of
from fleet.models import Priority
from fleet.money import PICOS_PER_MICRO
from fleet.store.client import Store
from fleet.vault.key_scopes import KeyScopes

#: What stands for no reservation, and between two.
_NONE, _BETWEEN = "-", " "


class KeyCaps:
    """Whom keys serve, and how much a day. One per process, on its loop. Implements `fleet.workers.roads.Scopes`.

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

    async def reserve(self, limit: str, task: str, tokens: int, usd_micros: float, priority: Priority) -> str:
        """As `fleet.workers.roads.Scopes.reserve`; each unit that is capped takes a round trip."""
        capped = dict(self._capping(limit, task))
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
        requests, used, dollars = capped.split(_BETWEEN)
        self.keeper.settle(requests, PICOS_PER_MICRO if is_sent else 0)
        self.keeper.settle(used, tokens * PICOS_PER_MICRO)
        self.keeper.settle(dollars, usd_picos)

    def _capping(self, limit: str, task: str) -> Iterator[tuple[str, str]]:
        """Yield the name of each cap that counts a call, and its unit; let the keeper know of it."""
        provider = limit.partition("/")[0]
        if provider == TOOLS:  # it goes by a key of its own
            return
        of_key = self._scopes.scope_of(provider)
        for about, scope in ((f"key:{provider}", of_key), *self._of_delegation(task)):
            for cap in caps_of(about, scope):
                self._caps[cap.scope] = cap.settings
                yield cap.scope, cap.what

    def _of_delegation(self, task: str) -> Iterator[tuple[str, ScopeSettings]]:
        for name, scope in self._delegated(task).items():
            yield f"delegation:{name}", scope
