"""Keys that no call may use any more, by fingerprint, in Redis: every worker of the fleet reads them once a second."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import redis

from fleet.store import vault_keys
from fleet.store.client import Store

#: How the names of alarms about keys begin, of bots there are others (`signals/unusual/alarms.py`).
_KEY = "key "


def revoke_fingerprint(client: redis.Redis, provider: str, fingerprint: str, at_s: float) -> None:
    """Let no call use a key from a time on; for good: nobody can take that back.

    Args:
        client: Plain client of the state Redis.
        provider: Its name under [providers].
        fingerprint: Of the key.
        at_s: Unix time in seconds of Redis; a time that is past holds at once.
    """
    client.hset(vault_keys.revoked_keys(), f"{provider}|{fingerprint}", repr(at_s))


def redis_time_s(client: redis.Redis) -> float:
    """Return the Unix time in seconds that revocations go by."""
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6


def read_revoked(client: redis.Redis) -> dict[str, float]:
    """Return from when revoked keys may be used no more (Unix time in seconds), by `provider|fingerprint`."""
    return times(client.hgetall(vault_keys.revoked_keys()))  # type: ignore[arg-type]


async def hear_revoked(store: Store) -> dict[str, float]:
    """As `read_revoked`, for a worker.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    parts = await store.command("HGETALL", vault_keys.revoked_keys())
    return times(dict(zip(parts[::2], parts[1::2], strict=True)))


def times(told: Mapping[bytes, bytes]) -> dict[str, float]:
    """Return from when what is revoked holds no more, by its name, whatever was written to Redis.

    What is no time (also `nan`, which no time comes after) was written by somebody to revoke: it holds at once.
    """
    return {name.decode("utf-8", "replace"): _time(at) for name, at in told.items()}


def earliest(heard: Mapping[str, float], told: Mapping[str, float]) -> dict[str, float]:
    """Return what was heard before and what is told now: whoever writes to Redis takes no revocation back."""
    return {**heard, **{name: min(at_s, heard.get(name, at_s)) for name, at_s in told.items()}}


async def hear_suspended(store: Store) -> frozenset[str]:
    """Return the keys that rest because their use was unusual, by the names that people know them by.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    parts = await store.command("HGETALL", vault_keys.unusual())
    return frozenset(
        name.decode("utf-8", "replace").removeprefix(_KEY)
        for name, told in zip(parts[::2], parts[1::2], strict=True)
        if name.startswith(_KEY.encode()) and _stage(told) == "suspended"
    )


def _stage(told: bytes) -> object:
    """Return what was done about an alarm; what cannot be read was written by nobody who could suspend a key."""
    try:
        alarm = json.loads(told)
    except ValueError:
        return None
    return alarm.get("stage") if isinstance(alarm, dict) else None


def _time(text: bytes) -> float:
    try:
        at_s = float(text)
    except ValueError:
        return 0.0
    return 0.0 if math.isnan(at_s) else at_s
