"""Windows, states and remedies in a real Redis, and the leader that keeps them."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable

from fleet.config import DiversitySettings, PoolSettings, Settings
from fleet.diversity import read_classes, relearn
from fleet.diversity import window as window_module
from fleet.diversity.fingerprint import Fingerprint
from fleet.diversity.ladder import end
from fleet.diversity.likeness import Aspect, Scale
from fleet.diversity.monitor import DROP_EVERY_S, IDLE_END_S, Monitor
from fleet.diversity.state import ClassState, Norm, Sample
from fleet.diversity.window import Stored, Windows
from fleet.models import Remedy
from fleet.store import keys
from fleet.store.client import Store, connect
from tests.diversity.played import bins, pool_of_prose

SETTINGS = Settings(
    pools={"talk": PoolSettings(bots=20)}, diversity=DiversitySettings(window=200, every_s=0.1)
)  # a lease of 0.4 s
REMEDY = Remedy(rung=2, generation=7)


def with_windows(url: str, work: Callable[[Windows, Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = Store(url)
        try:
            await work(Windows(store, SETTINGS), store)
        finally:
            await store.close()

    asyncio.run(run())


def answer(number: int) -> Fingerprint:
    return Fingerprint(number % 20 + 1, number, 0, bins(pool_of_prose()[number]))


def test_a_class_counts_all_its_answers_and_keeps_the_newest_two_windows(redis_url: str) -> None:
    async def work(windows: Windows, store: Store) -> None:
        for number in range(450):
            windows.record("talk", "chat", answer(number))
        assert await windows.classes() == {("talk", "chat"): 450}
        kept = await windows.answers("talk", "chat")
        assert kept == [answer(number) for number in range(50, 450)]
        assert 0 < await store.command("TTL", keys.answers("talk", "chat")) <= keys.STATE_TTL_S

    with_windows(redis_url, work)


def test_kinds_without_end_fill_no_more_than_the_hundred_classes_there_may_be(redis_url: str) -> None:
    async def work(windows: Windows, store: Store) -> None:
        for number in range(window_module.MAX_CLASSES + 20):
            windows.record("talk", f"kind{number}", answer(1))
        assert len(await windows.classes()) == window_module.MAX_CLASSES
        assert await store.command("EXISTS", keys.answers("talk", f"kind{window_module.MAX_CLASSES + 1}")) == 0
        await store.command("DEL", keys.answers("talk", "kind3"))
        await windows.drop_silent()
        windows.record("talk", "late", answer(1))
        assert ("talk", "late") in await windows.classes()

    with_windows(redis_url, work)


def test_one_process_leads_until_it_resigns_and_each_hears_of_remedies_once(redis_url: str) -> None:
    async def work(windows: Windows, store: Store) -> None:
        assert (await windows.attend("a", 0)).leads
        assert not (await windows.attend("b", 0)).leads
        version = await windows.prescribe({"talk-001": REMEDY})
        told = await windows.attend("b", 0)
        assert (told.version, told.remedies) == (version, {"talk-001": REMEDY})
        assert (await windows.attend("b", version)).remedies == {}
        windows.resign("b")  # it does not lead: nothing happens
        assert not (await windows.attend("b", version)).leads
        windows.resign("a")
        assert (await windows.attend("b", version)).leads

    with_windows(redis_url, work)


def test_a_leader_that_died_is_followed_by_another_when_its_lease_is_over(redis_url: str) -> None:
    async def work(windows: Windows, store: Store) -> None:
        assert (await windows.attend("dead", 0)).leads
        async with asyncio.timeout(10):
            while not (await windows.attend("alive", 0)).leads:
                await asyncio.sleep(0.01)

    with_windows(redis_url, work)


def test_a_state_that_was_forgotten_meanwhile_is_not_written_back(redis_url: str) -> None:
    async def work(windows: Windows, store: Store) -> None:
        state = ClassState(pool="talk", kind="chat", seen=200)
        assert await windows.save(Stored(state), state)
        before = (await windows.states())["talk", "chat"]
        assert before.state == state
        await windows.forget("talk", "chat")
        assert not await windows.save(before, state.but(seen=400))
        assert await windows.states() == {}

    with_windows(redis_url, work)


def test_an_alarm_says_since_when_until_it_is_over_and_can_be_relearnt_by_a_plain_client(redis_url: str) -> None:
    sample = Sample(score=180, mean=0.001, spread=0.0001, near_share=0.01, crowd=0.01)
    norms: dict[Aspect, Norm] = {"across": Norm(scale=Scale(floor=0.3, near=0.6), samples=(sample,) * 3)}

    untreated = SETTINGS.model_copy(update={"diversity": DiversitySettings(window=200, every_s=0.1, treat=False)})

    async def work(windows: Windows, store: Store) -> None:
        state = ClassState(pool="talk", kind="chat", seen=150, learnt=150, fallen=2, norms=norms)
        assert await windows.save(Stored(state), state)
        for number in range(250):
            same = array("H", [1, 2, 3, 4, 5, 6, 7, 8])
            windows.record("talk", "chat", Fingerprint(number % 20 + 1, number, 0, same))
            if number == 199:
                await Monitor(windows, untreated, now_s=lambda: 1000.0).turn(0)
        await Monitor(windows, untreated, now_s=lambda: 2000.0).turn(0)

    with_windows(redis_url, work)
    with connect(redis_url) as client:
        ((state, answers),) = read_classes(client, SETTINGS.pools)
        assert (state.alarm, state.alarm_at, state.looked_at, answers) == (True, 1000.0, 2000.0, 250)
        raw = client.hget(keys.diversity_states(), "talk|chat")
        assert isinstance(raw, bytes)
        assert b"alarm_at" not in raw  # earlier releases would refuse it, and learn the class anew
        assert read_classes(client, {}) == []
        relearn(client, "talk", "chat")
        assert read_classes(client, SETTINGS.pools) == [(ClassState(pool="talk", kind="chat"), 250)]
        assert client.hgetall(keys.diversity_states()) == {}


def test_the_time_of_an_alarm_stands_beside_the_state_and_goes_with_the_alarm(redis_url: str) -> None:
    async def work(windows: Windows, store: Store) -> None:
        state = ClassState(pool="talk", kind="chat", seen=200, alarm=True, alarm_at=1000.25)
        assert await windows.save(Stored(state), state)
        stored = await windows.states()
        assert {at: one.state for at, one in stored.items()} == {("talk", "chat"): state}
        calm = state.but(alarm=False, alarm_at=0.0)
        assert await windows.save(stored["talk", "chat"], calm)
        assert await store.command("HLEN", keys.diversity_states()) == 1
        assert (await windows.states())["talk", "chat"].state == calm

    with_windows(redis_url, work)


def test_a_state_of_another_version_begins_anew(redis_url: str) -> None:
    async def work(windows: Windows, store: Store) -> None:
        await store.command("HSET", keys.diversity_states(), "talk|chat", '{"pool": "talk", "shape": "round"}')
        assert (await windows.states())["talk", "chat"].state == ClassState(pool="talk", kind="chat")

    with_windows(redis_url, work)


def test_a_new_leader_goes_on_where_the_last_one_stopped_and_writes_lost_remedies_again(redis_url: str) -> None:
    async def work(windows: Windows, store: Store) -> None:
        for number in range(200):
            windows.record("talk", "chat", answer(number))
        await Monitor(windows, SETTINGS).turn(0)
        seen = (await windows.states())["talk", "chat"]
        assert (seen.state.seen, len(seen.state.norms["across"].samples)) == (200, 1)
        assert await windows.save(seen, seen.state.but(phase="holding", remedies={3: REMEDY}))
        leader = Monitor(windows, SETTINGS)
        await leader.turn(0)
        told = await windows.attend("any", 0)
        assert told.remedies == {"talk-003": REMEDY}
        await store.command("DEL", keys.remedies(), keys.remedies_version())
        await leader.turn(0)
        assert (await windows.attend("any", 0)).remedies == {"talk-003": REMEDY}

    with_windows(redis_url, work)


def test_remedies_of_a_class_whose_tasks_have_stopped_end(redis_url: str) -> None:
    async def work(windows: Windows, store: Store) -> None:
        windows.record("talk", "chat", answer(1))
        state = ClassState(pool="talk", kind="chat", seen=1, looked_at=1000.0, phase="holding", remedies={3: REMEDY})
        await windows.save(Stored(state), state)
        early = Monitor(windows, SETTINGS, now_s=lambda: 1000 + IDLE_END_S / 2)
        assert await early.turn(0) == []
        late = Monitor(windows, SETTINGS, now_s=lambda: 1001 + IDLE_END_S)
        assert [notice.what.name for notice in await late.turn(0)] == ["diversity_ended"]
        assert (await windows.attend("any", 0)).remedies == {}
        assert end(state, [])[0].remedies == {}

    with_windows(redis_url, work)


def test_a_redis_that_lost_its_data_is_no_reason_to_wait_for_old_numbers(redis_url: str) -> None:
    async def work(windows: Windows, store: Store) -> None:
        state = ClassState(pool="talk", kind="chat", seen=9000, learnt=9000)
        await windows.save(Stored(state), state)
        for number in range(200):
            windows.record("talk", "chat", answer(number))
        await Monitor(windows, SETTINGS).turn(0)
        assert (await windows.states())["talk", "chat"].state.seen == 200

    with_windows(redis_url, work)


def test_a_fingerprint_comes_back_as_it_was_packed() -> None:
    one = Fingerprint(10_000, 65_535, REMEDY.mark, array("H", [0, 5, 1023]))
    assert Fingerprint.unpack(one.pack()) == one
    assert len(one.pack()) == 8 + 2 * 3


def test_a_leader_makes_room_for_new_classes_every_hour(redis_url: str) -> None:
    async def work(windows: Windows, store: Store) -> None:
        now_s = 1000.0
        leader = Monitor(windows, SETTINGS, now_s=lambda: now_s)
        windows.record("talk", "chat", answer(1))
        await leader.turn(0)
        await store.command("DEL", keys.answers("talk", "chat"))
        now_s += DROP_EVERY_S - 1
        await leader.turn(0)
        assert ("talk", "chat") in await windows.classes()
        now_s += 2
        await leader.turn(0)
        assert await windows.classes() == {}

    with_windows(redis_url, work)


def test_large_windows_leave_room_for_fewer_classes(redis_url: str) -> None:
    async def work(windows: Windows, store: Store) -> None:
        large = Windows(store, Settings(pools={"talk": PoolSettings(bots=5000)}))
        for number in range(30):
            large.record("talk", f"kind{number}", answer(number))
        assert len(await large.classes()) == window_module.MOST_ANSWERS // 4000

    with_windows(redis_url, work)
