"""The fleets that are measured, each in a home of its own with a fleet.toml and a Redis."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks.bench import private_home
from benchmarks.overhead import FREE_PROVIDER

#: Seconds that a command may take here: Redis is asked to write a million messages.
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Size:
    """A fleet: its bots, over how many pools, and the tasks that wait in their queues, spread evenly."""

    bots: int
    pools: int
    queued: int = 0

    @property
    def title(self) -> str:
        """What stands above its column."""
        return f"{self.bots:,} bots\n{self.pools:,} pools\n{self.queued:,} queued"

    @property
    def names(self) -> list[str]:
        """Its pools."""
        return [f"p{number}" for number in range(1, self.pools + 1)]

    def smaller(self, share: float) -> Size:
        """Return it with a share of its queued tasks."""
        return Size(self.bots, self.pools, round(self.queued * share))


SIZES = (
    Size(100, 3), Size(10_000, 10), Size(10_000, 1_000), Size(10_000, 1_000, 1_000_000), Size(100_000, 1_000),
)  # fmt: skip


@contextmanager
def home_of(size: Size) -> Iterator[tuple[Path, redis.Redis]]:
    """Run inside a home with that fleet; gives its folder, and a client of its Redis. No task is queued yet."""
    with private_home() as home:
        os.environ |= FREE_PROVIDER
        rows = (f"[pools.{name}]\nbots = {size.bots // size.pools}\n" for name in size.names)
        (home / "fleet.toml").write_text("".join(rows))
        from fleet import config
        from fleet.store.client import connect
        from fleet.store.private.embedded import broker_url

        config.current.cache_clear()
        try:
            os.environ["BENCH_BROKER"] = broker_url(config.current())
            with connect(os.environ["BENCH_BROKER"], timeout_s=PATIENCE_S) as client:
                yield home, client
        finally:
            config.current.cache_clear()


def fill(size: Size) -> None:
    """Queue the tasks of a fleet."""
    from fleet.engine.messages.producer import submit_many

    names = size.names
    tasks = ({"prompt": f"What is {n} + 2?", "pool": names[n % len(names)]} for n in range(size.queued))
    for _ in submit_many(tasks):
        pass
