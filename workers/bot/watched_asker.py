"""A bot whose run is watched: how often it asks, how many tools are called, whether it goes round in circles."""

from __future__ import annotations

from fleet.errors import Waits
from fleet.workers.bot.asker import Asker
from fleet.workers.watching.run import RunWatch


class WatchedAsker(Asker):
    """One bot that is watched at its work. Arguments and attributes as `Asker`."""

    _run_watch: RunWatch | None = None

    @property
    def run_watch(self) -> RunWatch:
        """The watch over this run of the task, shared by `chat()` and the requests of its SDKs."""
        if self._run_watch is None:
            self._run_watch = RunWatch(self._pool, on_fault=self._at_fault, on_warning=self._warned)
        return self._run_watch

    async def begin_anew(self, error: Waits) -> None:
        """As `Asker.begin_anew`; the next run has all of its caps again: nothing that failed for others counts."""
        self._run_watch = None
        await super().begin_anew(error)

    def _at_fault(self) -> None:
        self.bad_answers += 1

    def _warned(self, told: str) -> None:
        self.sent["warned"] = told
