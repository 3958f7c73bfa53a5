"""What is revoked stays so, whatever is written to Redis afterwards."""

from __future__ import annotations

import asyncio

import pytest
import redis

from fleet.store import vault_keys
from fleet.store.client import Store, connect
from fleet.vault.delegations import hear_revoked_delegations
from fleet.vault.revocations import earliest, hear_revoked, read_revoked, times


@pytest.mark.parametrize("spoilt", ["nan", "-nan", "inf", "9e99", "never", "", "\x00", "1,5"])
def test_nothing_written_over_a_revocation_takes_it_back(spoilt: str) -> None:
    heard = earliest({"gone": 5.0}, times({b"gone": spoilt.encode()}))
    assert heard["gone"] <= 5.0
    assert earliest(heard, {}) == heard, "nor does deleting it"


@pytest.mark.parametrize("no_time", ["nan", "soon", ""])
def test_what_is_no_time_revokes_at_once_and_a_name_that_is_no_text_hides_no_other(
    redis_url: str, no_time: str
) -> None:
    with connect(redis_url, timeout_s=5) as client:
        _write(client, no_time)
        try:
            told = [read_revoked(client), *asyncio.run(_heard(redis_url))]
        finally:
            client.delete(vault_keys.revoked_keys(), vault_keys.revoked_delegations())
    assert [(one["other"], one["gone"]) for one in told] == [(7.0, 0.0)] * 3


async def _heard(url: str) -> list[dict[str, float]]:
    store = Store(url, timeout_s=5)
    try:
        return [await hear_revoked(store), await hear_revoked_delegations(store)]
    finally:
        await store.close()


def _write(client: redis.Redis, no_time: str) -> None:
    for key in (vault_keys.revoked_keys(), vault_keys.revoked_delegations()):
        client.hset(key, mapping={b"\xff\xfe": "1", "gone": no_time, "other": "7.0"})
