"""Seeded chance: repeatable, independent of order, and of the asked-for shares."""

from __future__ import annotations

from collections import Counter
from statistics import median, quantiles

from hypothesis import given
from hypothesis import strategies as st

from fleet.workers.simulator.chance import Chance, Draw, fate_of, latency_s

BODIES = st.lists(st.sampled_from([b"one", b"two", b"three"]), min_size=1, max_size=12)


def draws(chance: Chance, bodies: list[bytes]) -> list[Draw]:
    drawn = []
    for body in bodies:
        drawn.append(chance.draw("key", body))
        chance.use(drawn[-1])
    return drawn


@given(bodies=BODIES, order=st.randoms(use_true_random=False))
def test_the_order_of_calls_changes_nothing(bodies: list[bytes], order: object) -> None:
    shuffled = list(bodies)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sorted(draws(Chance(7), bodies)) == sorted(draws(Chance(7), shuffled))


def test_a_repeated_call_gets_a_fresh_draw() -> None:
    drawn = draws(Chance(7), [b"same"] * 50)
    assert len({draw.fate for draw in drawn}) == 50
    assert [draw.nth for draw in drawn] == list(range(50))


def test_looking_twice_without_using_gives_the_same_draw() -> None:
    chance = Chance(7)
    assert chance.draw("key", b"same") == chance.draw("key", b"same")


def test_seed_key_and_body_each_change_the_draw() -> None:
    drawn = [Chance(1).draw("k", b"b"), Chance(2).draw("k", b"b"), Chance(1).draw("l", b"b"), Chance(1).draw("k", b"c")]
    assert len({draw.fate for draw in drawn}) == 4


def test_fates_come_in_their_shares() -> None:
    chance = Chance(3)
    fates: Counter[str] = Counter(
        fate_of(chance.draw("key", str(i).encode()), error_rate=0.1, hang_rate=0.2, cut_rate=0.3) for i in range(4000)
    )
    for fate, share in (("error", 0.1), ("hang", 0.2), ("cut", 0.3), ("served", 0.4)):
        assert abs(fates[fate] / 4000 - share) < 0.03


def test_latency_is_log_normal_around_its_median() -> None:
    chance = Chance(3)
    seconds = [latency_s(chance.draw("key", str(i).encode()), median_ms=200) for i in range(4000)]
    assert 0.19 < median(seconds) < 0.21
    assert 1.8 < quantiles(seconds, n=20)[-1] / median(seconds) < 2.2
    assert min(seconds) > 0
