"""How pools and tasks are spread over several brokers, for people."""

from __future__ import annotations

from fleet.config import Settings
from fleet.engine.admission.gates import read_waiting
from fleet.signals.ahead.brokers_view import BrokerView
from fleet.store import keys
from fleet.store.running.brokers import MAIN, Anywhere, Brokers


def read_brokers(where: Anywhere, settings: Settings) -> tuple[BrokerView, ...]:
    """Return each of several brokers, the main one first; nothing where there is one. Two round trips each."""
    if not isinstance(where, Brokers):
        return ()
    pools = {name: [pool for pool in settings.pools if (settings.redis.broker_of(pool) or MAIN) == name]
             for name in (MAIN, *settings.redis.brokers)}  # fmt: skip
    rows = [BrokerView(name=name, pools=tuple(pools[name]), away=why) for name, why in where.away.items()]
    for name, client in where.clients.items():
        queues = [*map(keys.queue, settings.pools), settings.worker.inbox]
        waiting = [row.total for row in read_waiting(client, queues)]
        with client.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.zcard(keys.parked_order(queue))
            pipe.hlen(keys.unacked())
            *parked, held = pipe.execute()
        totals = {queue: a + int(b) for queue, a, b in zip(queues, waiting, parked, strict=True)}
        elsewhere = sum(count for queue, count in totals.items() if where.homes.get(queue, MAIN) != name)
        rows.append(
            BrokerView(
                name=name, pools=tuple(pools[name]), waiting=sum(totals.values()), elsewhere=elsewhere, held=int(held)
            )
        )
    return tuple(sorted(rows, key=lambda row: list(pools).index(row.name)))
