"""Whether the children of a stack can work: workers have reported to Redis, Flower listens on its port."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import closing
from urllib.parse import urlsplit

from fleet.cli.stack.stack_file import StackPart
from fleet.config import Settings
from fleet.signals.recorder import WorkerReport
from fleet.store import keys
from fleet.store.client import connect, store_errors
from fleet.store.private.embedded import state_url

#: Address of celery beat, which nobody calls: it is ready when it runs.
BEAT = "beat"
#: Seconds for one attempt to connect to Flower, which is on this machine.
CONNECT_TIMEOUT_S = 1.0


def unready(parts: Sequence[StackPart], settings: Settings) -> list[str]:
    """Return the names of the children that cannot work yet.

    Raises:
        StoreUnavailable: When the state Redis does not answer.
    """
    reported = _reported_pids(settings)
    return [part.name for part in parts if not _is_ready(part, reported)]


def _is_ready(part: StackPart, reported: set[int]) -> bool:
    if part.address == BEAT:
        return True
    if part.address.startswith("http://"):
        return _listens(part.address)
    return part.process is not None and part.process.pid in reported


def _reported_pids(settings: Settings) -> set[int]:
    url = state_url(settings)
    with closing(connect(url, timeout_s=settings.redis.socket_timeout_s)) as client, store_errors(url):
        return {WorkerReport.read(row).pid for row in client.hvals(keys.workers())}


def _listens(url: str) -> bool:
    where = urlsplit(url)
    try:
        with socket.create_connection((where.hostname, where.port or 80), timeout=CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False
