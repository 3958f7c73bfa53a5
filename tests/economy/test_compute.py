"""Idle and busy slot-hours, and what they cost."""

from __future__ import annotations

import pytest

from fleet.economy.compute import compute_of


def test_an_idle_slot_hour_costs_what_its_share_of_a_process_does():
    # Two processes of 60 slots for ten hours at $0.30: $6, of which nine tenths were idle.
    found = compute_of(2 * 60 * 36_000, 12 * 36_000, slots_per_process=60, usd_per_hour=0.30)
    assert (found.slot_h, found.busy_h, found.idle_share) == (1200, 120, pytest.approx(0.9))
    assert (found.usd, found.idle_usd) == (pytest.approx(6.0), pytest.approx(5.4))
    assert found.line() == "1,200.0 slot-hours, 90% idle: $6.00, of which $5.40 idle"


def test_without_a_price_hours_are_told_and_no_dollars():
    found = compute_of(3600, 3600, slots_per_process=1, usd_per_hour=None)
    assert (found.usd, found.idle_usd, found.line()) == (None, None, "1.0 slot-hours, 0% idle")
    assert compute_of(3600, 3600, slots_per_process=1, usd_per_hour=0.0).usd == 0


def test_slots_that_were_lent_are_never_busier_than_there_are():
    found = compute_of(100, 150, slots_per_process=1, usd_per_hour=36)
    assert (found.idle_h, found.usd) == (0, pytest.approx(1.0))
