"""The dead-letter office: list, show, queue again and throw away tasks that failed for good. For people, not workers.

Letters lie in the state Redis, queues in the broker's; the two may be different servers. Queueing again is therefore
three steps in this order: remove the failed result, queue the message, remove the letter. Whoever dies in between
leaves the letter, and repeating it queues nothing twice: each death of a task is queued once. What that costs: until
the last step the letter of a task that runs again is still listed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import redis

from fleet.config import Settings
from fleet.engine.messages import queues
from fleet.engine.messages.broker import home_of
from fleet.engine.messages.envelope import EXPIRES, FLOW, HISTORY, TASK_NAME, envelope, task_headers
from fleet.engine.messages.expiry import end_of, said_end, with_end
from fleet.engine.messages.fair.flows import ENTER, flow_in_body
from fleet.engine.messages.marks import ORPHAN, mark_of, marked
from fleet.engine.outcomes.dead_letters import FORGET, DeadLetter, letter_keys
from fleet.errors import Expired
from fleet.jobs import reopen_member
from fleet.store import flow_keys, keys
from fleet.store.client import Script, run_script
from fleet.store.running.brokers import MAIN, Anywhere, Brokers

OPEN = Script.beside(__file__, "open_dead_letter.lua", keys="result letters bodies", argv="task_id")
GROUP = Script.beside(__file__, "group_dead_letters.lua", keys="order", argv="oldest most under after")
REQUEUE = Script.beside(
    __file__,
    "requeue.lua",
    keys="bell list replayed epochs unacked parked",
    argv="message replay_life_s mark flow separator fair mark_prefix",
    using=[ORPHAN, ENTER],
)

#: Letters read in one round trip when all are walked through (count).
PAGE = 200
#: Pools times reasons that are counted apart at most (count), and looked at in one step: about 1 ms of Redis.
MOST_GROUPS, GROUPS_A_STEP = 2000, 200
#: Digits of the microseconds in the order of letters.
_DIGITS = 16

#: What became of a letter that was to be queued again. `finished since`: the task has a newer result, which it keeps;
#: `queued before`: somebody did the same a moment ago; `not kept`: it was refused for its size, and would be again;
#: `expired`: its end has passed, and it was given no new one.
Replayed = Literal["queued", "queued before", "finished since", "not kept", "expired", "unknown"]
_READY, _FINISHED, _NOT_KEPT = 1, 2, 3


class Filed(NamedTuple):
    """A letter and when it came: `died_us` in microseconds of Redis time, as the scripts want it."""

    letter: DeadLetter
    died_us: str

    @property
    def died_at(self) -> float:
        """Unix time in seconds."""
        return int(self.died_us) / 1e6

    @property
    def place(self) -> str:
        """Its place among all: what is older comes `before` it."""
        return f"{int(self.died_us):0{_DIGITS}d}|{self.letter.task_id}"


class Group(NamedTuple):
    """Letters of one pool (`-`: of no configured one) and reason."""

    pool: str
    reason: str
    letters: int
    newest_at: float


@dataclass(frozen=True, slots=True)
class Page:
    """Some letters, the newest first, and where the next page goes on (None: this was the last one)."""

    letters: tuple[Filed, ...]
    next: str | None


class DeadLetterOffice:
    """The letters of a fleet.

    Args:
        state: Plain client of the state Redis.
        broker: Plain client of the broker; the same one when there is one Redis.
        settings: Pools, and how long letters and results live.
    """

    def __init__(self, state: redis.Redis, broker: Anywhere, settings: Settings) -> None:
        self._state = state
        self._broker = broker
        self._settings = settings

    def page(
        self, *, pool: str | None = None, reason: str | None = None, limit: int = 50, before: str | None = None
    ) -> Page:
        """Return letters of a pool or reason, the newest first. O(log letters + limit).

        Args:
            pool: Only letters of this pool; `-` for those of no configured pool.
            reason: Only letters with this error type.
            limit: Most letters (count).
            before: `next` of the page before this one.
        """
        scope = scope_of(pool, reason)
        end = f"({scope}|{before}" if before else f"({scope}}}"
        oldest = f"[{scope}|{self._oldest_us():0{_DIGITS}d}"
        order = keys.dead_letter_order()
        members = cast(list[bytes], self._state.zrevrangebylex(order, end, oldest, start=0, num=limit + 1))
        places = [member.decode().split("|", 1)[1] for member in members]
        more = len(places) > limit
        return Page(self._read([_task_id(place) for place in places[:limit]]), places[limit - 1] if more else None)

    def count(self, *, pool: str | None = None, reason: str | None = None, before: str | None = None) -> int:
        """Return the number of letters of a pool or reason, of those older than a place. O(log letters)."""
        scope = scope_of(pool, reason)
        oldest = f"[{scope}|{self._oldest_us():0{_DIGITS}d}"
        end = f"({scope}|{before}" if before else f"({scope}}}"
        return self._state.zlexcount(keys.dead_letter_order(), oldest, end)

    def groups(self, *, pool: str | None = None) -> tuple[Group, ...]:
        """Return the letters counted by pool and reason, the most letters first. O(groups x log letters), in steps.

        Beyond `MOST_GROUPS` the groups that come later by name are left out: `count` counts their letters, too. Groups
        whose letters are all over do not count as such.

        Args:
            pool: Only groups of this pool; `-` for those of no configured pool.
        """
        oldest, under = f"{self._oldest_us():0{_DIGITS}d}", "b" if pool is None else f"b:{pool}"
        found, after = list[Group](), b""
        while len(found) < MOST_GROUPS:
            call = GROUP.call(
                order=keys.dead_letter_order(), oldest=oldest, most=GROUPS_A_STEP, under=under, after=after
            )
            after, *flat = run_script(self._state, GROUP, *call)
            for scope, letters, newest_us in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
                of_pool, _, reason = scope.decode().removeprefix("b:").rpartition(":")
                found.append(Group(of_pool, reason, letters, int(newest_us) / 1e6))
            if not after:
                break
        return tuple(sorted(found[:MOST_GROUPS], key=lambda group: (-group.letters, group.pool, group.reason)))

    def walk(self, *, pool: str | None = None, reason: str | None = None, before: str | None = None) -> Iterator[Filed]:
        """Yield all letters of a pool or reason, the newest first, `before` a place: only those older than that.

        One that comes meanwhile is not among them.
        """
        while True:
            page = self.page(pool=pool, reason=reason, limit=PAGE, before=before)
            yield from page.letters
            before = page.next
            if before is None:
                return

    def find(self, task_id: str) -> Filed | None:
        """Return the letter of a task, or None."""
        return next(iter(self._read([task_id])), None)

    def body(self, task_id: str) -> bytes | None:
        """Return the message body of a dead task: it holds the prompt."""
        return cast("bytes | None", self._state.hget(keys.dead_letter_bodies(), task_id))

    def bodies(self, task_ids: Sequence[str]) -> list[bytes | None]:
        """Return the message bodies of dead tasks, each None if it was not kept. One round trip."""
        return cast("list[bytes | None]", self._state.hmget(keys.dead_letter_bodies(), list(task_ids)))

    def replay(self, task_id: str, *, life_s: float | None = None) -> Replayed:
        """Queue a dead task again with a fresh life: no result, no deadline begun, no deaths of workers counted.

        Callbacks, chains and chords have seen the failure and are not called again.

        Args:
            task_id: The task.
            life_s: Seconds from now after which nobody wants its answer; None: it keeps its end, unless that has
                passed: then it stays a letter.
        """
        now_s = time.time()
        if life_s is None and self._has_ended(task_id, now_s):
            return "expired"
        call = OPEN.call(
            result=keys.result(task_id), letters=keys.dead_letters(), bodies=keys.dead_letter_bodies(), task_id=task_id
        )
        code, raw, body = run_script(self._state, OPEN, *call)
        if code == _NOT_KEPT:
            return "not kept"
        if code not in (_READY, _FINISHED):
            return "unknown"
        filed = filed_in(raw)
        if code == _READY:
            reopen_member(self._state, task_id)
        end = said_end(body) if life_s is None else end_of(None, None, life_s, now_s)
        queued = code == _READY and self._queue(filed, body if life_s is None else with_end(body, end), end)
        self.purge(task_id, died_us=filed.died_us)
        if code == _FINISHED:
            return "finished since"
        return "queued" if queued else "queued before"

    def purge(self, task_id: str, *, died_us: str = "") -> bool:
        """Throw a letter away; False when there was none. With `died_us`, only if it has not died again since."""
        call = FORGET.call(**letter_keys(), task_id=task_id, expected=died_us)
        return bool(run_script(self._state, FORGET, *call))

    def _read(self, task_ids: list[str]) -> tuple[Filed, ...]:
        if not task_ids:
            return ()
        rows = cast("list[bytes | None]", self._state.hmget(keys.dead_letters(), task_ids))
        return tuple(filed_in(row) for row in rows if row is not None)

    def _has_ended(self, task_id: str, now_s: float) -> bool:
        filed = self.find(task_id)
        end = said_end(self.body(task_id) or b"")
        return filed is not None and (filed.letter.reason == Expired.__name__ or (end is not None and end < now_s))

    def _queue(self, filed: Filed, body: bytes, end: float | None) -> bool:
        letter, queue = filed.letter, self._queue_of(filed.letter)
        history = [death.model_dump() for death in letter.history]
        headers = task_headers(letter.task_id) | letter.headers | {"task": letter.task, HISTORY: history}
        if end is not None:
            headers[EXPIRES] = end
        if flow := flow_in_body(body):
            headers[FLOW] = flow
        priority = letter.priority.value
        message = envelope(task_id=letter.task_id, queue=queue, priority=priority, headers=headers, body=body)
        mark = mark_of(letter.task_id)
        call = REQUEUE.call(
            bell=keys.bell(),
            list=queues.list_key(queue, priority),
            replayed=keys.replayed(letter.task_id, filed.died_us),
            epochs=keys.epochs(),
            unacked=keys.unacked(),
            parked=keys.parked(),
            message=marked(letter.task_id, message) if mark else message,
            replay_life_s=self._settings.dead_letters.expires_s,
            mark=mark,
            flow=headers.get(FLOW, ""),
            separator=queues.PRIORITY_SEPARATOR,
            fair=flow_keys.stem(),
            mark_prefix=keys.submitted(""),
        )
        broker = self._home(queue, keys.replayed(letter.task_id, filed.died_us), mark)
        is_queued = bool(run_script(broker, REQUEUE, *call))
        if is_queued and end is not None:
            broker.execute_command("ZADD", keys.ends(), "LT", end, queue)  # type: ignore[no-untyped-call]
        return is_queued

    def _home(self, queue: str, replayed: str, mark: str) -> redis.Redis:
        """Return the client of the broker that queues a letter: that of its queue, unless its key or replay has one."""
        where = self._broker
        if not isinstance(where, Brokers):
            return where
        settings, wanted = self._settings, where.homes.get(queue, MAIN)
        name = home_of(where, replayed, wanted, settings, life_s=settings.dead_letters.expires_s)
        return where.of_name(home_of(where, mark, name, settings, life_s=None) if mark else name)

    def _queue_of(self, letter: DeadLetter) -> str:
        """Return the queue of the letter's pool; the inbox when the pool is gone or the task is not Fleet's."""
        is_ours = letter.task == TASK_NAME and letter.pool in self._settings.pools
        return keys.queue(str(letter.pool)) if is_ours else self._settings.worker.inbox

    def _oldest_us(self) -> int:
        """Microseconds before which a letter's time is over: it is deleted when the next one comes."""
        seconds, micros = self._state.time()
        return max(0, (seconds - self._settings.dead_letters.expires_s) * 1_000_000 + micros)


def scope_of(pool: str | None, reason: str | None) -> str:
    """Return the scope of the order that holds the letters of a pool or reason; None is any."""
    if pool is not None and reason is not None:
        return f"b:{pool}:{reason}"
    if pool is not None:
        return f"p:{pool}"
    return "*" if reason is None else f"r:{reason}"


def _task_id(place: str) -> str:
    return place.split("|", 1)[1]


def filed_in(raw: Any) -> Filed:
    """Return the letter in an entry of the hash of letters."""
    head, _, data = bytes(raw).partition(b"\n")
    return Filed(DeadLetter.model_validate_json(data), head.partition(b"|")[0].decode())
