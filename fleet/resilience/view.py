"""How a breaker stands, for people: one shape for the CLI, the page and the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import redis

from fleet.resilience.knowledge import cause_of
from fleet.resilience.layouts import TALLY, TallyAt
from fleet.resilience.rules import CALL_MINUTES, CALL_SORTS, COMMON_S, RAMP_US, SORTS, WELL_SORT
from fleet.resilience.scripts import SHOW
from fleet.store import keys
from fleet.store.client import Store, run_script
from fleet.waits import Wait

#: `half-open`: the time of the next probe has come; `ramping`: closed a moment ago, calls leave at a growing pace.
BreakerState = Literal["closed", "open", "half-open", "ramping"]


@dataclass(frozen=True, slots=True)
class BreakerView:
    """How the breaker of one `provider/model/key` stands. Times are Unix seconds of Redis.

    Args:
        limit: `provider/model/key`.
        state: Where it stands.
        since: When it opened, or was closed last; None: it has never been open, or not lately.
        wait: Why calls wait, and until when; None: they don't.
        failed: Failures within the window of 30 s.
        well: Successes that were reported within it.
        timed_out: Those of `failed` that got no answer in time.
        tries: Probes that failed in a row, and the opening.
        well_at: The last success that was reported; None: none yet.
        retries_left: What the retry budget has left; below 0: promised already.
        calls: Calls of the last minutes, the one that runs among them, by what became of them (`CALL_SORTS`); of a calm
            API fewer are told than were answered, for nobody needs to know.
        failed_at: Start of the last of these minutes in which one failed; None: none did since it was closed last.
        is_silent: It is open because nothing was answered for far longer than usual.
    """

    limit: str
    state: BreakerState
    since: float | None
    wait: Wait | None
    failed: int
    well: int
    timed_out: int
    tries: int
    well_at: float | None
    retries_left: float
    calls: Mapping[str, int] = field(default_factory=dict)
    failed_at: float | None = None
    is_silent: bool = False

    @property
    def is_closed(self) -> bool:
        """True when calls go, if only one by one at first."""
        return self.wait is None


def view_of(limit: str, reply: list[Any]) -> BreakerView:
    """Return how a breaker stands, from what `show.lua` replied."""
    (
        now, opened_at, opens_at, every_us, closed_at, well_at, failed, well, late, tries, left, cause, told, tally,
        silent, *_
    ) = reply  # fmt: skip
    state: BreakerState = "closed"
    wait = None
    if opened_at:
        state = "open" if now < opens_at else "half-open"
        text = told.decode("utf-8", "replace")
        wait = Wait(cause_of(cause), opens_at / 1e6, limit, text, probe_every_s=every_us / 1e6)
    elif closed_at and now - closed_at < RAMP_US:
        state = "ramping"
    return BreakerView(
        limit=limit,
        state=state,
        since=(opened_at or closed_at) / 1e6 or None,
        wait=wait,
        failed=failed,
        well=well,
        timed_out=late,
        tries=tries,
        well_at=well_at / 1e6 or None,
        retries_left=left / 1000,
        calls=(calls := _calls(tally, now))[0],
        failed_at=calls[1] if calls[1] > closed_at / 1e6 else None,
        is_silent=bool(opened_at and silent),
    )


def _calls(packed: bytes, now_us: int) -> tuple[dict[str, int], float]:
    """Return the calls of the last minutes by what became of them, those with any; and the last one with failures."""
    if len(packed) != TALLY.struct.size:
        return {}, 0.0
    tally, last = TALLY.unpack(packed), now_us // 60_000_000
    slots = [slot for slot in range(CALL_MINUTES) if last - CALL_MINUTES < tally[TallyAt.MINUTE + slot] <= last]
    counts = {
        name: [tally[TallyAt.COUNTED + slot * SORTS + sort] for slot in slots] for sort, name in enumerate(CALL_SORTS)
    }
    sums = {name: round(total) for name, of_minutes in counts.items() if (total := sum(of_minutes))}
    del counts[CALL_SORTS[WELL_SORT]]
    failed = (tally[TallyAt.MINUTE + slot] for slot, *some in zip(slots, *counts.values(), strict=True) if any(some))
    return sums, 60 * max(failed, default=0.0)


def answered_s(reply: list[Any]) -> float | None:
    """Return the seconds since the last success that was reported, from what `show.lua` replied; None: none was."""
    now, well_at = reply[0], reply[5]
    return (now - well_at) / 1e6 if well_at else None


def row_of(reply: list[Any], *, answered: int, answered_s: float) -> int:
    """Return the failures in a row that began a moment ago, from what `show.lua` replied.

    Those of a breaker that something else than an outage has opened are none, nor those that an answer has ended, of
    which Redis need not know yet. An answer to a call that was sent before the first of them proves nothing.

    Args:
        reply: Of the script.
        answered: Place of the last call that was answered; 0: nobody knows.
        answered_s: How long ago it was.
    """
    opened_at, cause, row, row_us, first = reply[1], reply[11], *reply[-3:]
    is_outage = not opened_at or cause_of(cause) == "outage"
    is_over = answered > first if answered and first else answered_s < row_us / 1e6
    return int(row) if is_outage and row_us < COMMON_S * 1e6 and not is_over else 0


async def read_breakers(store: Store, limits: Iterable[str]) -> list[BreakerView]:
    """Read how breakers stand, one round trip for all. Raises `StoreUnavailable`."""
    names = list(limits)
    asked = [store.run(SHOW, *SHOW.call(breaker=keys.breaker(name))) for name in names]
    return [view_of(name, reply) for name, reply in zip(names, await asyncio.gather(*asked), strict=True)]


def read_breakers_now(client: redis.Redis, limits: Iterable[str]) -> list[BreakerView]:
    """`read_breakers` through a plain client, for commands. Raises `redis.RedisError`."""
    return [view_of(name, run_script(client, SHOW, *SHOW.call(breaker=keys.breaker(name)))) for name in limits]
