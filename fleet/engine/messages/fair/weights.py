"""The weights of tenants, from fleet.toml to where takes read them. Each worker that starts writes its own table."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.config.budgets import TenantSettings
from fleet.engine.messages.fair.flows import flow_of
from fleet.store import flow_keys
from fleet.store.client import Script, Store

WEIGH = Script.beside(__file__, "weigh.lua", keys="weights", argv="table*")


async def weigh(broker: Store, tenants: Mapping[str, TenantSettings]) -> None:
    """Let takes go by the weights of these tenants from now on; all others weigh 1."""
    table = [part for name, tenant in tenants.items() for part in (flow_of(name), repr(tenant.weight))]
    await broker.run(WEIGH, *WEIGH.call(weights=flow_keys.weights(), table=table))
