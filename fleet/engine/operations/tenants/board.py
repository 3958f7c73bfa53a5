"""Which tenants wait, for how long, and what share of the takes each has. On demand; tasks pay nothing for it.

A producer may name tenants at will, and queue what is long: how much is looked at is bounded, and a page that is read
each second looks again only now and then when there is much to look at.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

import redis

from fleet.config import Settings
from fleet.economy.bill.reader import read_bill
from fleet.engine.messages.fair.waiting import (
    BYTES_AT_ONCE,
    FLOWS_AT_ONCE,
    FLOWS_MOST,
    WhoWaits,
    is_nobodys,
    names_of,
    read_heads,
    read_waiting,
    read_weights,
)
from fleet.signals.tenants.view import NOBODY, TenantsView, TenantView
from fleet.store import keys
from fleet.store.private.two_redis import TwoRedis
from fleet.store.running.brokers import Anywhere, at_each

#: Tenants told one by one (count), and flows looked at to know which: on the page, by `fleet tenants`.
SHOWN, SHOWN_OF = 10, FLOWS_MOST
LISTED, LISTED_OF = 1000, 10 * FLOWS_MOST
#: Seconds for which a page keeps what it took more than a step to read.
KEPT_S = 10.0
#: Seconds for which a tenant may be away before its weight is of no use (35 days).
BILLED_S = 35 * 86_400.0


class TenantBoard:
    """Who waits, for a page. Belongs to one fleet; safe to use from several threads."""

    def __init__(self) -> None:
        self._kept: tuple[float, TenantsView] | None = None

    def read(self, broker: Anywhere, settings: Settings) -> TenantsView:
        """Return who waits, the first `SHOWN`; for `KEPT_S` what was read last, if that was much."""
        now_s, kept = time.monotonic(), self._kept
        if kept is not None and now_s - kept[0] < KEPT_S:
            return kept[1]
        view, is_much = _look(broker, settings, settings.pools, is_page=True)
        self._kept = (now_s, view) if is_much else None
        return view


def tenants_view(broker: Anywhere, settings: Settings, pools: Iterable[str] | None = None) -> TenantsView:
    """Return who waits, the first `LISTED`. One round trip where nobody does.

    Args:
        broker: Plain client of the broker, or of several.
        settings: Which tenants have weights there.
        pools: Whose queues; None: all.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    return _look(broker, settings, settings.pools if pools is None else pools, is_page=False)[0]


def read_tenants(both: TwoRedis, settings: Settings) -> TenantsView:
    """Return who waits, and which tenants that fleet.toml names have a weight that nobody has used for `BILLED_S`.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    view = tenants_view(both.broker, settings)
    weighted = [name for name, one in settings.tenants.items() if one.weight != 1]
    if not weighted:
        return view
    now_s = time.time()
    bill = read_bill(both.state, since_s=now_s - BILLED_S, until_s=now_s, by=("tenant",))
    known = {line.values[0] for line in bill.lines} | {row.tenant for row in view.rows}
    return view.model_copy(update={"unused": tuple(name for name in weighted if name not in known)})


def _together(parts: Sequence[tuple[TenantsView, bool]]) -> tuple[TenantsView, bool]:
    """Put together who waits at several brokers: a tenant of a pool that has moved may wait at two."""
    views = [view for view, _ in parts]
    rows: dict[tuple[str, str], TenantView] = {}
    for one in (row for view in views for row in view.rows):
        before = rows.get((one.pool, one.flow))
        rows[one.pool, one.flow] = (
            one if before is None else before.model_copy(update={"waiting": before.waiting + one.waiting})
        )
    by_pool: dict[str, int] = {}
    for pool, count in (item for view in views for item in view.by_pool.items()):
        by_pool[pool] = max(by_pool.get(pool, 0), count)
    whole = TenantsView(
        rows=tuple(sorted(rows.values(), key=lambda one: -one.waiting)),
        others=sum(view.others for view in views),
        others_waiting=sum(view.others_waiting for view in views),
        by_pool=by_pool,
    )
    return whole, any(is_much for _, is_much in parts)


@at_each(_together)
def _look(broker: redis.Redis, settings: Settings, names: Iterable[str], *, is_page: bool) -> tuple[TenantsView, bool]:
    """Return who waits in pools, the most tasks first, and whether it took more than a step to know it."""
    pools, most = {keys.queue(pool): pool for pool in names}, SHOWN if is_page else LISTED
    waiting = read_waiting(broker, pools, most=SHOWN_OF if is_page else LISTED_OF)
    if not waiting.flows and not waiting.unseen:
        return TenantsView(), False
    shown, rest = waiting.flows[:most], waiting.flows[most:]
    heads = read_heads(broker, shown)
    tenants, weights = names_of(shown, heads, settings.tenants), read_weights(broker)
    in_all = _weight_of_queues(waiting, weights)
    rows = tuple(
        TenantView(
            pool=pools[one.queue],
            tenant=NOBODY if is_nobodys(one.flow) else tenants.get(one.flow, one.flow),
            flow=one.flow,
            waiting=one.count,
            weight=weights.get(one.flow, 1.0),
            share=weights.get(one.flow, 1.0) / in_all[one.queue],
            since=head.queued_at,
        )
        for one, head in zip(shown, heads, strict=True)
    )
    view = TenantsView(
        rows=rows,
        others=len(rest) + sum(waiting.unseen.values()),
        others_waiting=sum(one.count for one in rest) + waiting.unseen_tasks,
        by_pool=_count_by_pool(waiting, pools),
    )
    is_much = len(waiting.flows) > FLOWS_AT_ONCE or sum(head.bytes_read for head in heads) > BYTES_AT_ONCE
    return view, is_much or bool(waiting.unseen)


def _weight_of_queues(waiting: WhoWaits, weights: dict[str, float]) -> dict[str, float]:
    found = defaultdict[str, float](float, waiting.unseen)  # nobody knows whose those are: they weigh 1
    for one in waiting.flows:
        found[one.queue] += weights.get(one.flow, 1.0)
    return found


def _count_by_pool(waiting: WhoWaits, pools: dict[str, str]) -> dict[str, int]:
    found = defaultdict[str, int](int, {pools[queue]: count for queue, count in waiting.unseen.items()})
    for one in waiting.flows:
        found[pools[one.queue]] += not is_nobodys(one.flow)
    return dict(found)
