"""Health on a real Redis: bad bots are found in tens of tasks, good ones are not, whatever goes wrong for all."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.config import HealthSettings
from fleet.faults import SAID, Fault
from fleet.roster import HEALTH, SUSPECTED, Deed, Health, bot_health_of, read_probation, read_quarantined, row_of
from fleet.roster.health import SAMPLE_BYTES
from fleet.store import keys
from fleet.store.client import connect, run_script

Work = Callable[[random.Random], Deed]
HOUR = HealthSettings(quarantine_s=3600)
#: A normal answer: 120 to 540 characters, log-normal time around 200 ms.
GOOD_CHARS = range(120, 541, 60)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


class Pool:
    """One pool whose tasks go in turn to those of its bots that are not out."""

    def __init__(self, client: redis.Redis, bots: int, rules: HealthSettings = HOUR, *, kind: str = "default") -> None:
        self.client, self.kind, self.health = client, kind, Health(rules)
        self.bots = [f"p-{number:03d}" for number in range(1, bots + 1)]
        client.zadd(keys.bots("p"), dict.fromkeys(self.bots, 0))
        self.tasks = Counter[str]()
        self.found_after: dict[str, int] = {}

    def judge(self, deed: Deed) -> None:
        named = {**self.health.names("p", self.kind), **self.health.constants("p", self.kind)}
        call = HEALTH.call(**named, now_us=time.time_ns() // 1000, samples=self.health.samples([deed]))
        reply: Any = run_script(self.client, HEALTH, *call)
        self.health.heard("p", self.kind, reply)

    def play(self, tasks: int, work: Callable[[str], Deed]) -> None:
        done = 0
        while done < tasks:
            for bot in [bot for bot in self.bots if bot not in self.found_after]:
                self.judge(work(bot))
                self.tasks[bot] += 1
                done += 1
            for bot in read_quarantined(self.client, ["p"]):
                self.found_after.setdefault(bot, self.tasks[bot])

    def evidence(self, bot: str) -> tuple[float, float, float]:
        return bot_health_of(self.client.getrange(keys.health("p"), *row_of(int(bot[2:])))).evidence


def good(bot: str, chance: random.Random, *, slower: float = 1.0) -> Deed:
    return Deed(bot, None, chance.choice(GOOD_CHARS), round(200 * slower * chance.lognormvariate(0, 0.42)))


def errors(bot: str, chance: random.Random) -> Deed:
    return Deed(bot, Fault.EMPTY) if chance.random() < 0.5 else good(bot, chance)


def avoids(bot: str, chance: random.Random) -> Deed:
    return Deed(bot, None, 5, 20)


def slow(bot: str, chance: random.Random) -> Deed:
    return good(bot, chance, slower=4)


def test_twenty_bad_bots_of_a_hundred_are_out_within_tens_of_tasks_and_no_good_one(client: redis.Redis) -> None:
    chance, pool = random.Random(7), Pool(client, 100)
    bad = dict(zip(pool.bots[3::5], [errors, avoids, slow] * 7, strict=False))
    pool.play(6000, lambda bot: bad[bot](bot, chance) if bot in bad else good(bot, chance))
    assert set(pool.found_after) == set(bad)
    assert sorted(pool.found_after.values())[10] <= 12
    assert max(pool.found_after.values()) < 60


def test_what_goes_wrong_for_all_bots_accuses_none(client: redis.Redis) -> None:
    chance, pool = random.Random(7), Pool(client, 20)
    pool.play(1000, lambda bot: good(bot, chance))
    pool.play(600, lambda bot: Deed(bot, Fault.EMPTY))  # one class of prompts that nobody can answer
    pool.play(1000, lambda bot: good(bot, chance))
    pool.play(1000, lambda bot: good(bot, chance, slower=5))  # the provider has become slow
    assert pool.found_after == {}


@pytest.mark.parametrize("bots", [3, 5])
def test_in_a_small_pool_the_one_bad_bot_is_found_and_a_common_failure_accuses_none(
    client: redis.Redis, bots: int
) -> None:
    chance, pool = random.Random(7), Pool(client, bots)
    pool.play(100 * bots, lambda bot: good(bot, chance))
    pool.play(20 * bots, lambda bot: Deed(bot, Fault.EMPTY))
    pool.play(100 * bots, lambda bot: good(bot, chance))
    assert pool.found_after == {}
    pool.play(100 * bots, lambda bot: errors(bot, chance) if bot == "p-002" else good(bot, chance))
    assert set(pool.found_after) == {"p-002"}


@pytest.mark.parametrize("bots", [5, 20, 100])
def test_a_provider_that_becomes_slow_makes_hardly_any_bot_suspected(client: redis.Redis, bots: int) -> None:
    chance, pool = random.Random(7), Pool(client, bots)
    pool.play(60 * max(bots, 20), lambda bot: good(bot, chance))
    for tasks in (20, 20, 200):
        pool.play(tasks, lambda bot: good(bot, chance, slower=8))
        assert sum(pool.evidence(bot)[2] >= SUSPECTED for bot in pool.bots) <= 2 + bots // 25
    assert pool.found_after == {}


@pytest.mark.parametrize("bots", [3, 5, 20])
def test_one_slow_bot_is_found_in_a_pool_of_any_size(client: redis.Redis, bots: int) -> None:
    chance, pool = random.Random(7), Pool(client, bots)
    pool.play(30 * bots, lambda bot: good(bot, chance))
    before = pool.tasks["p-002"]
    pool.play(60 * bots, lambda bot: slow(bot, chance) if bot == "p-002" else good(bot, chance))
    assert set(pool.found_after) == {"p-002"}
    assert pool.found_after["p-002"] - before <= 40


def test_a_bot_that_turns_bad_late_is_found_as_fast_as_a_new_one(client: redis.Redis) -> None:
    chance, pool = random.Random(7), Pool(client, 20)
    pool.play(4000, lambda bot: good(bot, chance))
    before = pool.tasks["p-004"]
    pool.play(1000, lambda bot: avoids(bot, chance) if bot == "p-004" else good(bot, chance))
    assert set(pool.found_after) == {"p-004"}
    assert pool.found_after["p-004"] - before <= 12


@pytest.mark.parametrize("fault", [one for one in Fault if one is not Fault.TOO_SHORT])
def test_the_reason_says_what_most_bad_answers_had_and_their_true_share(client: redis.Redis, fault: Fault) -> None:
    chance, pool = random.Random(7), Pool(client, 20)
    others = iter([Fault.EMPTY, Fault.REFUSED])
    for _ in range(8):
        for bot in pool.bots[1:]:
            pool.judge(good(bot, chance))
        pool.judge(Deed("p-001", next(others, fault)))
        if "p-001" in read_quarantined(client, ["p"]):
            break
    reason = read_quarantined(client, ["p"])["p-001"].reason
    assert reason == f"bad answers, {SAID[fault]}: 100% of its last tasks, 0% is usual"


def test_good_answers_wear_down_what_bad_ones_had(client: redis.Redis) -> None:
    chance, pool = random.Random(7), Pool(client, 2)

    def fault_after(*faults: Fault | None) -> Fault | None:
        for fault in faults:
            pool.judge(Deed("p-001", fault) if fault else good("p-001", chance))
        return bot_health_of(client.getrange(keys.health("p"), *row_of(1))).fault

    assert fault_after(Fault.EMPTY, Fault.EMPTY, Fault.CIRCLING) is Fault.EMPTY
    assert fault_after(None, Fault.CIRCLING) is Fault.CIRCLING
    assert fault_after(None, None) is Fault.CIRCLING  # until another one comes


@pytest.mark.parametrize(("bad", "of", "share"), [(3, 3, 1.0), (0, 3, 0.0), (5, 20, 0.25)])
def test_the_share_of_a_bot_that_has_done_little_is_that_of_all_its_tasks(
    client: redis.Redis, bad: int, of: int, share: float
) -> None:
    chance, pool = random.Random(7), Pool(client, 2)
    deeds = [Deed("p-001", Fault.EMPTY)] * bad + [good("p-001", chance) for _ in range(of - bad)]
    for deed in sorted(deeds, key=lambda _: chance.random()):
        pool.judge(deed)
    health = bot_health_of(client.getrange(keys.health("p"), *row_of(1)))
    assert health.rates[0] == pytest.approx(share, abs=0.1)


def test_beyond_the_cap_bots_stay_and_an_alarm_is_recorded_once(client: redis.Redis) -> None:
    chance, pool = random.Random(7), Pool(client, 20)
    pool.play(400, lambda bot: good(bot, chance))
    pool.play(2000, lambda bot: Deed(bot, Fault.REFUSED) if bot <= "p-009" else good(bot, chance))
    assert len(pool.found_after) == 7
    alarms = [fields for _, fields in client.xrange(keys.events()) if fields[b"event"] == b"quarantine_cap"]
    assert len(alarms) == 1
    assert (alarms[0][b"out"], alarms[0][b"of"]) == (b"7", b"20")


def test_each_quarantine_is_twice_as_long_as_the_one_before_within_its_jitter(client: redis.Redis) -> None:
    pool = Pool(client, 10)
    lengths = []
    for _ in range(4):
        while not (out := read_quarantined(client, ["p"])):
            for bot in pool.bots:
                pool.judge(Deed(bot, Fault.EMPTY if bot == "p-001" else None))
        ends = out["p-001"].until
        assert ends is not None
        assert out["p-001"].by == "health"
        lengths.append(ends - out["p-001"].since)
        client.delete(keys.quarantined("p"), keys.quarantine_reasons("p"))
    for nth, length_s in enumerate(lengths):
        assert 0.8 * 3600 * 2**nth <= length_s <= 1.2 * 3600 * 2**nth


def test_on_probation_less_evidence_is_enough_and_good_tasks_end_it(client: redis.Redis) -> None:
    pool = Pool(client, 10)
    client.zadd(keys.probation("p"), {"p-001": 3, "p-002": 3})
    for _ in range(3):
        pool.judge(Deed("p-001", Fault.EMPTY))
        pool.judge(Deed("p-002", None, 300, 200))
    assert set(read_quarantined(client, ["p"])) == {"p-001"}
    assert read_probation(client, ["p"]) == set()
    released = [fields for _, fields in client.xrange(keys.events()) if fields[b"event"] == b"bot_released"]
    assert [fields[b"bot"] for fields in released] == [b"p-002"]


def test_what_ends_after_the_quarantine_began_is_not_held_against_the_bot_later(client: redis.Redis) -> None:
    pool = Pool(client, 10)
    while not read_quarantined(client, ["p"]):
        for bot in pool.bots:
            pool.judge(Deed(bot, Fault.EMPTY if bot == "p-001" else None))
    for _ in range(8):
        pool.judge(Deed("p-001", Fault.EMPTY))
    assert pool.evidence("p-001") == (0, 0, 0)


def test_a_hard_class_does_not_accuse_the_bot_that_does_most_of_it(client: redis.Redis) -> None:
    chance, easy = random.Random(7), Pool(client, 20)
    hard = Pool(client, 20, kind="hard")
    for _ in range(400):
        for bot in easy.bots:
            is_hard = chance.random() < (0.5 if bot == "p-001" else 0.1)
            fails = chance.random() < ((0.2 if bot == "p-001" else 0.4) if is_hard else 0.01)
            (hard if is_hard else easy).judge(Deed(bot, Fault.REJECTED if fails else None, 300, 200))
    assert "p-001" not in read_quarantined(client, ["p"])


def test_bots_that_have_left_the_pool_do_not_use_up_its_cap(client: redis.Redis) -> None:
    pool = Pool(client, 10)
    client.zadd(keys.quarantined("p"), {f"p-{number:03d}": math.inf for number in range(11, 16)})
    for _ in range(10):
        for bot in pool.bots:
            pool.judge(Deed(bot, Fault.EMPTY if bot == "p-001" else None))
    assert "p-001" in read_quarantined(client, ["p"])


def test_a_thousand_invented_classes_do_not_end_learning(client: redis.Redis) -> None:
    pool = Pool(client, 3)
    for number in range(1050):
        pool.kind = f"invented-{number}"
        pool.judge(Deed("p-001", None, 300, 200))
    pool.kind = "mine"
    pool.judge(Deed("p-001", None, 300, 200))
    assert client.hexists(keys.norms("p"), "mine")
    assert client.hlen(keys.norms("p")) == 1000
    for key in (keys.health("p"), keys.norms("p")):
        assert client.ttl(key) > 0


def test_times_and_lengths_say_nothing_before_a_class_has_norms(client: redis.Redis) -> None:
    pool = Pool(client, 3)
    for _ in range(15):
        pool.judge(Deed("p-001", None, 400, 200))
    pool.judge(Deed("p-002", None, 5, 4000))
    assert pool.evidence("p-002") == (0, 0, 0)


def test_a_time_in_which_the_provider_failed_counts_for_nobody(client: redis.Redis) -> None:
    pool = Pool(client, 3)
    for _ in range(60):
        pool.judge(Deed("p-001", None, 400, 200))
        pool.judge(Deed("p-002", None, 5, None))
    assert pool.evidence("p-002") == (0, 0, 0)


faults = st.sampled_from([None, None, None, Fault.EMPTY, Fault.TOO_SHORT])


@settings(max_examples=25)
@given(deeds=st.lists(st.tuples(st.integers(1, 3), faults), max_size=60))
def test_the_evidence_is_that_of_pages_cusum(redis_url: str, deeds: list[tuple[int, Fault | None]]) -> None:
    """Held against the formula, with the rates of what is usual read where the script reads them."""
    with connect(redis_url) as client:
        client.flushall()
        pool = Pool(client, 3, HealthSettings(most_out=0))
        evidence = {number: [0.0, 0.0] for number in (1, 2, 3)}
        for number, fault in deeds:
            head = client.getrange(keys.health("p"), 0, 19).ljust(20, b"\0")
            for test, code in enumerate((Fault.EMPTY, Fault.TOO_SHORT)):
                if fault not in (None, code) or (fault is None and test == 1):
                    continue  # the other test has no say; a good task without a norm says nothing of avoidance
                usual = sorted(head[test::SAMPLE_BYTES])[2] / 255
                p0 = max(0.05, 1.5 * usual)
                if p0 > 0.6:
                    continue
                p1 = min(0.95, max(0.3, 3 * p0))
                step = math.log(p1 / p0) if fault else math.log((1 - p1) / (1 - p0))
                evidence[number][test] = max(0.0, evidence[number][test] + step)
                if evidence[number][test] >= 9.2:
                    evidence[number][test] = 9.2  # nobody may be out here
            pool.judge(Deed(f"p-{number:03d}", fault))
            assert pool.evidence(f"p-{number:03d}")[:2] == pytest.approx(evidence[number], abs=1e-3)


def test_a_bot_that_is_significantly_better_at_a_class_is_listed_and_delisted(client: redis.Redis) -> None:
    chance, pool = random.Random(7), Pool(client, 20, HealthSettings(watch=True, most_out=0), kind="sql")

    def work(bot: str, best: str) -> Deed:
        fails = chance.random() < (0.02 if bot == best else 0.35)
        return Deed(bot, Fault.REJECTED if fails else None, 300, 200, cost=100)

    pool.play(3000, lambda bot: work(bot, "p-005"))
    listed = {name.decode() for name in client.zrange(keys.specialists("p", "sql"), 0, -1)}
    assert "p-005" in listed
    assert len(listed) <= 3
    pool.play(6000, lambda bot: work(bot, "p-011"))
    listed = {name.decode() for name in client.zrange(keys.specialists("p", "sql"), 0, -1)}
    assert "p-005" not in listed
    assert "p-011" in listed


def test_the_cheaper_of_two_equally_good_bots_is_the_specialist(client: redis.Redis) -> None:
    pool = Pool(client, 10, kind="sql")
    pool.play(2000, lambda bot: Deed(bot, None, 300, 200, cost=40 if bot == "p-003" else 100))
    assert client.zrange(keys.specialists("p", "sql"), 0, -1) == [b"p-003"]
