"""What a worker and its child process say to each other, over one socket: pickled values with their length before each.

Both ends are this program, so pickle is safe here; results and log records are more than JSON can say.
"""

from __future__ import annotations

import logging
import pickle
import socket
import struct
import threading
from dataclasses import dataclass
from typing import Any

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Hello:
    """The first word of the worker: where modules are found, what is logged, by which id the child reserves."""

    path: list[str]
    log_level: int
    process: str


@dataclass(frozen=True, slots=True)
class Work:
    """Work on this task."""

    tag: str
    task_id: str
    request: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """Run a Celery task of the user's own, as Celery's tracer takes it; the module registers it."""

    tag: str
    module: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop work on a task."""

    tag: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End as soon as everything is closed."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The child works on this task now."""

    tag: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A task has its result, or needs none: a `Done`, or what Celery's tracer returns."""

    tag: str
    done: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """A task has no result: it goes back to its queue, or Celery hears why."""

    tag: str
    goes_back: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Logged:
    """A line for the worker's log."""

    record: logging.LogRecord


def framed(said: object) -> bytes:
    """Return a value as it goes over the socket."""
    data = pickle.dumps(said, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


#: Bytes before each value.
HEAD_BYTES = _LENGTH.size


def length_of(head: bytes) -> int:
    """Return how many bytes follow."""
    return int(_LENGTH.unpack(head)[0])


def value_of(data: bytes) -> Any:
    """Return what was said."""
    return pickle.loads(data)


class Socket:
    """The child's end. Anybody may say something, one thread listens."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)
        self._reader = self._socket.makefile("rb")
        self._lock = threading.RLock()

    def say(self, said: object) -> None:
        """Send a value; nothing happens when nobody listens any more: this process ends then."""
        data = framed(said)
        with self._lock:
            try:
                self._socket.sendall(data)
            except OSError:
                return

    def hear(self) -> Any:
        """Return the next value; None when the other end is gone."""
        try:
            head = self._reader.read(HEAD_BYTES)
            data = self._reader.read(length_of(head)) if len(head) == HEAD_BYTES else b""
            return value_of(data) if data else None
        except OSError:
            return None
