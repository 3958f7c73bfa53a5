"""How many tasks waited, minute by minute: written by one worker of the fleet, on a real Redis."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from fleet.config import PoolSettings, Settings
from fleet.engine.operations.overview import Overview
from fleet.engine.process.duties.backlog_history import BACKLOG_MINUTES, BacklogHistory
from fleet.engine.process.duties.unusual_use import UnusualUse
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.store.running.brokers import Brokers
from tests.engine.operations.test_waits import serve
from tests.redis_server import RedisServer

SETTINGS = Settings(pools={name: PoolSettings(bots=1) for name in ("a", "b")})


def test_one_worker_writes_each_minute_and_a_growing_backlog_is_told(redis_url: str) -> None:
    with connect(redis_url) as client:
        seconds, _ = client.time()  # type: ignore[misc]
        last = int(seconds) // 60  # type: ignore[arg-type]

        async def work() -> None:
            store = Store(redis_url)
            one, other = (BacklogHistory(SETTINGS, store, store) for _ in range(2))
            try:
                await one.note(last - BACKLOG_MINUTES - 5)
                client.hset(keys.backlogs(), str(last - 4), "")  # its writer has died
                for minute in range(last - 12, last + 1):
                    client.rpush(keys.queue("a"), *["x"] * 10)
                    wrote = await asyncio.gather(one.note(minute), other.note(minute))
                    assert sorted(wrote) == [False, minute != last - 4]
            finally:
                await store.close()

        asyncio.run(work())
        kept = {int(field) for field in client.hkeys(keys.backlogs())}  # type: ignore[union-attr]
        assert kept == set(range(last - 12, last + 1))
        assert client.ttl(keys.backlogs()) > 0  # type: ignore[operator]
        serve(client, "fleet.a", "fleet.b")  # else nobody takes them, which is told instead
        found = [one for one in Overview(SETTINGS, state=client, broker=client).read().diagnoses if one.about == "a"]
        assert [one.kind for one in found] == ["backlog_grows"]
        assert found[-1].tasks == 130
        assert "none of its tasks has finished" in found[-1].sentence


def test_while_a_broker_is_away_what_others_have_is_counted_and_what_it_has_stands_as_it_was(
    redis_url: str, tmp_path: Path
) -> None:
    west = RedisServer(tmp_path)

    async def work() -> None:
        main, branch = Store(redis_url), Store(west.url, timeout_s=0.5)
        both = Brokers({"main": main, "west": branch}, {keys.queue("b"): "west"})
        history, use = BacklogHistory(SETTINGS, main, both), UnusualUse(SETTINGS, main, both)
        await main.command("RPUSH", keys.queue("a"), *["x"] * 10)
        await branch.command("RPUSH", keys.queue("b"), *["x"] * 7)
        try:
            await history.note(1)
            assert await use._waiting() == {"a": 10, "b": 7}
            west.kill()
            await main.command("RPUSH", keys.queue("a"), "x")
            await history.note(2)
            assert await use._waiting() == {"a": 11, "b": 7}
            rows = await main.command("HMGET", keys.backlogs(), 1, 2)
            assert [json.loads(row) for row in rows] == [{"a": 10, "b": 7}, {"a": 11, "b": 7}]
        finally:
            await main.close()
            await branch.close()

    with connect(redis_url) as client:
        client.flushall()
    try:
        asyncio.run(work())
    finally:
        west.stop()
