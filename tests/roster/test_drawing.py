"""Bots of some kind: those whose window is large enough, of some models first; the least loaded of a few."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from fleet.asking import Seat
from fleet.config import PersonaSettings, PoolSettings, Settings
from fleet.errors import BotsQuarantined
from fleet.models import Bot, BotTask, Remedy
from fleet.roster import Roster, WantedBot, quarantine, seated
from fleet.roster.drawing import AMONG, drawn
from fleet.store.client import Store, connect
from fleet.workers.bot.persona import worker_bot_of

WINDOWS = (2048, 4096, 8192)


def settings_of(bots: int, **persona: object) -> Settings:
    pool = PoolSettings(
        bots=bots, persona=PersonaSettings.model_validate({"context_windows_tokens": WINDOWS, **persona})
    )
    return Settings.model_construct(**{**Settings().__dict__, "pools": {"p": pool}})


def names(bots: int, wanted: WantedBot, remedies: dict[str, Remedy] | None = None, **persona: object) -> list[str]:
    settings = settings_of(bots, **persona)
    return drawn(
        "p", settings.pools["p"], wanted, draw=random.Random(1),
        bot_of=lambda name: worker_bot_of(name, settings, (remedies or {}).get(name)),
    )  # fmt: skip


@pytest.mark.parametrize("bots", [9, 1000, 10_000])
@pytest.mark.parametrize("least", [1, 3000, 8192])
def test_only_bots_with_a_large_enough_window_are_drawn(bots: int, least: int) -> None:
    settings = settings_of(bots)
    found = names(bots, WantedBot(least))
    assert found and len(found) <= AMONG and len(set(found)) == len(found)
    windows = {worker_bot_of(name, settings).persona.context_window_tokens for name in found}
    assert windows == {window for window in WINDOWS if window >= least}


def test_where_no_window_is_large_enough_nobody_is_drawn() -> None:
    assert names(9, WantedBot(8193)) == names(1000, WantedBot(8193)) == []


def test_bots_of_the_wanted_models_come_first_and_others_where_there_are_none() -> None:
    models = {"models": ("simulated-1", "b")}
    settings = settings_of(12, **models)

    def models_of(wanted: WantedBot) -> set[str | None]:
        return {worker_bot_of(name, settings).persona.model for name in names(12, wanted, **models)}

    assert models_of(WantedBot(1, frozenset({"b"}))) == {"b"}
    assert models_of(WantedBot(1, frozenset({"c"}))) == models_of(WantedBot(1)) == {"simulated-1", "b"}


def test_a_window_that_a_remedy_has_made_smaller_counts() -> None:
    settings = settings_of(9)
    remedies = {name: Remedy(rung=2, generation=number) for number, name in enumerate(names(9, WantedBot(8192)), 1)}
    drawn_anew = set(names(9, WantedBot(8192), remedies))
    for name, remedy in remedies.items():
        assert (name in drawn_anew) == (worker_bot_of(name, settings, remedy).persona.context_window_tokens >= 8192)


def with_roster(redis_url: str, settings: Settings, work: Callable[[Roster], Awaitable[None]]) -> None:
    def bot_of(name: str) -> Bot:
        return worker_bot_of(name, settings)

    async def go() -> None:
        store = Store(redis_url)
        try:
            await work(Roster(store, settings, bot_of=bot_of))
        finally:
            await store.close()

    asyncio.run(go())


@pytest.mark.parametrize("bots", [30, 900])
def test_large_bots_share_the_work_evenly_and_small_ones_stay_first_for_others(redis_url: str, bots: int) -> None:
    settings = settings_of(bots)
    large, loads = bots // 3, Counter[str]()

    async def work(roster: Roster) -> None:
        for number in range(2 * large):  # the first call seeds the pool
            found = await roster.check_out("p", task_id=f"t{number}", token=f"k{number}", wanted=WantedBot(8192))
            assert found is not None
            loads[found.bot] += 1
        other = await roster.check_out("p", task_id="other", token="other")
        assert other is not None and other.bot not in loads
        again = await roster.check_out("p", task_id="t0", token="k0", wanted=WantedBot(8192))
        assert again is not None and again.bot in loads, "the same token has the same bot"

    with_roster(redis_url, settings, work)
    assert {worker_bot_of(name, settings).persona.context_window_tokens for name in loads} == {8192}
    assert max(loads.values()) <= 4, loads


def test_a_task_waits_when_all_bots_that_fit_are_out_though_others_are_not(redis_url: str) -> None:
    settings = settings_of(9)

    async def work(roster: Roster) -> None:
        await roster.seed()
        with connect(redis_url) as client:
            for name in ("p-003", "p-006", "p-009"):
                quarantine(client, "p", name, by="test")
        with pytest.raises(BotsQuarantined):
            await roster.check_out("p", task_id="t", token="k", wanted=WantedBot(8192))
        assert await roster.check_out("p", task_id="t", token="k", wanted=WantedBot(4096)) is not None
        besides = ["p-002", "p-005", "p-008"]
        with pytest.raises(BotsQuarantined):
            await roster.check_out("p", task_id="t", token="k2", wanted=WantedBot(4096), besides=besides)

    with_roster(redis_url, settings, work)


@pytest.mark.parametrize("bots", [7, 30, 900])
def test_members_of_an_ask_never_share_a_bot_however_often_each_is_tried(redis_url: str, bots: int) -> None:
    settings, met = settings_of(bots), dict[int, set[str]]()

    async def work(roster: Roster) -> None:
        await roster.seed()
        for attempt in range(6):
            wanted = [seated(BotTask(prompt="-", seat=f"0123456789ab:{n}/7"), None) for n in range(1, 8)]
            tries = [
                roster.check_out("p", task_id=f"t{n}", token=f"{n}-{attempt}", wanted=one)
                for n, one in enumerate(wanted)
            ]
            for number, found in enumerate(await asyncio.gather(*tries)):
                assert found is not None
                met.setdefault(number, set()).add(found.bot)

    with_roster(redis_url, settings, work)
    assert sum(map(len, met.values())) == len(set().union(*met.values())) >= 7


def test_a_member_waits_when_all_bots_of_its_seat_are_out_and_its_window_counts_too(redis_url: str) -> None:
    settings = settings_of(9)
    seat = Seat("0123456789ab", 2, 3)
    mine = [f"p-{number:03d}" for number in seat.bots(9, most=9, draw=random.Random(0))]
    large = {name for name in mine if worker_bot_of(name, settings).persona.context_window_tokens == 8192}

    async def work(roster: Roster) -> None:
        await roster.seed()
        wanted = seated(BotTask(prompt="-", seat=str(seat)), WantedBot(8192))
        if large:
            found = await roster.check_out("p", task_id="t", token="k", wanted=wanted)
            assert found is not None and found.bot in large
        with connect(redis_url) as client:
            for name in mine:
                quarantine(client, "p", name, by="test")
        with pytest.raises(BotsQuarantined):
            await roster.check_out(
                "p", task_id="t", token="k2", wanted=seated(BotTask(prompt="-", seat=str(seat)), None)
            )

    with_roster(redis_url, settings, work)


def test_a_task_that_is_no_member_wants_nothing() -> None:
    assert seated(BotTask(prompt="-"), None) is None
    assert seated(BotTask(prompt="-"), WantedBot(5)) == WantedBot(5)
