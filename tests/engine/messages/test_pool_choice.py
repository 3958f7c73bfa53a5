"""Which pools count as open to a task that names none: held ones, whose probe is due or not."""

from __future__ import annotations

import time

import pytest

from fleet import config
from fleet.config import PoolSettings, ProviderSettings
from fleet.config.prices import PriceSettings
from fleet.engine.messages.pool_choice import UNSERVED, Dispatcher, backlog_keys, candidates, lowest_of
from fleet.errors import InvalidTask
from fleet.models import BotTask
from fleet.waits import Wait

NOW_S = 1000.0
POOLS = {name: PoolSettings(bots=1) for name in ("held", "open")}


def hold(opens_at: float | None, probe_every_s: float = 10.0) -> bytes:
    return Wait("outage", opens_at, probe_every_s=probe_every_s).to_json().encode()


@pytest.mark.parametrize("opens_at", [NOW_S - 5, NOW_S])
def test_a_held_pool_without_a_backlog_is_open_to_the_probe_that_is_due(opens_at: float) -> None:
    values = [None, None, hold(opens_at)]
    assert lowest_of(["held"], values, idle=["held"], now_s=NOW_S) == {}
    assert lowest_of(["held"], values, idle=[], now_s=NOW_S) == {"held": -1}


@pytest.mark.parametrize("value", [hold(NOW_S + 1), hold(None), hold(NOW_S - 5, 0)])
def test_a_held_pool_is_closed_while_no_probe_is_due(value: bytes) -> None:
    assert lowest_of(["held"], [None, None, value], idle=["held"], now_s=NOW_S) == {"held": -1}


def test_a_due_probe_opens_neither_a_gate_nor_a_pool_that_no_worker_serves() -> None:
    gated = [None, b"1", hold(NOW_S - 5)]
    assert lowest_of(["held"], gated, idle=["held"], now_s=NOW_S) == {"held": 1}
    unserved = [b'["held"]', None, hold(NOW_S - 5)]
    assert lowest_of(["held"], unserved, idle=["held"], now_s=NOW_S) == {"held": UNSERVED}


def test_of_many_tasks_one_goes_to_the_pool_whose_probe_is_due() -> None:
    dispatcher = Dispatcher(None, config.load().model_copy(update={"pools": POOLS}))
    places = backlog_keys(POOLS)
    waiting = [3 if pool == "open" else 0 for pool, _ in places]
    dispatcher.learn(places, waiting, [None, None, None, hold(time.time() - 5), None])
    assert [dispatcher.choose(BotTask(prompt="x")) for _ in range(50)] == ["held"] + ["open"] * 49


def test_no_task_goes_to_a_held_pool_with_a_backlog() -> None:
    dispatcher = Dispatcher(None, config.load().model_copy(update={"pools": POOLS}))
    places = backlog_keys(POOLS)
    waiting = [3 if pool == "open" else 1 for pool, _ in places]
    dispatcher.learn(places, waiting, [None, None, None, hold(time.time() - 5), None])
    assert {dispatcher.choose(BotTask(prompt="x")) for _ in range(50)} == {"open"}


def test_a_tier_that_no_api_of_its_pools_has_is_refused_with_those_that_it_has() -> None:
    """Given a vendor's own API, one behind an address of its own, and one with a price for another tier."""
    apis = {
        "own": ProviderSettings(kind="anthropic"), "proxy": ProviderSettings(kind="openai", base_url="http://10.0.0.1"),
        "priced": ProviderSettings(kind="openai"),
    }  # fmt: skip
    pools = {name: PoolSettings(bots=1, provider=name, model="m") for name in apis}
    prices = {
        "priced/m": PriceSettings.model_validate(
            {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1, "tiers": {"night": {}}}
        )
    }
    settings = config.load().model_copy(update={"pools": pools, "providers": apis, "prices": prices})
    with pytest.raises(InvalidTask, match=r"tier: expected one of standard, priority, .*got 'nope'"):
        candidates(BotTask(prompt="x", pool="own", tier="nope"), settings)
    assert candidates(BotTask(prompt="x", tier="nope"), settings) == ["proxy"]
    assert candidates(BotTask(prompt="x", tier="night"), settings) == ["proxy", "priced"]
    assert candidates(BotTask(prompt="x", tier="priority"), settings) == ["own", "proxy", "priced"]
    dispatcher = Dispatcher(None, settings)
    assert dispatcher.choose(BotTask(prompt="x", tier="nope")) == "proxy", "whatever it has chosen before"
