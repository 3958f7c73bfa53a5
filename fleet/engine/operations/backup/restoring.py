"""Restores a backup into empty servers. What ran when it was made waits again: at least once, as after any death.

Not atomic: keys come back one after the other, so workers start when it is done. If it dies in between, the target is
not empty any more, and `--force` begins anew.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import redis
from redis.exceptions import ResponseError

from fleet.config import Settings
from fleet.engine.operations.backup.file import BRANCH, STATE, BackupHead, KeyEntry, reading
from fleet.engine.operations.backup.servers import BackedServer, check, own_keys
from fleet.engine.transport import leases
from fleet.errors import ConfigurationError, StoreError
from fleet.quoting import counted, quote
from fleet.store import keys
from fleet.store.client import run_script

#: Entries restored, and keys removed, in one round trip (count); bytes of such entries at which it is full.
AT_ONCE, AT_ONCE_BYTES = 200, 4_000_000


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back, or would.

    Args:
        head: What the backup says of itself.
        keys: By server (count).
        replaced: Keys of the fleet that were there before, and went (count).
        requeued: Tasks that ran, or were held, and wait again (count).
    """

    head: BackupHead
    keys: dict[str, int]
    replaced: int
    requeued: int


def restore(
    servers: list[BackedServer], settings: Settings, path: Path, *, is_forced: bool = False, is_meant: bool = True
) -> Restored:
    """Read a backup through, then put it into the servers.

    Args:
        servers: The broker, then the one with the state, if that is another one.
        settings: Queues and the prefix.
        path: Of the backup.
        is_forced: What is there of this fleet is removed first.
        is_meant: False: only check.

    Raises:
        ConfigurationError: When it does not fit: another prefix or number of servers, a target that is not empty, a
            file that is not whole, or values that a target cannot read. Nothing has changed then.
        StoreError: When a server refuses a value after all.
    """
    check(servers)
    head, counts = _checked(servers, settings, path)
    there = {server.role: sum(map(len, own_keys(server, settings))) for server in servers}
    if sum(there.values()) and not is_forced:
        raise ConfigurationError(
            f"expected Redis without keys of this fleet, got {counted(sum(there.values()), 'key')}; stop workers and "
            "give --force, which removes them first, or name another server in redis.url"
        )
    requeued = 0
    if is_meant:
        for server in servers:
            _remove(server, settings)
        _put(servers, path)
        requeued = sum(_put_back(server.client) for server in servers if server.role != STATE)
    return Restored(head, counts, sum(there.values()), requeued)


def _checked(servers: list[BackedServer], settings: Settings, path: Path) -> tuple[BackupHead, dict[str, int]]:
    """Read the whole file; have each server try one value, the kind of which it may not know."""
    counts, last = Counter[str](), None
    known = {server.role: server for server in servers}
    with reading(path) as (head, entries):
        if head.prefix != keys.lists(""):
            raise ConfigurationError(
                f"redis.prefix: expected {quote(head.prefix)}, which stands in the backup's values, got "
                f"{quote(keys.lists(''))}"
            )
        if _numbers(head.fleet) > _numbers(version("celery-fleet")):
            raise ConfigurationError(
                f"expected Fleet {head.fleet} or newer, as the backup is of, got {version('celery-fleet')}; upgrade it"
            )
        missing = [role for role in head.servers if role.startswith(BRANCH) and role not in known]
        if missing:
            raise ConfigurationError(
                f"expected a server for each broker that the backup was made of, got none for {quote(missing[0])}; "
                "name it in fleet.toml ([redis.brokers.NAME])"
            )
        if STATE not in head.servers and STATE in known:
            raise ConfigurationError(
                "expected one Redis, as the backup was made of, got two: set redis.state_url to the same server"
            )
        tried = set[str]()
        for entry in entries:
            server = known.get(entry.role, servers[0])
            if entry.kind == "d" and entry.role not in tried:
                tried.add(entry.role)
                _try(server, head, entry)
            counts[entry.role] += (entry.role, entry.key) != last  # slices of a key follow each other
            last = entry.role, entry.key
    return head, dict(counts)


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release)[:3])


def _try(server: BackedServer, head: BackupHead, entry: KeyEntry) -> None:
    probe = f"{keys.write_probe()}:backup"
    try:
        server.client.restore(probe, 1000, entry.parts[0], replace=True)
        server.client.delete(probe)
    except ResponseError as error:
        raise ConfigurationError(
            f"{server.role}: expected a server that reads what {head.servers.get(entry.role)} wrote, got "
            f"{server.told}: {error}; use one of that version or newer"
        ) from error


def _remove(server: BackedServer, settings: Settings) -> None:
    for some in own_keys(server, settings):
        for start in range(0, len(some), AT_ONCE):
            server.client.unlink(*some[start : start + AT_ONCE])


def _put(servers: list[BackedServer], path: Path) -> None:
    known = {server.role: server.client for server in servers}
    last: KeyEntry | None = None
    with reading(path) as (_, entries):
        while some := list(_some_of(entries)):
            for role, run in groupby(some, key=lambda entry: entry.role):
                last = _put_some(known.get(role, servers[0].client), run, last)


def _some_of(entries: Iterator[KeyEntry]) -> Iterator[KeyEntry]:
    """Yield entries for one round trip."""
    size = count = 0
    while size < AT_ONCE_BYTES and count < AT_ONCE and (entry := next(entries, None)) is not None:
        size, count = size + sum(map(len, entry.parts)), count + 1
        yield entry


def _put_some(client: redis.Redis, some: Iterable[KeyEntry], last: KeyEntry | None) -> KeyEntry | None:
    """Put entries behind what there is of their keys; return the last one."""
    with client.pipeline(transaction=False) as pipe:
        for entry in some:
            if last is None or (last.role, last.key) != (entry.role, entry.key):
                pipe.unlink(entry.key)  # a walk of Redis may come by a key twice
            _queue(pipe, entry)
            last = entry
        try:
            pipe.execute()
        except ResponseError as error:
            raise StoreError(
                f"expected Redis to take a key of the backup, got: {error}; run it again with --force"
            ) from error
    return last


def _queue(pipe: Any, entry: KeyEntry) -> None:
    if entry.kind == "d":
        left_ms = max(1, entry.left_ms) if entry.left_ms >= 0 else 0  # 0: for ever
        pipe.restore(entry.key, left_ms, entry.parts[0], replace=True)
        return
    if entry.kind == "t":
        pipe.set(entry.key, entry.parts[0])
    elif entry.kind == "x":
        for name, fields in _stream_entries(iter(entry.parts)):
            pipe.xadd(entry.key, fields, id=name)
    elif entry.kind == "l":
        pipe.rpush(entry.key, *entry.parts)
    elif entry.kind == "s":
        pipe.sadd(entry.key, *entry.parts)
    elif entry.kind == "h":
        pipe.hset(entry.key, mapping=dict(_pairs(entry.parts)))
    else:
        pipe.zadd(entry.key, {member: float(score) for member, score in _pairs(entry.parts)})
    if entry.left_ms >= 0:
        pipe.pexpire(entry.key, max(1, entry.left_ms))


def _stream_entries(parts: Iterator[bytes]) -> Iterator[tuple[bytes, dict[Any, Any]]]:
    for name in parts:
        yield name, {next(parts): next(parts) for _ in range(int(next(parts)))}


def _pairs(parts: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(parts[::2], parts[1::2], strict=True)


def _put_back(broker: redis.Redis) -> int:
    """Let what was held wait again, at the heads of its lists; none of it is suspect: nobody died of it."""
    count = 0
    while tags := cast("list[bytes]", broker.zrevrange(keys.unacked_index(), 0, AT_ONCE - 1)):
        call = leases.restore_call([tag.decode() for tag in reversed(tags)])
        count += run_script(broker, leases.RESTORE, *call)[0]
    return count
