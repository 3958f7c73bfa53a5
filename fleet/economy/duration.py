"""How long tasks will take, what binds, and what stops them: limits, slots, latency, money of the day. Pure.

The slowest of what works at the same time decides: each limit for the calls under it, the slots for all of them.
Weakness: what waits before is taken to be like what comes; nothing is taken to arrive meanwhile.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet.economy.habits import Capacity, Experience, Funds, Range

#: Seconds of one worker process that Fleet's own work on a task takes.
OWN_S = Range(0.0005, 0.003, 0.012)
#: Seconds from the first submission to the first call.
START_S = Range(0.0, 0.3, 3.0)
#: What speeds or slows the slowest part: a first burst; clocks that wait for each other, the last stragglers. And how
#: much of one answer's time comes on top.
SLACK, TAIL = Range(0.95, 1.03, 1.3), Range(0.0, 1.0, 1.0)


class Portion(Protocol):
    """Tasks of one pool, model and kind, as `estimate.Part`."""

    @property
    def pool(self) -> str:
        """Their pool."""
        ...

    @property
    def api(self) -> str:
        """Their `provider/model`."""
        ...

    @property
    def kind(self) -> str:
        """Their kind."""
        ...

    @property
    def tenant(self) -> str:
        """Their tenant, where it has a budget."""
        ...

    @property
    def tasks(self) -> int:
        """How many."""
        ...

    @property
    def calls(self) -> Range:
        """Calls of all of them."""
        ...

    @property
    def input_tokens(self) -> Range:
        """Of all of them."""
        ...

    @property
    def output_tokens(self) -> Range:
        """Of all of them."""
        ...

    @property
    def usd_picos(self) -> Range:
        """Of all of them, in 10^-12 dollars."""
        ...


@dataclass(frozen=True, slots=True)
class EarlyEnd:
    """Where money or requests of the day will be used up before the last task.

    Args:
        about: What is.
        after: Tasks that it still pays for.
        of: Tasks that it would have to pay for.
        opens_in_s: Seconds until there is more; None: never by itself.
    """

    about: str
    after: int
    of: int
    opens_in_s: float | None


@dataclass(frozen=True, slots=True)
class Duration:
    """How long it takes.

    Args:
        seconds: Until the last answer; None: a budget ends it, which does not open by itself.
        work_s: The same, had every budget enough.
        binds: What decides that, in words; empty: there is nothing to do.
        stops: What ends before the last task, the first one first.
        backlog: Waiting tasks that go before.
    """

    seconds: Range | None
    work_s: Range
    binds: str
    stops: tuple[EarlyEnd, ...]
    backlog: int


def duration_of(parts: Sequence[Portion], known: Experience) -> Duration:
    """Return how long tasks will take.

    Args:
        parts: The tasks.
        known: Limits, slots, latencies, what waits before, what may be spent.
    """
    if not parts:
        return Duration(Range.of(0), Range.of(0), "", (), 0)
    work = [_work(parts, known, at) for at in range(3)]
    work_s, binds = Range(*(seconds for seconds, _ in work)), work[1][1]
    stops = tuple(sorted(_stops(parts, known), key=lambda stop: stop.after))
    pools = {part.pool for part in parts}
    waits = [_waited(parts, known, at, work_s[at]) for at in range(3)]
    never = [one is None for one in waits]
    seconds = None if True in never else Range(*(one or 0.0 for one in waits))
    return Duration(seconds, work_s, binds, stops, sum(known.backlog.get(pool, 0) for pool in pools))


def _work(parts: Sequence[Portion], known: Experience, at: int) -> tuple[float, str]:
    """Return the seconds of the slowest part, and which it is. `at`: which end of each range."""
    found = [*_limits_s(parts, known, at), *_slots_s(parts, known, at)]
    slowest, binds = max(found)
    answer = max(known.latency_s(part.pool, part.kind)[at] for part in parts)
    total = slowest * SLACK[at] + answer * TAIL[at] + START_S[at]
    return max(total, answer), binds if slowest > answer else "the time to an answer"


def _slots_s(parts: Sequence[Portion], known: Experience, at: int) -> Iterator[tuple[float, str]]:
    behind = _behind(parts, known)
    busy_s = sum(part.calls[at] * behind[part.pool] * known.latency_s(part.pool, part.kind)[at] for part in parts)
    tasks = sum(part.tasks * behind[part.pool] for part in parts)
    yield busy_s / max(1, known.slots), f"{known.slots:,} slots"
    yield tasks * OWN_S[at] / max(1, known.processes), "Fleet's own work"


def _limits_s(parts: Sequence[Portion], known: Experience, at: int) -> Iterator[tuple[float, str]]:
    behind = _behind(parts, known)
    for api, room in known.rooms.items():
        own = [part for part in parts if part.api == api]
        if not own:
            continue
        factor = [behind[part.pool] for part in own]
        calls, given, made, busy_s = (
            sum(one * more for one, more in zip(column, factor, strict=True))
            for column in zip(
                *(
                    (
                        part.calls[at], part.input_tokens[at], part.output_tokens[at],
                        part.calls[at] * known.latency_s(part.pool, part.kind)[at],
                    )
                    for part in own
                ),
                strict=True,
            )
        )  # fmt: skip
        yield from _room_s(api, room, calls, given, made, busy_s)


def _room_s(
    api: str, room: Capacity, calls: float, given: float, made: float, busy_s: float
) -> Iterator[tuple[float, str]]:
    """Yield what each rate of a limit takes."""
    for amount, rate, what in (
        (calls, room.rpm, "requests a minute"),
        (given + made, room.tpm, "tokens a minute"),
        (given, room.input_tpm, "input tokens a minute"),
        (made, room.output_tpm, "output tokens a minute"),
    ):
        if rate:
            yield room.wait_s + max(0.0, amount / rate * 60 - room.burst_s), f"{what} of {api}"
    if room.in_flight:
        yield room.wait_s + busy_s / room.in_flight, f"calls at once of {api}"


def _behind(parts: Sequence[Portion], known: Experience) -> Mapping[str, float]:
    """Return by what factor each pool has more to do than these tasks, for what waits before them."""
    tasks: defaultdict[str, int] = defaultdict(int)
    for part in parts:
        tasks[part.pool] += part.tasks
    return {pool: 1 + known.backlog.get(pool, 0) / count for pool, count in tasks.items()}


def _paid(parts: Sequence[Portion], known: Experience) -> Iterator[tuple[Funds, Sequence[Portion]]]:
    """Yield each fund with the parts that it may pay: there may be 10,000 tenants, each with a fund and parts."""
    of_tenants: defaultdict[str, list[Portion]] = defaultdict(list)
    for part in parts:
        of_tenants[part.tenant].append(part)
    for fund in known.funds:
        yield fund, of_tenants.get(fund.tenant, []) if fund.tenant else parts


def _needs(parts: Sequence[Portion], behind: Mapping[str, float], fund: Funds, at: int) -> tuple[float, float, int]:
    """Return what a fund must pay in all, what of that goes to what waits before, and for how many tasks it pays.

    Whose tasks wait before is not known: those of a tenant are taken to be its share.
    """
    need, before, tasks = 0.0, 0.0, 0
    for part in parts:
        if fund.pays(part.pool, part.api, part.tenant):
            amount = part.usd_picos[at] if fund.unit == "usd" else part.calls[at]
            need, tasks = need + amount * behind[part.pool], tasks + part.tasks
            before += amount * (behind[part.pool] - 1)
    return need, before, tasks


def _stops(parts: Sequence[Portion], known: Experience) -> Iterator[EarlyEnd]:
    behind = _behind(parts, known)
    for fund, own in _paid(parts, known):
        need, before, tasks = _needs(own, behind, fund, 1)
        if need > fund.left and tasks:
            share = max(0.0, fund.left - before) / (need - before)
            yield EarlyEnd(fund.about, min(tasks, math.floor(tasks * share)), tasks, fund.opens_in_s)


def _waited(parts: Sequence[Portion], known: Experience, at: int, work_s: float) -> float | None:
    """Return the seconds with the waits for money; None: it never comes."""
    longest, behind = work_s, _behind(parts, known)
    for fund, own in _paid(parts, known):
        need, _, tasks = _needs(own, behind, fund, at)
        if need <= fund.left or not tasks:
            continue
        if fund.opens_in_s is None or fund.each <= 0:
            return None
        periods = math.ceil((need - fund.left) / fund.each)
        last = need - fund.left - (periods - 1) * fund.each
        longest = max(longest, fund.opens_in_s + (periods - 1) * fund.period_s + work_s * last / need)
    return longest
