"""One decision: how many slots and workers are wanted, and why, in words. Pure.

Slots for a load of `a` tasks at work on average: a + k * sqrt(a), square-root staffing as call centres have it (Halfin
and Whitt, 1981), with a share of the load as the floor of what is added. What waits adds the rate that makes it go
within `drain_s`. No pool is given more than its limits can feed, and one whose gate is shut nothing until it opens.

What it does not see: tasks of a kind that no minute has seen yet, and how long a single task takes. It goes by means.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import Field

from fleet.frozen import Frozen
from fleet.quoting import counted, duration
from fleet.scaling.demand import Bounds, Demand, LimitRoom, PoolDemand
from fleet.scaling.forecast import arrivals, burstiness, lift

#: Slots beyond the load, in square roots of it: with 1 about one task in six finds all slots busy and waits a moment.
SPREAD = 1.0
#: Seconds that a task is taken to hold its slot while none has finished.
UNKNOWN_S = 5.0
#: Pools that a reason names (count).
NAMED = 3


class PoolWant(Frozen):
    """What one pool is given."""

    pool: str
    slots: float = Field(description="Before rounding: pools share slots.")
    per_s: float = Field(description="Tasks a second that these slots are for.")
    why: str


class WantedOnce(Frozen):
    """What was wanted at a time."""

    at: float
    slots: int


class Decision(Frozen):
    """How many slots and workers are wanted."""

    at: float
    slots: int
    workers: int
    reason: str
    pools: tuple[PoolWant, ...] = ()
    held: tuple[WantedOnce, ...] = Field((), description="What was wanted lately.")


class _Need(NamedTuple):
    """What a pool would be given if no limit held it: tasks a second, tasks for which slots stay, and why."""

    demand: PoolDemand
    per_s: float
    why: str

    @property
    def service_s(self) -> float:
        return UNKNOWN_S if self.demand.service_s is None else self.demand.service_s


def decide(demand: Demand, bounds: Bounds, before: Decision | None = None) -> Decision:
    """Return what is wanted.

    Args:
        demand: What pools ask for, and what their limits can feed.
        bounds: Bounds and temper.
        before: The last decision, whose numbers keep this one from falling at once; None: there was none.
    """
    needs = [_need(pool, demand.at, bounds) for pool in demand.pools]
    calls = {need.demand.pool: (need.demand.limits, need.per_s * need.demand.calls) for need in needs}
    shares = _fed(calls, {limit.limit: limit.per_s for limit in demand.limits})
    wants = list(
        _fitted([_want(need, need.per_s * shares[need.demand.pool], bounds) for need in needs], needs, demand.limits)
    )
    exact = math.ceil(sum(want.slots for want in wants) - 1e-9)
    now = min(max(exact, bounds.least), bounds.most)
    lately = before.held if before is not None else (WantedOnce(at=demand.at, slots=demand.slots),)
    recent = (one for one in lately if one.at > demand.at - bounds.hold_s)
    past = (one.model_copy(update={"at": min(one.at, demand.at)}) for one in recent)  # clocks are set back
    held = (*past, WantedOnce(at=demand.at, slots=now))
    slots = min(max(max(one.slots for one in held), bounds.least), bounds.most)
    return Decision(
        at=demand.at,
        slots=slots,
        workers=math.ceil(slots / bounds.slots_each),
        reason=_reason(wants, exact, slots, now, bounds),
        pools=tuple(wants),
        held=_peaks(held),
    )


def _need(pool: PoolDemand, at: float, bounds: Bounds) -> _Need:
    opens_s = None if pool.opens_at is None else pool.opens_at - at
    if pool.is_shut and (opens_s is None or opens_s > bounds.lead_s):
        until = "nobody knows for how long" if opens_s is None else f"for {duration(opens_s)}"
        behind = f"{counted(pool.behind, 'task')} behind it, " if pool.behind else ""
        return _Need(pool, 0.0, f"shut {until}: {behind}{pool.why}".rstrip(": ,"))
    coming = arrivals(pool.minutes) * lift(pool.hours, at, bounds.lead_s)
    waiting = pool.ready + pool.due + (pool.behind if pool.is_shut else 0)
    parts = [f"{coming:.3g} tasks/s come"] if coming else []
    parts += [f"{counted(waiting, 'task')} {'waits' if waiting == 1 else 'wait'}"] if waiting else []
    return _Need(pool, coming + waiting / bounds.drain_s, ", ".join(parts))


def _fed(asked: Mapping[str, tuple[tuple[str, ...], float]], room: Mapping[str, float | None]) -> dict[str, float]:
    """Return the share of what each pool asks that its limits can give it, 0 to 1.

    A pool spreads what it asks over its limits by their room; of a limit that has less than is asked of it, all get the
    same share. So no limit gives more than it has, though one that others leave idle may give less than it could.

    Args:
        asked: By pool, the names of its limits and how much it asks of them together.
        room: By limit, how much it has; None: without end.
    """
    parts = dict[str, dict[str, float]]()
    for pool, (names, amount) in asked.items():
        known = {name: room.get(name) for name in names}
        total = sum(one for one in known.values() if one is not None)
        endless = not known or None in known.values()
        parts[pool] = {} if endless else {name: amount * (one or 0) / (total or 1) for name, one in known.items()}
    on_limit = defaultdict[str, float](float)
    for part in parts.values():
        for name, one in part.items():
            on_limit[name] += one
    gives = {name: min(1.0, (room[name] or 0) / amount) for name, amount in on_limit.items() if amount > 0}
    found = dict[str, float]()
    for pool, part in parts.items():
        amount = asked[pool][1]
        is_bound = bool(part) and amount > 0
        found[pool] = sum(one * gives.get(name, 1.0) for name, one in part.items()) / amount if is_bound else 1.0
    return found


def _want(need: _Need, per_s: float, bounds: Bounds) -> PoolWant:
    load = per_s * need.service_s
    spread = SPREAD * math.sqrt(load * burstiness(need.demand.minutes))
    slots = load + max(spread, bounds.buffer * load)
    is_fed = per_s >= need.per_s
    why = need.why if is_fed else f"{need.why}; its limits feed {per_s:.3g} a second"
    running = need.demand.running
    if running > slots:
        slots, why = float(running), f"{counted(running, 'task')} {'runs' if running == 1 else 'run'}, {why}"
    return PoolWant(pool=need.demand.pool, slots=slots, per_s=per_s, why=why.rstrip(", ") or "nothing comes")


def _fitted(wants: Sequence[PoolWant], needs: Sequence[_Need], limits: Iterable[LimitRoom]) -> Iterator[PoolWant]:
    """Yield what is wanted, less what limits of calls at the same time would leave idle; what runs keeps its slots."""
    most: dict[str, float | None] = {limit.limit: limit.in_flight for limit in limits}
    asked = {want.pool: (need.demand.limits, want.slots) for want, need in zip(wants, needs, strict=True)}
    shares = _fed(asked, most)
    for want, need in zip(wants, needs, strict=True):
        slots = max(float(need.demand.running), want.slots * shares[want.pool])
        if slots >= want.slots:
            yield want
        else:
            why = f"{want.why}; its limits take {counted(round(slots), 'call')} at the same time"
            yield want.model_copy(update={"slots": slots, "why": why})


def _peaks(held: Sequence[WantedOnce]) -> tuple[WantedOnce, ...]:
    """Return of these only what no later one exceeds: nothing else can ever be the most of a window that moves on."""
    kept: list[WantedOnce] = []
    for one in held:
        while kept and kept[-1].slots <= one.slots:
            kept.pop()
        kept.append(one)
    return tuple(kept)


def _reason(wants: Sequence[PoolWant], exact: int, slots: int, now: int, bounds: Bounds) -> str:
    asking = sorted((want for want in wants if want.slots), key=lambda want: -want.slots)
    quiet = [want for want in wants if not want.slots and want.why.startswith("shut")]
    told = [f"{want.pool}: {want.why}" for want in (asking or quiet)[:NAMED]]
    more = len(asking or quiet) - NAMED
    told += [f"and {more:,} more"] if more > 0 else []
    if exact < bounds.least:
        told.append(f"{bounds.least} are the least that is kept")
    if exact > bounds.most:
        told.append(f"{exact:,} are wanted, {bounds.most:,} allowed")
    if slots > now:
        told.append(f"{now:,} will do, if that lasts")
    return "; ".join(told) or "nothing comes and nothing waits"
