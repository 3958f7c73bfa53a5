"""Limits that an operator changes while the fleet runs. The scripts read them, so they hold for all workers at once.

Calls that sleep meanwhile are woken by `Changes`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import redis

from fleet.config import LimitSettings
from fleet.errors import ConfigurationError, FleetError
from fleet.limiter.call import LocalLimit, WaitingCall
from fleet.limiter.limits import Terms
from fleet.limiter.scripts import PENALISE, SET
from fleet.quoting import quote
from fleet.store import keys
from fleet.store.client import Store, run_script

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
        All numbers that are not as configured, in the units of `NAMES`: `usd_per_day` in dollars.

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
    return {
        name: number / 1_000_000 if name == "usd_per_day" else number
        for name, number in zip(NAMES, numbers, strict=True)
        if number != _AS_CONFIGURED
    }


def rpm_of(client: redis.Redis, limit: str) -> float:
    """Return the requests a minute that an operator has set; -1: as configured."""
    return _read(client, limit)[0]


def swap_rpm(client: redis.Redis, limit: str, before: float, after: float, *, configured: LimitSettings) -> bool:
    """Set requests a minute of a limit for the whole fleet, at once, if what was set is `before`.

    Weakness: what somebody else sets in the same millisecond may be lost, as with `change`.

    Args:
        client: Redis of the fleet's state.
        limit: `provider/model/key`.
        before: As `rpm_of` told it.
        after: Whole; 0: not limited; -1: as configured. What was learnt of the limit stays, and so do other numbers.
        configured: The limit in fleet.toml.
    """
    numbers = _read(client, limit)
    if numbers[0] != before:
        return False
    numbers[0] = float(round(after))
    if numbers[0] != before:
        _set(client, limit, " ".join(f"{number:.0f}" for number in numbers), configured)
    return True


def reset(client: redis.Redis, limit: str, *, configured: LimitSettings) -> None:
    """Let the configured numbers hold again, forget what was learnt of the limit, and end a hold after a 429."""
    _set(client, limit, "", configured)


class Changes:
    """Lets the calls of one process ask anew when somebody changes the limit that they wait for.

    Every reply says what is set. Where none came for half a second while somebody waits, it looks: one small read.

    Args:
        store: Redis of the fleet's state.
        give_back: Lets a call give its promised slot back, and ask anew.
    """

    def __init__(self, store: Store, give_back: Callable[[WaitingCall], None]) -> None:
        self._store = store
        self._give_back = give_back

    def heard(self, limit: LocalLimit, was_set: bytes, now: float) -> None:
        """A reply said what is set."""
        before, limit.was_set, limit.heard_at = limit.was_set, was_set, now
        if before is not None and before != was_set:
            limit.refused = None
            promised, limit.promised = limit.promised, set()
            for call in promised:
                self._give_back(call)
            limit.sleepers.wake_all()

    def slept(self, limit: LocalLimit, seconds: float) -> None:
        """A call sleeps under `limit` for `seconds`."""
        if seconds > LOOK_EVERY_S and limit.watch is None:
            limit.watch = asyncio.get_running_loop().create_task(self._watch(limit))

    def promised(self, call: WaitingCall, seconds: float) -> None:
        """A call has a slot in `seconds`."""
        if seconds > LOOK_EVERY_S:
            call.limit.promised.add(call)
            self.slept(call.limit, seconds)

    async def _watch(self, limit: LocalLimit) -> None:
        loop, pause_s = asyncio.get_running_loop(), LOOK_EVERY_S
        try:
            while limit.sleepers.count or limit.promised:
                await asyncio.sleep(pause_s)
                pause_s = limit.heard_at + LOOK_EVERY_S - loop.time()
                if pause_s > 0:
                    continue
                pause_s = LOOK_EVERY_S
                try:
                    facts = limit.keys_for().facts
                    was_set, held_by = await self._store.command("HMGET", facts, "set", "held_by")
                    self.heard(limit, was_set or b"", loop.time())
                    if not held_by and limit.held_until > loop.time():  # an operator has ended it
                        limit.held_until = 0.0
                        limit.sleepers.wake_all()
                except FleetError as error:
                    logger.debug("limit_watch_failed limit=%s error=%s", limit.name, error)  # whoever asks is told
        finally:
            limit.watch = None


def release(client: redis.Redis, limit: str, *, configured: LimitSettings) -> None:
    """End a hold after a 429: calls go at the paced rate. What was learnt and set stays."""
    names = keys.limit_keys(limit)
    call = PENALISE.call(
        state=names.state, facts=names.facts, retry_after_us=-1, held_by="", terms=Terms.of(configured).pack()
    )
    run_script(client, PENALISE, *call)


def _set(client: redis.Redis, limit: str, text: str, configured: LimitSettings) -> None:
    names = keys.limit_keys(limit)
    call = SET.call(
        state=names.state, facts=names.facts, log=names.log, leases=names.leases,
        set=text, terms=Terms.of(configured).pack(),
    )  # fmt: skip
    run_script(client, SET, *call)


def _read(client: redis.Redis, limit: str) -> list[float]:
    """Return what is set, -1 for what is as configured."""
    text = client.hget(keys.limit_keys(limit).facts, "set")
    return [float(part) for part in text.split()] if isinstance(text, bytes) else [_AS_CONFIGURED] * len(NAMES)
