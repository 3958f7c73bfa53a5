"""How jobs stand, for people: how fast they go, what is left, and which of them stand still. Reads, changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from fleet.engine.messages.follower import follower_id
from fleet.jobs import ENDED_AS, JobLedger, JobState, member_id
from fleet.quoting import counted, duration
from fleet.signals.jobs.view import JobsView, JobView
from fleet.store import job_keys

#: Jobs that are shown (count).
SHOWN = 20
#: Members by whose ends the pace is told, the newest (count), if they ended within so many seconds.
PACED_BY, PACE_S = 64, 600.0
#: Seconds without a new member after which an open job may have lost its producer; without an end, after which one
#: that waits for nothing longer than a batch (a day) stands still; after which what follows should be queued.
OPEN_S, STILL_S, DUE_S = 3600.0, 26 * 3600.0, 60.0
#: Members whose ends are read at once to find some of a kind (count).
STRETCH = 65_536


def read_jobs(state: redis.Redis, now_s: float, *, count: int = SHOWN) -> JobsView:
    """Return the jobs that are not over, then the newest others, `count` at most. One round trip if there are none.

    Args:
        state: Plain client of the state Redis.
        now_s: Unix time by its clock.
        count: Jobs at most.
    """
    states = JobLedger(state).newest(count, live_first=True)
    if not states:
        return JobsView()
    views = tuple(_views(state, states, now_s))
    return JobsView(live=state.zcard(job_keys.live()), jobs=views)


def read_job(state: redis.Redis, job_id: str, now_s: float) -> JobView | None:
    """Return one job; None: there is none."""
    found = JobLedger(state).read(job_id)
    return None if found is None else _views(state, [found], now_s)[0]


def members_of(state: redis.Redis, job: JobView, how: str, count: int) -> list[str]:
    """Return the task ids of the first members that ended so, or (`pending`) have not ended. O(members) bytes.

    Args:
        state: Plain client of the state Redis.
        job: Which.
        how: One of `ENDED_AS`, or `pending`.
        count: Ids at most.
    """
    book, found = JobLedger(state), list[str]()
    wanted = (0,) if how == "pending" else (ord(ENDED_AS[how]),)
    for start in range(0, job.members, STRETCH):
        size = min(STRETCH, job.members - start)
        ends = book.ended_as(job.id, start, size).ljust(size, b"\0")
        at = ends.find(wanted[0])
        while at >= 0 and len(found) < count:
            found.append(member_id(job.id, start + at))
            at = ends.find(wanted[0], at + 1)
        if len(found) >= count:
            break
    return found


def _views(state: redis.Redis, states: Sequence[JobState], now_s: float) -> list[JobView]:
    with state.pipeline(transaction=False) as pipe:
        for one in states:
            pipe.xrevrange(job_keys.order(one.id), count=1 if one.is_over else PACED_BY)
            pipe.exists(job_keys.then(one.id))
            pipe.zscore(job_keys.due(), one.id)
        rows = pipe.execute()
    of_each = zip(states, rows[::3], rows[1::3], rows[2::3], strict=True)
    views = [(_view(one, ends, bool(then) or due is not None, now_s), due) for one, ends, then, due in of_each]
    return [_with_trouble(state, view, due, now_s) for view, due in views]


def _view(
    one: JobState, ends: Sequence[tuple[bytes, Mapping[bytes, bytes]]], has_follower: bool, now_s: float
) -> JobView:
    times = [int(at.partition(b"-")[0]) / 1000 for at, _ in ends]
    lately = [at for at in times if at > now_s - PACE_S]
    # Until now, not until the last end: what has stopped slows down.
    per_minute = 60 * len(lately) / max(1.0, now_s - lately[-1]) if len(lately) > 1 and not one.is_over else None
    pending = 0 if one.total is None else max(0, one.total - one.ended)
    follows = has_follower or one.called_at is not None
    return JobView(
        id=one.id, key=one.key, word=one.word, made_at=one.made_at, queued=one.queued, total=one.total,
        moved_at=max([one.made_at, one.queued_at or 0.0, *times[:1]]),
        ended=one.ended, ok=one.ok, degraded=one.degraded, failed=one.failed, cancelled=one.cancelled,
        per_minute=per_minute, left_s=60 * pending / per_minute if per_minute and pending else None,
        done_at=one.done_at, has_follower=follows, called_at=one.called_at,
        then_id=follower_id(one.id) if follows else "",
    )  # fmt: skip


def _with_trouble(state: redis.Redis, job: JobView, due: Any, now_s: float) -> JobView:
    """Return a job with what is wrong with it."""
    idle_s, said = now_s - job.moved_at, ""
    if job.word == "open" and idle_s > OPEN_S:
        said = (
            f"it is open, and has got no task for {duration(idle_s)}: run its producer again under the same key, or "
            "end it"
        )
    elif job.is_live and idle_s > STILL_S:
        first = members_of(state, job, "pending", 1)
        said = f"none of {counted(job.pending, 'task')} has ended for {duration(idle_s)}: see `fleet why {first[0]}`"
    elif due is not None and now_s - float(due) > DUE_S:
        said = f"what follows it is not queued for {duration(now_s - float(due))}: no worker runs, or its pool is gone"
    return job.model_copy(update={"trouble": said}) if said else job
