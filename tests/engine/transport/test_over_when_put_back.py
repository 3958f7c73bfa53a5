"""A task that was revoked, or whose end came, while a worker held it: put back to wait, it is found as over at once."""

from __future__ import annotations

import asyncio
import time

import pytest

from fleet.engine.messages.envelope import fresh_envelope, task_id_in
from fleet.engine.messages.queues import list_key
from fleet.engine.transport.parking.waiting import PutBack, put_back
from fleet.engine.transport.revoked import mark_revoked
from fleet.engine.transport.withdrawal import withdrawn
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.waits import Wait


@pytest.mark.parametrize("is_parked", [False, True])
@pytest.mark.parametrize("is_revoked", [False, True])
def test_it_is_found_where_it_waits(redis_url: str, is_parked: bool, is_revoked: bool) -> None:
    async def go_back() -> bool:
        store = Store(redis_url, timeout_s=5)
        try:
            at = time.time() + 3600 if is_parked else None
            return await put_back(store, PutBack("tag", "t", Wait("outage", time.time() + 3600), at))
        finally:
            await store.close()

    with connect(redis_url) as client:
        now = time.time()
        message = fresh_envelope(
            task_id="t", queue="q", priority=2, body=b"[]", queued_at=now, expires_at=None if is_revoked else now - 1
        )
        client.hset(keys.unacked(), "tag", list_key("q", 2).encode() + b"\n" + message)
        client.zadd(keys.unacked_index(), {"tag": now})
        if is_revoked:  # while it was held
            mark_revoked(client, ["t"])
            client.delete(keys.ends())
        assert asyncio.run(go_back())
        claimed = withdrawn.claim(client)
        assert claimed is not None and claimed[0] == "q"
        found = [one for stretch in withdrawn.withdraw(client, "q", "over") for one in stretch.found]
        assert [task_id_in(one.message) for one in found] == ["t"]
