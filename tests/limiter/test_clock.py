"""When a slot that Redis named has come by this process's clock."""

from __future__ import annotations

import pytest

from fleet.limiter.clock import RedisClock

#: Redis says so many seconds when the loop says 0.
AHEAD_S = 1_700_000_000.0


def heard(clock: RedisClock, *, asked_at: float, replied_at: float, heard_at: float, step_s: float = 0.0) -> float:
    """Return the loop time of a slot 1 s after a reply; times are those of the loop."""
    now_us = round((AHEAD_S + replied_at + step_s) * 1e6)
    return clock.local(now_us + 1_000_000, now_us=now_us, asked_at=asked_at, heard_at=heard_at)


def test_a_reply_that_a_busy_loop_reads_late_makes_no_call_late() -> None:
    clock = RedisClock()
    assert heard(clock, asked_at=0.0, replied_at=0.001, heard_at=0.002) == pytest.approx(1.002, abs=1e-5)
    assert heard(clock, asked_at=1.0, replied_at=1.001, heard_at=1.5) == pytest.approx(2.002, abs=1e-5)


def test_a_quicker_reply_tells_more() -> None:
    clock = RedisClock()
    heard(clock, asked_at=0.0, replied_at=0.001, heard_at=0.5)
    assert heard(clock, asked_at=1.0, replied_at=1.001, heard_at=1.002) == pytest.approx(2.002, abs=1e-5)
    assert heard(clock, asked_at=2.0, replied_at=2.001, heard_at=2.5) == pytest.approx(3.002, abs=1e-5)


@pytest.mark.parametrize("step_s", [-3600.0, -0.5, 0.5, 3600.0])
def test_after_a_step_of_the_clock_of_redis_the_wait_is_as_long_as_it_said(step_s: float) -> None:
    clock = RedisClock()
    heard(clock, asked_at=0.0, replied_at=0.001, heard_at=0.002)
    slot_at = heard(clock, asked_at=1.0, replied_at=1.001, heard_at=1.002, step_s=step_s)
    assert slot_at == pytest.approx(2.002, abs=1e-5)
