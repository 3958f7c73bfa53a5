"""Fleet's transport with the master found through Sentinel: kombu's way to connect below, ours to take above."""

from __future__ import annotations

from typing import Any, cast

from kombu.transport import redis as kombu_redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from fleet.engine.transport import channel


class Channel(channel.Channel, kombu_redis.SentinelChannel):
    """A channel whose connections ask a Sentinel for the master whenever they connect."""

    from_transport_options = (*channel.Channel.from_transport_options, "master_name", "sentinels", "sentinel_kwargs")

    sentinels: tuple[tuple[str, int], ...] = ()
    master_name = ""
    sentinel_kwargs: dict[str, Any] | None = None

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        """Do as kombu does, with the Sentinels from an option: kombu's list of URLs leads back to its own transport.

        Nor does redis-py try again by itself: Celery does, and its main thread must not sleep in between.
        """
        options = {
            name: value for name, value in self._connparams(asynchronous).items() if name not in ("host", "port")
        }
        options["retry"] = Retry(NoBackoff(), 0)
        manager = cast(Any, Sentinel)(self.sentinels, sentinel_kwargs=self.sentinel_kwargs, **options)
        setattr(self, "_async_sentinel_manager" if asynchronous else "_sentinel_manager", manager)
        return manager.master_for(self.master_name).connection_pool


class Transport(channel.Transport):
    """`broker_transport` of the Celery app when the broker's URL is sentinel://."""

    Channel = Channel
    default_port = 26379
