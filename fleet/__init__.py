"""Fleet: 100 to 10,000 LLM bots on Celery and Redis.

Names are handed out lazily, so that `import fleet` and `from fleet.limiter import Limiter` build no Celery app.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleet.door import app
    from fleet.engine.asking.ask import ask_fleet, ask_fleet_async
    from fleet.engine.asking.grading import agrade, grade
    from fleet.engine.jobs.job import asubmit_job, find_job, open_job, submit_job
    from fleet.engine.messages.desk import asubmit_many
    from fleet.engine.messages.producer import submit_many
    from fleet.engine.tasks import submit_task
    from fleet.models import BotResult, BotTask

__all__ = [
    "BotResult", "BotTask", "agrade", "app", "ask_fleet", "ask_fleet_async", "asubmit_job", "asubmit_many",
    "find_job", "grade", "open_job", "submit_job", "submit_many", "submit_task",
]  # fmt: skip

_HOMES = {
    "app": "fleet.door",
    "submit_task": "fleet.engine.tasks",
    "ask_fleet": "fleet.engine.asking.ask",
    "ask_fleet_async": "fleet.engine.asking.ask",
    **dict.fromkeys(("agrade", "grade"), "fleet.engine.asking.grading"),
    "asubmit_many": "fleet.engine.messages.desk",
    **dict.fromkeys(("asubmit_job", "find_job", "open_job", "submit_job"), "fleet.engine.jobs.job"),
    "submit_many": "fleet.engine.messages.producer",
    "BotTask": "fleet.models",
    "BotResult": "fleet.models",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fleet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
