"""What the slots of all workers did lately, and what that cost: for the page, `fleet stats`, metrics and the bill."""

from __future__ import annotations

from math import ceil
from typing import cast

import redis

from fleet.config import Settings
from fleet.economy.compute import Compute, compute_of
from fleet.signals.cost_view import ComputeView
from fleet.signals.windows import HOURS, resource_hours
from fleet.store import keys

#: Hours that the page and the metrics tell of.
SHOWN_HOURS = 24


def compute_in(resources: bytes, settings: Settings, *, first_hour: int, last_hour: int) -> Compute | None:
    """Return what slots did in some hours (since 1970); None: no worker has reported in them.

    Args:
        resources: As `keys.resources` has them.
        settings: Slots of a process, and its price.
        first_hour: The oldest one; hours are kept for two days.
        last_hour: The newest one.
    """
    used = [one for hour, one in resource_hours(resources).items() if first_hour <= hour <= last_hour]
    slots_s, busy_s = sum(one.slots_s for one in used), sum(one.busy_s for one in used)
    if not slots_s:
        return None
    worker = settings.worker
    return compute_of(
        slots_s, busy_s, slots_per_process=settings.slots_per_process, usd_per_hour=worker.usd_per_hour
    )  # fmt: skip


def compute_view(resources: bytes, settings: Settings, now_s: float) -> ComputeView | None:
    """Return what slots did in the last day."""
    last = int(now_s // 3600)
    found = compute_in(resources, settings, first_hour=last - SHOWN_HOURS + 1, last_hour=last)
    if found is None:
        return None
    return ComputeView(
        hours=SHOWN_HOURS,
        busy_slot_hours=round(found.busy_h, 4),
        idle_slot_hours=round(found.idle_h, 4),
        usd_micros=None if found.usd is None else round(found.usd * 1e6),
        idle_usd_micros=None if found.idle_usd is None else round(found.idle_usd * 1e6),
        line=found.line(),
    )


def read_compute(state: redis.Redis, settings: Settings, *, since_s: float, until_s: float) -> Compute | None:
    """Return what slots did in the time of a bill; None: no worker has reported in it. Two days are kept.

    Args:
        state: Plain client of the state Redis.
        settings: Slots of a process, and its price.
        since_s: Unix time at which it begins.
        until_s: Unix time at which it ends.
    """
    raw = cast("bytes | None", state.get(keys.resources()))
    return compute_in(raw or b"", settings, first_hour=int(since_s // 3600), last_hour=ceil(until_s / 3600) - 1)


def bill_line(found: Compute, *, since_s: float, until_s: float) -> str:
    """Return what `fleet bill` says of compute."""
    kept = "" if until_s - since_s < HOURS * 3600 else f" (of the last {HOURS} hours, which is all that is kept)"
    hint = "" if found.usd is not None else "; set usd_per_hour in [worker] for its price"
    return f"compute: {found.line()}{kept}{hint}"
