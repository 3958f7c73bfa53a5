"""The janitor's duties go on whatever they meet."""

from __future__ import annotations

import asyncio
import errno
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from fleet import config
from fleet.engine.messages import weight
from fleet.engine.outcomes.results import Done
from fleet.engine.process.duties import janitor
from fleet.engine.process.duties.janitor import BURY_AT_ONCE, Janitor
from fleet.engine.process.duties.renewer import Renewer
from fleet.engine.transport import leases
from fleet.errors import FleetError
from fleet.roster import Roster
from fleet.store import keys
from fleet.store.client import Store, connect

WAIT_S = 10


def poison(task_id: str) -> bytes:
    return json.dumps({"body": "", "headers": {"id": task_id}, "properties": {}}).encode()


def test_no_letter_that_cannot_be_buried_stops_the_rest(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.01)
    buried: list[str] = []

    async def refuse(task_id: str, error: FleetError, headers: Mapping[str, Any], body: bytes) -> Done:
        if task_id == "fails":
            raise RuntimeError("expected to be survived")
        buried.append(task_id)
        return Done("failed")

    bad = [b"no JSON at all", b"[" * 100_000, poison("\ud800"), poison("fails")] * BURY_AT_ONCE

    async def run() -> None:
        store = Store(redis_url)
        duties = Janitor(store, store, refuse)
        await store.command("RPUSH", keys.poison(), *bad, poison("good"))
        duty = asyncio.create_task(duties.bury_poison())
        try:
            async with asyncio.timeout(WAIT_S):
                while await store.command("LLEN", keys.poison()):
                    await asyncio.sleep(0.005)
        finally:
            duty.cancel()
            await store.close()

    asyncio.run(run())
    client = connect(redis_url)
    assert buried == ["good"]
    kept = Counter(client.lrange(keys.unreadable(), 0, -1))  # for an operator to look at
    assert kept == Counter(map(weight.cut, bad)), f"expected {len(bad)} letters, long ones cut, got {kept.total()}"
    assert client.ttl(keys.unreadable()) > 0


def test_renewing_goes_on_after_an_error_of_any_kind(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.01)
    holdings = leases.Holdings()
    holdings.held.update({"\ud800": None, "tag": None})  # the first cannot be sent
    monkeypatch.setattr(leases, "_HOLDINGS", {"broker": holdings})

    async def run() -> None:
        store = Store(redis_url)
        await store.command("ZADD", keys.unacked_index(), 1, "tag")
        async with asyncio.timeout(WAIT_S):
            duty = asyncio.create_task(Renewer(store, Roster(store, config.current()), {}).run())
            while not holdings.is_renewed:
                await asyncio.sleep(0.005)
            del holdings.held["\ud800"]
            while float(await store.command("ZSCORE", keys.unacked_index(), "tag")) == 1:
                await asyncio.sleep(0.005)
        duty.cancel()
        await store.close()

    asyncio.run(run())


async def _refuse(*_: Any) -> Done:
    """Nothing is to be refused."""
    raise AssertionError


def test_a_duty_that_fails_begins_again_and_one_that_is_switched_off_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(janitor, "RESTART_S", 0.0)
    turns = []

    async def duty() -> None:
        turns.append(1)
        if len(turns) < 3:
            raise OSError(errno.EMFILE, "Too many open files")

    asyncio.run(janitor.for_ever(duty))
    assert len(turns) == 3
    assert [line for line in caplog.messages if "duty failed" in line and "OSError" in line]
