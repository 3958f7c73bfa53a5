"""Puts back the places of tasks in flows that a list has lost: to workers of a release that knows no flows, or by hand.

Takes of this release serve flows until they are empty, whatever the list says. Its length is what others go by: Flower,
KEDA, exporters, and Fleet's own figures.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from typing import cast

import redis

from fleet.config import Settings
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key, task_queues
from fleet.errors import FleetError
from fleet.quoting import counted, quote
from fleet.store import flow_keys, keys
from fleet.store.client import Script, Store, run_script_each
from fleet.store.running.brokers import AnyStore, ask_each, at_each, main_of

logger = logging.getLogger("fleet.worker")

FILL = Script.beside(__file__, "fill_places.lua", keys="list", argv="fair most is_meant")

#: Seconds between two looks, of all workers together.
FILL_EVERY_S = 30.0
#: Flows of a list that one look counts (count): of more, the list tells at least so many tasks.
FLOWS_MOST = 2000


async def keep_places(broker: AnyStore, settings: Settings) -> None:
    """Put back the places that lists have lost, for ever: a look now and then, by one worker of all."""
    while True:
        await asyncio.sleep(FILL_EVERY_S)
        try:
            if await main_of(broker).command("SET", keys.turn("places"), "1", "NX", "PX", round(FILL_EVERY_S * 900)):
                await fill_places(broker, settings)
        except FleetError as error:
            logger.warning("places not looked at error=%s", error)


async def fill_places(broker: AnyStore, settings: Settings) -> int:
    """Put back the places that lists of the settings' queues have lost; return how many."""
    return sum(await ask_each(broker, lambda store: _fill_places(store, settings)))


async def _fill_places(broker: Store, settings: Settings) -> int:
    names = [queue.name for queue in task_queues(settings)]
    flags = await broker.command("MGET", *(flow_keys.has(list_key(name, 0)) for name in names))
    put = 0
    for name in (name for name, flag in zip(names, flags, strict=True) if flag is not None):
        count = sum([int(await broker.run(FILL, *call)) for call in _calls(name, is_meant=True)])
        if count:
            logger.warning("places put back queue=%s: %s; a worker of a release before 0.3 may serve it, or a person "
                "has changed its list", quote(name), counted(count, "task of a tenant", "tasks of tenants"),
            )  # fmt: skip
        put += count
    return put


@at_each(lambda parts: dict(sum(map(Counter, parts), Counter[str]())))
def lost_places(client: redis.Redis, settings: Settings) -> dict[str, int]:
    """Return how many places the lists of each queue lack, if any do. One round trip where no queue has flows."""
    names = [queue.name for queue in task_queues(settings)]
    flags = cast("list[bytes | None]", client.mget([flow_keys.has(list_key(name, 0)) for name in names]))
    having = [name for name, flag in zip(names, flags, strict=True) if flag is not None]
    calls = [call for name in having for call in _calls(name, is_meant=False)]
    counts = iter(run_script_each(client, FILL, calls))
    lacking = {name: sum(int(next(counts)) for _ in PRIORITY_STEPS) for name in having}
    return {name: count for name, count in lacking.items() if count}


def _calls(queue: str, *, is_meant: bool) -> Iterator[tuple[list[str], list[str]]]:
    for step in PRIORITY_STEPS:
        yield FILL.call(list=list_key(queue, step), fair=flow_keys.stem(), most=FLOWS_MOST, is_meant=int(is_meant))
