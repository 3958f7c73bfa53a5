"""Fleet's Redis URLs as Celery's settings: broker, result backend, TLS, and the Sentinel transport."""

from __future__ import annotations

from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from fleet.store.address import Address
from fleet.store.sentinel import SENTINEL_TIMEOUT_S


def redis_settings(broker_url: str, state_url: str) -> dict[str, Any]:
    """Return the Celery settings that say where Redis is; `broker_transport_options` are the caller's to complete."""
    broker, state = Address.parse(broker_url), Address.parse(state_url)
    module = "sentinel" if broker.sentinels else "channel"
    return {
        # One Sentinel, the others are an option: kombu changes to its own transport when it goes on to another URL.
        "broker_url": broker.celery_url.split(";")[0],
        "broker_transport": f"fleet.engine.transport.{module}:Transport",
        "broker_transport_options": {**_sentinel_options(broker), **_sentinels(broker)},
        "broker_use_ssl": broker.tls_options(),
        "result_backend": state.celery_url,
        "result_backend_transport_options": _sentinel_options(state),
        "redis_backend_use_ssl": state.tls_options(),
    }


def _sentinel_options(where: Address) -> dict[str, Any]:
    """Name the master, and do not wait for a Sentinel that is down: another one may know."""
    if not where.sentinels:
        return {}
    patience = {"socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
    tls = {"ssl": True, **tls_options} if (tls_options := where.tls_options()) else {}
    ask = {**patience, **tls, "password": where.sentinel_password, "retry": Retry(NoBackoff(), 0)}
    return {"master_name": where.master_name, "sentinel_kwargs": ask}


def _sentinels(where: Address) -> dict[str, Any]:
    return {"sentinels": where.sentinels} if where.sentinels else {}
