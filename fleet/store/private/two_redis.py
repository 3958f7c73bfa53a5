"""Plain clients of both Redis servers: the state's and the broker's, which are often one and the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import redis

from fleet.config import Settings
from fleet.errors import FleetError
from fleet.store.client import connect, store_errors
from fleet.store.private.branches import branch_urls, homes_of
from fleet.store.private.embedded import broker_url, state_url
from fleet.store.running.brokers import MAIN, Anywhere, Brokers


class TwoRedis(NamedTuple):
    """Plain clients, and the URL of the state Redis."""

    state: redis.Redis
    broker: Anywhere
    state_url: str


@contextmanager
def two_redis(settings: Settings, *, timeout_s: float | None = None) -> Iterator[TwoRedis]:
    """Connect to both; errors inside the block are Fleet's own.

    Args:
        settings: Where they are.
        timeout_s: Longest wait for an answer; None: as the settings say.

    Raises:
        ConfigurationError: When a configured Redis does not answer.
        StoreUnavailable: When Redis stops answering.
    """
    urls = state_url(settings), broker_url(settings)
    with ExitStack() as stack:
        clients = {}
        for url in dict.fromkeys(urls):
            stack.enter_context(store_errors(url))
            clients[url] = stack.enter_context(connect(url, timeout_s=timeout_s or settings.redis.socket_timeout_s))
        yield TwoRedis(clients[urls[0]], _with_branches(clients[urls[1]], settings, stack, timeout_s), urls[0])


def _with_branches(main: redis.Redis, settings: Settings, stack: ExitStack, timeout_s: float | None) -> Anywhere:
    """Return clients of all brokers that answer; what does not, and why, is told by them."""
    clients, away = {MAIN: main}, {}
    for name, url in branch_urls(settings).items():
        try:
            client = connect(url, timeout_s=timeout_s or settings.redis.socket_timeout_s)
        except FleetError as error:
            away[name] = str(error)
        else:
            clients[name] = stack.enter_context(client)
    return Brokers(clients, homes_of(settings), away) if settings.redis.brokers else main


@contextmanager
def state_client(settings: Settings) -> Iterator[redis.Redis]:
    """Connect to the state Redis; errors inside the block are Fleet's own.

    Raises:
        ConfigurationError: When a configured Redis does not answer.
        StoreUnavailable: When Redis stops answering.
    """
    url = state_url(settings)
    with store_errors(url), connect(url, timeout_s=settings.redis.socket_timeout_s) as client:
        yield client
