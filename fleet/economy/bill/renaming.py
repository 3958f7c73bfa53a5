"""Another name for a tenant on the bill: what was paid stays, for whom is not said any more. For `fleet forget`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import redis

from fleet.economy.bill.rows import spelt
from fleet.economy.bill.scripts import RENAME_ROW
from fleet.store import bill_keys
from fleet.store.client import run_script

#: Rows looked at in one step (count).
STEP = 1000
#: Place of the tenant in the name of a row of an hour or a day.
_TENANT = 1


def holds_rows_by_tenant(key: str) -> bool:
    """True for the key of a hash whose rows name tenants: of an hour, or of a day."""
    return key.startswith((bill_keys.hour(0)[:-1], bill_keys.day(0)[:-1]))


def rows_of_tenant(client: redis.Redis, key: str, tenant: str) -> Iterator[str]:
    """Yield the names of a tenant's rows in one hash. Only names that contain the tenant's leave Redis."""
    for name, _ in client.hscan_iter(key, match=f'*"{tenant}"*', count=STEP):
        if _tenant_in(name) == tenant:
            yield name.decode()


def rename_row(client: redis.Redis, key: str, name: str, tenant: str) -> bool:
    """Give a row to another tenant, in one step; False when it has gone. Its sums are added to what is there."""
    parts = json.loads(name)
    parts[_TENANT] = tenant
    return bool(run_script(client, RENAME_ROW, *RENAME_ROW.call(rows=key, before=name, after=spelt(*parts))))


def _tenant_in(name: bytes) -> object:
    """Return the tenant that a row names; None: it is another row, such as that of what had no room."""
    try:
        return json.loads(name)[_TENANT]
    except (ValueError, LookupError):
        return None
