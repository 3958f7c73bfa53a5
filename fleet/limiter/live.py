"""Limits that an operator changes while the fleet runs. The scripts read them, so they hold for all workers at once.

Calls that sleep meanwhile are woken by `Changes`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping

import redis

from fleet.config import LimitSettings
from fleet.errors import ConfigurationError, FleetError, quote
from fleet.limiter.call import WaitingCall
from fleet.limiter.limits import Terms
from fleet.limiter.scripts import SET
from fleet.limiter.sleepers import Sleepers
from fleet.store import keys
from fleet.store.client import Store

#: What can be changed, in the order of the scripts' terms.
NAMES = ("rpm", "tpm", "input_tpm", "output_tpm", "requests_per_day", "usd_per_day", "in_flight")
#: Seconds between two looks at whether a limit was changed, while calls of this process sleep under it.
LOOK_EVERY_S = 0.5
_AS_CONFIGURED = -1.0

logger = logging.getLogger("fleet.limiter")


def change(
    client: redis.Redis, limit: str, changes: Mapping[str, float], *, configured: LimitSettings
) -> dict[str, float]:
    """Change numbers of a limit for the whole fleet, at once; what is not named stays as it is.

    Args:
        client: Redis of the fleet's state.
        limit: `provider/model/key`.
        changes: By name in `NAMES`; 0 is "not limited".
        configured: The limit in fleet.toml.

    Returns:
        All numbers that are not as configured.

    Raises:
        ConfigurationError: When a number is not 0 or more, or so small that it would be rounded to 0, "not limited".
    """
    for name, value in changes.items():
        if name not in NAMES or not 0 <= value < 1e12:
            raise ConfigurationError(f"{name}: expected one of {', '.join(NAMES)} as 0 or more, got {quote(value)}")
    numbers = _read(client, limit)
    for name, value in changes.items():
        number = round(value * 1_000_000 if name == "usd_per_day" else value)
        if value and not number:
            raise ConfigurationError(f'{name}: expected 0, "not limited", or at least 1, got {quote(value)}')
        numbers[NAMES.index(name)] = number
    _set(client, limit, " ".join(f"{number:.0f}" for number in numbers), configured)
    return {name: number for name, number in zip(NAMES, numbers, strict=True) if number != _AS_CONFIGURED}


def reset(client: redis.Redis, limit: str, *, configured: LimitSettings) -> None:
    """Let the configured numbers hold again, forget what was learnt of the limit, and end a hold after a 429."""
    _set(client, limit, "", configured)


class Changes:
    """Lets the calls of one process ask anew when somebody changes the limit that they wait for.

    Every reply says what is set. Where none came for half a second while somebody waits, it looks: one small read.

    Args:
        store: Redis of the fleet's state.
        sleepers: Calls that sleep, by limit.
        give_back: Lets a call give its promised slot back, and ask anew.
    """

    def __init__(
        self, store: Store, sleepers: Mapping[str, Sleepers[WaitingCall]], give_back: Callable[[WaitingCall], None]
    ) -> None:
        self._store = store
        self._sleepers = sleepers
        self._give_back = give_back
        self._watches: dict[str, asyncio.Task[None]] = {}
        #: By limit: what was set when a reply last said so, and the loop time of that.
        self._seen: dict[str, tuple[bytes, float]] = {}
        #: Calls that have a slot which is far ahead.
        self._promised: defaultdict[str, set[WaitingCall]] = defaultdict(set)

    def heard(self, limit: str, was_set: bytes) -> None:
        """A reply said what is set."""
        before = self._seen.get(limit)
        self._seen[limit] = was_set, asyncio.get_running_loop().time()
        if before is not None and before[0] != was_set:
            self._wake(limit)

    def slept(self, limit: str, seconds: float) -> None:
        """A call sleeps under `limit` for `seconds`."""
        if seconds > LOOK_EVERY_S and limit not in self._watches:
            self._watches[limit] = asyncio.get_running_loop().create_task(self._watch(limit))

    def promised(self, call: WaitingCall, seconds: float) -> None:
        """A call has a slot in `seconds`."""
        if seconds > LOOK_EVERY_S:
            self._promised[call.limit].add(call)
            self.slept(call.limit, seconds)

    def kept(self, call: WaitingCall) -> None:
        """A call's promise is over: it goes, it gave its slot back, or its caller is gone."""
        if calls := self._promised.get(call.limit):
            calls.discard(call)

    async def _watch(self, limit: str) -> None:
        facts, loop = keys.limit_parts(limit)[1], asyncio.get_running_loop()
        pause_s = LOOK_EVERY_S
        try:
            while self._sleepers[limit].count or self._promised.get(limit):
                await asyncio.sleep(pause_s)
                pause_s = self._seen[limit][1] + LOOK_EVERY_S - loop.time()
                if pause_s > 0:
                    continue
                pause_s = LOOK_EVERY_S
                try:
                    self.heard(limit, await self._store.command("HGET", facts, "set") or b"")
                except FleetError as error:
                    logger.debug("limit_watch_failed limit=%s error=%s", limit, error)  # whoever asks is told
        finally:
            del self._watches[limit]

    def _wake(self, limit: str) -> None:
        for call in self._promised.pop(limit, set()):
            self._give_back(call)
        self._sleepers[limit].wake_all()


def _set(client: redis.Redis, limit: str, text: str, configured: LimitSettings) -> None:
    client.eval(SET.text, 2, *keys.limit_parts(limit)[:2], text, Terms.of(configured).pack())


def _read(client: redis.Redis, limit: str) -> list[float]:
    """Return what is set, -1 for what is as configured."""
    text = client.hget(keys.limit_parts(limit)[1], "set")
    return [float(part) for part in text.split()] if isinstance(text, bytes) else [_AS_CONFIGURED] * len(NAMES)
