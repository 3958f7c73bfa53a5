"""What a worker process says in its log as it starts: what is odd about its settings, and harms no task."""

from __future__ import annotations

import logging
from collections.abc import Collection

from fleet.config import Settings
from fleet.economy.prices import PriceList, told_unpriced
from fleet.engine.messages.queues import odd_queues

logger = logging.getLogger("fleet.worker")


def warn_of(settings: Settings, queues: Collection[str]) -> None:
    """Log that the simulator answers, which models have no price, and which queues are none of ours.

    Args:
        settings: Of this process.
        queues: From which it takes.
    """
    simulated = [pool for pool in settings.pools if settings.is_simulated(pool)]
    if simulated:
        logger.warning("simulated pools=%s: the simulator answers, not a real provider", ",".join(simulated))
    for model, tier in PriceList(settings).unpriced():
        logger.warning("unpriced model=%s tier=%s: %s", model, tier, told_unpriced(model, tier))
    for line in odd_queues(queues, settings):
        logger.warning("%s", line)
