"""Fleet's transport over a Unix socket.

kombu reads `redis+socket://` as its own transport plus an address, whatever transport an app names. Without the first
part the address says the same, to a transport that reads it by itself.
"""

from __future__ import annotations

from typing import Any

from fleet.engine.transport import channel
from fleet.store.address import masked

#: What kombu has before the address of a Unix socket.
PREFIX = "redis+"


class Transport(channel.Transport):
    """The transport of the Celery app when the broker's URL is that of a Unix socket."""

    can_parse_url = True  # kombu then leaves the URL as it is; its channel knows what to do with it

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        return f"{PREFIX}{uri if include_password else masked(uri)}"


def leads_to_one(url: Any) -> bool:
    """True for kombu's URL of a Unix socket."""
    return str(url).startswith(f"{PREFIX}socket://")


def as_kombu_takes_it(url: str) -> str:
    """Return the URL of a Unix socket without kombu's own transport in it."""
    return url.removeprefix(PREFIX)
