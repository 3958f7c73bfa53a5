"""How budgets stand, for commands, pages and metrics. O(budgets), of many of a kind the fullest.

Reads, and puts right what stands in the way of that: a call ranks its scope by what it has spent, and where no call
follows, the rank outlives the period, or the budget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import redis

from fleet.config import PERIODS, BudgetSettings, Period
from fleet.config.budgets import EACH, FLEET, RUN
from fleet.economy.budgets.layouts import STATE, BudgetAt, micros_allowed
from fleet.economy.budgets.live import in_force, live_of
from fleet.economy.budgets.scopes import each_of
from fleet.money import PICOS_PER_MICRO, dollars_of
from fleet.store import bill_keys

#: Scopes of `tenant:*`, of `bot:*` and of runs that are told of, those with the fullest budgets of each (count).
MOST_OF_MANY = 20
#: Scopes of each kind among which those are looked for, by the ranks that calls gave them (count).
CANDIDATES = 200
#: Looks at most until there are no candidates that have spent nothing (count).
LOOKS = 5
_ORDER = (FLEET, "pool", "tenant", "bot", RUN, "key", "delegation")
#: Kinds of which there may be many.
_MANY = (*EACH, RUN)


class PeriodReading(NamedTuple):
    """What is spent of one amount.

    Args:
        period: What it is for.
        allowed_usd: What it allows.
        spent_picos: What was spent of it, in 10^-12 dollars.
        began_at: When the period began (Unix time); of the one without an end: when the first call asked; 0: none did.
        ends_at: When it ends; None: it does not.
    """

    period: Period
    allowed_usd: float
    spent_picos: int
    began_at: float
    ends_at: float | None

    @property
    def spent_usd(self) -> float:
        return dollars_of(self.spent_picos)


class BudgetReading(NamedTuple):
    """How the budgets of one scope stand.

    Args:
        scope: Whose.
        settings: What holds for it.
        is_live: It was set while the fleet runs, and is not what fleet.toml says.
        amounts: Of each period that is limited.
        reserved_usd: For calls that are under way.
        first_at: When its first call asked (Unix time); 0: none did.
    """

    scope: str
    settings: BudgetSettings
    is_live: bool
    amounts: tuple[PeriodReading, ...]
    reserved_usd: float
    first_at: float = 0.0

    @property
    def share(self) -> float:
        """Used share of its fullest amount."""
        return max((one.spent_usd / one.allowed_usd for one in self.amounts), default=0.0)

    @property
    def rank(self) -> float:
        """The same with what is reserved, as a call ranks its scope."""
        return max(((one.spent_usd + self.reserved_usd) / one.allowed_usd for one in self.amounts), default=0.0)


def read_budgets(
    client: redis.Redis, configured: Mapping[str, BudgetSettings], *, scopes: Iterable[str] | None = None
) -> list[BudgetReading]:
    """Return how budgets stand: fleet, pools, tenants, bots, runs. Two round trips, and one more to put ranks right.

    Args:
        client: State Redis.
        configured: Budgets in fleet.toml.
        scopes: Only these; None: all of fleet and pools, and the fullest of the others.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    if scopes is not None:
        found, _ = _look(client, configured, list(scopes))
        return sorted(found, key=_order)
    for _ in range(LOOKS):
        found, named = _look(client, configured, None)
        if not _forget_idle(client, named.ranked, found):
            break
    return _fullest(sorted(found, key=_order), named.own)


class _Named(NamedTuple):
    """What is known of scopes by name: those that have a budget of their own but runs, and the ranks of candidates."""

    own: Collection[str]
    ranked: Mapping[str, float]


def _look(
    client: redis.Redis, configured: Mapping[str, BudgetSettings], names: list[str] | None
) -> tuple[list[BudgetReading], _Named]:
    """Return how the scopes stand that have a budget; of None: of all, and of the candidates of many."""
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(bill_keys.budgets_live())
        for kind in _MANY:
            pipe.zrevrange(bill_keys.budget_shares(kind), 0, CANDIDATES - 1, withscores=True)
        (seconds, micros), rows, *ranks = pipe.execute()
    live = live_of(rows)
    ranked = {name.decode(): share for of_kind in ranks for name, share in of_kind}
    own = {scope for scope in (*configured, *live) if not scope.startswith(f"{RUN}:")}
    if names is None:
        names = _names(configured, live, ranked)
    packed: list[Any] = client.mget([bill_keys.spent(name) for name in names]) if names else []
    now_s = seconds + micros / 1e6
    found = [
        _reading(name, *settings, STATE.unpack(state or b""), now_s)
        for name, state in zip(names, packed, strict=True)
        if (settings := in_force(name, configured, live)) is not None
    ]
    return found, _Named(own, ranked)


def _order(one: BudgetReading) -> tuple[int, float, str]:
    return _ORDER.index(one.scope.partition(":")[0]), -one.share, one.scope


def _forget_idle(client: redis.Redis, ranked: Mapping[str, float], found: Iterable[BudgetReading]) -> bool:
    """Let candidates have the ranks that they should have by now; True when some have none, so that others come up."""
    shares, has_gone = {one.scope: one.rank for one in found if one.rank}, False
    with suppress(redis.ResponseError):  # who may only read sees them in their old order
        for kind in _MANY:
            ranks = {scope: rank for scope, rank in ranked.items() if scope.startswith(f"{kind}:")}
            gone = [scope for scope in ranks if scope not in shares]
            moved = {
                scope: shares[scope] for scope, rank in ranks.items() if abs(shares.get(scope, rank) - rank) > 0.001
            }
            if moved:
                client.zadd(bill_keys.budget_shares(kind), moved, xx=True)
            if gone:
                has_gone = bool(client.zrem(bill_keys.budget_shares(kind), *gone)) or has_gone
    return has_gone


def _fullest(found: Sequence[BudgetReading], own: Collection[str]) -> list[BudgetReading]:
    """Return readings in their order without those of many that are not among the fullest of their kind."""
    told: list[BudgetReading] = []
    counted: Counter[str] = Counter()
    for one in found:
        kind = each_of(one.scope)
        if kind and one.scope not in own:
            counted[kind] += 1
        if counted[kind] <= MOST_OF_MANY or one.scope in own:
            told.append(one)
    return told


def _names(
    configured: Mapping[str, BudgetSettings], live: Mapping[str, BudgetSettings | None], fullest: Iterable[str]
) -> list[str]:
    """Return the scopes to read; one that stands for many counts itself only while none of them has called."""
    named = list(dict.fromkeys((*configured, *live)))
    runs = [scope for scope in named if scope.startswith(f"{RUN}:")]
    many = [scope for scope in (*fullest, *runs[-MOST_OF_MANY:]) if in_force(scope, configured, live) is not None]
    kinds = {each_of(scope) for scope in many}
    return list(dict.fromkeys((*(s for s in named if s not in kinds and s not in runs), *many)))


def _reading(
    scope: str, settings: BudgetSettings, is_live: bool, state: tuple[float, ...], now_s: float
) -> BudgetReading:
    amounts = []
    for number, (period, allowed) in enumerate(zip(PERIODS, settings.allowed, strict=True), start=1):
        if allowed is None:
            continue
        began_at, ends_at = bounds(period, now_s)
        is_now = period == "in all" or state[BudgetAt.START + number] >= began_at
        micros, rest = state[BudgetAt.MICROS + number], state[BudgetAt.REST + number]
        picos = int(micros) * PICOS_PER_MICRO + int(rest) if is_now else 0
        since = state[BudgetAt.START + number] if period == "in all" else began_at
        amounts.append(PeriodReading(period, micros_allowed(allowed) / 1e6, picos, since, ends_at))
    first_at = state[BudgetAt.START + len(PERIODS)]
    return BudgetReading(scope, settings, is_live, tuple(amounts), state[BudgetAt.RESERVED] / 1e6, first_at)


def bounds(period: Period, at_s: float) -> tuple[float, float | None]:
    """Return when the period of a time began and when it ends (Unix time, UTC); one that never ends: 0 and None."""
    at = datetime.fromtimestamp(at_s, UTC).replace(minute=0, second=0, microsecond=0)
    if period == "hour":
        return at.timestamp(), (at + timedelta(hours=1)).timestamp()
    day = at.replace(hour=0)
    if period == "day":
        return day.timestamp(), (day + timedelta(days=1)).timestamp()
    if period == "month":
        first = day.replace(day=1)
        return first.timestamp(), (first + timedelta(days=31)).replace(day=1).timestamp()
    return 0.0, None
