"""What each Redis server of a fleet says of itself, for `fleet doctor`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import redis
from pydantic import SecretStr

from fleet.config import Settings
from fleet.errors import FleetError
from fleet.signals.recorder import split_reports
from fleet.store import keys
from fleet.store.address import Address
from fleet.store.client import connect, masked
from fleet.store.private.embedded import broker_url, completed, state_url
from fleet.store.private.server import bundled_program
from fleet.store.private.written import Release

#: How the role of a broker beside the main one begins.
BRANCH = "broker "


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """One Redis server, as its own INFO and CONFIG describe it. None: it would not say."""

    role: str
    place: str
    embedded: bool = False
    local: bool = True
    tls: bool = False
    password: bool = True
    error: str | None = None
    release: Release | None = None
    program: str | None = None
    aof: bool | None = None
    appendfsync: str | None = None
    snapshots: bool | None = None
    writes_ok: bool = True
    maxmemory_bytes: int = 0
    used_memory_bytes: int = 0
    eviction: str | None = None
    pubsub_buffer_bytes: int | None = None
    clock_skew_s: float = 0.0
    worker_clocks: Mapping[str, float] = field(default_factory=dict)
    suspects: int = 0


def redis_servers(settings: Settings) -> tuple[RedisFacts, ...]:
    if settings.redis.state_url is None or settings.redis.state_url == settings.redis.url:
        return (_redis("redis", settings), *_branches(settings))
    return _redis("broker", settings), _redis("state", settings), *_branches(settings)


def _branches(settings: Settings) -> Iterator[RedisFacts]:
    for name, one in settings.redis.brokers.items():
        yield _redis(f"{BRANCH}{name}", settings, one.url)


def _redis(role: str, settings: Settings, branch: SecretStr | None = None) -> RedisFacts:
    configured = branch or (settings.redis.state_url if role == "state" else settings.redis.url)
    place = masked(configured.get_secret_value()) if configured else "embedded"
    try:
        if branch is not None:
            url = completed(branch.get_secret_value(), settings.redis)
        else:
            url = state_url(settings) if role == "state" else broker_url(settings)
        return redis_facts(url, role=role, embedded=configured is None, timeout_s=settings.redis.socket_timeout_s)
    except (FleetError, redis.RedisError, OSError) as error:
        return RedisFacts(role=role, place=place, error=str(error))


def redis_facts(url: str, *, role: str, embedded: bool, timeout_s: float) -> RedisFacts:
    """Ask one Redis server about itself.

    Raises:
        redis.RedisError: When it does not answer.
    """
    where = Address.parse(url)
    client = connect(url, timeout_s=timeout_s)
    try:
        info, skew_s = {_text(k): _text(v) for k, v in dict(client.info()).items()}, _skew_s(client)
        config, clocks = _config(client), _worker_clocks(client)
        suspects = int(client.hlen(keys.suspects()))
    finally:
        client.close()
    return RedisFacts(
        role=role,
        place="embedded" if embedded else masked(url),
        embedded=embedded,
        local=where.path is not None or where.host in ("localhost", "127.0.0.1", "::1"),
        tls=where.tls is not None,
        password=bool(where.password),
        release=_release(info),
        program=_program(info) if embedded else None,
        aof=bool(int(info["aof_enabled"])) if "aof_enabled" in info else None,
        appendfsync=config.get("appendfsync"),
        snapshots=bool(config["save"]) if "save" in config else None,
        writes_ok="err" not in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")),
        maxmemory_bytes=int(info.get("maxmemory", 0)),
        used_memory_bytes=int(info.get("used_memory", 0)),
        eviction=info.get("maxmemory_policy"),
        pubsub_buffer_bytes=_pubsub_buffer(config.get("client-output-buffer-limit")),
        clock_skew_s=skew_s,
        worker_clocks=clocks,
        suspects=suspects,
    )


def _release(info: Mapping[str, Any]) -> Release:
    """Return what the server says it is; Valkey names a version of Redis too, for old clients."""
    kind = "Valkey" if "valkey_version" in info else "Redis"
    return Release.parse(kind, str(info[f"{kind.lower()}_version"]))


def _program(info: Mapping[str, Any]) -> str | None:
    """Return the path of the server's program, or `bundled`."""
    program = info.get("executable")
    return "bundled" if program and Path(program) == bundled_program() else program


def _skew_s(client: redis.Redis) -> float:
    """Seconds that Redis' clock is ahead of ours, against the middle of the round trip."""
    before = time.time()
    seconds, micros = client.time()
    return float(seconds + micros / 1e6 - (before + time.time()) / 2)


def _worker_clocks(client: redis.Redis) -> dict[str, float]:
    """Return by how many seconds each living worker's clock is ahead of Redis; none on a Redis that has no reports."""
    rows = cast("dict[bytes, bytes]", client.hgetall(keys.workers()))
    return {row.name: row.clock_ahead_s for row in split_reports(rows, now_s=client.time()[0])[0]}


def _config(client: redis.Redis) -> dict[str, str]:
    """CONFIG GET of what we need; empty where the server forbids CONFIG, as hosted ones do."""
    found: dict[str, str] = {}
    for name in ("appendfsync", "save", "client-output-buffer-limit"):
        try:
            answer = dict(client.config_get(name))
        except redis.ResponseError:
            return {}
        found.update({_text(k): _text(v) for k, v in answer.items()})
    return found


def _pubsub_buffer(value: str | None) -> int | None:
    """Hard limit of `client-output-buffer-limit pubsub`, in bytes; 0 is no limit."""
    words = (value or "").split()
    return int(words[words.index("pubsub") + 1]) if "pubsub" in words else None


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
