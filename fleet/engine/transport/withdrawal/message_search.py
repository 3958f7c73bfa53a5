"""Finds one task's message in the broker: in the queues, among the poison and what is over. Who holds it: `held.py`.

A message is found by its text inside Redis, a stretch at a time, so that neither Redis is held up for long nor
prompts travel. The search is bounded: how much it looked at is part of its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, cast

import redis

from fleet.config import Settings
from fleet.engine.messages import queues
from fleet.engine.messages.envelope import task_id_in
from fleet.engine.messages.fair.flows import flows_of, parts_beside, place_of
from fleet.engine.messages.fair.waiting import takes_for_one
from fleet.engine.transport.held import id_texts
from fleet.engine.transport.withdrawal.reading import read_list
from fleet.store import flow_keys, keys
from fleet.store.client import Script, run_script, run_script_each
from fleet.store.running.brokers import at_each, united

FIND_QUEUED = Script.beside(__file__, "find_queued.lua", keys="list", argv="skip count texts*")

#: Waiting messages looked at, over all queues (count): about 100 MB of text, less than a second of Redis in all.
SEARCH_MOST = 100_000
#: Messages looked at by who wants an answer at once, over all queues (count): about 1 ms of Redis in all.
HEADS_MOST = 1000
#: Lists and flows looked into in one round trip (count); flows of which who wants an answer at once sees the heads.
LISTS_AT_ONCE, HEADS_FLOWS = 200, 200
#: Messages looked at in one step (count), and the bytes a step aims at: 4 MB hold Redis up for about 2 ms.
FIRST_STRETCH, LONGEST_STRETCH = 64, 1000
STRETCH_BYTES = 4_000_000
#: Tasks up to which each is searched for inside Redis (count); for more, messages are read here.
ONE_BY_ONE = 3
#: Bytes of messages that are read by one search: one or two seconds.
READ_MOST_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Queued:
    """A message that waits.

    Args:
        queue: Where.
        priority: Of its list.
        place: Messages before it, in its list or its flow (count).
        message: Itself.
        others: Messages of other flows, which have turns of their own (count); None: it is in no flow.
        every: Takes from its list for each one of its flow, while all of these wait; None: it is in no flow.
    """

    queue: str
    priority: int
    place: int
    message: bytes
    others: int | None = None
    every: float | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found, after looking at `looked_at` waiting messages; `complete`: at all there are."""

    found: Queued | None = None
    looked_at: int = 0
    complete: bool = True


#: The answer when nobody searched.
NOT_SEARCHED = Search()


def _best(searches: Sequence[Search]) -> Search:
    """Put what was found at several brokers together: a task is at one of them."""
    found = next((search.found for search in searches if search.found is not None), None)
    looked_at = sum(search.looked_at for search in searches)
    return Search(found, looked_at, found is not None or all(search.complete for search in searches))


def _merged(names: Sequence[list[str]]) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(names)))


@at_each(_best)
def find_queued(broker: redis.Redis, task_id: str, settings: Settings, *, most: int = SEARCH_MOST) -> Search:
    """Return where a task waits, the most urgent queues first, or how far the search went.

    Queues move while they are searched: a message that is taken or queued meanwhile may be missed.
    """
    left, lists, texts = most, waiting_lists(broker, settings), id_texts(task_id)
    for start in range(0, len(lists), LISTS_AT_ONCE):
        some = lists[start : start + LISTS_AT_ONCE]
        calls = [FIND_QUEUED.call(list=key, skip=0, count=FIRST_STRETCH, texts=texts) for _, (key, _) in some]
        for (queue, (key, priority)), first in zip(some, run_script_each(broker, FIND_QUEUED, calls), strict=True):
            of = Queued(queue, priority, 0, b"")
            search = _search_list(broker, key, of, task_id, left, first=first if left >= FIRST_STRETCH else None)
            left -= search.looked_at
            if search.found is not None or not search.complete:
                return replace(search, looked_at=most - left)
    return Search(looked_at=most - left)


@at_each(_best)
def find_at_heads(broker: redis.Redis, task_id: str, settings: Settings, *, most: int = HEADS_MOST) -> Search:
    """Return where a task waits, if it is among the next to go. Three round trips, however much waits behind them.

    Args:
        broker: Plain client of the broker.
        task_id: The task.
        settings: Pools and the inbox.
        most: Messages looked at, over all lists (count).
    """
    waiting = waiting_lists(broker, settings)
    flows = [one for one in waiting if place_of(one[1][0]) is not None]  # of each priority in the order of their turns
    lists = [*(one for one in waiting if place_of(one[1][0]) is None), *flows[:HEADS_FLOWS]]
    each = max(1, most // max(1, len(lists)))
    texts = id_texts(task_id)
    calls = [FIND_QUEUED.call(list=key, skip=0, count=each, texts=texts) for _, (key, _) in lists]
    looked, is_complete = 0, len(lists) == len(waiting)
    for (queue, (key, priority)), (place, message, looked_at, _) in zip(
        lists, run_script_each(broker, FIND_QUEUED, calls), strict=True
    ):
        looked += looked_at
        if place >= 0 and task_id_in(message) == task_id:
            return Search(_found(broker, key, Queued(queue, priority, place, message)), looked)
        is_complete = is_complete and place < 0 and looked_at < each
    return Search(None, looked, is_complete)


@at_each(united)
def may_wait(broker: redis.Redis, task_ids: Sequence[str], settings: Settings, *, most: int = SEARCH_MOST) -> set[str]:
    """Return those of some tasks that wait in a queue; all of them where more waits than is looked at. O(waiting).

    Args:
        broker: Plain client of the broker.
        task_ids: The tasks.
        settings: Pools and the inbox.
        most: Messages looked at, over all lists (count).
    """
    wanted, found = set(task_ids), set[str]()
    if len(wanted) <= ONE_BY_ONE:
        for task_id in wanted:
            search = find_queued(broker, task_id, settings, most=most)
            if search.found is not None or not search.complete or find_over(broker, task_id, most=most):
                found.add(task_id)
        return found
    left = READ_MOST_BYTES
    for key in (*(key for _, (key, _) in waiting_lists(broker, settings)), keys.over()):
        for messages in read_list(broker, key):
            found |= wanted.intersection(filter(None, map(task_id_in, messages)))
            most, left = most - len(messages), left - sum(map(len, messages))
            if found == wanted or most <= 0 or left <= 0:
                return wanted
    return found


@at_each(any)
def find_poison(broker: redis.Redis, task_id: str) -> bool:
    """True when the task's message waits to be buried because its workers died."""
    messages = cast(list[bytes], broker.lrange(keys.poison(), 0, LONGEST_STRETCH))
    return any(task_id_in(message) == task_id for message in messages)


@at_each(any)
def find_over(broker: redis.Redis, task_id: str, *, most: int = SEARCH_MOST) -> bool:
    """True when the task's message was put aside because its end had passed. O(what was put aside)."""
    return _search_list(broker, keys.over(), Queued("", 0, 0, b""), task_id, most).found is not None


def waiting_lists(
    broker: redis.Redis, settings: Settings, pool: str | None = None
) -> list[tuple[str, tuple[str, int]]]:
    """Return the lists that there are, and their flows, as (queue, (list key, priority)), the most urgent first.

    Those of queues that have only a pool's name, too, and of pools that were taken out of the settings.

    Args:
        broker: Plain client of the broker.
        settings: Pools and the inbox.
        pool: Only the inbox and the queues of this one; None: of all.
    """
    names = _queues_of(broker, settings, pool)
    places = [(name, place) for name in names for place in queues.lists_of(name)]
    flows = [(name, (flow.key, flow.priority)) for name, some in flows_of(broker, names).items() for flow in some]
    with broker.pipeline(transaction=False) as pipe:
        for _, (key, _) in places:
            pipe.exists(key)
        there = [place for place, exists in zip(places, pipe.execute(), strict=True) if exists]
    return sorted([*flows, *there], key=lambda found: found[1][1])


@at_each(_merged)
def waiting_queues(broker: redis.Redis, settings: Settings, pool: str | None = None) -> list[str]:
    """Return the queues in which bot tasks wait or are parked, as `waiting_lists` has them; two round trips.

    Args:
        broker: Plain client of the broker.
        settings: Pools and the inbox.
        pool: Only the inbox and the queues of this one; None: of all.
    """
    names = _queues_of(broker, settings, pool)
    with broker.pipeline(transaction=False) as pipe:
        for name in names:
            flag = flow_keys.has(queues.list_key(name, 0))  # the lists may have lost the places of what is in flows
            pipe.exists(*(key for key, _ in queues.lists_of(name)), keys.parked_order(name), flag)
        return [name for name, count in zip(names, pipe.execute(), strict=True) if count]


def _queues_of(broker: redis.Redis, settings: Settings, pool: str | None) -> list[str]:
    pools = [*settings.pools, *former_pools(broker, settings)] if pool is None else [pool]
    return list(dict.fromkeys([settings.worker.inbox, *map(keys.queue, pools), *pools]))


@at_each(_merged)
def former_pools(broker: redis.Redis, settings: Settings) -> list[str]:
    """Return pools that aren't in the settings, but have queues that workers have served or producers have filled."""
    with broker.pipeline(transaction=False) as pipe:
        pipe.smembers(keys.binding(settings.worker.inbox))
        for step in queues.PRIORITY_STEPS:
            pipe.zrange(keys.waiting(step), 0, -1)
        bound, *waiting = pipe.execute()
    names = {name.decode(errors="replace").rpartition(queues.PRIORITY_SEPARATOR)[2] for name in chain(bound, *waiting)}
    return sorted(pool for name in names if (pool := queues.pool_of(name)) is not None and pool not in settings.pools)


def _search_list(
    broker: redis.Redis, key: str, of: Queued, task_id: str, most: int, *, first: Any | None = None
) -> Search:
    """Search one list from its head, at most `most` messages; what is found there is `of` its queue and priority.

    With `first`, what was replied of the first stretch.
    """
    skip, stretch = 0, FIRST_STRETCH
    while True:
        count = min(stretch, most - skip)
        if count <= 0:
            return Search(None, skip, complete=not broker.llen(key) > skip)
        place, message, looked_at, size = first or _stretch(broker, key, task_id, skip, count)
        first = None
        if place >= 0 and task_id_in(message) == task_id:
            return Search(_found(broker, key, replace(of, place=place, message=message)), place + 1)
        skip += looked_at
        if place < 0 and looked_at < count:
            return Search(None, skip)
        stretch = min(LONGEST_STRETCH, max(FIRST_STRETCH // 4, STRETCH_BYTES * looked_at // max(1, size)))


def _found(broker: redis.Redis, key: str, queued: Queued) -> Queued:
    """Return what was found under a key with how many messages of other flows wait in its list, if it is a flow's."""
    home = place_of(key)
    if home is None:
        return queued
    old, later = parts_beside(key)
    before, behind = broker.llen(old), broker.llen(later)
    others = max(0, broker.llen(home) - before - behind)
    place = queued.place + (before if key == later else 0)
    return replace(queued, place=place, others=others, every=takes_for_one(broker, key))


def _stretch(broker: redis.Redis, key: str, task_id: str, skip: int, count: int) -> Any:
    call = FIND_QUEUED.call(list=key, skip=skip, count=count, texts=id_texts(task_id))
    return run_script(broker, FIND_QUEUED, *call)
