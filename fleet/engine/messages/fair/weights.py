"""The weights of tenants, from fleet.toml to where takes read them. Each worker that starts writes its own table."""

from __future__ import annotations

from fleet.config import Settings
from fleet.engine.messages.fair.flows import flow_of
from fleet.engine.messages.queues import list_key, task_queues
from fleet.store import flow_keys
from fleet.store.client import Script, Store

WEIGH = Script.beside(__file__, "weigh.lua", keys="weights flags*", argv="table*")


async def weigh(settings: Settings, broker: Store) -> None:
    """Let takes of one broker go by the weights in [tenants.NAME] from now on; all other tenants weigh 1."""
    table = [part for name, tenant in settings.tenants.items() for part in (flow_of(name), repr(tenant.weight))]
    flags = [flow_keys.has(list_key(queue.name, 0)) for queue in task_queues(settings)]
    call = WEIGH.call(weights=flow_keys.weights(), flags=flags, table=table)
    await broker.run(WEIGH, *call)
