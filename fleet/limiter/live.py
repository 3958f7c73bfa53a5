"""Limits that an operator changes while the fleet runs. The scripts read them, so they hold for all workers at once."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from fleet.errors import ConfigurationError, quote
from fleet.store import keys

#: What can be changed, in the order of the scripts' terms.
NAMES = ("rpm", "tpm", "input_tpm", "output_tpm", "requests_per_day", "usd_per_day", "in_flight")
#: Days that a change lives since the limit was last used.
LIFE_DAYS = 30
_AS_CONFIGURED = -1.0


def change(client: redis.Redis, limit: str, changes: Mapping[str, float]) -> dict[str, float]:
    """Change numbers of a limit for the whole fleet, at once; what is not named stays as it is.

    Args:
        client: Redis of the fleet's state.
        limit: `provider/model/key`.
        changes: By name in `NAMES`; 0 is "not limited".

    Returns:
        All numbers that are not as configured.

    Raises:
        ConfigurationError: When a number is not 0 or more.
    """
    for name, value in changes.items():
        if name not in NAMES or not 0 <= value < 1e12:
            raise ConfigurationError(f"{name}: expected one of {', '.join(NAMES)} as 0 or more, got {quote(value)}")
    numbers = _read(client, limit)
    for name, value in changes.items():
        numbers[NAMES.index(name)] = value * 1_000_000 if name == "usd_per_day" else value
    facts = keys.limit_parts(limit)[1]
    pipe = client.pipeline(transaction=True)
    pipe.hset(facts, "set", " ".join(f"{number:.0f}" for number in numbers))
    pipe.expire(facts, LIFE_DAYS * 86_400)
    pipe.execute()
    return {name: number for name, number in zip(NAMES, numbers, strict=True) if number != _AS_CONFIGURED}


def reset(client: redis.Redis, limit: str) -> None:
    """Let the configured numbers hold again."""
    client.hdel(keys.limit_parts(limit)[1], "set")


def _read(client: redis.Redis, limit: str) -> list[float]:
    """Return what is set, -1 for what is as configured."""
    text = client.hget(keys.limit_parts(limit)[1], "set")
    return [float(part) for part in text.split()] if isinstance(text, bytes) else [_AS_CONFIGURED] * len(NAMES)
