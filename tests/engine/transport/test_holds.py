"""Holds on a real Redis: what they stop, what they let through, how they open; with few queues and with many."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import redis
from kombu import Connection, Queue

from fleet.engine.admission.gates import CLOSED, open_gate, read_gates, set_gate
from fleet.engine.admission.holds import BEYOND_MS, PUT_HOLD, hold_call, lift
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.engine.transport import channel, leases
from fleet.engine.transport.rota import LOOK, NAMED_AT_MOST, Rota
from fleet.store import keys
from fleet.store.client import connect, run_script
from fleet.waits import Wait
from tests.waiting import wait_until

LIMIT = "openai/gpt/key"
FEW = ("other", "q")
MANY = (*FEW, *(f"q{n:03d}" for n in range(NAMED_AT_MOST * 3)))
both = pytest.mark.parametrize("queues", [FEW, MANY], ids=["few", "many"])


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def broker(redis_url: str) -> Iterator[Connection]:
    leases._HOLDINGS.clear()
    options = {"priority_steps": PRIORITY_STEPS}
    with Connection(redis_url, transport=channel.Transport, transport_options=options) as connection:
        yield connection


class Taker:
    """A consumer as its scripts see it: what it takes, and how long it would sleep."""

    def __init__(self, client: redis.Redis, queues: Sequence[str]) -> None:
        self._client, self._rota, self._takes = client, Rota(queues, PRIORITY_STEPS), 0
        self.sleeps_ms = 0
        for script in (LOOK, leases.TAKE):
            client.script_load(script.text)
        if self._rota.is_large:
            for key in client.scan_iter(keys.consumed(self._rota._digest) + "*:looked"):
                client.delete(key)
            client.evalsha(LOOK.sha, *self._rota.look())
            while self._rota.is_looking:
                client.evalsha(LOOK.sha, *self._rota.look())

    def take(self, wanted: int = 10, guarded: int = 0, shut: Sequence[str] = ()) -> list[str]:
        self._takes += 1
        call = self._rota.take(
            wanted=wanted, guarded=guarded, prefix=f"h.1.{id(self)}:{self._takes}:", acks=(), shut=shut
        )
        reply: Any = self._client.evalsha(leases.TAKE.sha, *call)
        if len(reply) == 2:
            self.sleeps_ms = reply[1]
            return []
        for place in reply[1::3]:
            self._rota.was_served(place.decode())
        return [message.decode() for message in reply[2::3]]


def put(client: redis.Redis, *messages: str, queue: str = "q", priority: int = 2) -> None:
    for message in messages:
        client.lpush(list_key(queue, priority), message)
        client.zadd(keys.waiting(priority), {queue: 0})


def hold(
    client: redis.Redis, *, queue: str = "q", opens_in_s: float | None = 60, cause: Any = "outage", **how: Any
) -> int:
    at = None if opens_in_s is None else time.time() + opens_in_s
    wait = Wait(cause, at, how.pop("about", LIMIT), **how)
    return int(run_script(client, PUT_HOLD, *hold_call(queue, wait)))


def held(client: redis.Redis, queue: str = "q") -> Wait | None:
    return read_gates(client, [queue])[0].hold


@both
def test_a_hold_stops_all_but_the_priorities_that_pass_it(client: redis.Redis, queues: tuple[str, ...]) -> None:
    for priority in PRIORITY_STEPS:
        put(client, str(priority), priority=priority)
    put(client, "other", queue="other", priority=4)
    assert hold(client, lowest=1) == 1
    taker = Taker(client, queues)
    assert taker.take() == ["0", "1", "other"]
    assert taker.take(guarded=10) == []
    (gate,) = read_gates(client, ["q"])
    assert (gate.stops(1), gate.stops(2), gate.is_open) == (False, True, True)
    assert str(gate).startswith(f"held, {LIMIT}: the provider fails")


@both
def test_what_one_consumer_wants_none_of_now_stays_for_the_others(client: redis.Redis, queues: tuple[str, ...]) -> None:
    put(client, "a", "b")
    put(client, "other", queue="other")
    taker = Taker(client, queues)
    assert taker.take(shut=["q"]) == ["other"]
    assert taker.take(shut=["q", "other"]) == []
    assert taker.take() == ["a", "b"]


def test_slots_of_tasks_that_wait_in_them_are_lent_beyond_each_pool_s_share() -> None:
    holdings = leases.Holdings()
    assert holdings.lent(60) == (0, frozenset())
    holdings.waiting = {"a": 60, "b": 15, "c": 16}
    assert holdings.lent(60) == (46, {"a", "c"})
    assert holdings.lent(20) == (20, {"a", "b", "c"})  # at most as many again
    holdings.waiting = {"a": 1}
    assert holdings.lent(1) == (1, {"a"})


def test_slots_of_tasks_whose_calls_hang_are_lent_and_the_others_keep_three_quarters_of_the_slots() -> None:
    holdings = leases.Holdings()
    holdings.hanging = {"sick": leases.Hung(40, telling=40, is_silent=True)}
    assert holdings.lent(40) == (30, {"sick"})
    holdings.hanging = {"sick": leases.Hung(40, telling=40, is_silent=False)}  # its API answers others
    assert holdings.lent(40) == (30, frozenset())
    holdings.hanging = {"sick": leases.Hung(41, telling=41, is_silent=False)}
    assert holdings.lent(40) == (31, {"sick"})
    holdings.hanging = {name: leases.Hung(500, telling=500, is_silent=True) for name in ("sick", "ill")}
    holdings.waiting = {"begun": 20}
    assert holdings.lent(40) == (10 + 2 * 40 + 2 * leases.HANGING_PROBES, {"sick", "ill", "begun"}), (
        "no more than so many"
    )


@pytest.mark.parametrize("is_silent", [True, False], ids=["its breaker is open", "it answers again"])
@pytest.mark.parametrize("slots", [1, 8, 40])
def test_a_pool_gets_slots_for_its_probes_and_for_all_its_tasks_once_its_api_answers_again_however_many_hang(
    slots: int, is_silent: bool
) -> None:
    holdings = leases.Holdings()
    for probes in range(leases.HANGING_PROBES):
        hung = slots + probes
        holdings.hanging = {"sick": leases.Hung(hung, telling=0, is_silent=is_silent)}
        lent, shut = holdings.lent(slots)
        assert slots + lent > hung and not shut


def test_a_worker_takes_more_than_it_has_slots_while_tasks_wait_in_them_for_company_and_leaves_queues_for_a_while() -> (
    None
):
    holdings = leases.holdings_of("a test's broker")
    try:
        assert (holdings.extra(1), holdings.shunned()) == (0, frozenset())
        assert leases.make_room("a", 2) and not leases.make_room("a", 1) and leases.make_room("b", 60)
        assert (holdings.extra(1), holdings.extra(20)) == (3, 20)
        assert not leases.make_room("a", 0) and not leases.make_room("b", 0) and holdings.extra(20) == 0
        leases.leave("a", 60.0)
        leases.leave("b", -1.0)
        assert holdings.shunned() == {"a"}
        leases.leave("a", 0)
        assert holdings.shunned() == frozenset()
    finally:
        leases._HOLDINGS.pop("a test's broker")


@both
def test_a_hold_opens_by_itself_and_a_consumer_that_sleeps_knows_when(
    client: redis.Redis, queues: tuple[str, ...]
) -> None:
    put(client, "a", "b")
    hold(client, opens_in_s=1)
    taker = Taker(client, queues)
    assert taker.take() == []
    assert taker.take() == []  # also when nothing of the queue is looked at any more
    assert 0 < taker.sleeps_ms <= 1000
    time.sleep(taker.sleeps_ms / 1000)
    assert taker.take() == ["a", "b"]
    assert held(client) is None


@both
def test_a_hold_with_probes_hands_out_one_message_an_interval_over_all_consumers(
    client: redis.Redis, queues: tuple[str, ...]
) -> None:
    put(client, *(str(n) for n in range(20)))
    hold(client, opens_in_s=0, probe_every_s=0.3)
    takers = [Taker(client, queues) for _ in range(4)]
    began, taken = time.monotonic(), list[str]()
    with ThreadPoolExecutor(len(takers)) as pool:
        while time.monotonic() - began < 1.5:
            for got in pool.map(lambda taker: taker.take(guarded=1), takers):
                taken += got
    assert sorted(taken, key=int) == [str(n) for n in range(len(taken))]
    assert 2 <= len(taken) <= (time.monotonic() - began) / 0.3 + 1
    assert lift(client, ["q"], about=LIMIT) == 1
    assert len(takers[0].take(wanted=20)) == 20 - len(taken)


@both
def test_the_probe_is_the_most_urgent_task_also_in_the_turn_of_the_least_urgent(
    client: redis.Redis, queues: tuple[str, ...]
) -> None:
    for priority in (4, 0, 2):
        put(client, str(priority), priority=priority)
    hold(client, opens_in_s=0, probe_every_s=60)
    taker = Taker(client, queues)
    assert taker.take(wanted=3, guarded=3) == ["0"]
    assert taker.take(wanted=3, guarded=3) == []
    assert 50_000 < taker.sleeps_ms <= 60_000


@both
def test_a_consumer_of_an_empty_queue_whose_probe_is_due_sleeps(client: redis.Redis, queues: tuple[str, ...]) -> None:
    hold(client, opens_in_s=0, probe_every_s=60)
    taker = Taker(client, queues)
    assert taker.take() == []
    assert taker.take() == []
    assert taker.sleeps_ms == -1


@both
def test_lifting_wakes_the_consumers_and_what_waited_comes_in_its_order(
    client: redis.Redis, queues: tuple[str, ...]
) -> None:
    put(client, "bulk", priority=4)
    put(client, "a", "b")
    hold(client)
    taker = Taker(client, queues)
    assert taker.take() == []
    rung = client.xlen(keys.bell())
    assert lift(client, ["q"], about="openai/other/key") == lift(client, ["q"], cause="money") == 0
    assert client.xlen(keys.bell()) == rung
    assert lift(client, queues, cause="outage") == 1
    assert client.xlen(keys.bell()) == 1
    assert taker.take() == ["a", "b", "bulk"]


@both
def test_an_operators_gate_and_a_hold_do_not_touch_each_other(client: redis.Redis, queues: tuple[str, ...]) -> None:
    put(client, "a")
    set_gate(client, "q", lowest=CLOSED)
    hold(client)
    taker = Taker(client, queues)
    assert taker.take() == []
    assert open_gate(client, "q")
    assert taker.take() == []
    set_gate(client, "q", lowest=CLOSED)
    lift(client, ["q"])
    assert taker.take() == []
    open_gate(client, "q")
    assert taker.take() == ["a"]


def test_of_two_holds_the_stricter_stands_and_of_two_as_strict_the_one_that_opens_later(client: redis.Redis) -> None:
    assert hold(client, cause="hold", opens_in_s=60) == 1
    assert hold(client, cause="hold", opens_in_s=30) == 0
    assert hold(client, cause="outage", opens_in_s=1, probe_every_s=1) == 0
    assert hold(client, cause="money", opens_in_s=600, lowest=2) == 0
    assert hold(client, cause="hold", opens_in_s=90) == 1
    lift(client, ["q"])
    assert hold(client, cause="money", opens_in_s=600, lowest=2) == 1
    assert hold(client, cause="outage", opens_in_s=1, probe_every_s=1) == 1
    found = held(client)
    assert found is not None
    assert (found.cause, found.lowest) == ("outage", -1)


def test_a_hold_lives_until_it_opens_and_one_that_is_renewed_lives_on_behind_that(client: redis.Redis) -> None:
    assert hold(client, opens_in_s=-1) == 0
    assert held(client) is None
    lives = {}
    for name, how in {
        "plain": {"opens_in_s": 60.0}, "probing": {"opens_in_s": 60.0, "probe_every_s": 1.0},
        "slow": {"opens_in_s": 60.0, "probe_every_s": 900.0}, "unknown": {"opens_in_s": None},
        "at-once": {"opens_in_s": None, "probe_every_s": 1.0},
    }.items():  # fmt: skip
        hold(client, queue=name, **how)
        lives[name] = client.pttl(keys.hold(name)) / 1000
    beyond_s = BEYOND_MS / 1000
    assert lives == pytest.approx(
        {"plain": 60, "probing": 60 + beyond_s, "slow": 60 + 2700, "unknown": beyond_s, "at-once": 1 + beyond_s}, abs=5
    )
    Taker(client, ["probing"]).take()
    assert client.pttl(keys.hold("probing")) / 1000 == pytest.approx(60 + beyond_s, abs=5)


def test_a_probe_lets_a_hold_live_no_longer(client: redis.Redis) -> None:
    put(client, "a")
    hold(client, opens_in_s=0, probe_every_s=5)
    client.pexpire(keys.hold("q"), 20_000)
    assert Taker(client, FEW).take() == ["a"]
    assert 0 < client.pttl(keys.hold("q")) <= 20_000
    found = held(client)
    assert found is not None
    assert found.opens_at == pytest.approx(time.time() + 5, abs=3)
    assert (found.about, found.probe_every_s) == (LIMIT, 5)


@both
def test_a_probe_whose_worker_dies_comes_back_and_is_the_next_probe_alone(
    client: redis.Redis, queues: tuple[str, ...]
) -> None:
    put(client, "a", "b")
    hold(client, opens_in_s=0, probe_every_s=1)
    taker = Taker(client, queues)
    assert taker.take() == ["a"]
    tags = [tag.decode() for tag in client.hkeys(keys.unacked())]  # type: ignore[union-attr]
    run_script(client, leases.RESTORE, *leases.restore_call(tags))  # as the sweep does when its lease has run out
    got: list[str] = []

    def probed() -> bool:
        got.extend(Taker(client, queues).take())
        return bool(got)

    wait_until(probed, 10, "the next probe is taken")
    assert got == ["a"]
    assert client.llen(list_key("q", 2)) == 1


@both
def test_a_hold_that_cannot_be_read_stops_its_queue_and_says_so(client: redis.Redis, queues: tuple[str, ...]) -> None:
    put(client, "a")
    client.set(keys.hold("q"), "ajar", px=60_000)
    taker = Taker(client, queues)
    assert taker.take() == []
    assert "cannot read" in str(read_gates(client, ["q"])[0])
    assert lift(client, ["q"], about=LIMIT) == 0
    assert lift(client, ["q"]) == 1
    assert taker.take() == ["a"]


def commands_of(client: redis.Redis, work: Any) -> Counter[str]:
    """Return how often each command ran during `work`, those of scripts included."""
    client.config_resetstat()
    work()
    stats: Any = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()})


def test_takes_do_not_look_at_a_thousand_held_queues_again_and_again(client: redis.Redis) -> None:
    names = [f"held{n:04d}" for n in range(1000)]
    for name in names:
        put(client, "x", queue=name)
        hold(client, queue=name, opens_in_s=60)
    put(client, *"abc", queue="open")
    taker = Taker(client, ["open", *names])
    assert taker.take(wanted=1, guarded=0) == ["a"]
    taker.take(wanted=5)
    assert sum(commands_of(client, lambda: taker.take(wanted=1)).values()) < 30
    put(client, "d", queue="open")
    assert taker.take(wanted=1) == ["d"]
    assert lift(client, names) == 1000
    taken = 0
    while got := taker.take(wanted=64):
        taken += len(got)
    assert taken == 1000


def test_all_queues_of_a_limit_that_opens_are_found_again_at_its_opening(client: redis.Redis) -> None:
    names = [f"held{n:04d}" for n in range(200)]
    for name in names:
        put(client, "x", queue=name)
        hold(client, queue=name, opens_in_s=2)
    taker, taken = Taker(client, names), 0
    assert taker.take() == []
    assert 0 < taker.sleeps_ms < 2000

    def all_taken() -> bool:
        nonlocal taken
        taken += len(taker.take(wanted=64))
        return taken == 200

    wait_until(all_taken, 10, "all are taken")


def test_a_queue_that_was_struck_off_and_forgotten_is_found_by_the_next_look(client: redis.Redis) -> None:
    set_gate(client, "q", lowest=CLOSED)
    hold(client, queue="other")
    put(client, "paused")
    put(client, "held", queue="other")
    taker = Taker(client, MANY)
    assert taker.take() == []
    client.delete(keys.gate("q"), keys.hold("other"), keys.openings())  # run out, or deleted by hand: nobody is told
    assert taker.take() == []
    assert sorted(Taker(client, MANY).take()) == ["held", "paused"]


def test_a_hundred_thousand_tasks_behind_a_hold_cost_idle_workers_no_command_more(
    broker: Connection, client: redis.Redis
) -> None:
    def idle() -> int:
        commands = commands_of(client, lambda: _drain(broker, for_s=2.0))
        return sum(count for name, count in commands.items() if name not in ("config|resetstat", "info"))

    _drain(broker, for_s=0.1)
    of_empty = idle()
    for _ in range(100):
        client.lpush(list_key("q", 2), *["x" * 200] * 1000)
    client.zadd(keys.waiting(2), {"q": 0})
    hold(client, opens_in_s=600)
    assert idle() <= of_empty * 1.5 + 5
    assert client.llen(list_key("q", 2)) == 100_000


def _drain(broker: Connection, *, for_s: float) -> None:
    """Let a consumer look for messages for a while, in vain."""
    until = time.monotonic() + for_s
    with broker.Consumer([Queue("q")], on_message=lambda message: pytest.fail("expected no message")):
        while (left_s := until - time.monotonic()) > 0:
            with suppress(TimeoutError):
                broker.drain_events(timeout=left_s)
