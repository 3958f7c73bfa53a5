"""Errors that say which server they came from: a block that asks several brokers would name the main one for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from fleet.quoting import quote

#: Where an error of redis-py keeps the name and URL of its broker.
_PLACE = "fleet_place"


def blame(client: redis.Redis, name: str, url: str) -> redis.Redis:
    """Have all errors of a client's connections tell its broker to `told_by`; the client is returned.

    Args:
        client: Has no connections yet.
        name: Of the broker in `redis.brokers`.
        url: Of its server.
    """

    @contextmanager
    def ours() -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            setattr(error, _PLACE, (name, url))
            raise

    kind: Any = client.connection_pool.connection_class

    class Blamed(kind):  # type: ignore[misc]
        """A connection to a server that is not the main broker's."""

        def connect(self) -> Any:
            with ours():
                return super().connect()

        def send_packed_command(self, *args: Any, **kwargs: Any) -> Any:
            with ours():
                return super().send_packed_command(*args, **kwargs)

        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            with ours():
                return super().read_response(*args, **kwargs)

    client.connection_pool.connection_class = Blamed
    return client


def told_by(error: redis.RedisError, url: str) -> tuple[str, str]:
    """Return what an error says, with the broker's name if it is not the main one's, and the URL of its server.

    Args:
        error: Of redis-py.
        url: Of the server that was meant to be asked.
    """
    place = getattr(error, _PLACE, None)
    if place is None:
        return str(error), url
    name, its_url = place
    return f"{error} (broker {quote(name)}: redis.brokers.{name})", its_url
