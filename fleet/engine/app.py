"""The Celery app, with the settings that EVIDENCE asks for. Building it connects to nothing.

The broker URL is worked out when Celery first reads its configuration: that is when an embedded Redis is found or
started. `worker_*` settings hold for `celery -A fleet worker`.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from celery import Celery

from fleet import config
from fleet.engine.messages import queues
from fleet.engine.redis_settings import redis_settings
from fleet.engine.telemetry import log_format
from fleet.engine.transport import leases
from fleet.errors import ConfigurationError
from fleet.models import Priority
from fleet.store.embedded import broker_url, state_url

#: Attempts to publish through a broker outage before the producer gets an error; 100 x up to 2 s ride out a restart.
PUBLISH_RETRIES = 100


def celery_settings() -> dict[str, Any]:
    """Return Celery's configuration. Finds or starts the embedded Redis when none is configured."""
    try:
        settings = config.current()
        broker, state = broker_url(settings), state_url(settings)
    except ConfigurationError as error:
        if not is_celery_command():
            raise
        give_up(error)
    return {
        **redis_settings(broker, state),
        "result_expires": settings.results.expires_s,
        "broker_transport_options": {
            **redis_settings(broker, state)["broker_transport_options"],
            "priority_steps": queues.PRIORITY_STEPS,
            "visibility_timeout": leases.LEASE_S,
            "unacked_restore_interval": leases.RENEW_EVERY_S,
            "lowest_first_every": settings.worker.lowest_first_every,
            "unacked_restore_throttle": 1,
            "max_connections": 64,
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_publish_retry_policy": {
            "max_retries": PUBLISH_RETRIES, "interval_start": 0, "interval_step": 0.2, "interval_max": 2.0,
        },
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "task_queues": queues.task_queues(settings),
        "task_default_queue": settings.worker.inbox,
        "task_default_priority": Priority.NORMAL.value,
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        "task_reject_on_worker_lost": True,
        "task_create_missing_queues": True,
        "worker_pool": "fleet.engine.process.pool:SlotPool",
        "worker_consumer": "fleet.engine.process.consumer:Consumer",
        "worker_concurrency": settings.slots_per_process,
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        "worker_disable_rate_limits": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
    }  # fmt: skip


def is_celery_command() -> bool:
    """True in a process that was started as `celery ...` or `python -m celery ...`."""
    return sys.argv[0].endswith(("celery", "celery/__main__.py"))


def give_up(error: ConfigurationError) -> NoReturn:
    """End a `celery` command as `fleet` commands end: one line, exit code 2."""
    print(f"fleet: {error}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def _build() -> Celery:
    celery = Celery("fleet", include=["fleet.engine.tasks"])
    celery.add_defaults(celery_settings)
    log_format.install()
    return celery


app = _build()

# `celery -A fleet flower`, or `python -m celery -A fleet flower`, imports this module before Flower reads its options.
if "flower" in sys.argv[1:] and "celery" in sys.argv[0].split("/")[-2:]:
    from fleet import dashboard

    dashboard.install(config.current(), config.home_path())
