"""Where the brokers of a fleet are, by its settings: which pool's queue is on which, and clients of them all.

Clients that live as long as their process connect with their first command: a broker that is away now may be back then.
"""

from __future__ import annotations

import redis

from fleet.config import Settings
from fleet.store import keys
from fleet.store.address import Address
from fleet.store.client import Store
from fleet.store.private.embedded import completed
from fleet.store.running.blame import blame
from fleet.store.running.brokers import MAIN, AnyStore, Anywhere, Brokers
from fleet.store.running.sentinel import plain_client


def branch_urls(settings: Settings) -> dict[str, str]:
    """Return the URLs of the brokers beside the main one, by name."""
    return {name: completed(one.url.get_secret_value(), settings.redis) for name, one in settings.redis.brokers.items()}


def homes_of(settings: Settings) -> dict[str, str]:
    """Return queue -> name of its broker, as far as that is not the main one."""
    return {keys.queue(pool): name for pool in settings.pools if (name := settings.redis.broker_of(pool)) is not None}


def broker_clients(settings: Settings, main: redis.Redis) -> Anywhere:
    """Return clients of all brokers: the main one's alone where there are no others."""
    urls = branch_urls(settings)
    timeout_s = settings.redis.socket_timeout_s
    branches = {name: blame(plain_client(Address.parse(url), timeout_s), name, url) for name, url in urls.items()}
    return Brokers({MAIN: main, **branches}, homes_of(settings), urls=urls) if branches else main


def broker_stores(settings: Settings, main: Store) -> AnyStore:
    """Return stores of all brokers: the main one's alone where there are no others. For the loop of `main`."""
    urls = branch_urls(settings)
    branches = {name: Store(url, timeout_s=settings.redis.socket_timeout_s) for name, url in urls.items()}
    return Brokers({MAIN: main, **branches}, homes_of(settings), urls=urls) if branches else main
