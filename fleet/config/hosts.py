"""Where the server of an address is: on this host, on a private network, or elsewhere. Nothing is looked up."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

#: Ends of names that no public DNS knows: the local network's, Docker's and Kubernetes' own.
_LOCAL_NAMES = (".local", ".localhost", ".localdomain", ".internal", ".lan", ".home.arpa", ".svc")


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
