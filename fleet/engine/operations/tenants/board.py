"""Which tenants wait, for how long, and what share of the takes each has. On demand; tasks pay nothing for it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

import redis

from fleet.config import Settings
from fleet.economy.bill.reader import read_bill
from fleet.engine.messages.fair.waiting import WaitingFlow, is_nobodys, names_of, read_heads, read_waiting, read_weights
from fleet.signals.tenants.view import NOBODY, TenantsView, TenantView
from fleet.store import keys
from fleet.store.private.two_redis import TwoRedis

#: Tenants that are told one by one (count): on the page, and by `fleet tenants`.
SHOWN, LISTED = 10, 1000
#: Seconds for which a tenant may be away before its weight is of no use (35 days).
BILLED_S = 35 * 86_400.0


def tenants_view(broker: redis.Redis, settings: Settings, *, most: int = SHOWN) -> TenantsView:
    """Return who waits, the most tasks first. One round trip where nobody does, else four.

    Args:
        broker: Plain client of the broker.
        settings: Whose queues, and which tenants have weights there.
        most: Tenants that are told one by one (count).

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    pools = {keys.queue(pool): pool for pool in settings.pools}
    waiting = read_waiting(broker, pools)
    if not waiting:
        return TenantsView()
    shown = waiting[:most]
    heads = read_heads(broker, shown)
    names = names_of(shown, heads, settings.tenants)
    weights = read_weights(broker)
    in_all = _weight_of_queues(waiting, weights)
    rows = tuple(
        TenantView(
            pool=pools[one.queue],
            tenant=NOBODY if is_nobodys(one.flow) else names.get(one.flow, one.flow),
            flow=one.flow,
            waiting=one.count,
            weight=weights.get(one.flow, 1.0),
            share=weights.get(one.flow, 1.0) / in_all[one.queue],
            since=head.queued_at,
        )
        for one, head in zip(shown, heads, strict=True)
    )
    return TenantsView(
        rows=rows,
        others=len(waiting) - len(shown),
        others_waiting=sum(one.count for one in waiting[most:]),
        by_pool=_count_by_pool(waiting, pools),
    )


def read_tenants(both: TwoRedis, settings: Settings) -> TenantsView:
    """Return who waits, and which tenants that fleet.toml names have a weight that nobody has used for `BILLED_S`.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    view = tenants_view(both.broker, settings, most=LISTED)
    weighted = [name for name, one in settings.tenants.items() if one.weight != 1]
    if not weighted:
        return view
    now_s = time.time()
    bill = read_bill(both.state, since_s=now_s - BILLED_S, until_s=now_s, by=("tenant",))
    known = {line.values[0] for line in bill.lines} | {row.tenant for row in view.rows}
    return view.model_copy(update={"unused": tuple(name for name in weighted if name not in known)})


def _weight_of_queues(waiting: Sequence[WaitingFlow], weights: dict[str, float]) -> dict[str, float]:
    found = defaultdict[str, float](float)
    for one in waiting:
        found[one.queue] += weights.get(one.flow, 1.0)
    return found


def _count_by_pool(waiting: Iterable[WaitingFlow], pools: dict[str, str]) -> dict[str, int]:
    found = defaultdict[str, int](int)
    for one in waiting:
        found[pools[one.queue]] += not is_nobodys(one.flow)
    return dict(found)
