"""Opening early what is parked: the reason has gone why it waits. A few at a time, so that no herd forms.

If who does it dies in between, the rest opens at its own time.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from typing import Any

import redis

from fleet.store import keys
from fleet.store.client import Script, Store, run_script
from fleet.store.running.brokers import AnyStore, ask_each, at_each, total

OPEN_EARLY = Script.beside(
    __file__,
    "open_early.lua",
    keys="parked openings order bell",
    argv="queue about causes looked_at most opened most_opened every_s",
)

OPEN_THESE = Script.beside(__file__, "open_these.lua", keys="parked openings order bell", argv="queue every_s ids*")

#: Messages looked at in one step (count): bounds the time that the script holds Redis.
AT_ONCE = 256
#: The most of them that are looked at for a few tasks that may go on (count).
MOST_LOOKED_AT = 1024
#: Seconds between two openings.
EVERY_S = 0.001

Call = tuple[list[Any], list[Any]]


async def open_early(broker: AnyStore, queue: str, *, about: str = "", causes: Iterable[str] = ()) -> int:
    """Open what is parked beside a queue for these reasons, over the next seconds; return how much it is.

    Args:
        broker: Where it is parked.
        queue: Beside which.
        about: Only what waits because of this `provider/model/key`, pool or setting; "": of anything.
        causes: Only for these causes; none: for any.
    """
    named = " ".join(causes)
    return sum(await ask_each(broker, lambda store: _open(store, _steps(queue, about, named))))


async def _open(broker: Store, steps: Generator[Call, list[int], int]) -> int:
    call = next(steps)
    try:
        while True:
            call = steps.send(await broker.run(OPEN_EARLY, *call))
    except StopIteration as end:
        return int(end.value)


async def open_some(broker: AnyStore, queue: str, *, about: str, causes: Iterable[str], most: int) -> int:
    """`open_early` for the next `most` of them, among the next 1,024 of all that is parked there; return how many."""
    named, left = " ".join(causes), most

    async def open_at(store: Store) -> int:
        nonlocal left
        if left <= 0:
            return 0
        opened = await _open(store, _steps(queue, about, named, most_opened=left, most_looked_at=MOST_LOOKED_AT))
        left -= opened
        return opened

    return sum(await ask_each(broker, open_at))


async def open_these(broker: AnyStore, queue: str, task_ids: Sequence[str]) -> int:
    """Open what is parked of these tasks beside a queue, over the next seconds; return how many."""
    opened = 0
    for start in range(0, len(task_ids), AT_ONCE):
        call = OPEN_THESE.call(
            parked=keys.parked(), openings=keys.openings(), order=keys.parked_order(queue), bell=keys.bell(),
            queue=queue, every_s=EVERY_S, ids=task_ids[start : start + AT_ONCE],
        )  # fmt: skip
        opened += sum(await ask_each(broker, partial(_run_open, call)))
    return opened


async def _run_open(call: Call, broker: Store) -> int:
    return int(await broker.run(OPEN_THESE, *call))


@at_each(total)
def open_early_now(broker: redis.Redis, queue: str, *, about: str = "", causes: Iterable[str] = ()) -> int:
    """`open_early` through a plain client, for commands."""
    steps = _steps(queue, about, " ".join(causes))
    call = next(steps)
    try:
        while True:
            call = steps.send(run_script(broker, OPEN_EARLY, *call))
    except StopIteration as end:
        return int(end.value)


def _steps(
    queue: str, about: str, causes: str, *, most_opened: int = 0, most_looked_at: float = math.inf
) -> Generator[Call, list[int], int]:
    """Yield calls of `open_early.lua`, and take their replies, until all was looked at; `most_opened` 0: all open."""
    looked_at = opened = 0
    while 0 <= looked_at < most_looked_at:
        looked_at, opened = yield OPEN_EARLY.call(
            parked=keys.parked(), openings=keys.openings(), order=keys.parked_order(queue), bell=keys.bell(),
            queue=queue, about=about, causes=causes, looked_at=looked_at, most=AT_ONCE, opened=opened,
            most_opened=most_opened, every_s=EVERY_S,
        )  # fmt: skip
    return opened
