"""Queues and priorities: one Celery queue per pool, five priority steps each, and the inbox of plain clients."""

from __future__ import annotations

from kombu import Exchange, Queue

from fleet.config import Settings
from fleet.models import Priority
from fleet.store import keys

#: Priority steps as kombu wants them: one list per step, 0 is served first.
PRIORITY_STEPS = [priority.value for priority in Priority]
#: What kombu puts between a queue's name and its priority step in a list key.
PRIORITY_SEPARATOR = "\x06\x16"


def task_queues(settings: Settings) -> list[Queue]:
    """Return the queues a worker consumes: the inbox first, then every pool's."""
    names = [settings.worker.inbox, *(keys.queue(pool) for pool in settings.pools)]
    return [Queue(name, Exchange(name), routing_key=name) for name in names]


def list_key(queue: str, priority: int) -> str:
    """Return the Redis list that holds a queue's messages of one priority, as kombu names it."""
    base = keys.lists(queue)
    return f"{base}{PRIORITY_SEPARATOR}{priority}" if priority else base


def queue_of(place: str) -> tuple[str, int]:
    """Return the queue and the priority of a list, by its key."""
    queue, _, priority = place.removeprefix(keys.lists("")).partition(PRIORITY_SEPARATOR)
    return queue, int(priority or 0)
