"""Batches in Redis: tasks that wait for one, jobs, and what came of them. Who sends them: `engine/process/batching/`.

Each step is one script, or one that may be repeated, so that whoever dies between two leaves nothing in two places.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from fleet.economy.lanes.choice import Lane
from fleet.errors import RetryLater
from fleet.store import keys, lane_keys
from fleet.store.client import Script, Store
from fleet.store.running.brokers import AnyStore, ask_any

ENROL = Script.beside(
    __file__, "enrol.lua", keys="batched gathering limits", argv="id limit by_at asked body life_s gather_s"
)
FORM = Script.beside(
    __file__, "form.lua", keys="gathering limits jobs job tasks batched*",
    argv="id limit by_at rescue_at life_s members*",
)  # fmt: skip
BEGIN = Script.beside(__file__, "begin.lua", keys="batched jobs job tasks", argv="id task asked life_s fields*")
PUT = Script.beside(__file__, "put.lua", keys="job", argv="before since fields*")
KEEP = Script.beside(__file__, "keep.lua", keys="batched*", argv="life_s answers*")

#: How far a job is. `intent`: nothing was sent. `uploading`, `creating`: a request was about to be sent, and nobody
#: knows whether it was. `uploaded`: its file is there. `running`, `cancelling`: its batch is. `ended`: what came of it
#: can be read. `collected`: that is kept here.
JobState = Literal["intent", "uploading", "uploaded", "creating", "running", "cancelling", "ended", "collected"]
STATES: tuple[JobState, ...] = get_args(JobState)
#: Seconds for which gathering tasks, jobs and answers are known: longer than a batch lives, and the longest `by_s`.
LIFE_S = 33 * 86_400
#: Seconds for which what came of a task is kept after it was needed: it is read within seconds, unless all are down.
KEPT_S = 7 * 86_400
#: Tasks of which answers are kept in one step (count): each may be a MB.
AT_ONCE = 100


class Overtaken(RetryLater):
    """Another process has taken a job on: it is that one's now."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Whose a task in a batch is, and who asks: what the bill needs to know once it is answered.

    `most_picos` is what it may cost in a batch at most (10^-12 dollars); None: nobody knows.
    """

    pool: str
    bot: str
    tenant: str
    kind: str
    run: str
    limit: str
    by_at: float
    rescue_at: float
    at: float
    most_picos: int | None = None
    lane: str = "batch"
    race: bool = False

    def to_json(self) -> str:
        """Return it as JSON, for Redis."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_json(cls, text: bytes) -> Enrolled:
        """Read what `to_json` wrote; fields that a later release may add are skipped."""
        fields = json.loads(text)
        return cls(**{name: fields[name] for name in cls.__slots__ if name in fields})


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of a task that was enrolled.

    Args:
        enrolled: Whose it is.
        job: Its job; empty: it has none yet.
        answer: Its answer as JSON; empty: there is none.
        is_freed: None came, or will: it goes by another lane.
    """

    enrolled: Enrolled
    job: str
    answer: bytes
    is_freed: bool

    @property
    def lane(self) -> str:
        """The one that it took."""
        return self.enrolled.lane


@dataclass(frozen=True, slots=True)
class LaneJob:
    """One batch of ours.

    Args:
        id: Random: it names its requests, its file and its batch.
        state: How far it is.
        limit: `provider/model/key` under which it runs to its end.
        count: Its tasks.
        made_at: Unix time (s) at which they were chosen.
        at: The same of the last request that was meant to be sent.
        by_at: By when the first of them is needed.
        rescue_at: When it is cancelled unless it has ended.
        file: Its input at the vendor.
        batch: Its batch there.
        files: All that the vendor keeps of it.
        failed: Batches of it that have failed and cost nothing.
        sent: Requests of its batch: its tasks but those whose words were erased before.
        tries: Refusals in a row.
        lane: Which it is: a background response is a batch of one request.
        ticket: Of the grant under which it was sent: its call's name on the bill; empty: it had none.
        raced: 1: it goes on, though its tasks ask once more on another lane.
        ended_at: Unix time (s) at which it was seen to have ended.
        done: Requests that were answered when it was looked at last.
        why: What the vendor said last, or why it was given up.
    """

    id: str
    state: JobState
    limit: str
    count: int
    made_at: float
    at: float
    by_at: float
    rescue_at: float
    file: str = ""
    batch: str = ""
    files: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    sent: int = 0
    tries: int = 0
    lane: Lane = "batch"
    ticket: str = ""
    raced: int = 0
    ended_at: float = 0.0
    done: int = 0
    why: str = ""

    @property
    def api(self) -> str:
        """`provider/model`."""
        return self.limit.rpartition("/")[0]

    def custom_id(self, place: int) -> str:
        """Return the name of a request, by its place from 0."""
        return self.ticket or f"{self.id}-{place}"

    def place_of(self, custom_id: str) -> int | None:
        """Return the place of a request by its name; None: it is no request of this job."""
        if custom_id == self.batch and self.lane != "batch":
            return 0  # the one request of a background response has its id
        head, _, place = custom_id.rpartition("-")
        return int(place) if head == self.id and place.isdecimal() and int(place) < self.count else None


#: Fields of a job that are numbers, and those that are lists of words.
_WHOLE, _REAL = ("count", "sent", "tries", "done", "raced"), ("made_at", "at", "by_at", "rescue_at", "ended_at")
_LISTS = ("files", "failed")


def _written(value: object) -> str:
    """Return a field of a job as Redis has it, so that what is read is what was written."""
    if isinstance(value, float):
        return repr(value)
    return " ".join(value) if isinstance(value, tuple) else str(value)


def job_of(job_id: str, rows: Sequence[bytes]) -> LaneJob | None:
    """Return a job as its hash has it; None: it is gone."""
    fields: dict[str, Any] = {
        name.decode(): value.decode() for name, value in zip(rows[::2], rows[1::2], strict=True)
    }  # fmt: skip
    if not fields:
        return None
    for names, kind in ((_WHOLE, int), (_REAL, float)):
        fields |= {name: kind(fields[name]) for name in names if name in fields}
    fields |= {name: tuple(fields[name].split()) for name in _LISTS if name in fields}
    return LaneJob(id=job_id, **{name: value for name, value in fields.items() if name in LaneJob.__slots__})


class JobStore:
    """Tasks in batches and their jobs, over one store.

    Args:
        store: State Redis.
        broker: Where tasks are parked; None: in the same Redis.
    """

    def __init__(self, store: Store, broker: AnyStore | None = None) -> None:
        self._store, self._broker = store, broker or store

    async def enrol(self, task_id: str, enrolled: Enrolled, body: bytes, *, life_s: float) -> bool:
        """Let a task wait for a batch; False when it did before. Safe to repeat."""
        call = ENROL.call(
            batched=lane_keys.batched(task_id), gathering=lane_keys.gathering(enrolled.limit),
            limits=lane_keys.gathered_limits(), id=task_id, limit=enrolled.limit, by_at=repr(enrolled.by_at),
            asked=enrolled.to_json(), body=body, life_s=round(life_s + KEPT_S), gather_s=LIFE_S,
        )  # fmt: skip
        return bool(await self._store.run(ENROL, *call))

    async def begin(self, task_id: str, enrolled: Enrolled, lane: Lane, batch: str, *, ticket: str) -> bool:
        """Note a task that is answered in the background, as a job that runs; False: it has left already.

        Args:
            task_id: Its id.
            enrolled: Whose it is.
            lane: Which.
            batch: The response's id at the vendor, and, without its beginning, that of the job.
            ticket: Of the grant under which it was sent.
        """
        job_id = batch.rpartition("_")[2]
        fields = {"state": "running", "limit": enrolled.limit, "count": 1, "sent": 1, "by_at": repr(enrolled.by_at),
                  "rescue_at": repr(enrolled.rescue_at), "batch": batch, "lane": lane, "ticket": ticket}  # fmt: skip
        call = BEGIN.call(
            batched=lane_keys.batched(task_id), jobs=lane_keys.jobs(), job=lane_keys.job(job_id),
            tasks=lane_keys.job_tasks(job_id), id=job_id, task=task_id, asked=enrolled.to_json(), life_s=LIFE_S,
            fields=[part for pair in fields.items() for part in pair],
        )  # fmt: skip
        return bool(await self._store.run(BEGIN, *call))

    async def goes_on(self, task_id: str) -> bool:
        """True while the raced job of a task has not ended: it is to be billed in the task's name, and forgets it then.

        A job that was not raced has been billed by the time its tasks end, and forgets none of them.
        """
        found = await self.came(task_id)
        job = await self.job(found.job) if found is not None and found.enrolled.race and found.job else None
        return job is not None and bool(job.raced)

    async def race(self, job: LaneJob) -> list[str]:
        """Return the tasks of a job if all of them race against their time, else nothing."""
        tasks = await self.tasks(job.id)
        enrolled = await self.enrolled(tasks)
        return tasks if all(one is not None and one.race for one in enrolled) else []

    async def over(self, job: LaneJob) -> None:
        """Forget a job, and then those of its tasks that have a result if they raced: it is billed.

        In this order: a task that ends meanwhile sees that its job is gone, and is forgotten by who ends it.
        """
        tasks = await self.tasks(job.id) if job.raced else []
        await self.drop(job.id)
        for task in tasks:
            if await self._store.command("EXISTS", keys.result(task)):
                await self._store.command("UNLINK", lane_keys.batched(task))

    async def came(self, task_id: str) -> Arrival | None:
        """Return what is known of a task; None: it was not enrolled."""
        asked, job, answer, freed = await self._store.command(
            "HMGET", lane_keys.batched(task_id), "asked", "job", "answer", "freed"
        )
        if asked is None:
            return None
        return Arrival(Enrolled.from_json(asked), (job or b"").decode(), answer or b"", freed is not None)

    async def leave(self, task_id: str, limit: str) -> bool:
        """Let a task that has no job yet go its own way; False: a job has it."""
        if not await self._store.command("ZREM", lane_keys.gathering(limit), task_id):
            return False
        await self._store.command("UNLINK", lane_keys.batched(task_id))
        return True

    async def unread(self, task_id: str) -> None:
        """Note that nobody can read the answer to a task: it goes on by itself. Safe to repeat."""
        await self._store.command("HSET", lane_keys.batched(task_id), "freed", "1")
        await self._store.command("HDEL", lane_keys.batched(task_id), "answer")

    async def forget(self, task_id: str) -> None:
        """Forget what came of a task: its result is stored."""
        await self._store.command("UNLINK", lane_keys.batched(task_id))

    async def gathered(self) -> dict[str, float]:
        """Return the limits under which tasks gather, and since when (Unix time, s)."""
        rows = await self._store.command("HGETALL", lane_keys.gathered_limits())
        return {name.decode(): float(at) for name, at in zip(rows[::2], rows[1::2], strict=True)}

    async def gathering(self, limit: str, most: int) -> list[tuple[str, float]]:
        """Return tasks that gather under a limit, and by when each is needed: the soonest first."""
        rows = await self._store.command("ZRANGE", lane_keys.gathering(limit), 0, most - 1, "WITHSCORES")
        return [(name.decode(), float(at)) for name, at in zip(rows[::2], rows[1::2], strict=True)]

    async def form(self, job_id: str, limit: str, tasks: Sequence[str], *, by_at: float, rescue_at: float) -> int:
        """Make a job of tasks; return how many are in it. Safe to repeat."""
        call = FORM.call(
            gathering=lane_keys.gathering(limit), limits=lane_keys.gathered_limits(), jobs=lane_keys.jobs(),
            job=lane_keys.job(job_id), tasks=lane_keys.job_tasks(job_id), batched=map(lane_keys.batched, tasks),
            id=job_id, limit=limit, by_at=repr(by_at), rescue_at=repr(rescue_at), life_s=LIFE_S, members=tasks,
        )  # fmt: skip
        return int(await self._store.run(FORM, *call))

    async def jobs(self, until: float | None = None) -> list[str]:
        """Return the ids of jobs that are to be looked at by then (Unix time, s); None: of all."""
        bound = "+inf" if until is None else repr(until)
        return [name.decode() for name in await self._store.command("ZRANGEBYSCORE", lane_keys.jobs(), "-inf", bound)]

    async def job(self, job_id: str) -> LaneJob | None:
        """Return a job; None: it is gone."""
        return job_of(job_id, await self._store.command("HGETALL", lane_keys.job(job_id)))

    async def put(self, job: LaneJob, state: JobState, **fields: Any) -> LaneJob:
        """Write down how far a job is, and return it so.

        Raises:
            Overtaken: Another process has taken it on since it was read.
        """
        after = replace(job, state=state, **fields)
        flat = [part for name, value in (("state", state), *fields.items()) for part in (name, _written(value))]
        call = PUT.call(job=lane_keys.job(job.id), before=job.state, since=_written(job.at), fields=flat)
        if not await self._store.run(PUT, *call):
            raise Overtaken(f"job {job.id}: expected it to be {job.state}, got another state: another process has it")
        return after

    async def look_at(self, job_id: str, at: float) -> None:
        """Have a job looked at then (Unix time, s)."""
        await self._store.command("ZADD", lane_keys.jobs(), "XX", repr(at), job_id)

    async def tasks(self, job_id: str) -> list[str]:
        """Return the ids of a job's tasks, in the order of its requests."""
        return [name.decode() for name in await self._store.command("LRANGE", lane_keys.job_tasks(job_id), 0, -1)]

    async def bodies(self, tasks: Iterable[str]) -> list[bytes | None]:
        """Return the requests of tasks; None for what is gone."""
        return await self._each(tasks, "body")

    async def enrolled(self, tasks: Iterable[str]) -> list[Enrolled | None]:
        """Return whose tasks are; None for what is gone."""
        found = await self._each(tasks, "asked")
        return [None if asked is None else Enrolled.from_json(asked) for asked in found]

    async def _each(self, tasks: Iterable[str], field: str) -> list[bytes | None]:
        found, names = list[bytes | None](), list(tasks)
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            found += await asyncio.gather(
                *(self._store.command("HGET", lane_keys.batched(name), field) for name in some)
            )
        return found

    async def still_wait(self, tasks: Sequence[str]) -> list[bool]:
        """Return of each task whether it is parked and has no result: whoever is cancelled is no more."""
        ended, found = await self.have_ended(tasks), list[bool]()
        for start in range(0, len(tasks), AT_ONCE):
            some = tasks[start : start + AT_ONCE]
            found += await asyncio.gather(*map(self.is_parked, some))
        return [bool(is_parked) and not has_ended for is_parked, has_ended in zip(found, ended, strict=True)]

    async def is_parked(self, task: str) -> bool:
        """True while a task is parked, at whichever broker.

        Raises:
            StoreUnavailable: When the one that may have it does not answer.
        """
        return await ask_any(self._broker, lambda store: store.command("HEXISTS", keys.parked(), task))

    async def have_ended(self, tasks: Iterable[str]) -> list[bool]:
        """Return of each task whether it has a result: nobody wants an answer to it any more."""
        names, found = list(tasks), list[bool]()
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            found += await asyncio.gather(*(self._store.command("EXISTS", keys.result(name)) for name in some))
        return [bool(one) for one in found]

    async def keep(self, tasks: Sequence[str], answers: Sequence[bytes]) -> int:
        """Keep what came of tasks, empty where nothing did; return of how many it is still wanted."""
        kept = 0
        for start in range(0, len(tasks), AT_ONCE):
            some = tasks[start : start + AT_ONCE]
            call = KEEP.call(
                batched=map(lane_keys.batched, some), life_s=KEPT_S, answers=answers[start : start + AT_ONCE]
            )
            kept += int(await self._store.run(KEEP, *call))
        return kept

    async def drop(self, job_id: str) -> None:
        """Forget a job: nothing of it is at the vendor's any more."""
        await self._store.command("ZREM", lane_keys.jobs(), job_id)
        await self._store.command("UNLINK", lane_keys.job(job_id), lane_keys.job_tasks(job_id))
