"""Where the server of an address is: on this host, on a private network, or elsewhere; and that brokers have servers of
their own. Nothing is looked up."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal
from urllib.parse import SplitResult, parse_qs, urlsplit

from fleet.quoting import nearest, quote

if TYPE_CHECKING:
    from pydantic import SecretStr

    from fleet.config.sections import RedisSettings

#: Ends of names that no public DNS knows: the local network's, Docker's and Kubernetes' own.
_LOCAL_NAMES = (".local", ".localhost", ".localdomain", ".internal", ".lan", ".home.arpa", ".svc")
#: Name of the broker that `redis.url` is; no other one may have it.
MAIN = "main"


def is_loopback(url: str | None) -> bool:
    """True for the address of a server on this very host; None is the vendor's own."""
    host = host_of(url)
    return host == "localhost" or host.endswith(".localhost") or _address(host, "is_loopback")


def is_local(url: str | None) -> bool:
    """True for the address of a server on this host or on a private network, where APIs often ask for no key."""
    host = host_of(url)
    is_bare = bool(host) and "." not in host and ":" not in host
    return is_loopback(url) or is_bare or host.endswith(_LOCAL_NAMES) or _address(host, "is_private")


def is_vendors(url: str | None) -> bool:
    """True for the address of a vendor that exchanges tokens for workloads; None is the vendor's own."""
    host = host_of(url)
    return url is None or host.endswith((".openai.com", ".anthropic.com", "aiplatform.googleapis.com"))


def host_of(url: str | None) -> str:
    """Return the host of an address in small letters; empty when it has none."""
    try:
        return (urlsplit(url or "").hostname or "").rstrip(".")
    except ValueError:  # half an IPv6 address: the adapter says so
        return ""


def _address(host: str, what: Literal["is_loopback", "is_private"]) -> bool:
    try:
        return bool(getattr(ip_address(host), what))
    except ValueError:
        return False


def check_brokers(redis: RedisSettings, pools: Collection[str]) -> None:
    """Refuse brokers that cannot be told apart, or that have no pool.

    Raises:
        ValueError: Naming the setting.
    """
    seen = {_place(url, redis): key for key in ("url", "state_url") if (url := getattr(redis, key))}
    for name, one in redis.brokers.items():
        where = f"redis.brokers.{name}"
        if name == MAIN or not name.replace("-", "").replace("_", "").isalnum() or len(name) > 64:
            raise ValueError(f"{where}: expected a name of letters, digits, - and _ other than main, got {quote(name)}")
        for said in one.pools:
            if not any(fnmatchcase(pool, said) for pool in pools):
                raise ValueError(
                    f"{where}.pools: expected names or patterns of pools that there are, got {quote(said)}; "
                    f"{nearest(said, pools)}"
                )
        place = _place(one.url, redis)
        if place in seen:
            raise ValueError(f"{where}.url: expected a server or database of its own, got that of redis.{seen[place]}")
        seen[place] = f"brokers.{name}.url"


def _place(url: SecretStr, redis: RedisSettings) -> tuple[object, ...]:
    """Return what tells servers and databases apart, however the credentials are spelled, and in whatever order the
    Sentinels are."""
    parts = urlsplit(url.get_secret_value())
    if parts.scheme.startswith("sentinel"):
        named = [urlsplit(one) for one in url.get_secret_value().split(";")]
        sentinels = frozenset((_host(one), _port(one) or 26379) for one in named)
        masters = [name for one in named for name in parse_qs(one.query).get("master_name", ())]
        database = next((path for one in named if (path := one.path.strip("/"))), "0")
        return sentinels, database, masters[-1] if masters else redis.master_name
    if not parts.hostname:
        return (parts.path, parts.query)
    return (_host(parts), _port(parts) or 6379, parts.path.strip("/") or "0")


def _host(parts: SplitResult) -> str:
    return "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:  # it may be a part of a password: who reads the whole URL refuses it in better words
        return None
