"""What one run of a file may spend (`fleet run --max-usd`), and has spent. The budget itself lives in Redis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fleet.config import Settings
from fleet.economy.budgets import BudgetReading, abouts, drop_budget, read_budgets, usd
from fleet.engine.operations.budgets import let_go, run_scope, set_budget, unpriced_in
from fleet.errors import ConfigurationError, InvalidTask
from fleet.store import bill_keys
from fleet.store.client import connect, store_errors
from fleet.store.private.embedded import state_url
from fleet.store.private.two_redis import two_redis


class RunBudget:
    """The budget of one run.

    Args:
        settings: Where Redis is.
        run_id: Of the run.
        max_usd: What it may spend in all, over all of its resumes.
    """

    def __init__(self, settings: Settings, run_id: str, max_usd: float) -> None:
        self._settings = settings
        self.run_id = run_id
        self.max_usd = max_usd
        self.spent_usd = 0.0
        self._scope = run_scope(run_id)
        #: Pools whose spending nobody could tell, and what is to be done about it.
        self._unpriced = unpriced_in(settings.pools, settings, "--max-usd")

    def check(self, pools: Iterable[str]) -> None:
        """Refuse a task whose pools may call a model without a price.

        Raises:
            InvalidTask: Naming the model.
        """
        for pool in pools if self._unpriced else ():
            if pool in self._unpriced:
                raise InvalidTask(self._unpriced[pool])

    def fill(self, pools: Iterable[str]) -> None:
        """Let the run spend so much; what has waited for more goes on.

        Args:
            pools: To which its tasks go whose lines do not say otherwise.

        Raises:
            ConfigurationError: When a model of these pools has no price: nobody could tell what it spends.
            StoreUnavailable: When Redis does not answer.
        """
        try:
            self.check(pools)
        except InvalidTask as error:
            raise ConfigurationError(f"{error}; or name a --pool whose models have prices") from None
        url, timeout_s = state_url(self._settings), self._settings.redis.socket_timeout_s
        with store_errors(url), connect(url, timeout_s=timeout_s) as state:
            had_one = bool(state.exists(bill_keys.spent(self._scope)))
            set_budget(state, self._scope, {"usd_in_all": self.max_usd}, settings=self._settings)
        if had_one:  # also at the same amount: whoever set that may have been stopped before it let go
            with two_redis(self._settings) as both:
                let_go(both.broker, self._settings, self._scope)

    def close(self, *, is_done: bool) -> None:
        """Read what was spent; a run that is done needs its budget no longer.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        url = state_url(self._settings)
        with store_errors(url), connect(url, timeout_s=self._settings.redis.socket_timeout_s) as state:
            found = self._read(state)
            self.spent_usd = 0.0 if found is None else found.amounts[0].spent_usd
            if is_done:
                drop_budget(state, self._scope)

    def _read(self, state: Any) -> BudgetReading | None:
        found = read_budgets(state, {}, scopes=[self._scope])
        return found[0] if found and found[0].amounts else None

    def told(self) -> str:
        """Return what was spent of it."""
        return f"{usd(self.spent_usd * 1e6)} of {usd(self.max_usd * 1e6)} spent by this run (--max-usd)"

    def is_about(self, about: str) -> bool:
        """True when something waits for this budget."""
        return about in abouts(self._scope)
