"""Takes a backup: while writes are held for a moment, every key of the fleet goes to the file.

Held writes wait, nothing fails: Fleet takes it for a Redis that is slow. If this dies, nothing but the file is lost.
Small keys are read many at a time, large ones in slices: memory does not grow with what there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from fleet.config import Settings
from fleet.engine.operations.backup.file import BackupHead, BackupWriter, KeyEntry, Role, writing
from fleet.engine.operations.backup.servers import HOLD_MS, BackedServer, check, held, hold, own_keys
from fleet.errors import StoreError
from fleet.store import keys

#: Bytes up to which keys are read together, or one whole; and members in a slice of a larger one (count).
WHOLE_BYTES, SLICE = 4_000_000, 1000
#: Keys looked at in one round trip (count).
AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class WrittenBackup:
    """What was written.

    Args:
        keys: By server (count).
        held_s: Seconds for which writes waited.
        size: Of the file, in bytes.
    """

    keys: dict[str, int]
    held_s: float
    size: int


def take_backup(servers: list[BackedServer], settings: Settings, path: Path, *, most_s: float) -> WrittenBackup:
    """Write all that Redis holds of this fleet to a file.

    Args:
        servers: The broker, then the one with the state, if that is another one.
        settings: Queues and the prefix.
        path: Of the file; one of this name is replaced once the new one is whole.
        most_s: Seconds for which writes may be held.

    Raises:
        ConfigurationError: When a server is one of a cluster.
        StoreError: When it took longer, or writes could not be held. Nothing is left behind then.
    """
    check(servers)
    head = BackupHead(version("celery-fleet"), time.time(), keys.lists(""), {one.role: one.told for one in servers})
    counts: dict[str, int] = {}
    with writing(path, head) as writer:
        started = time.monotonic()
        with held(servers):
            for server in servers:
                counts[server.role] = _copy(servers, server, settings, writer, started + most_s)
        held_s = time.monotonic() - started
    return WrittenBackup(counts, held_s, path.stat().st_size)


def _copy(
    servers: list[BackedServer], server: BackedServer, settings: Settings, writer: BackupWriter, until_s: float
) -> int:
    count, held_at_s = 0, time.monotonic()
    workers = keys.workers().encode()
    for some in own_keys(server, settings):
        wanted = [key for key in some if key != workers]  # who reports there is not restored
        for start in range(0, len(wanted), AT_ONCE):
            for entry in _read(server.role, server.client, wanted[start : start + AT_ONCE]):
                writer.add(entry)
                if time.monotonic() - held_at_s > HOLD_MS / 4000:
                    held_at_s = time.monotonic()
                    _go_on(servers, held_at_s, until_s)
        count += len(wanted)
    return count


def _go_on(servers: list[BackedServer], now_s: float, until_s: float) -> None:
    if now_s > until_s:
        raise StoreError(
            "expected to be done while writes were held (--most-s), got more data than that: nothing was kept; give it "
            "more time, or take the server's own snapshot"
        )
    for server in servers:
        hold(server)


class _Found(NamedTuple):
    """A key: its type, the milliseconds that it has left (-1: for ever), and its bytes in memory."""

    key: bytes
    kind: str
    left_ms: int
    size: int


def _read(role: Role, client: Any, some: Sequence[bytes]) -> Iterator[KeyEntry]:
    with client.pipeline(transaction=False) as pipe:
        for key in some:
            pipe.type(key)
            pipe.pttl(key)
            pipe.memory_usage(key)
        told = pipe.execute()
    every = (_Found(key, kind.decode(), left, size or 0) for key, kind, left, size in
             zip(some, told[::3], told[1::3], told[2::3], strict=True))  # fmt: skip
    together, size = list[_Found](), 0
    for found in every:
        if found.kind == "none":  # it has expired
            continue
        if found.size > WHOLE_BYTES and found.kind != "string":
            yield from _slices(role, client, found)
            continue
        if together and size + found.size > WHOLE_BYTES:
            yield from _together(role, client, together)
            together, size = [], 0
        together.append(found)
        size += found.size
    yield from _together(role, client, together)


def _together(role: Role, client: Any, some: Sequence[_Found]) -> Iterator[KeyEntry]:
    """Read keys whole, in one round trip."""
    with client.pipeline(transaction=False) as pipe:
        for found in some:
            _KINDS[found.kind].read(pipe, found.key)
        values = pipe.execute()
    for found, value in zip(some, values, strict=True):
        kind = _KINDS[found.kind]
        parts = [] if value is None else list(kind.parts(value))
        if parts:
            yield KeyEntry(role, kind.letter, found.key, found.left_ms, parts)


def _slices(role: Role, client: Any, found: _Found) -> Iterator[KeyEntry]:
    kind = _KINDS[found.kind]
    for value in kind.slices(client, found.key):
        yield KeyEntry(role, kind.letter, found.key, found.left_ms, list(kind.parts(value)))


def _of_nothing(client: Any, key: bytes) -> Iterator[Any]:
    """A string is always read whole."""
    yield client.get(key)


def _of_list(client: Any, key: bytes) -> Iterator[Any]:
    start = 0
    while values := client.lrange(key, start, start + SLICE - 1):
        yield values
        start += SLICE


def _of_stream(client: Any, key: bytes) -> Iterator[Any]:
    after = b"-"
    while entries := client.xrange(key, after, "+", SLICE):
        yield entries
        after = b"(" + entries[-1][0]


def _scanned(scan: str) -> Callable[[Any, bytes], Iterator[Any]]:
    def slices(client: Any, key: bytes) -> Iterator[Any]:
        cursor = 0
        while True:
            cursor, some = getattr(client, scan)(key, cursor, count=SLICE)
            if some:
                yield some
            if cursor == 0:
                return

    return slices


def _entries(value: Any) -> Iterator[bytes]:
    """Yield the parts of a stream's entries: of each its id, how many fields it has, and these with their values."""
    for name, fields in value:
        yield from (name, str(len(fields)).encode(), *(part for pair in fields.items() for part in pair))


class _Kind(NamedTuple):
    """How keys of a type are read: whole, or in slices; and what parts such a value has."""

    letter: str
    read: Callable[[Any, bytes], Any]
    slices: Callable[[Any, bytes], Iterator[Any]]
    parts: Callable[[Any], Iterable[bytes]]


_KINDS = {
    "string": _Kind("t", lambda pipe, key: pipe.get(key), _of_nothing, lambda text: [text]),
    "list": _Kind("l", lambda pipe, key: pipe.lrange(key, 0, -1), _of_list, list),
    "hash": _Kind(
        "h", lambda pipe, key: pipe.hgetall(key), _scanned("hscan"), lambda pairs: chain.from_iterable(pairs.items())
    ),
    "zset": _Kind(
        "z", lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True), _scanned("zscan"),
        lambda pairs: chain.from_iterable((member, repr(score).encode()) for member, score in pairs),
    ),
    "set": _Kind("s", lambda pipe, key: pipe.smembers(key), _scanned("sscan"), list),
    "stream": _Kind("x", lambda pipe, key: pipe.xrange(key), _of_stream, _entries),
}  # fmt: skip
