"""The demo's tasks from submission to result: publishes them, reads Redis, hands the state to the view."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

from rich.console import Group, RenderableType

from fleet.cli.demo import view
from fleet.cli.demo.score import Score
from fleet.cli.operate.budget_rows import read_budgets
from fleet.cli.operate.stats import render_signals, take_snapshot
from fleet.cli.run.collector import Collector
from fleet.cli.stack.stack_file import Stack
from fleet.config import Settings, home_path
from fleet.dashboard import PASSWORD_FILE
from fleet.engine.messages import queues
from fleet.engine.messages.producer import submit_many
from fleet.models import BotTask, Priority
from fleet.signals import BudgetRow, Snapshot
from fleet.store import keys
from fleet.store.client import connect, store_errors
from fleet.store.private.embedded import broker_url, state_url

#: Seconds that are waited for the workers' next reports; they come every 2 s.
REPORTS_S = 4.0
#: Seconds between two looks at them.
POLL_S = 0.2


class Board:
    """One run of the demo.

    Args:
        settings: The demo's own.
        stack: What runs for it.
    """

    def __init__(self, settings: Settings, stack: Stack) -> None:
        self._settings = settings
        timeout_s = settings.redis.socket_timeout_s
        self._broker_url, self._state_url = broker_url(settings), state_url(settings)
        self._broker = connect(self._broker_url, timeout_s=timeout_s)
        self._collector = Collector(state_url=self._state_url, broker_url=self._broker_url, timeout_s=timeout_s)
        self._budgets: tuple[BudgetRow, ...] = ()
        self._flower = _flower_line(settings, stack)
        self._began = self._heard = self._ended = time.monotonic()
        self._snapshot: Snapshot | None = None
        self.score = Score({})

    @property
    def silent_s(self) -> float:
        """Seconds since the last result came."""
        return time.monotonic() - self._heard

    def submit(self, tasks: Iterable[BotTask]) -> None:
        """Publish all tasks; the clock of the run starts now."""
        kept, sent = itertools.tee(tasks)
        self._began = self._heard = time.monotonic()
        self.score = Score(dict(zip(submit_many(sent), kept, strict=True)))

    def refresh(self) -> None:
        """Read what has changed.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        results = self._collector.fetch(self.score.pending)
        self._ended = time.monotonic()
        if results:
            self._heard = self._ended
        self.score.add(results)
        self.score.backlog = self._read_backlog()
        self._budgets = read_budgets(self._settings, self._state_url)

    def frame(self, width: int) -> RenderableType:
        """Return the live view for a terminal of so many columns."""
        return view.frame(
            self.score,
            self._settings,
            elapsed_s=self._elapsed_s,
            budgets=self._budgets,
            flower=self._flower,
            width=width,
        )

    def line(self) -> str:
        """Return the progress in one line."""
        return view.plain_line(self.score, self._elapsed_s)

    def settle(self) -> None:
        """Wait until every worker has reported since the last result: reports are some seconds old."""
        ended_at = time.time()
        deadline = time.monotonic() + REPORTS_S
        while time.monotonic() < deadline:
            self._snapshot = take_snapshot(self._settings)
            if all(worker.at > ended_at for worker in self._snapshot.resources.workers):
                return
            time.sleep(POLL_S)

    def outcome(self, width: int) -> RenderableType:
        """Return the summary of the answers and the three signals."""
        answers = view.closing(self.score, elapsed_s=self._elapsed_s, width=width)
        return Group(answers, render_signals(self._snapshot or take_snapshot(self._settings)))

    def close(self) -> None:
        self._broker.close()
        self._collector.close()

    @property
    def _elapsed_s(self) -> float:
        return self._ended - self._began

    def _read_backlog(self) -> dict[tuple[str, Priority], int]:
        places = [(pool, priority) for pool in self._settings.pools for priority in Priority]
        with store_errors(self._broker_url), self._broker.pipeline(transaction=False) as pipe:
            for pool, priority in places:
                pipe.llen(queues.list_key(keys.queue(pool), priority.value))
            return dict(zip(places, pipe.execute(), strict=True))


def _flower_line(settings: Settings, stack: Stack) -> str:
    address = next((part.address for part in stack.children if part.name == "flower"), "")
    return f"Flower {address}  user {settings.flower.user}  password in {home_path() / PASSWORD_FILE}"
