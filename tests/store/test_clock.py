"""How far this host's clock is from that of Redis."""

from __future__ import annotations

import time

import pytest

from fleet.store.clock import LONGEST_TRIP_S, HostClock, told


def test_a_clock_that_heard_redis_tells_its_time() -> None:
    clock = HostClock(wall=lambda: 5000.0)
    assert (clock.now_s(), clock.is_off) == (5000.0, False)
    clock.hear(1400.0, asked_s=time.monotonic())
    assert clock.now_s() == pytest.approx(1400, abs=1)
    assert clock.is_off
    assert told(clock.ahead_s) == "60 min ahead of the clock of Redis"


def test_a_slow_answer_is_believed_only_before_the_first_quick_one() -> None:
    clock = HostClock(wall=lambda: 5000.0)
    clock.hear(1400.0, asked_s=time.monotonic() - LONGEST_TRIP_S - 0.1)
    assert clock.ahead_s == pytest.approx(3600, abs=1)
    clock.hear(4990.0, asked_s=time.monotonic())
    clock.hear(1400.0, asked_s=time.monotonic() - LONGEST_TRIP_S - 0.1)
    assert clock.ahead_s == pytest.approx(10, abs=1)
