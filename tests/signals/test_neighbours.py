"""Two fleets in one Redis see each other's mark."""

from __future__ import annotations

import asyncio

import pytest

from fleet.config import PoolSettings, Settings, load
from fleet.signals import neighbours
from fleet.signals.neighbours import leave_mark, lift_mark, look_for_strangers
from fleet.store import keys
from fleet.store.client import Store, connect


def settings_of(*pools: str) -> Settings:
    return load(pools={name: PoolSettings() for name in pools})


OURS, THEIRS = ("research", "writing"), ("sales", "support")


def mark(url: str, *fleets: tuple[str, ...]) -> list[str | None]:
    """Let a worker of each fleet leave its mark, and return what each has to say."""

    async def main() -> list[str | None]:
        store = Store(url)
        said = [await leave_mark(store, settings_of(*pools)) for pools in fleets]
        await store.close()
        return said

    return asyncio.run(main())


def test_a_fleet_with_other_pools_is_told_with_the_remedy(redis_url: str) -> None:
    first, second = mark(redis_url, OURS, THEIRS)
    assert first is None
    assert second is not None
    assert "another fleet uses this Redis (pools research, writing on " in second
    assert "the pools sales, support alone; set `redis.prefix` in the fleet.toml of one of them" in second
    with connect(redis_url) as client:
        told = look_for_strangers([client], settings_of(*OURS))
    assert told is not None
    assert "pools sales, support on" in told


def test_processes_of_one_fleet_and_fleets_with_prefixes_see_no_other(redis_url: str) -> None:
    assert mark(redis_url, OURS, tuple(reversed(OURS))) == [None, None]
    settings = settings_of(*THEIRS)
    keys.use_prefix("b:")
    with connect(redis_url) as client:
        assert look_for_strangers([client], settings) is None


def test_a_mark_goes_with_its_fleet(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(redis_url, OURS)

    async def lift() -> None:
        store = Store(redis_url)
        await lift_mark(store, settings_of(*OURS))
        await store.close()

    asyncio.run(lift())
    assert mark(redis_url, THEIRS) == [None]
    monkeypatch.setattr(neighbours, "STALE_S", -1)  # any mark is too old
    assert mark(redis_url, OURS) == [None]


def test_a_mark_names_few_of_many_pools_and_stays_short(redis_url: str) -> None:
    (_, said) = mark(redis_url, tuple(f"pool-{number:03}" for number in range(200)), THEIRS)
    assert said is not None
    assert "pool-004, ... on" in said
    assert len(said) < 1000
