"""Queues and priorities: one Celery queue per pool, five priority steps each, and the inbox of plain clients.

A plain client has priority steps of its own (kombu's default: 0, 3, 6, 9), and perhaps a separator of its own, so that
its messages may lie in lists that no worker of Fleet takes from: `look.lua` brings them home.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kombu import Exchange, Queue

from fleet.config import Settings
from fleet.models import Priority
from fleet.quoting import nearest, quote
from fleet.store import keys

#: Priority steps as kombu wants them: one list per step, 0 is served first.
PRIORITY_STEPS = [priority.value for priority in Priority]
#: What kombu puts between a queue's name and its priority step in a list key.
PRIORITY_SEPARATOR = "\x06\x16"
#: The separator that Celery's own guide to priorities on Redis proposes.
GUIDE_SEPARATOR = ":"
#: Lowest priority that a Celery client may give: all that Fleet has no name for is bulk.
LOWEST = 9
#: What each of their numbers means.
_MEANT = tuple(Priority(min(number, Priority.BULK)) for number in range(LOWEST + 1))
#: How the lists of other clients' priority steps end, and the priority of what lies in them.
FOREIGN_LISTS: dict[str, Priority] = {
    **{f"{PRIORITY_SEPARATOR}{step}": Priority.BULK for step in range(Priority.BULK + 1, LOWEST + 1)},
    **{f"{GUIDE_SEPARATOR}{step}": Priority(min(step, Priority.BULK)) for step in range(1, LOWEST + 1)},
}


def task_queues(settings: Settings) -> list[Queue]:
    """Return the queues a worker consumes: the inbox first, then every pool's, which goes by the pool's name too."""
    inbox = settings.worker.inbox
    named = {inbox: None, **{keys.queue(pool): pool if pool != inbox else None for pool in settings.pools}}
    return [Queue(name, Exchange(name), routing_key=name, alias=alias) for name, alias in named.items()]


def odd_queues(names: Iterable[str], settings: Settings) -> Iterator[str]:
    """Yield what to say of each queue that a worker takes from and that is no pool's: most likely it is misspelt."""
    known = [keys.queue(pool) for pool in settings.pools]
    for name in names:
        if name not in known and name != settings.worker.inbox:
            yield f"queue {quote(name)}: no pool has it, {nearest(name, known)}; only tasks of your own come from there"


def bind_pools(settings: Settings) -> tuple[str, ...]:
    """Return the Redis command that lets the inbox's exchange send to pools' queues: `routing_key` alone names one."""
    names = [keys.queue(pool) for pool in settings.pools]
    rows = (PRIORITY_SEPARATOR.join((name, "", name)) for name in names)
    return ("SADD", keys.binding(settings.worker.inbox), *rows)


def pool_of(queue: str) -> str | None:
    """Return the pool that a queue belongs to; None for the inbox."""
    prefix = keys.queue("")
    return queue.removeprefix(prefix) if queue.startswith(prefix) else None


def priority_of(number: object) -> Priority | None:
    """Return the priority that a Celery client's number means: 0 is the most urgent, 5 to 9 are bulk; None: none."""
    if isinstance(number, str) and number.isdecimal():
        number = int(number)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= LOWEST:
        return None
    return _MEANT[number]


def lists_of(queue: str) -> list[tuple[str, int]]:
    """Return (list key, priority) of every list that may hold messages of a queue, the most urgent first."""
    own = [(list_key(queue, step), step) for step in PRIORITY_STEPS]
    foreign = [(f"{keys.lists(queue)}{ending}", priority.value) for ending, priority in FOREIGN_LISTS.items()]
    return sorted(own + foreign, key=lambda place: place[1])


def list_key(queue: str, priority: int) -> str:
    """Return the Redis list that holds a queue's messages of one priority, as kombu names it."""
    base = keys.lists(queue)
    return f"{base}{PRIORITY_SEPARATOR}{priority}" if priority else base


def queue_of(place: str) -> tuple[str, int]:
    """Return the queue and the priority of a list, by its key."""
    queue, _, priority = place.removeprefix(keys.lists("")).partition(PRIORITY_SEPARATOR)
    return queue, int(priority or 0)
