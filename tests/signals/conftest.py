"""Fixtures of the signals' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from fleet.store.client import connect
from tests.signals.working_fleet import WorkingFleet


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def working_fleet(redis_url: str, client: redis.Redis) -> WorkingFleet:
    """A seeded fleet that has done nothing."""
    fleet = WorkingFleet(redis_url, client)
    fleet.seed()
    return fleet
