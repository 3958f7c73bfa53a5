"""What one run of a file may spend (`fleet run --max-usd`), and has spent. The budget itself lives in Redis."""

from __future__ import annotations

from typing import Any

from fleet.config import Settings
from fleet.economy.budgets import BudgetReading, abouts, drop_budget, read_budgets, usd
from fleet.engine.operations.budgets import let_go, run_scope, set_budget
from fleet.store.client import connect, store_errors
from fleet.store.embedded import broker_url, state_url


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

    def fill(self) -> None:
        """Let the run spend so much; what has waited for more goes on.

        Raises:
            ConfigurationError: When a model has no price: nobody could tell what it spends.
            StoreUnavailable: When Redis does not answer.
        """
        urls, timeout_s = (state_url(self._settings), broker_url(self._settings)), self._settings.redis.socket_timeout_s
        with store_errors(urls[0]), connect(urls[0], timeout_s=timeout_s) as state:
            before = self._read(state)
            set_budget(state, self._scope, {"usd_in_all": self.max_usd}, settings=self._settings)
        if before is not None and before.settings.usd_in_all != self.max_usd:
            with store_errors(urls[1]), connect(urls[1], timeout_s=timeout_s) as broker:
                let_go(broker, self._settings, self._scope)

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
