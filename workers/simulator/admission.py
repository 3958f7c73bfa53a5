"""Which keys the simulator takes, and who may see its ledger and change how it behaves: this machine, or a token.

A simulator that listens on all addresses is met by a network; its API takes any key at first, so a key proves nothing.
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from aiohttp import web

from fleet.workers.simulator.ledger import key_label

#: What a proxy adds: who asks through one is not on this machine, though the proxy may be.
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


class TakenKeys:
    """Which keys are taken: any, until somebody names some. Keys are named by their labels in the ledger."""

    def __init__(self) -> None:
        self._labels: frozenset[str] = frozenset()

    def takes(self, key: str) -> bool:
        """True when calls with a key are answered."""
        return not self._labels or key_label(key) in self._labels

    def switch(self, only: str) -> None:
        """Take only some from now on.

        Args:
            only: Labels, commas between them; empty: any key.
        """
        self._labels = frozenset(label for label in only.split(",") if label)

    def report(self) -> dict[str, object]:
        """Return what is taken, for JSON; nothing: any."""
        return {"only": sorted(self._labels)}


def why_not(request: web.BaseRequest, token: str | None) -> str | None:
    """Return why a request may not use the admin endpoints; None when it may.

    A page of another site that a browser on this machine has open is not this machine: such requests carry an
    `Origin`, or reach us by a name of that site's own (DNS rebinding).
    """
    given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    if token is not None and hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
        return None
    is_here = _is_loopback(request.remote) and not any(name in request.headers for name in _FORWARDED)
    if is_here and "Origin" not in request.headers and _is_loopback(_host_of(request)):
        return None
    remedy = "send it as `Authorization: Bearer TOKEN`" if token else "start the simulator with --admin-token-file"
    return f"expected a request from this machine itself, or the admin token ({remedy})"


def _host_of(request: web.BaseRequest) -> str | None:
    """Return the host that the request names; a request without one (HTTP/1.0) came by address."""
    named = request.headers.get("Host")
    try:
        return urlsplit(f"//{named}").hostname if named else request.remote
    except ValueError:
        return None


def _is_loopback(host: str | None) -> bool:
    if host is None or host == "localhost":
        return host is not None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # how a socket for both families shows IPv4
    return (mapped or address).is_loopback
