"""The janitor's duties go on whatever they meet."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Mapping
from typing import Any

import pytest

from fleet import config
from fleet.engine.process import janitor
from fleet.engine.process.janitor import Janitor
from fleet.engine.transport import leases
from fleet.errors import FleetError
from fleet.roster import Roster
from fleet.store import keys
from fleet.store.client import Store, connect

WAIT_S = 10


def poison(task_id: str) -> bytes:
    return json.dumps({"body": "", "headers": {"id": task_id}, "properties": {}}).encode()


def test_poison_with_an_unusable_id_keeps_no_other_poison_from_being_buried(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.01)
    refused: list[str] = []

    async def refuse(task_id: str, error: FleetError, headers: Mapping[str, Any], body: bytes) -> None:
        if task_id == "fails":
            refused.append(task_id)
            raise RuntimeError("expected to be survived")
        refused.append(task_id)

    async def run() -> None:
        store = Store(redis_url)
        janitor = Janitor(store, store, Roster(store, config.current()), {}, refuse)
        await store.command("RPUSH", keys.poison(), poison("\ud800"), poison("good"), poison("fails"))
        duty = asyncio.create_task(janitor.bury_poison())
        try:
            async with asyncio.timeout(WAIT_S):
                while refused.count("fails") < 2:  # tried again, so the duty goes on
                    await asyncio.sleep(0.005)
        finally:
            duty.cancel()
            await store.close()

    asyncio.run(run())
    assert refused.count("good") == 1
    assert connect(redis_url).lrange(keys.poison(), 0, -1) == [poison("fails")]


def test_renewing_goes_on_after_an_error_of_any_kind(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.01)
    holdings = leases.Holdings()
    holdings.held.update({"\ud800": None, "tag": None})  # the first cannot be sent
    monkeypatch.setattr(leases, "_HOLDINGS", {"broker": holdings})

    async def run() -> None:
        store = Store(redis_url)
        await store.command("ZADD", keys.unacked_index(), 1, "tag")
        async with asyncio.timeout(WAIT_S):
            duty = asyncio.create_task(
                Janitor(store, store, Roster(store, config.current()), {}, _refuse).renew_leases()
            )
            while not holdings.is_renewed_by_loop:
                await asyncio.sleep(0.005)
            del holdings.held["\ud800"]
            while float(await store.command("ZSCORE", keys.unacked_index(), "tag")) == 1:
                await asyncio.sleep(0.005)
        duty.cancel()
        await store.close()

    asyncio.run(run())


async def _refuse(*_: Any) -> None:
    """Nothing is to be refused."""


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
