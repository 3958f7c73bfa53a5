"""As many slots as a worker's limit of open files has room for: one is raised, the others reduced, as it is built."""

from __future__ import annotations

import logging
from typing import Any

from celery import signals

from fleet import config
from fleet.engine import core_dumps
from fleet.open_files import files_for, raise_limit, slots_that_fit

logger = logging.getLogger("fleet.pool")

_said: list[str] = []


def fit_slots(sender: Any, **_: Any) -> None:
    """Raise the limit of open files, and take the slots away that it has no room for. Before the worker is built."""
    files = raise_limit()
    fit = slots_that_fit(files)
    if fit is None:
        return
    wanted = sender.concurrency if isinstance(sender.concurrency, int) else 0
    most, least = _autoscale(sender.autoscale)
    if max(wanted, most) <= fit:
        return
    sender.concurrency = min(wanted, fit) or sender.concurrency
    if most:
        sender.autoscale = [min(most, fit), min(least, fit)]
    _said.append(
        f"slots reduced wanted={max(wanted, most)} slots={fit} open_files={files} "
        f"hint=let_ulimit_-Hn_be_{files_for(max(wanted, most)) * 2}_or_more"
    )


def _autoscale(given: Any) -> tuple[int, int]:
    """Return the most and the least slots of `--autoscale`, as Celery reads them; 0, 0: it was not given."""
    if not given:
        return 0, 0
    most, _, least = given.partition(",") if isinstance(given, str) else (given[0], "", given[1])
    return int(most), int(least or 0)


def _say(**_: Any) -> None:
    """Log what was reduced, once there is a log."""
    while _said:
        logger.warning(_said.pop())


def close(**_: Any) -> None:
    """Keep keys and prompts out of core dumps, before this process reads any."""
    core_dumps.settle(config.current().safety.core_dumps)


def install() -> None:
    """Have Celery's workers look at their files, and keep their memory to themselves."""
    signals.worker_init.connect(close, weak=False)
    signals.worker_init.connect(fit_slots, weak=False)
    signals.after_setup_logger.connect(_say, weak=False)
