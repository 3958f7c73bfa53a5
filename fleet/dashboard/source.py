"""Where the page's figures come from: readings of Redis, each over a connection of its own, so none outlives a restart.

Blocks: call it on a thread.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fleet.config import Settings
from fleet.dashboard.search import wish_of
from fleet.engine.asking.recent import read_recent
from fleet.engine.operations.jobs.board import members_of, read_job
from fleet.engine.operations.overview import open_overview
from fleet.engine.operations.scaling.deciding import decide_now
from fleet.engine.operations.schedules.view import read_schedules
from fleet.engine.operations.task_page import TaskPage
from fleet.engine.operations.task_search import TaskSearch
from fleet.engine.outcomes.dead_letter_office import Filed
from fleet.scaling.wanted import WantedSlots
from fleet.signals.metrics import exposition
from fleet.signals.view import BotDetail, FleetView
from fleet.store.clock import CLOCK
from fleet.store.private.two_redis import two_redis

#: Members of a job that are named, of each kind (count), and asks that are listed.
MEMBERS_SHOWN, ASKS_SHOWN = 20, 20


class Source:
    """Reads the fleet; raises `FleetError` when it cannot."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def view(self) -> FleetView:
        with open_overview(self.settings) as overview:
            return overview.read()

    def bot(self, name: str) -> BotDetail:
        with open_overview(self.settings) as overview:
            return overview.bot(name)

    def task(self, task_id: str, *, is_thorough: bool = False, with_texts: bool = False) -> TaskPage:
        """Return one task, as `read_task` does."""
        with open_overview(self.settings) as overview:
            return overview.task(task_id, is_thorough=is_thorough, with_texts=with_texts)

    def dead(self, pool: str | None, reason: str | None) -> tuple[Filed, ...]:
        """Return the newest dead letters of a pool and reason, as many as a page shows."""
        with open_overview(self.settings) as overview:
            return overview.dead(pool, reason)

    def tasks(self, text: str) -> TaskSearch:
        """Return the tasks that a question of the search field means; raises `ConfigurationError` where it is none."""
        with open_overview(self.settings) as overview:
            return overview.tasks(wish_of(text, self.settings))

    def job_members(self, job_id: str) -> dict[str, list[str]]:
        """Return the task ids of a job's first members that failed, or have not ended."""
        with two_redis(self.settings) as (state, *_):
            now_s = CLOCK.now_s()
            job = read_job(state, job_id, now_s)
            return {how: members_of(state, job, how, MEMBERS_SHOWN) if job else [] for how in ("failed", "pending")}

    def asks(self) -> dict[str, Any]:
        """Return the newest asks, each with a line about it."""
        with two_redis(self.settings) as (state, *_):
            found = read_recent(state, ASKS_SHOWN)
        return {"asks": [{**one.model_dump(mode="json"), "said": one.line} for one in found]}

    def schedules(self) -> dict[str, Any]:
        """Return the schedules as they stand, and what is wrong with them."""
        with two_redis(self.settings) as (state, *_):
            now_s = CLOCK.now_s()
            board = read_schedules(state, self.settings, now_s)
        rows = [
            {**asdict(one), "paused_until": None} for one in board.schedules
        ]  # its state says it; it may be endless
        return {"at": now_s, "schedules": rows, "trouble": board.trouble}

    def wanted(self) -> WantedSlots:
        """Return how many slots and workers are wanted, decided now unless it was a moment ago, for all to go by."""
        with two_redis(self.settings) as both:
            return decide_now(both.state, both.broker, self.settings, publish=True)

    def metrics(self) -> bytes:
        """Return the fleet in Prometheus' text format."""
        return exposition(self.view())
