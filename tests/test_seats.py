"""Seats share a pool's bots out: each bot belongs to one seat, and each seat has about as many."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.asking import Seat
from fleet.errors import InvalidTask
from fleet.models import BotTask

asks = st.integers(0, 16**12 - 1).map(lambda number: f"{number:012x}")


def all_of(ask: str, seats: int, bots: int) -> list[list[int]]:
    return [Seat(ask, n, seats).bots(bots, most=bots, draw=random.Random(0)) for n in range(1, seats + 1)]


@given(ask=asks, seats=st.integers(1, 30), bots=st.integers(1, 300))
def test_each_bot_has_one_seat_and_no_seat_has_more_than_one_bot_above_another(ask: str, seats: int, bots: int) -> None:
    shares = all_of(ask, seats, bots)
    assert sorted(bot for share in shares for bot in share) == list(range(1, bots + 1))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_asks_share_the_bots_out_differently() -> None:
    assert len({tuple(map(tuple, all_of(f"{n:012x}", 7, 100))) for n in range(50)}) > 40


@given(ask=asks, most=st.integers(1, 64), seed=st.integers())
def test_of_many_bots_a_few_are_drawn_and_none_is_drawn_twice(ask: str, most: int, seed: int) -> None:
    seat = Seat(ask, 3, 7)
    found = seat.bots(10_000, most=most, draw=random.Random(seed))
    assert len(found) == len(set(found)) == most
    assert set(found) <= set(seat.bots(10_000, most=10_000, draw=random.Random(seed)))


def test_a_seat_is_read_as_it_is_written() -> None:
    seat = Seat("0123456789ab", 3, 7)
    assert Seat.read(str(seat)) == seat
    assert BotTask(prompt="-", seat=str(seat)).seat == "0123456789ab:3/7"


@pytest.mark.parametrize("text", ["", "0123456789ab", "0123456789ab:0/7", "x:1/2", "0123456789ab:1/99999"])
def test_what_is_no_seat_is_refused(text: str) -> None:
    with pytest.raises(InvalidTask, match="seat"):
        BotTask.parse("-", seat=text)


def test_who_has_no_seat_among_too_many_gets_no_bot() -> None:
    assert Seat("0123456789ab", 7, 5).bots(100, most=9, draw=random.Random(0)) == []
    assert Seat("0123456789ab", 7, 7).bots(6, most=9, draw=random.Random(0)) == []
