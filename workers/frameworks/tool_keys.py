"""The `Idempotency-Key` of a tool's POST or PATCH that has none: the same whenever its function begins anew.

An API that knows such keys then does once what a task asks for twice, because a worker died or a model's call failed.
One that doesn't ignores them, so a key of ours is no reason to repeat a request whose outcome nobody knows.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter, defaultdict
from dataclasses import replace

from fleet.workers.frameworks.tool_wire import IDEMPOTENT, ToolRequest


class OnceKeys:
    """Those of one run of a function. Weakness: a body that differs, by one letter even, is another request.

    Two requests of a run that are alike are two wishes and have a key each: they are counted, in the order in which
    they are sent. Only one that follows another whose outcome nobody knows is taken for the same wish.

    Args:
        task_id: The task, which is the same in all its runs.
    """

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._seen = Counter[bytes]()
        self._unsure = defaultdict[bytes, list[str]](list)

    def put_into(self, name: str, request: ToolRequest) -> ToolRequest:
        """Return a request with the key that it is to be sent with, if it is to have one of ours.

        Args:
            name: Of the tool.
            request: As its function wants it.
        """
        if request.method in IDEMPOTENT or request.has_key_of_its_own:
            return request
        digest = self._digest(name, request)
        if again := self._unsure[digest]:
            return replace(request, once_key=again.pop(0))
        self._seen[digest] += 1
        return replace(request, once_key=_spelt(digest, self._seen[digest]))

    def is_unsure(self, name: str, request: ToolRequest) -> None:
        """Note that nobody knows what became of a request: if its function repeats it, it is to have the same key."""
        if request.once_key:
            self._unsure[self._digest(name, request)].append(request.once_key)

    def _digest(self, name: str, request: ToolRequest) -> bytes:
        asked = hashlib.sha256()
        for part in (self._task_id, name, request.method, request.url):
            asked.update(part.encode() + b"\0")
        asked.update(request.body)
        return asked.digest()


def _spelt(digest: bytes, number: int) -> str:
    """Return a key as most APIs want one: a UUID. Nothing can be read out of it."""
    made = hashlib.sha256(digest + str(number).encode()).digest()
    return str(uuid.UUID(bytes=made[:16], version=5))
