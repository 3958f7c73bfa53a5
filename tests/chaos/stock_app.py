"""The baseline: a Celery app on the stock Redis transport with its best settings, whose task counts its own runs.

The counts lie on a Redis of their own, which no attack hits.
"""

from __future__ import annotations

import os
import time

import redis
from celery import Celery

from tests.chaos.stock_side import BEGUN, ENDED, TASK_NAME, redis_settings

#: Seconds: short enough that the sweep brings back a dead worker's messages within a minute.
VISIBILITY_TIMEOUT_S = 20

settings = redis_settings(os.environ["CHAOS_BROKER"])
app = Celery("stock")
app.conf.update(
    settings,
    accept_content=["json"],
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=True,
    task_publish_retry_policy={"max_retries": 100, "interval_start": 0, "interval_step": 0.2, "interval_max": 2.0},
    worker_prefetch_multiplier=1,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options=settings["broker_transport_options"]
    | {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
    },
)
_effects = redis.Redis.from_url(os.environ["CHAOS_EFFECTS"])


@app.task(name=TASK_NAME, bind=True)  # type: ignore[untyped-decorator]
def work(self, seconds: float) -> str:  # type: ignore[no-untyped-def]
    """Wait as for a provider, and count."""
    _effects.hincrby(BEGUN, self.request.id, 1)
    time.sleep(seconds)
    _effects.hincrby(ENDED, self.request.id, 1)
    return "done"
