"""What tests of the limiter's scripts share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from fleet.store.client import connect


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client
