"""Which pools count as open to a task that names none: held ones, whose probe is due or not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

import pytest

from fleet import config
from fleet.config import PoolSettings, ProviderSettings
from fleet.config.prices import PriceSettings
from fleet.engine.messages.pool_choice import LOOKED_AT, UNSERVED, Dispatcher, candidates, lowest_of
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.errors import InvalidTask
from fleet.models import BotTask
from fleet.store import keys
from fleet.waits import Wait

NOW_S = 1000.0
POOLS = {name: PoolSettings(bots=1) for name in ("held", "open")}


def hold(opens_at: float | None, probe_every_s: float = 10.0) -> bytes:
    return Wait("outage", opens_at, probe_every_s=probe_every_s).to_json().encode()


def answer(dispatcher: Dispatcher, waiting: Mapping[str, int], holds: Mapping[str, bytes] | None = None) -> list[int]:
    """Answer what it asks: tasks in each list of a pool, and holds. Return the keys in each question."""
    lengths = {list_key(keys.queue(pool), step): count for pool, count in waiting.items() for step in PRIORITY_STEPS}
    held = {keys.hold(keys.queue(pool)): hold for pool, hold in (holds or {}).items()}
    asked: list[int] = []
    questions = dispatcher.questions([BotTask(prompt="x")])
    with suppress(StopIteration):
        commands = next(questions)
        while True:
            asked.append(sum(len(names) for _, *names in commands))
            commands = questions.send(
                [lengths.get(one[1], 0) if one[0] == "LLEN" else [held.get(key) for key in one[1:]] for one in commands]
            )
    return asked


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
    answer(dispatcher, {"open": 3, "held": 0}, {"held": hold(time.time() - 5)})
    assert [dispatcher.choose(BotTask(prompt="x")) for _ in range(50)] == ["held"] + ["open"] * 49


def test_no_task_goes_to_a_held_pool_with_a_backlog() -> None:
    dispatcher = Dispatcher(None, config.load().model_copy(update={"pools": POOLS}))
    answer(dispatcher, {"open": 3, "held": 1}, {"held": hold(time.time() - 5)})
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


def many(*, full: int, hold_all_but: int | None = None, tasks: int = 1) -> tuple[Dispatcher, list[int]]:
    """Return a dispatcher of a thousand pools, of which so many have a backlog, and what it has read, by question."""
    pools = {f"p{number}": PoolSettings(bots=1) for number in range(1000)}
    dispatcher = Dispatcher(None, config.load().model_copy(update={"pools": pools}), tasks=tasks)
    held = {pool: hold(None) for pool in (pools if hold_all_but is not None else ()) if pool != f"p{hold_all_but}"}
    return dispatcher, answer(dispatcher, dict.fromkeys([*pools][:full], 9), held)


def test_a_choice_of_a_thousand_pools_reads_what_one_of_eight_does() -> None:
    dispatcher, asked = many(full=500)
    assert asked == [(len(PRIORITY_STEPS) + 2) * LOOKED_AT + 1]
    chosen = {dispatcher.choose(BotTask(prompt="x")) for _ in range(100)}
    assert len(chosen) > 1


def test_many_tasks_are_spread_over_more_pools() -> None:
    dispatcher, _ = many(full=500, tasks=400)
    chosen = [dispatcher.choose(BotTask(prompt="x")) for _ in range(400)]
    assert len({*chosen}) > 25
    assert not {*chosen} & {f"p{number}" for number in range(500)}  # none goes where others wait


def test_the_one_open_pool_of_a_thousand_is_found_at_the_price_of_all_gates() -> None:
    dispatcher, asked = many(full=0, hold_all_but=777)
    assert len(asked) > 1 or dispatcher.choose(BotTask(prompt="x")) == "p777"
    assert {dispatcher.choose(BotTask(prompt="x")) for _ in range(20)} == {"p777"}


def test_where_all_pools_are_closed_a_task_waits_in_any() -> None:
    dispatcher, _ = many(full=0, hold_all_but=-1)
    assert len({dispatcher.choose(BotTask(prompt="x")) for _ in range(200)}) > 1


def spread(pools: Mapping[str, int], *, rounds: int, busy: float) -> tuple[dict[str, int], dict[str, int]]:
    """Hand out tasks one by one for so many task-times, at a share of what the bots can do.

    Return how many each pool got, and how many wait there in the end.
    """
    settings = config.load().model_copy(update={"pools": {pool: PoolSettings(bots=n) for pool, n in pools.items()}})
    each_round, waiting, given = int(sum(pools.values()) * busy), dict.fromkeys(pools, 0), dict.fromkeys(pools, 0)
    steps = 10  # in a step that part of a pool's bots takes a task
    for step in range(rounds * steps):
        for pool, bots in pools.items():
            waiting[pool] = max(0, waiting[pool] - (bots * (step + 1) // steps - bots * step // steps))
        for _ in range(each_round // steps):
            dispatcher = Dispatcher(None, settings)
            answer(dispatcher, waiting)
            pool = dispatcher.choose(BotTask(prompt="x"))
            waiting[pool] += 1
            given[pool] += 1
    return given, waiting


def test_unequal_pools_get_what_their_bots_can_do() -> None:
    """Given a pool of 90 bots and thirty of one each, and tasks for four fifths of them: nowhere do tasks pile up."""
    pools = {"large": 90} | {f"small-{number}": 1 for number in range(30)}
    given, waiting = spread(pools, rounds=10, busy=0.8)
    assert given["large"] > sum(given.values()) / 2
    assert sum(waiting.values()) < sum(pools.values()) / 2, waiting


def test_of_pools_in_which_nothing_waits_one_is_chosen_as_often_as_it_has_bots() -> None:
    pools = {name: PoolSettings(bots=bots) for name, bots in {"large": 90, "small": 10}.items()}
    settings = config.load().model_copy(update={"pools": pools})
    chosen = []
    for _ in range(1000):
        dispatcher = Dispatcher(None, settings)
        answer(dispatcher, {})
        chosen.append(dispatcher.choose(BotTask(prompt="x")))
    assert 850 < chosen.count("large") < 950


def test_a_pool_that_has_nearly_all_bots_is_nearly_always_looked_at() -> None:
    pools = {"large": PoolSettings(bots=9000)} | {f"p{number}": PoolSettings(bots=1) for number in range(1000)}
    settings = config.load().model_copy(update={"pools": pools})
    seen = 0
    for _ in range(50):
        dispatcher = Dispatcher(None, settings)
        answer(dispatcher, dict.fromkeys((pool for pool in pools if pool != "large"), 1))
        seen += dispatcher.choose(BotTask(prompt="x")) == "large"
    assert seen == 50
