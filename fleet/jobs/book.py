"""What is known of jobs, in Redis: who is a member, how each ended and in which order, whether all have.

A member is counted in the very step that stores its result (`end_member.lua`), so that no death loses or doubles one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis

from fleet.jobs.members import Membership, membership_of
from fleet.store import job_keys, keys
from fleet.store.client import Script, run_script, run_script_each

#: Seconds that a job is remembered after its last sign of life: members that are queued, or end (30 days).
LIFE_S = 30 * 86_400
#: Members after which that begins anew (count): an EXPIRE of each key for each of them would cost a third more.
LIVES_EVERY = 256
#: How a member ended -> its byte.
ENDED_AS = {"ok": "o", "degraded": "d", "failed": "f", "cancelled": "c"}

_JOB_KEYS = "job members order due follower live"
COMPLETE = Script.beside(__file__, "complete.lua", keys="job due follower live", argv="job_id life_s")
END_MEMBER = Script.beside(
    __file__,
    "end_member.lua",
    keys=_JOB_KEYS,
    argv="job_id position ended_as life_s",
    constants={"LIVES_EVERY": LIVES_EVERY},
    using=[COMPLETE],
)
SEAL = Script.beside(
    __file__, "seal.lua", keys="job due follower live", argv="job_id life_s total is_cancelled", using=[COMPLETE]
)
END_REVOKED = Script.beside(
    __file__,
    "end_revoked.lua",
    keys=f"result {_JOB_KEYS}",
    argv="payload result_life_s job_id position ended_as life_s",
    using=[END_MEMBER],
)
NOTE_QUEUED = Script.beside(__file__, "note_queued.lua", keys="job follower", argv="queued queued_at life_s")
SETTLE = Script.beside(__file__, "settle.lua", keys="job due follower", argv="job_id")
REOPEN = Script.beside(
    __file__, "reopen_member.lua", keys="job members live lost", argv="job_id position task_id life_s"
)


def end_call(member: Membership, how: str) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `end_member.lua`; `how` is one of `ENDED_AS`."""
    return END_MEMBER.call(
        **_keys_of(member.job), job_id=member.job, position=member.position, ended_as=ENDED_AS[how], life_s=LIFE_S
    )


def end_revoked(state: redis.Redis, metas: dict[str, bytes], *, result_life_s: int) -> list[str]:
    """Store the results of members that were revoked, and count these; return those that had no result.

    Args:
        state: Plain client of the state Redis.
        metas: Task id -> what is stored.
        result_life_s: Life of a result, s.
    """
    calls = [
        revoked_call(member, task_id, meta, result_life_s=result_life_s)
        for task_id, meta in metas.items()
        if (member := membership_of(task_id)) is not None
    ]
    replies = run_script_each(state, END_REVOKED, calls)
    return [task_id for task_id, is_stored in zip(metas, replies, strict=True) if is_stored]


def revoked_call(member: Membership, task_id: str, meta: bytes, *, result_life_s: int) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `end_revoked.lua` for a member, its task id, and what is stored."""
    return END_REVOKED.call(
        result=keys.result(task_id), **_keys_of(member.job), payload=meta, result_life_s=result_life_s,
        job_id=member.job, position=member.position, ended_as=ENDED_AS["cancelled"], life_s=LIFE_S,
    )  # fmt: skip


def reopen_member(state: redis.Redis, task_id: str) -> None:
    """Let a task that is to be queued again be one that has not ended, if it is a member of a job. Before it is queued.

    Whoever dies in between leaves its dead letter: replaying that once more queues it.
    """
    if (member := membership_of(task_id)) is not None:
        call = REOPEN.call(
            job=job_keys.job(member.job), members=job_keys.members(member.job), live=job_keys.live(),
            lost=job_keys.lost(), job_id=member.job, position=member.position, task_id=task_id, life_s=LIFE_S,
        )  # fmt: skip
        run_script(state, REOPEN, *call)


def _keys_of(job_id: str) -> dict[str, str]:
    return {
        "job": job_keys.job(job_id),
        "members": job_keys.members(job_id),
        "order": job_keys.order(job_id),
        "due": job_keys.due(),
        "follower": job_keys.then(job_id),
        "live": job_keys.live(),
    }


@dataclass(frozen=True, slots=True)
class JobState:
    """How a job stands; times are Unix seconds.

    Attributes:
        id: 15 hexadecimal digits.
        key: By which its producer calls it.
        made_at: When it was made.
        queued: Members that are surely queued (count).
        total: Members that it has; None: it is open, and may get more.
        ended: Members that have ended, however.
        ok: Of those, with an answer.
        degraded: With an answer that is not all that was asked for.
        failed: Without.
        cancelled: Before they had one.
        done_at: When the last one ended, after it was sealed.
        cancelled_at: When it was cancelled.
        called_at: When the task that follows it was queued.
        queued_at: When its newest members were queued.
    """

    id: str
    key: str
    made_at: float
    queued: int
    total: int | None
    ended: int
    ok: int
    degraded: int
    failed: int
    cancelled: int
    done_at: float | None
    cancelled_at: float | None
    called_at: float | None
    queued_at: float | None

    @property
    def is_over(self) -> bool:
        """True when it is sealed and all members have ended."""
        return self.total is not None and self.ended >= self.total

    @property
    def word(self) -> str:
        """`open`, `sealed`, `done` or `cancelled`."""
        if self.cancelled_at is not None:
            return "cancelled"
        return "done" if self.done_at is not None else "open" if self.total is None else "sealed"


class JobLedger:
    """The jobs' state.

    Args:
        client: Plain client of the state Redis. Every method raises `redis.RedisError` when it does not answer.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def begin(self, job_id: str, key: str, follower: bytes | None, now_s: float) -> JobState:
        """Return a job's entry; make it when there is none. The task that follows is the first one's.

        Args:
            job_id: Its id.
            key: By which its producer calls it.
            follower: The task that follows it, as JSON; None: none does.
            now_s: Unix seconds.
        """
        name = job_keys.job(job_id)
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hexists(name, "made")
            pipe.hsetnx(name, "made", repr(now_s))
            pipe.hsetnx(name, "key", key)
            pipe.expire(name, LIFE_S)
            pipe.zadd(job_keys.listed(), {job_id: now_s}, nx=True)
            pipe.zremrangebyscore(job_keys.listed(), 0, now_s - 2 * LIFE_S)
            pipe.expire(job_keys.listed(), LIFE_S)
            pipe.zadd(job_keys.live(), {job_id: now_s}, nx=True)
            pipe.zremrangebyscore(job_keys.live(), 0, now_s - 2 * LIFE_S)
            pipe.expire(job_keys.live(), LIFE_S)
            if follower is not None:
                pipe.set(job_keys.then(job_id), follower, ex=LIFE_S, nx=True)
            was_there = pipe.execute()[0]
        state = self.read(job_id)
        assert state is not None, "it was made just now"
        if was_there and follower is not None and (state.called_at is not None or state.done_at is not None):
            self._client.delete(job_keys.then(job_id))  # it was called before, or had none
        return state

    def read(self, job_id: str) -> JobState | None:
        """Return how a job stands; None: there is no such job, or it was forgotten."""
        return self.read_all([job_id])[0]

    def read_all(self, job_ids: Sequence[str]) -> list[JobState | None]:
        """Return how jobs stand, in one round trip."""
        with self._client.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(job_keys.job(job_id))
            rows = pipe.execute() if job_ids else []
        return [_state(job_id, row) for job_id, row in zip(job_ids, rows, strict=True)]

    def newest(self, count: int, *, live_first: bool = False) -> list[JobState]:
        """Return the newest jobs, the last one first; `live_first`: those that are not over before all others."""
        with self._client.pipeline(transaction=False) as pipe:
            if live_first:
                pipe.zrevrange(job_keys.live(), 0, count - 1)
            pipe.zrevrange(job_keys.listed(), 0, count - 1)
            found = [one.decode() for ids in pipe.execute() for one in ids]
        chosen = list(dict.fromkeys(found))[:count]
        return [state for state in self.read_all(chosen) if state is not None]

    def note_queued(self, job_id: str, queued: int, now_s: float) -> JobState | None:
        """Note that a job's first `queued` members are queued; return how it stands now. One round trip."""
        call = NOTE_QUEUED.call(
            job=job_keys.job(job_id),
            follower=job_keys.then(job_id),
            queued=queued,
            queued_at=repr(now_s),
            life_s=LIFE_S,
        )
        flat = run_script(self._client, NOTE_QUEUED, *call)
        return _state(job_id, dict(zip(flat[::2], flat[1::2], strict=True)))

    def seal(self, job_id: str, total: int, *, is_cancelled: bool = False) -> bool:
        """Let a job have so many members and no more; `is_cancelled`: no task follows it. False: there is none."""
        call = SEAL.call(
            job=job_keys.job(job_id), due=job_keys.due(), follower=job_keys.then(job_id), live=job_keys.live(),
            job_id=job_id, life_s=LIFE_S, total=total, is_cancelled=int(is_cancelled),
        )  # fmt: skip
        return bool(run_script(self._client, SEAL, *call))

    def ended_as(self, job_id: str, start: int, count: int) -> bytes:
        """Return the bytes of some members, from `start` on; shorter where none ended behind."""
        return bytes(cast("bytes", self._client.getrange(job_keys.members(job_id), start, start + count - 1)))


def settle_call(job_id: str) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `settle.lua`."""
    return SETTLE.call(job=job_keys.job(job_id), due=job_keys.due(), follower=job_keys.then(job_id), job_id=job_id)


def _state(job_id: str, row: dict[bytes, bytes]) -> JobState | None:
    told = {name.decode(): value.decode("utf-8", "replace") for name, value in row.items()}
    if "made" not in told:
        return None

    def time_of(name: str) -> float | None:
        return float(told[name]) if name in told else None

    def count(name: str) -> int:
        return int(told.get(name, 0))

    return JobState(
        id=job_id, key=told.get("key", ""), made_at=float(told["made"]), queued=count("queued"),
        total=count("total") if "total" in told else None, ended=count("ended"), ok=count("o"), degraded=count("d"),
        failed=count("f"), cancelled=count("c"), done_at=time_of("done_at"), cancelled_at=time_of("cancelled_at"),
        called_at=time_of("called_at"), queued_at=time_of("queued_at"),
    )  # fmt: skip
