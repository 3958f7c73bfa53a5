"""What is in batches, and what waits for one, for people and programs. Reads only, through a plain client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import redis

from fleet.economy.lanes.jobs import LaneJob, job_of
from fleet.store import lane_keys


@dataclass(frozen=True, slots=True)
class Gathered:
    """Tasks that wait for a batch under one key: how many, since when, and by when the first is needed.

    Times are Unix seconds.
    """

    limit: str
    tasks: int
    since: float
    by_at: float | None


@dataclass(frozen=True, slots=True)
class LaneBoard:
    """All of it.

    Args:
        gathering: What no batch has yet.
        jobs: Batches, the oldest first.
        shut: `provider/model/key` that takes no batches for now: until when (Unix time, s), and why.
        stale: Ids of batches at which no worker looks, though they are due: none has their key, or none runs.
    """

    gathering: tuple[Gathered, ...] = ()
    jobs: tuple[LaneJob, ...] = ()
    shut: tuple[tuple[str, float, str], ...] = ()
    stale: tuple[str, ...] = ()


#: Seconds after which a batch that is due has nobody who looks at it.
STALE_S = 180.0
#: What is told of it.
TOLD_STALE = "no worker that runs has its key"

#: Nothing is in a batch.
NO_BATCHES = LaneBoard()


def read_board(state: redis.Redis) -> LaneBoard:
    """Return what is in batches. One round trip where nothing is, else two; O(jobs).

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    with state.pipeline(transaction=False) as pipe:
        pipe.hgetall(lane_keys.gathered_limits())
        pipe.zrange(lane_keys.jobs(), 0, -1, withscores=True)
        pipe.hgetall(lane_keys.lane_shut())
        pipe.time()
        limits, scored, shut, (now_s, _) = pipe.execute()
    ids = [job_id for job_id, _ in scored]
    if not (limits or ids or shut):
        return NO_BATCHES
    with state.pipeline(transaction=False) as pipe:
        for limit in limits:
            pipe.zcard(lane_keys.gathering(limit.decode()))
            pipe.zrange(lane_keys.gathering(limit.decode()), 0, 0, withscores=True)
        for job_id in ids:
            pipe.hgetall(lane_keys.job(job_id.decode()))
        found = pipe.execute()
    counts, rows = found[: 2 * len(limits)], found[2 * len(limits) :]
    gathering = [
        Gathered(limit.decode(), int(count), float(since), float(first[0][1]) if first else None)
        for (limit, since), count, first in zip(limits.items(), counts[::2], counts[1::2], strict=True)
        if count
    ]
    jobs = [
        job for job_id, row in zip(ids, rows, strict=True)
        if (job := job_of(job_id.decode(), [part for pair in row.items() for part in pair])) is not None
    ]  # fmt: skip
    closed = [(limit.decode(), *told.decode().split(" ", 1)) for limit, told in shut.items()]
    return LaneBoard(
        tuple(gathering),
        tuple(sorted(jobs, key=lambda job: job.made_at)),
        tuple((limit, float(until), why) for limit, until, why in closed if float(until) > now_s),
        tuple(job_id.decode() for job_id, due_at in scored if due_at < now_s - STALE_S),
    )


def job_of_task(state: redis.Redis, task_id: str) -> LaneJob | None:
    """Return the batch that a task is in; None: it is in none. Two round trips."""
    job_id = cast("bytes | None", state.hget(lane_keys.batched(task_id), "job"))
    if job_id is None:
        return None
    row = cast("dict[bytes, bytes]", state.hgetall(lane_keys.job(job_id.decode())))
    return job_of(job_id.decode(), [part for pair in row.items() for part in pair])
