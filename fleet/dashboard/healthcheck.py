"""/healthcheck that is red while Redis does not answer: Flower's own says OK whatever happens behind it."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from flower.views.monitor import Healthcheck

from fleet import config
from fleet.errors import FleetError
from fleet.store.client import connect
from fleet.store.private.embedded import broker_url, state_url

#: Seconds until a Redis that does not answer is red: less than what a probe waits for us.
TIMEOUT_S = 2.0


class RedisHealthcheck(Healthcheck):
    """Flower's /healthcheck: 200 and OK, or 503 while a Redis is away or hangs. Open to everyone, so it names none."""

    async def get(self) -> None:
        try:
            await asyncio.to_thread(_ask)
        except FleetError:
            self.set_status(503)
            self.write("Redis does not answer")
        else:
            self.write("OK")


@lru_cache(maxsize=1)
def _urls() -> frozenset[str]:
    """Both Redis servers; looked for once, so that a probe starts no Redis of its own."""
    settings = config.current()
    return frozenset({state_url(settings), broker_url(settings)})


def _ask() -> None:
    for url in _urls():
        connect(url, timeout_s=TIMEOUT_S).close()
