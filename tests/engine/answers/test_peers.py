from __future__ import annotations

import asyncio
import time

import pytest

from fleet.engine.answers import peers
from fleet.engine.answers.peers import ValidatorPeers
from fleet.engine.transport import leases
from fleet.errors import StoreUnavailable
from fleet.store import keys
from fleet.store.client import Store


def test_processes_hear_of_verdicts_of_others_that_are_in_no_doubt_and_of_none_of_their_own(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "TELL_EVERY_S", 0.0)
    monkeypatch.setattr(peers, "READ_EVERY_S", 0.0)
    now = time.time()

    async def work() -> list[float | None]:
        store = Store(redis_url)
        living: list[str] | None = None
        one = ValidatorPeers(store, lambda pool: None, lambda: living)
        other = ValidatorPeers(store, lambda pool: None)
        heard = []

        async def as_other(given: dict[str, float]) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(leases, "_drawn", (leases.os.getpid(), "other"))
                await other._tell(given)

        async def hear(pool: str = "a|b") -> None:
            heard.append(await one.of(pool).gave_verdict_at())

        try:
            await store.command("HSET", keys.verdicts(), "a|b|dead", now - 2 * peers.OLD_S)
            await one._tell({"a|b": now})
            assert await store.command("HLEN", keys.verdicts()) == 1, "who is long gone is struck off"
            await hear()
            await as_other({"a|b": now - 5, "c": now})
            await hear()
            await hear("b")
            living = ["own"]
            await hear()
            living = ["own", "other"]
            await hear()
            await as_other({"c": now})
            await hear()
            await one.close()
            await one._tell({} if one._is_closed else {"a|b": now})
            assert await store.command("HKEYS", keys.verdicts()) == [b"c|other"], "who ends takes its own back"
        finally:
            await store.close()
        return heard

    assert asyncio.run(work()) == [None, now - 5, None, None, now - 5, None]


def test_while_redis_is_away_no_verdicts_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> float | None:
        store = Store("redis://127.0.0.1:1")

        async def away(*parts: object) -> None:
            raise StoreUnavailable("away")

        monkeypatch.setattr(store, "command", away)
        try:
            return await ValidatorPeers(store, lambda pool: None).of("a").gave_verdict_at()
        finally:
            await store.close()

    assert asyncio.run(work()) is None
