"""What a producer sees of several brokers while one is away, with real servers, one of them killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.engine.messages.broker import broker
from fleet.errors import StoreUnavailable
from fleet.store.client import store_errors
from tests.two_brokers import TwoBrokers


@pytest.fixture
def brokers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoBrokers]:
    both = TwoBrokers(tmp_path, monkeypatch)
    yield both
    both.stop()


def test_an_error_names_the_broker_that_is_away_whatever_it_was_asked(brokers: TwoBrokers) -> None:
    where, west = broker().client, brokers.west.url.partition("@")[2] or brokers.west.url
    client = where.of_name("west")
    client.ping()  # the first connection dies with the server, the next is refused
    brokers.west.kill()
    pipe = client.pipeline(transaction=False)
    pipe.exists("one")
    for ask in (client.ping, client.ping, pipe.execute):
        with pytest.raises(StoreUnavailable) as caught, store_errors(broker().url):
            ask()
        assert west in str(caught.value) and "redis.brokers.west" in str(caught.value)
    brokers.main.kill()
    with pytest.raises(StoreUnavailable) as caught, store_errors(broker().url):
        where.main.ping()
    assert "west" not in str(caught.value)
