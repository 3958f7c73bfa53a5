"""Fleet's settings as Celery's. The broker URL is worked out when Celery first reads its configuration.

That is when an embedded Redis is found or started. `worker_*` settings hold for `celery -A fleet worker`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from fleet import config
from fleet.engine.celery_options import celery_command, give_up, refuse_other_addresses
from fleet.engine.messages import queues
from fleet.engine.transport import leases, suspicion, unix_socket
from fleet.engine.transport.several import branches
from fleet.errors import ConfigurationError
from fleet.models import Priority
from fleet.store import keys
from fleet.store.address import Address
from fleet.store.private.branches import branch_urls
from fleet.store.private.embedded import broker_url, state_url
from fleet.store.running.sentinel import SENTINEL_TIMEOUT_S

#: Attempts to publish through a broker outage before the producer gets an error; 100 x up to 2 s ride out a restart.
PUBLISH_RETRIES = 100


def celery_settings() -> dict[str, Any]:
    """Return Celery's configuration. Finds or starts the embedded Redis when none is configured."""
    try:
        settings = config.current()
        refuse_other_addresses(settings)
        broker, state = broker_url(settings), state_url(settings)
    except ConfigurationError as error:
        if celery_command() is None:
            raise
        give_up(error)
    suspicion.ask(suspicion.Witness(state, settings.pools))
    options = {
        "priority_steps": queues.PRIORITY_STEPS,
        "visibility_timeout": leases.LEASE_S,
        "unacked_restore_interval": leases.RENEW_EVERY_S,
        "lowest_first_every": settings.worker.lowest_first_every,
        "unacked_restore_throttle": 1,
        "max_connections": 64,
    }
    branches.know({name: _branch(url, state, options) for name, url in branch_urls(settings).items()})
    return {
        **redis_settings(broker, state),
        "result_expires": settings.results.expires_s,
        "broker_transport_options": {**redis_settings(broker, state)["broker_transport_options"], **options},
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
        "worker_autoscaler": "fleet.engine.process.duties.slot_scaler:SlotScaler",
        "worker_concurrency": settings.slots_per_process,
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        "worker_disable_rate_limits": True,
        "beat_scheduler": "fleet.engine.operations.schedules.beat:Beat",
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
    }  # fmt: skip


def redis_settings(broker_url: str, state_url: str) -> dict[str, Any]:
    """Return the Celery settings that say where Redis is; `broker_transport_options` are the caller's to complete."""
    broker, state = Address.parse(broker_url), Address.parse(state_url)
    module = "sentinel" if broker.sentinels else "channel"
    return {
        # One Sentinel, the others are an option: kombu changes to its own transport when it goes on to another URL.
        "broker_url": broker.celery_url.split(";")[0],
        "broker_transport": f"fleet.engine.transport.{module}:Transport",
        "broker_transport_options": {**_sentinel_options(broker), **_sentinels(broker), **_prefix()},
        "broker_use_ssl": broker.tls_options(),
        "result_backend": state.celery_url,
        "result_backend_transport_options": {**_sentinel_options(state), **_prefix()},
        "redis_backend_use_ssl": state.tls_options(),
    }


def _branch(url: str, state_url: str, options: Mapping[str, Any]) -> branches.BranchPlace:
    """Return where a broker beside the main one is."""
    found = redis_settings(url, state_url)
    transport: Any = found["broker_transport"]
    if unix_socket.leads_to_one(found["broker_url"]):
        found["broker_url"], transport = unix_socket.as_kombu_takes_it(found["broker_url"]), unix_socket.Transport
    return branches.BranchPlace(
        url,
        {
            "hostname": found["broker_url"],
            "transport": transport,
            "transport_options": {**found["broker_transport_options"], **options},
            "ssl": found["broker_use_ssl"],
        },
    )


def _sentinel_options(where: Address) -> dict[str, Any]:
    """Name the master, and do not wait for a Sentinel that is down: another one may know."""
    if not where.sentinels:
        return {}
    patience = {"socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
    tls = {"ssl": True, **tls_options} if (tls_options := where.tls_options()) else {}
    ask = {**patience, **tls, "password": where.sentinel_password, "retry": Retry(NoBackoff(), 0)}
    return {"master_name": where.master_name, "sentinel_kwargs": ask}


def _prefix() -> dict[str, str]:
    """Say `redis.prefix` as plain clients do: Celery's backend and Flower go by it. Our transport does not need it."""
    prefix = keys.lists("")
    return {"global_keyprefix": prefix} if prefix else {}


def _sentinels(where: Address) -> dict[str, Any]:
    return {"sentinels": where.sentinels} if where.sentinels else {}
