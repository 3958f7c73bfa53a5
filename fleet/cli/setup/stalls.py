"""What `fleet doctor` says of workers that stood still, by the events of the last day. Nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, cast

import redis

from fleet.cli.setup.check import Check, ok, warn
from fleet.config import Settings
from fleet.errors import FleetError
from fleet.quoting import counted, duration
from fleet.signals import catalogue
from fleet.signals.picture import events_of
from fleet.signals.view import EventView
from fleet.store import keys
from fleet.store.client import connect
from fleet.store.private.embedded import state_url

#: Seconds of the past that are looked at.
LOOK_BACK_S = 86_400
#: Events read at most (count).
MOST_EVENTS = 1000


def recent_stalls(settings: Settings) -> tuple[EventView, ...]:
    """Return the events of the last day that tell of a stall, the newest first; none when Redis does not answer."""
    try:
        with connect(state_url(settings), timeout_s=settings.redis.socket_timeout_s) as client:
            since = f"{round((time.time() - LOOK_BACK_S) * 1000)}-0"
            found = cast(Any, client.xrevrange(keys.events(), min=since, count=MOST_EVENTS))
    except (FleetError, redis.RedisError, OSError):
        return ()
    wanted = (catalogue.FUNCTION_BLOCKED.name, catalogue.WORKER_STALLED.name)
    return tuple(event for event in events_of(found) if event.name in wanted)


def stall_checks(events: Iterable[EventView]) -> Iterator[Check]:
    """Yield what is to be said of them: a line per function, a line per worker; the newest time counts."""
    by_whom: dict[str, list[EventView]] = {}
    for event in events:
        by_whom.setdefault(event.fields.get("function") or event.fields.get("worker") or "-", []).append(event)
    if not by_whom:
        yield ok("workers: stalls", "none in the last day")
    for whom, found in by_whom.items():
        last, times = found[0].fields, counted(len(found), "time")
        if found[0].name == catalogue.FUNCTION_BLOCKED.name:
            yield warn(
                f"function {whom}: loop",
                f"it blocked its event loop for {duration(float(last.get('s', 0)))} at {last.get('at')}; {times} in "
                "the last day",
                "Await in it (asyncio.sleep, an async client), or drop `async`: a plain function has its own thread.",
            )
        else:
            yield warn(
                f"worker {whom}: stalls",
                f"it ended itself: {last.get('why')}; {times} in the last day",
                "Its log shows where its threads stood: look for code that computes or waits with the GIL held.",
            )
