"""What tasks will take before any of them is sent: tokens, dollars and time, each with a range. Pure.

One engine for `fleet run --dry-run` and `fleet simulate`. Sums of sums: what is not known of a kind or a model is the
same error for all of its tasks, so it does not average out; what differs from task to task does.

Weakness: nothing is taken to be read from a provider's cache unless answers to the same file show it, fallback ladders
are left out, and a provider that fails for long makes every figure of time wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from fleet.economy.duration import Duration, duration_of
from fleet.economy.habits import PLAIN_CALLS, UNKNOWN_RATIO, Experience, Habit, Range, Z
from fleet.economy.prices import Price
from fleet.usage import Usage


class Weighed(NamedTuple):
    """One task as a bot of its pool will ask it.

    Args:
        pool: Its pool.
        api: `provider/model`.
        kind: Its kind.
        tier: The tier that is asked for; None: the usual one.
        input_tokens: By estimate, on average over the bots that may get it.
        variance: Of that, from bot to bot.
        beside_tokens: Those of them that are told beside the messages, a schema and tools: not everybody counts them.
        most_tokens: The longest answer, each of several.
        calls: Paid calls that it takes where its pool has shown nothing.
        most_picos: `max_cost_usd` in 10^-12 dollars; None: it has none.
        tenant: For whom it is; empty: nobody in particular.
        by_s: Seconds from its submission until its answer is needed; None: it does not say.
        prefix: Name of how its prompt begins, as that of others does; empty: nobody knows it by that.
    """

    pool: str
    api: str
    kind: str
    tier: str | None
    input_tokens: float
    most_tokens: int
    variance: float = 0.0
    beside_tokens: int = 0
    calls: Range = PLAIN_CALLS
    most_picos: int | None = None
    tenant: str = ""
    by_s: float | None = None
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """The tasks of one pool, model and kind; of a tenant apart that has a budget."""

    pool: str
    api: str
    kind: str
    tasks: int
    calls: Range
    input_tokens: Range
    output_tokens: Range
    usd_picos: Range
    is_guessed: bool
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is to be expected.

    Args:
        tasks: How many.
        input_tokens: All of them.
        output_tokens: All of them.
        usd_picos: What those with a price cost, in 10^-12 dollars.
        unpriced: Tasks without a price, by `provider/model` and tier.
        too_dear: Tasks that their own `max_cost_usd` is expected to end.
        parts: By pool, model, kind, and tenant with a budget.
        duration: How long, what binds, and what stops it.
    """

    tasks: int
    input_tokens: Range
    output_tokens: Range
    usd_picos: Range
    unpriced: Mapping[tuple[str, str | None], int]
    too_dear: int
    parts: tuple[Part, ...]
    duration: Duration

    @property
    def guessed(self) -> Mapping[tuple[str, str], int]:
        """Tasks of whose answers' length nothing is known, by model and kind."""
        found: Counter[tuple[str, str]] = Counter()
        for part in self.parts:
            if part.is_guessed:
                found[part.api, part.kind] += part.tasks
        return found


@dataclass(slots=True)
class _Group:
    """Sums over tasks of one pool, model, tier and kind."""

    calls: Range
    tasks: int = 0
    given: float = 0.0
    variance: float = 0.0
    beside: int = 0
    most: int = 0
    squares: int = 0
    input_picos: int = 0
    most_picos: int = 0
    unpriced: int = 0
    bounds: list[tuple[int, int, int]] = field(default_factory=list)


#: Pool, `provider/model`, kind, tier and tenant of a group.
_Key = tuple[str, str, str, str | None, str]


def estimate(asked: Iterable[Weighed], price: Price, known: Experience) -> Estimate:
    """Return what tasks will take.

    Args:
        asked: The tasks. 10,000 take about 30 ms.
        price: Cost of one call.
        known: What is known beforehand.
    """
    groups = _grouped(asked, price, frozenset(fund.tenant for fund in known.funds))
    parts, too_dear = [], 0
    unpriced: Counter[tuple[str, str | None]] = Counter()
    for (pool, api, kind, tier, tenant), group in groups.items():
        habit = known.habits.get((api, kind))
        share = _share(group, habit, kind)
        parts.append(replace(_part(pool, api, kind, group, habit, share, known), tenant=tenant))
        too_dear += sum(given + most * share.expected > bound for given, most, bound in group.bounds)
        if group.unpriced:
            unpriced[api, tier] += group.unpriced
    return Estimate(
        tasks=sum(part.tasks for part in parts),
        input_tokens=_sum(part.input_tokens for part in parts),
        output_tokens=_sum(part.output_tokens for part in parts),
        usd_picos=_sum(part.usd_picos for part in parts),
        unpriced=unpriced,
        too_dear=too_dear,
        parts=tuple(parts),
        duration=duration_of(parts, known),
    )


def _grouped(asked: Iterable[Weighed], price: Price, tenants: frozenset[str]) -> dict[_Key, _Group]:
    groups: dict[_Key, _Group] = {}
    costs: dict[tuple[str, str | None, int, int], tuple[int, int] | None] = {}
    for one in asked:
        key = (one.pool, one.api, one.kind, one.tier, one.tenant if one.tenant in tenants else "")
        group = groups.get(key) or groups.setdefault(key, _Group(one.calls))
        size = (one.api, one.tier, round(one.input_tokens), one.most_tokens)
        cost = costs[size] if size in costs else costs.setdefault(size, _cost(price, *size))
        group.tasks += 1
        group.given += one.input_tokens
        group.variance += one.variance
        group.beside += one.beside_tokens
        group.most += one.most_tokens
        group.squares += one.most_tokens**2
        group.calls = max(group.calls, one.calls)
        if cost is None:
            group.unpriced += 1
            continue
        group.input_picos += cost[0]
        group.most_picos += cost[1]
        if one.most_picos is not None:
            group.bounds.append((*cost, one.most_picos))
    return groups


def _cost(price: Price, api: str, tier: str | None, given: int, most: int) -> tuple[int, int] | None:
    """Return what the input of a call costs, and what its longest answer costs; None: it has no price."""
    whole = price(api, Usage(input_tokens=given, output_tokens=most), tier)
    bare = price(api, Usage(input_tokens=given), tier)
    return None if whole is None or bare is None else (bare, whole - bare)


def _share(group: _Group, habit: Habit | None, kind: str) -> Range:
    """Return how much of their longest answers the tasks of a group get.

    Of what nobody has seen, a length between one token and the longest is as likely on any scale (log-uniform), and
    the range is all of it.
    """
    one = min(1.0, group.tasks / group.most)
    if habit is not None and habit.is_good_for(kind):
        found = habit.range(math.sqrt(group.squares) / group.most)
        mean = max(one, found.expected)
        return Range(min(mean, max(one, found.low)), mean, max(mean, found.high))
    longest = 1 / one
    guess = 1.0 if longest <= 1 else (longest - 1) / math.log(longest) / longest
    return Range(one, guess if habit is None else min(1.0, max(one, habit.share)), 1.0)


def _part(pool: str, api: str, kind: str, group: _Group, habit: Habit | None, share: Range, known: Experience) -> Part:
    is_good = habit is not None and habit.is_good_for(kind)
    own = habit.input_ratio(group.tasks) if habit is not None and is_good else None
    calls = Range.of(1.0) if own is not None else known.calls.get(pool, group.calls)
    if not is_good:  # what is short for its kind is asked of another bot, and these may differ
        calls = calls._replace(high=max(calls.high, float(known.opinions)))
    ratio = known.ratios.get(api, UNKNOWN_RATIO) if own is None else own
    off = Z * math.sqrt(group.variance)
    least = group.given - off - (group.beside if own is None else 0)
    given = Range(max(0.0, least), group.given, group.given + off).times(ratio).times(calls)
    made = share.times(Range.of(group.most)).times(calls)
    input_picos = Range(*(group.input_picos * one / (group.given or 1.0) for one in given))
    cost = input_picos.plus(share.times(Range.of(group.most_picos)).times(calls))
    if habit is not None and habit.is_own and habit.price != 1:
        cost = cost.times(Range(habit.price * 0.96, habit.price, habit.price * 1.04))
    each = calls.times(Range.of(group.tasks))
    return Part(pool, api, kind, group.tasks, each, given, made, cost, is_guessed=not is_good)


def _sum(ranges: Iterable[Range]) -> Range:
    total = Range.of(0)
    for one in ranges:
        total = total.plus(one)
    return total
