"""What a worker needs on its machine beside itself, kept alive: the local simulator and the embedded Redis.

Either may be killed under a worker that nobody supervises. No task may fail for that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from fleet.config import Settings
from fleet.engine.local_simulator import START_TIMEOUT_S, Running, running_simulator, simulator_answers, was_stopped
from fleet.errors import ConfigurationError, ProviderUnavailable
from fleet.store.private.embedded import revive_redis
from fleet.store.private.log_file import rotate

#: Seconds between two looks whether the embedded Redis has died; each costs two system calls.
LOOK_EVERY_S = 1.0
#: Seconds between two looks at a simulator that is there and does not answer.
DYING_S = 0.05
#: Seconds until the next try when a service that died does not start again.
AGAIN_S = 2.0
#: Seconds between two log lines about the same trouble.
LOG_EVERY_S = 10.0

logger = logging.getLogger("fleet.worker")


class Adapter(Protocol):
    """What connects to one address: `Provider` and `RawProvider`, as far as they are used here."""

    host: str

    def speaks(self, wire: str) -> bool:
        """See `fleet.workers.frameworks.raw.RawProvider`."""
        ...

    async def exchange(self, request: Any, **options: Any) -> Any:
        """See `fleet.workers.frameworks.raw.RawProvider`."""
        ...

    def later_body(self, call: Any) -> bytes:
        """See `fleet.workers.ports.BatchingProvider`."""
        ...

    def later_answer(self, call: Any, raw: bytes) -> Any:
        """See `fleet.workers.ports.BatchingProvider`."""
        ...

    def batches(self, key: Callable[[], str]) -> Any:
        """See `fleet.workers.ports.BatchingProvider`."""
        ...

    async def complete(self, call: Any, *, api_key: str) -> Any:
        """Send one call."""
        ...

    async def close(self) -> None:
        """Close the HTTP connections."""
        ...


class LocalSimulator:
    """The local simulator as a provider: a call that meets a dead one starts it again and is sent once more.

    That second request is no hidden retry: a simulator that died has answered nobody and forgotten its ledger. One that
    lives and fails (on demand, or because it is overloaded) is a provider like any other.

    Weakness: while it cannot be started at all, the task's deadline goes on.

    Args:
        home: State folder that it belongs to.
        start: Finds or starts it and tells which one runs. Blocks for seconds.
        is_wanted: False while all of the state folder is stopped (`fleet down`): then it stays stopped too.
        make: Returns the adapter for its base URL.
    """

    def __init__(
        self,
        home: Path,
        start: Callable[[], Running],
        make: Callable[[str], Adapter],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._home = home
        self._start = start
        self._make = make
        self._is_wanted = is_wanted
        self._running = start()
        self._adapter = make(self._running.url)
        self._one_at_a_time = asyncio.Lock()
        self._logged_s = 0.0

    def complete(self, call: Any, *, api_key: str) -> Coroutine[Any, Any, Any]:
        """Send one call, see `fleet.workers.ports.Provider`."""
        return self._by_one_that_lives(lambda adapter: adapter.complete(call, api_key=api_key))

    @property
    def host(self) -> str:
        """Where it listens."""
        return self._adapter.host

    def speaks(self, wire: str) -> bool:
        """True when it understands a wire, see `fleet.workers.frameworks.raw.RawProvider`."""
        return self._adapter.speaks(wire)

    def later_body(self, call: Any) -> bytes:
        """Return the request of a call, see `fleet.workers.ports.BatchingProvider`."""
        return self._adapter.later_body(call)

    def later_answer(self, call: Any, raw: bytes) -> Any:
        """Read an answer, see `fleet.workers.ports.BatchingProvider`."""
        return self._adapter.later_answer(call, raw)

    def batches(self, key: Callable[[], str]) -> Any:
        """Return the batches of the one that runs now: they are lost with it."""
        return self._adapter.batches(key)

    async def exchange(self, request: Any, **options: Any) -> Any:
        """Send one request of an SDK, see `fleet.workers.frameworks.raw.RawProvider`."""
        return await self._by_one_that_lives(lambda adapter: adapter.exchange(request, **options))

    async def _by_one_that_lives(self, send: Callable[[Adapter], Awaitable[Any]]) -> Any:
        while True:
            asked, adapter = self._running, self._adapter
            try:
                return await send(adapter)
            except ProviderUnavailable as error:
                has_answered = error.sent and error.__cause__ is None
                if not await self._lives(asked, has_answered=has_answered):
                    await self._revive(asked)
                elif error.sent:
                    raise
                else:  # it lives, but nothing was sent: it listens only now, or this process has no more files
                    await asyncio.sleep(DYING_S)

    async def close(self) -> None:
        """Close the HTTP connections."""
        await self._adapter.close()

    async def _lives(self, asked: Running, *, has_answered: bool) -> bool:
        """True when the simulator that was asked is there, and answers: the call, or a question for its health.

        Until it answers or is gone, nothing is known: the kernel closes the connections of a killed process before it
        releases its lock. One look at a time serves all calls that failed together.
        """
        async with self._one_at_a_time:
            while asked == self._running == self._found():
                if has_answered or await asyncio.to_thread(simulator_answers, self._home):
                    return True
                await asyncio.sleep(DYING_S)
        return False

    def _found(self) -> Running | None:
        """Return the simulator that lives. While that cannot be found out (no more files) it is the one known."""
        try:
            return running_simulator(self._home)
        except OSError:
            return self._running

    async def _revive(self, dead: Running) -> None:
        async with self._one_at_a_time:
            while self._running == dead:
                try:
                    self._running = await asyncio.to_thread(self._found_or_started)
                except (ConfigurationError, OSError) as error:
                    self._complain(error)
                    await asyncio.sleep(AGAIN_S)
                    continue
                old, self._adapter = self._adapter, self._make(self._running.url)
                await old.close()

    def _found_or_started(self) -> Running:
        """Return the simulator that answers: one that another process has started, or is starting, else our own."""
        patient_until = time.monotonic() + START_TIMEOUT_S
        while (found := running_simulator(self._home)) is not None and time.monotonic() < patient_until:
            if found.pid is not None and simulator_answers(self._home):
                return found
            time.sleep(DYING_S)
        if found is None and was_stopped(self._home) and not self._is_wanted():
            raise ConfigurationError("it was stopped on purpose, and so was Redis; `fleet up` starts them again")
        return self._start()

    def _complain(self, error: Exception) -> None:
        if time.monotonic() - self._logged_s >= LOG_EVERY_S:
            self._logged_s = time.monotonic()
            logger.warning("waiting for the simulator: %s", error)


async def keep_redis(settings: Settings, home: Path, url: str) -> None:
    """Start the embedded Redis again whenever it has died, and keep its log short, for ever.

    One that was stopped on purpose stays so.

    Args:
        settings: Which server to start.
        home: State folder.
        url: Where this process knows it.
    """
    pause_s = LOOK_EVERY_S
    while True:
        await asyncio.sleep(pause_s)
        pause_s = LOOK_EVERY_S
        try:
            for name in ("redis.log", "simulator.log"):
                rotate(home / name)
            revived = await asyncio.to_thread(revive_redis, home, settings.redis.server)
        except (ConfigurationError, OSError) as error:
            logger.error("Redis died and does not start again: %s", error)
            pause_s = LOG_EVERY_S
            continue
        if revived is not None and revived != url:
            logger.error("Redis died and is on another port now: the old one was taken; start this worker again")
        elif revived is not None:
            logger.warning("Redis died and was started again")
