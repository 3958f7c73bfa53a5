"""How long batches of a model have taken, and what came of their tasks: by that a batch is taken below 24 hours."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import redis

from fleet.economy.lanes.choice import Lane, LaneFacts
from fleet.store import lane_keys
from fleet.store.client import Store

#: Jobs of a model that are remembered (count), and for how long (s).
MOST, LIFE_S = 50, 30 * 86_400
#: Jobs below which a percentile of their times says nothing (count): the promise holds until then.
LEAST_JOBS = 5
#: Newest jobs among which one is looked for that may be noted already (count).
LOOKED_AT = 20


class JobTime(NamedTuple):
    """How long one job took (s), from the choice of its tasks to its end, its tasks, and those that were answered."""

    seconds: float
    tasks: int
    answered: int


async def note_time(store: Store, api: str, time: JobTime, *, job: str) -> None:
    """Remember what a job took, once."""
    name = lane_keys.lane_times(api)
    known = await store.command("LRANGE", name, 0, LOOKED_AT - 1)
    if any(json.loads(row)[0] == job for row in known):
        return
    await store.command("LPUSH", name, json.dumps([job, round(time.seconds, 3), time.tasks, time.answered]))
    await store.command("LTRIM", name, 0, MOST - 1)
    await store.command("EXPIRE", name, LIFE_S)


def timed_as(api: str, lane: Lane) -> str:
    """Return the name under which the times of a lane of `provider/model` are kept."""
    return api if lane == "batch" else f"{api} {lane}"


def facts_of(times: Sequence[JobTime]) -> LaneFacts:
    """Return what jobs tell of the batch lane; nothing of its time while they are few."""
    tasks = sum(time.tasks for time in times)
    within_s = None
    if len(times) >= LEAST_JOBS:
        ordered = sorted(time.seconds for time in times)
        within_s = ordered[math.ceil(0.95 * len(ordered)) - 1]
    rescued = 1 - sum(time.answered for time in times) / tasks if tasks else 0.0
    return LaneFacts(within_s=within_s, rescued=max(0.0, rescued))


def with_times(facts: LaneFacts, times: LaneFacts | None) -> LaneFacts:
    """Return what the bill tells of a batch lane, with what its jobs tell."""
    return facts if times is None else replace(facts, within_s=times.within_s, rescued=times.rescued)


def read_shut(state: redis.Redis, now_s: float) -> frozenset[str]:
    """Return the models (`provider/model`) of which a key takes no batches for now.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    rows = cast("dict[bytes, bytes]", state.hgetall(lane_keys.lane_shut()))
    return frozenset(
        name.decode().rpartition("/")[0] for name, told in rows.items() if float(told.split(b" ")[0]) > now_s
    )


def read_times(state: redis.Redis, apis: Iterable[str]) -> dict[str, LaneFacts]:
    """Return what is known of the batches of models. One round trip.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    names = list(dict.fromkeys(apis))
    with state.pipeline(transaction=False) as pipe:
        for api in names:
            pipe.lrange(lane_keys.lane_times(api), 0, MOST - 1)
        found = pipe.execute()
    return {
        api: facts_of([JobTime(*json.loads(row)[1:]) for row in rows]) for api, rows in zip(names, found, strict=True)
    }
