"""What goes wrong with batches on demand: each fault waits for so many of the next operations that it can meet.

A number and not a share: a test that kills a client at a step wants this very step to fail, and no other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fleet.workers.simulator.voices import read_query

#: All of them, and what they do.
FAULTS: Mapping[str, str] = {
    "refused_upload": "400 in place of a file, which quotes what is in it",
    "lost_upload": "the file is kept, the reply is lost",
    "lost_create": "the batch is made, the reply is lost",
    "refused_create": "429 in place of a batch",
    "bad_create": "400 in place of a batch, which quotes its first request",
    "failed_validation": "the batch fails for a bad line in its file",
    "stuck": "half of the batch is never answered, and its window ends it",
    "gone_output": "the batch completes, and its output cannot be read",
    "busy_output": "503 in place of the answers of a batch",
    "odd_list": "a list of batches or files that cannot be read",
    "odd_output": "answers of a batch that cannot be read",
    "garbled_output": "the first line of a batch's answers is cut, and error lines for all of them come behind",
    "no_metadata": "a batch, as it is made, is told without its metadata ever after",
    "refused_delete": "400 in place of a deletion",
    "refused_key": "401 to anything about batches and files",
    "lost_response": "the background response is made, the reply is lost",
    "late_response": "the background response is never answered",
    "partial": "half of the answers are billed and missing in the output",
}


class Failing(Exception):
    """A fault that is told by a status alone."""

    def __init__(self, status: int) -> None:
        super().__init__(f"fault: {status}")
        self.status = status


class BatchFaults:
    """How many of each are still to come."""

    def __init__(self) -> None:
        self._left = dict.fromkeys(FAULTS, 0)

    def meets(self, name: str) -> bool:
        """True when an operation meets a fault, which is one less to come."""
        if self._left[name] <= 0:
            return False
        self._left[name] -= 1
        return True

    def fail(self, name: str, status: int) -> None:
        """Raise `Failing` when an operation meets a fault."""
        if self.meets(name):
            raise Failing(status)

    def output(self, content: bytes) -> bytes:
        """Return the answers of a batch as they are told. Raises `Failing`."""
        self.fail("busy_output", 503)
        if self.meets("odd_output"):
            return b'["not", "what", "it", "was"]\n{"custom_id": 7, "result": [], "response": "none"}\n{"cut": '
        if not self.meets("garbled_output"):
            return content
        ids = [json.loads(line)["custom_id"] for line in content.splitlines()]
        errors = [{"custom_id": name, "response": None, "result": {"type": "errored", "error": {}}} for name in ids]
        return content[20:] + b"".join(json.dumps(one).encode() + b"\n" for one in errors)

    def page(self, page: dict[str, Any]) -> dict[str, Any]:
        """Return a page of a list as it is told."""
        return {**page, "data": "none"} if self.meets("odd_list") else page

    def switch(self, query: Mapping[str, str]) -> None:
        """Set how many of the next operations meet each: `stuck=1&lost_create=2`. Raises `ValueError`."""
        given = read_query(query, dict.fromkeys(FAULTS, int))
        if wrong := [name for name, count in given.items() if count < 0]:
            raise ValueError(f"{wrong[0]}: expected 0 or more, got {given[wrong[0]]}")
        self._left.update(given)

    def report(self) -> dict[str, object]:
        """Return what is to come and what each fault is, for JSON."""
        return {"left": dict(self._left), "known": dict(FAULTS)}
