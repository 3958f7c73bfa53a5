"""The state of a running demo: which task is where, how long each priority waited. Pure; fed with results."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from fleet.cli.run.summary import Summary
from fleet.models import BotTask, Priority

#: Results kept for the list of last answers (count).
LAST = 5


class Score:
    """Counts what has come back.

    Args:
        tasks: Every submitted task by its id.
    """

    def __init__(self, tasks: Mapping[str, BotTask]) -> None:
        self.tasks = tasks
        self.pending = set(tasks)
        self.results: dict[str, dict[str, Any]] = {}
        self.summary = Summary()
        self.last: deque[str] = deque(maxlen=LAST)
        #: Tasks that wait in Redis, by pool and priority.
        self.backlog: Mapping[tuple[str, Priority], int] = {}
        self._done: Counter[tuple[str, Priority]] = Counter()
        self._failed: Counter[str] = Counter()
        self._waited_ms: Counter[Priority] = Counter()

    @property
    def total(self) -> int:
        return len(self.tasks)

    @property
    def done(self) -> int:
        return len(self.results)

    def add(self, results: Mapping[str, dict[str, Any]]) -> None:
        """Count results, each once."""
        for task_id, result in results.items():
            if task_id not in self.pending:
                continue
            task = self.tasks[task_id]
            self.pending.discard(task_id)
            self.results[task_id] = result
            self.summary.add(result)
            self.last.append(task_id)
            self._done[task.pool or "", task.priority] += 1
            self._failed[task.pool or ""] += result["status"] == "failed"
            self._waited_ms[task.priority] += waited_ms(result)

    def done_in(self, pool: str) -> int:
        return sum(count for (name, _), count in self._done.items() if name == pool)

    def failed_in(self, pool: str) -> int:
        return self._failed[pool]

    def done_of(self, priority: Priority) -> int:
        return sum(count for (_, urgency), count in self._done.items() if urgency == priority)

    def submitted_of(self, priority: Priority) -> int:
        return sum(task.priority == priority for task in self.tasks.values())

    def mean_wait_s(self, priority: Priority) -> float | None:
        """Return how long finished tasks of a priority waited on average, None when there is none."""
        count = self.done_of(priority)
        return self._waited_ms[priority] / count / 1000 if count else None


def waited_ms(result: Mapping[str, Any]) -> int:
    """Return what a task waited for a slot and a bot, and then for the limiter."""
    return int(result.get("queued_ms") or 0) + int(result.get("limited_ms") or 0)
