"""Finds tasks by what they are: pool, tenant, kind, metadata, error. For people, on demand; tasks pay nothing for it.

There is no index. What waits, is held or has died is read where it lies. Of tasks with a result those are found that
the bots remember (`BOT_TASKS` each), while their results are kept. So a search is bounded, and says whether it has seen
everything there is to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, cast

import redis
from pydantic import Field

from fleet.config import Settings
from fleet.engine.messages.envelope import QUEUED_AT
from fleet.engine.messages.queues import PRIORITY_SEPARATOR, pool_of
from fleet.engine.outcomes.cancelling import AskedFor, Selection, asked_in, fields_in
from fleet.engine.outcomes.dead_letter_office import PAGE, DeadLetterOffice, Filed
from fleet.engine.outcomes.stored import read_result
from fleet.engine.transport.withdrawal.message_search import READ_MOST_BYTES, waiting_lists, waiting_queues
from fleet.engine.transport.withdrawal.reading import Stride, read_list, read_parked
from fleet.frozen import Frozen
from fleet.models import BotResult
from fleet.quoting import brief
from fleet.signals import windows
from fleet.store import keys
from fleet.store.running.brokers import Anywhere, each

FoundState = Literal["waiting", "held", "failed", "degraded", "ok"]
#: All of them, in the order in which they are searched: what an operator can still change comes first.
FOUND_STATES: tuple[FoundState, ...] = ("waiting", "held", "failed", "degraded", "ok")
#: Tasks looked at, over all places (count): about a second.
LOOK_MOST = 20_000
#: Bytes looked at, over all places: as long.
LOOK_BYTES = READ_MOST_BYTES
#: Bytes of a value of metadata that are shown.
VALUE_BYTES = 200
#: Names in metadata that are shown (count).
NAMES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Wish:
    """Which tasks are searched: those to which all that is given applies.

    Args:
        chosen: Pool, tenant and metadata.
        kind: Of this task class.
        error: Failed with this error type.
        states: In one of these states.
        limit: Found at most (count).
        look_most: Looked at, at most (count).
    """

    chosen: Selection
    kind: str | None = None
    error: str | None = None
    states: tuple[FoundState, ...] = FOUND_STATES
    limit: int = 50
    look_most: int = LOOK_MOST


class FoundTask(Frozen):
    """A task that was found; neither its prompt nor its answer."""

    task_id: str
    state: FoundState
    pool: str | None = None
    kind: str | None = Field(None, description="None: results don't say it.")
    tenant: str | None = Field(None, description="None: results don't say it.")
    at: float | None = Field(None, description="Unix time in seconds: since when it waits or is held, or its end.")
    error: str | None = None
    is_dead_letter: bool = False
    bot: str | None = None
    cost_usd_micros: int | None = None
    metadata: dict[str, Any] = Field(default_factory=dict, description="Long values are cut.")


class TaskSearch(Frozen):
    """What a search has found, and how far it went."""

    tasks: tuple[FoundTask, ...]
    looked_at: int
    is_complete: bool = Field(description="False: it ended at its limit, or at the most that it looks at.")
    ended_by: Literal["limit", "look", "bytes"] | None = Field(
        None, description="At which bound it ended: tasks found, tasks looked at, or bytes of them; None: at its end."
    )
    unreadable: int = Field(
        0, description="Dead letters that may be meant: they were too large to keep what they asked."
    )
    unsearched: tuple[FoundState, ...] = Field(
        (), description="States that were asked for and cannot be searched by kind or tenant: results don't say those."
    )


#: A task that was looked at, None if it isn't meant, and the bytes of it that were read.
Looked = tuple[FoundTask | None, int]


class Finder:
    """Searches for tasks. Blocks.

    Args:
        state: Plain client of the state Redis.
        broker: Plain client of the broker; the same where there is one Redis.
        settings: Pools and the inbox.
    """

    def __init__(self, state: redis.Redis, broker: Anywhere, settings: Settings) -> None:
        self._state, self._broker, self._settings = state, broker, settings
        self._office = DeadLetterOffice(state, broker, settings)
        self._unreadable = 0

    def find(self, wish: Wish) -> TaskSearch:
        """Search in the order of `FOUND_STATES`, and end at the first bound that is met.

        What moves meanwhile may be missed, or be told where it was a moment ago; each task is told once.

        Raises:
            redis.RedisError: When Redis does not answer (inside `store_errors`, Fleet's own).
        """
        found, looked_at, left, ended_by = dict[str, FoundTask](), 0, LOOK_BYTES, None
        self._unreadable = 0
        for task, size in self._all(wish):
            if ended_by := _bound_met(wish, looked_at, len(found), left):
                break
            looked_at, left = looked_at + 1, left - size
            if task is not None:
                found.setdefault(task.task_id, task)
        return TaskSearch(
            tasks=tuple(found.values()), looked_at=looked_at, is_complete=ended_by is None, ended_by=ended_by,
            unreadable=self._unreadable, unsearched=_unsearched(wish),
        )  # fmt: skip

    def _all(self, wish: Wish) -> Iterator[Looked]:
        """Yield each task that is looked at."""
        if wish.error is None and "waiting" in wish.states:
            yield from self._waiting(wish)
        if wish.error is None and "held" in wish.states:
            yield from self._held(wish)
        if "failed" in wish.states:
            yield from self._dead(wish)
        yield from self._ended(wish)

    def _waiting(self, wish: Wish) -> Iterator[Looked]:
        for client in each(self._broker):
            lists = waiting_lists(client, self._settings, wish.chosen.pool)
            read = [(queue, read_list(client, key)) for queue, (key, _) in lists]
            queues = waiting_queues(client, self._settings, wish.chosen.pool)
            read += [(queue, read_parked(client, queue)) for queue in queues]
            for queue, stretches in read:
                for message in chain.from_iterable(stretches):
                    yield _of_message(message, self._pool_of(queue), "waiting", wish), len(message)

    def _held(self, wish: Wish) -> Iterator[Looked]:
        for client in each(self._broker):
            yield from self._held_at(client, wish)

    def _held_at(self, client: redis.Redis, wish: Wish) -> Iterator[Looked]:
        cursor, stride = 0, Stride()
        while True:
            cursor, entries = cast(
                "tuple[int, dict[bytes, bytes]]", client.hscan(keys.unacked(), cursor, count=stride.count)
            )
            stride.read(list(entries.values()))
            for entry in entries.values():
                place, _, message = entry.partition(b"\n")
                queue = place.decode(errors="replace").removeprefix(keys.lists("")).partition(PRIORITY_SEPARATOR)[0]
                yield _of_message(message, self._pool_of(queue), "held", wish), len(entry)
            if cursor == 0:
                return

    def _dead(self, wish: Wish) -> Iterator[Looked]:
        looks_inside = wish.chosen.looks_inside
        before = None
        while True:
            page = self._office.page(pool=wish.chosen.pool, reason=wish.error, limit=PAGE, before=before)
            ids = [filed.letter.task_id for filed in page.letters]
            bodies = self._office.bodies(ids) if ids else []
            for filed, body in zip(page.letters, bodies, strict=True):
                self._unreadable += looks_inside and not body and wish.kind in (None, filed.letter.kind)
                yield _of_letter(filed, body, wish, looks_inside=looks_inside), len(body or b"")
            before = page.next
            if before is None:
                return

    def _ended(self, wish: Wish) -> Iterator[Looked]:
        """Yield what the bots have done last, the newest first; results say no kind and no tenant."""
        wanted = {number for number, status in enumerate(windows.STATUSES) if status in wish.states}
        if not wanted or _is_blind(wish):
            return
        ids, start, stride = list(self._remembered(wish, wanted)), 0, Stride()
        while some := ids[start : start + stride.count]:
            stored = cast("list[bytes | None]", self._state.mget(map(keys.result, some)))
            start += len(some)
            stride.read([raw or b"" for raw in stored])
            for raw in stored:
                result = read_result(raw)
                yield None if result is None else _of_result(result, wish), len(raw or b"")

    def _pools(self, wish: Wish) -> list[str]:
        return list(self._settings.pools) if wish.chosen.pool is None else [wish.chosen.pool]

    def _pool_of(self, queue: str) -> str | None:
        """Return whose queue it is; one may have only the pool's name."""
        return pool_of(queue) or (queue if queue != self._settings.worker.inbox else None)

    def _remembered(self, wish: Wish, wanted: set[int]) -> Iterator[str]:
        pools = self._pools(wish)
        rings = [windows.BOT_TASK.iter_unpack(_whole(self._state.get(keys.bot_tasks(pool)))) for pool in pools]  # type: ignore[arg-type]
        entries = [entry for ring in rings for entry in (windows.BotTaskEntry(*fields) for fields in ring) if entry.at]
        for entry in sorted(entries, key=lambda entry: -entry.at):
            if entry.status in wanted:
                yield entry.task_id.rstrip(b"\0").decode(errors="replace")


def _bound_met(wish: Wish, looked_at: int, found: int, left: int) -> Literal["limit", "look", "bytes"] | None:
    if found >= wish.limit:
        return "limit"
    if looked_at >= wish.look_most:
        return "look"
    return "bytes" if left <= 0 else None


def _is_blind(wish: Wish) -> bool:
    """True when a search asks for what results don't say."""
    return wish.kind is not None or wish.chosen.tenant is not None


def _unsearched(wish: Wish) -> tuple[FoundState, ...]:
    return tuple(state for state in wish.states if state in ("degraded", "ok")) if _is_blind(wish) else ()


def _whole(raw: bytes | None) -> bytes:
    return raw[: len(raw) - len(raw) % windows.BOT_TASK.size] if raw else b""


def _of_message(message: bytes, pool: str | None, state: FoundState, wish: Wish) -> FoundTask | None:
    asked = asked_in(message)
    if asked is None or not wish.chosen.applies(asked, pool or "") or not _is_kind(asked.fields, wish):
        return None
    at = asked.headers.get(QUEUED_AT)
    return FoundTask(
        task_id=str(asked.task_id), state=state, at=at if isinstance(at, int | float) else None,
        pool=_text(asked.fields.get("pool")) or pool, **_told(asked.fields),
    )  # fmt: skip


def _of_letter(filed: Filed, body: bytes | None, wish: Wish, *, looks_inside: bool) -> FoundTask | None:
    letter = filed.letter
    try:
        asked = AskedFor({"id": letter.task_id}, fields_in(body or b""))
    except (ValueError, KeyError, TypeError, AttributeError):
        asked = AskedFor({"id": letter.task_id}, {})  # too large to be kept, or nothing that can be read
    if looks_inside and not wish.chosen.applies(asked, letter.pool or ""):
        return None
    if wish.kind not in (None, letter.kind):
        return None
    return FoundTask(
        task_id=letter.task_id, state="failed", at=filed.died_at, pool=letter.pool, error=letter.reason,
        is_dead_letter=True, bot=letter.history[-1].bot if letter.history else None,
        **(_told(asked.fields) | {"kind": letter.kind}),
    )  # fmt: skip


def _of_result(result: BotResult, wish: Wish) -> FoundTask | None:
    error = result.error.type if result.error else None
    if result.status not in wish.states or wish.error not in (None, error):
        return None
    if not wish.chosen.has_metadata(result.metadata):
        return None
    return FoundTask(
        task_id=result.task_id, state=result.status, at=result.finished_at, pool=result.pool, error=error,
        bot=result.bot, cost_usd_micros=result.cost_usd_micros, metadata=_shown(result.metadata),
    )  # fmt: skip


def _is_kind(fields: Mapping[str, Any], wish: Wish) -> bool:
    return wish.kind in (None, fields.get("kind", "default"))


def _told(fields: Mapping[str, Any]) -> dict[str, Any]:
    metadata = fields.get("metadata")
    return {
        "kind": _text(fields.get("kind", "default")),
        "tenant": _text(fields.get("tenant", "")),
        "metadata": _shown(metadata if isinstance(metadata, dict) else {}),
    }


def _shown(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as it is shown: a few names, long texts cut, what is nested as text."""
    first = list(metadata.items())[:NAMES_SHOWN]
    return {
        name: value if isinstance(value, bool | int | float | None) else brief(str(value), VALUE_BYTES)
        for name, value in first
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
