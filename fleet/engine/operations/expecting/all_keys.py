"""The limits of all keys of a model as one: what they give together. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fleet.config import LimitSettings, Settings
from fleet.limiter import LimitSnapshot

#: What adds up over keys. A rate that one of them does not limit is not limited.
_RATES = ("rpm", "tpm", "input_tpm", "output_tpm", "in_flight", "requests_per_day", "usd_per_day")
_FOUND = ("rpm", "tpm", "rate", "usd_micros_per_day", "requests_per_day", "most_in_flight", "paced_rpm")
_USED = (
    "used_rpm", "used_tpm", "granted", "granted_tokens", "refused", "waiting", "in_flight", "used_usd_micros",
    "reserved_usd_micros", "used_requests",
)  # fmt: skip


def limit_of_all(settings: Settings, provider: str, model: str) -> LimitSettings:
    """Return what all keys of a model allow together, as it is configured."""
    limits = [settings.limits_by_key[name] for name in settings.limit_names(provider, model)]
    if len(limits) == 1:
        return limits[0]
    return limits[0].model_copy(update={name: _sum([getattr(one, name) for one in limits]) for name in _RATES})


def snapshot_of_all(snapshots: Sequence[LimitSnapshot]) -> LimitSnapshot:
    """Return how the limits of all keys of a model stand together: a call goes under the one that is free soonest."""
    if len(snapshots) == 1:
        return snapshots[0]
    first = min(snapshots, key=lambda one: (one.held_until or 0.0, one.queue_s))
    summed: dict[str, Any] = {name: _sum([getattr(one, name) for one in snapshots]) for name in _FOUND}
    used: dict[str, Any] = {name: sum(getattr(one, name) for one in snapshots) for name in _USED}
    return replace(first, **summed, **used)


def _sum(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
