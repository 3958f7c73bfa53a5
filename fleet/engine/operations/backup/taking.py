"""Takes a backup: while writes are held for a moment, every key of the fleet goes to the file as Redis dumps it.

Held writes wait, nothing fails: Fleet takes it for a Redis that is slow. If this dies, nothing but the file is lost.
A large list, hash or set is read in slices, since one dump of a million messages would not fit into a reply.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fleet.config import Settings
from fleet.engine.operations.backup.file import BackupHead, BackupWriter, KeyEntry, Role, writing
from fleet.engine.operations.backup.servers import HOLD_MS, BackedServer, check, held, hold, own_keys
from fleet.errors import StoreError
from fleet.store import keys

#: Bytes up to which a key is dumped whole, and members in a slice of a larger one (count).
WHOLE_BYTES, SLICE = 16_000_000, 1000
#: Keys dumped in one round trip (count).
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
            for entry in _dumped(server.role, server.client, wanted[start : start + AT_ONCE]):
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


def _dumped(role: Role, client: Any, some: Sequence[bytes]) -> Iterator[KeyEntry]:
    with client.pipeline(transaction=False) as pipe:
        for key in some:
            pipe.pttl(key)
            pipe.memory_usage(key)
        told = pipe.execute()
    sizes = dict(zip(some, zip(told[::2], told[1::2], strict=True), strict=True))
    small = [key for key, (_, size) in sizes.items() if size is not None and size <= WHOLE_BYTES]
    with client.pipeline(transaction=False) as pipe:
        for key in small:
            pipe.dump(key)
        dumps = pipe.execute()
    for key, dump in zip(small, dumps, strict=True):
        if dump is not None:
            yield KeyEntry(role, "d", key, sizes[key][0], [dump])
    for key, (left_ms, size) in sizes.items():
        if size is not None and size > WHOLE_BYTES:
            yield from _slices(role, client, key, left_ms)


def _slices(role: Role, client: Any, key: bytes, left_ms: int) -> Iterator[KeyEntry]:
    kind = client.type(key)
    read: Any = {b"list": _of_list, b"hash": _of_hash, b"zset": _of_sorted_set, b"set": _of_set}.get(kind)
    if read is None:
        yield KeyEntry(role, "d", key, left_ms, [client.dump(key)])  # a long string or stream
        return
    letter = {b"list": "l", b"hash": "h", b"zset": "z", b"set": "s"}[kind]
    for parts in read(client, key):
        yield KeyEntry(role, letter, key, left_ms, parts)


def _of_list(client: Any, key: bytes) -> Iterator[list[Any]]:
    start = 0
    while parts := client.lrange(key, start, start + SLICE - 1):
        yield list(parts)
        start += SLICE


def _of_hash(client: Any, key: bytes) -> Iterator[list[Any]]:
    for some in _scanned(client.hscan, key):
        yield [part for pair in some.items() for part in pair]


def _of_sorted_set(client: Any, key: bytes) -> Iterator[list[Any]]:
    for some in _scanned(client.zscan, key):
        yield [part for member, score in some for part in (member, repr(score).encode())]


def _of_set(client: Any, key: bytes) -> Iterator[list[Any]]:
    yield from map(list, _scanned(client.sscan, key))


def _scanned(scan: Any, key: bytes) -> Iterator[Any]:
    cursor = 0
    while True:
        cursor, some = scan(key, cursor, count=SLICE)
        if some:
            yield some
        if cursor == 0:
            return
