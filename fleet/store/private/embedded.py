"""The embedded Redis: found or started under the state folder when no URL is configured; and which URL is in force.

A configured URL is always obeyed: it answers or it is an error, but it is never replaced. The server keeps an
append-only file, fsynced every second: a power cut loses at most that second. How it is started: `service.py`; which
server it is: `server.py`.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import redis
from pydantic import SecretStr

from fleet.config import BROKER_VARIABLE, RESULT_VARIABLE, RedisSettings, Settings, home_path
from fleet.errors import ConfigurationError, FleetError
from fleet.store.address import SENTINEL
from fleet.store.client import connect, masked, store_errors
from fleet.store.home import write_private
from fleet.store.private.celery_addresses import (
    check_broker_variables,
    check_result_variable,
    is_one_place,
    origin_of,
)
from fleet.store.private.server import Rule, choose_server
from fleet.store.private.service import LOOPBACK, Launch, LocalService, ServiceState
from fleet.store.private.written import read_written

__all__ = ["broker_url", "ensure_redis", "redis_lives", "revive_redis", "state_url", "stop_redis"]

#: Seconds until the embedded Redis must have loaded its data and answered.
START_TIMEOUT_S = 30.0
#: Seconds for one PING of the embedded Redis: it is on this machine, but the machine may be busy.
PROBE_TIMEOUT_S = 2.0

_CONFIG = """\
bind {address}
port {port}
tcp-backlog 128
requirepass {password}
dir "{folder}"
save ""
appendonly yes
appendfsync everysec
aof-load-truncated yes
maxmemory-policy noeviction
# What a worker's slots and a pool's bots are kept in has about 100 members. As one packed string, which is how Redis
# keeps up to 128, it is searched and shifted from end to end with each command. These names are known since Redis 6.
hash-max-ziplist-entries 32
zset-max-ziplist-entries 32
"""


def broker_url(settings: Settings) -> str:
    """Return the URL of the broker's Redis: the configured one if it answers, else the embedded one.

    Raises:
        ConfigurationError: When the configured one does not answer, or the embedded one does not start.
    """
    check_broker_variables(settings)
    if settings.redis.url is None:
        return ensure_redis(home_path(), settings.redis.server, timeout_s=START_TIMEOUT_S)
    return _answering(origin_of(BROKER_VARIABLE, settings), settings.redis.url, settings.redis)


def state_url(settings: Settings) -> str:
    """Return the URL of the Redis that keeps results, bots and limits; raises like `broker_url`."""
    check_result_variable(settings)
    if settings.redis.state_url is None:
        return broker_url(settings)
    if is_one_place(settings):
        return broker_url(settings)
    return _answering(origin_of(RESULT_VARIABLE, settings), settings.redis.state_url, settings.redis)


def ensure_redis(home: Path, server: Rule | Path, timeout_s: float = START_TIMEOUT_S) -> str:
    """Find or start the embedded Redis of `home` and return its URL.

    Args:
        home: The state folder.
        server: `redis.server`: which server to start. One that runs already stays.
        timeout_s: Seconds until it must answer.

    Raises:
        ConfigurationError: When no server on this machine fits, or it does not start.
    """
    return _url(_service(home, server).ensure(timeout_s=timeout_s))


def revive_redis(home: Path, server: Rule | Path, timeout_s: float = START_TIMEOUT_S) -> str | None:
    """Start the embedded Redis of `home` again if it died, and return its URL. Arguments as for `ensure_redis`.

    Returns:
        None when it runs, or was stopped on purpose (`fleet down`), or its folder is gone: then whoever needs it next
        decides.

    Raises:
        ConfigurationError: When it does not start again.
    """
    service = _service(home, server)
    return _url(service.ensure(timeout_s=timeout_s)) if service.has_died() else None


def redis_lives(home: Path) -> bool:
    """True while the embedded Redis of `home` exists, whether it answers or not."""
    return _service(home, "auto").is_alive()


def stop_redis(home: Path, timeout_s: float = START_TIMEOUT_S) -> bool:
    """Shut the embedded Redis down and wait until it is gone; False when it did not run.

    Raises:
        StoreUnavailable: When it still runs after `timeout_s`.
    """
    return _service(home, "auto").stop(_shut_down, timeout_s=timeout_s)


def _service(home: Path, server: Rule | Path) -> LocalService:
    data = home / "redis"
    return LocalService(
        name="redis",
        title="a private Redis",
        home=home,
        launch=lambda state: _launch(home, state, server),
        probe=lambda state: _is_ours(data, state),
        advice=f"repair the data in {data} (redis-check-aof --fix) or move it aside, then try again, or set redis.url",
        folder=data,
    )


def _launch(home: Path, state: ServiceState, wanted: Rule | Path) -> Launch:
    """Choose a server, write redis.conf (the password must not show in `ps`) and return how to start it."""
    data, config = home / "redis", home / "redis.conf"
    last = Path(state.program) if state.program else None
    server, reason = choose_server(wanted, read_written(data), last)
    data.mkdir(mode=0o700, exist_ok=True)
    folder = str(data.absolute()).replace("\\", "\\\\").replace('"', '\\"')
    write_private(config, _CONFIG.format(address=LOOPBACK, port=state.port, password=state.password, folder=folder))
    note = f" (data in {_short(data)}): {server}, {reason}"
    return Launch([str(server.program), str(config.absolute())], note)


def _is_ours(data: Path, state: ServiceState) -> bool:
    """True when the server behind `state` knows our password and works on our data (a copied folder has its own)."""
    try:
        with closing(connect(_url(state), timeout_s=PROBE_TIMEOUT_S)) as client, store_errors(_url(state)):
            folder = client.config_get("dir")["dir"]
    except FleetError:
        return False
    return folder is not None and os.path.realpath(folder) == os.path.realpath(data)


def _shut_down(state: ServiceState) -> None:
    try:
        with closing(connect(_url(state), timeout_s=PROBE_TIMEOUT_S)) as client:
            client.shutdown()
    except (FleetError, redis.RedisError):
        return  # whether it is gone is seen by the caller, who waits for that


def _answering(setting: str, secret: SecretStr, options: RedisSettings) -> str:
    url = completed(secret.get_secret_value(), options)
    try:
        connect(url, timeout_s=options.socket_timeout_s).close()
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error}") from error
    except FleetError as error:
        told = str(error).removeprefix(f"{masked(url)}: ").rstrip(".")
        raise ConfigurationError(
            f"{setting}: expected a Redis that answers at {masked(url)}, got: {told}; start that Redis, correct "
            f"{setting}, or remove it: then Fleet starts a private Redis of its own, on loopback and without TLS"
        ) from error
    return url


def completed(url: str, options: RedisSettings) -> str:
    """Return a sentinel:// URL with the master's name and the Sentinels' password in it; others as they are."""
    if not url.startswith(f"{SENTINEL}://"):
        return url
    known = parse_qs(urlsplit(url.rpartition(";")[2]).query)
    secret = options.sentinel_password.get_secret_value() if options.sentinel_password else None
    if not (options.master_name or "master_name" in known):
        raise ConfigurationError(
            f"redis.master_name: expected the name under which the Sentinels of {masked(url)} know the master, got none"
        )
    wanted = {"master_name": options.master_name, "sentinel_password": secret}
    query = urlencode({name: value for name, value in wanted.items() if value and name not in known})
    return f"{url}{'&' if known else '?'}{query}" if query else url


def _url(state: ServiceState) -> str:
    return f"redis://:{state.password}@{LOOPBACK}:{state.port}/0"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
