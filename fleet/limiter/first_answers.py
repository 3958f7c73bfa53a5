"""Slow start under a limit of which nothing is configured: a few calls first, the rest when one of them was answered.

By then headers or a 429 have told what the provider allows, and all learn it from Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

#: Calls of one process that go before anything is known.
PROBES = 4
#: Seconds after which the rest goes anyway.
PATIENCE_S = 10.0


class FirstAnswers:
    """Who may go before the first answer. Belongs to one event loop.

    Args:
        unknown: Limits of which nothing is configured.
    """

    def __init__(self, unknown: Iterable[str]) -> None:
        self._unknown = dict.fromkeys(unknown, PROBES)
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    async def turn(self, name: str, *, timeout_s: float) -> None:
        """Wait until a call under the limit `name` may ask; not longer than `timeout_s` in any case."""
        left = self._unknown.get(name)
        if left is None:
            return
        self._unknown[name] = left - 1
        if left > 0:
            return
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, []).append(answered)
        try:
            async with asyncio.timeout(min(timeout_s, PATIENCE_S)):
                await answered
        except TimeoutError:
            self.heard(name)

    def heard(self, name: str) -> None:
        """Let everybody go: a call was answered."""
        if self._unknown.pop(name, None) is None:
            return
        for answered in self._waiting.pop(name, ()):
            if not answered.done():
                answered.set_result(None)
