"""The file of a backup: what stands in it, and how it is written and read as a stream. No Redis here.

A gzip stream of frames: a head (JSON), one frame for each key or slice of a large one, and a tail that counts them, so
that a file that was cut short is known. Values are what they are made of (text, members, entries): Redis' own `DUMP`,
which layout 1 had, is read by no older server, and by none of another kind.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from fleet.errors import ConfigurationError
from fleet.quoting import quote

#: Of this layout, and those that are read; another one is refused.
FORMAT, READ = 2, (1, 2)
#: What a file begins with, behind gzip.
MAGIC = b"fleet-backup\n"
#: A frame: role, kind, milliseconds that the key had left (-1: for ever), bytes of its name, number of parts.
_FRAME = struct.Struct("<ccqII")
_SIZE = struct.Struct("<I")
#: Bytes of a key's name or of a part at most: what is longer is no frame of ours.
MOST_BYTES = 600_000_000

#: What a server does: `broker` (the main one, and the state's where that is no other), `state`, `broker NAME`.
Role = str
BROKER, STATE = "broker", "state"
_ROLES: dict[Role, bytes] = {BROKER: b"b", STATE: b"s"}
#: How the role of a broker beside the main one begins; in a frame these are numbered from here on.
BRANCH, _FIRST_BRANCH = "broker ", ord("A")
#: `t`: a string. `l`, `h`, `z`, `s`, `x`: a slice of a list (from its head), hash, sorted set, set or stream. `d`: a
#: DUMP, in layout 1 only.
KINDS = "tlhzsxd"


@dataclass(frozen=True, slots=True)
class BackupHead:
    """What a backup says of itself.

    Args:
        fleet: Release that made it.
        made_at: Unix time in seconds.
        prefix: `redis.prefix` of its keys, which stands inside values too.
        servers: Role -> kind and version of each server; one that does both is the broker.
        format: Layout of the file.
    """

    fleet: str
    made_at: float
    prefix: str
    servers: dict[str, str]
    format: int = FORMAT


class KeyEntry(NamedTuple):
    """A key, or a slice of a large one."""

    role: Role
    kind: str
    key: bytes
    left_ms: int
    parts: Sequence[bytes]


class BackupWriter:
    """Writes a backup; `count` frames so far."""

    def __init__(self, out: gzip.GzipFile, head: BackupHead) -> None:
        self._out = out
        self._roles = _marks_of(head)
        self.count = 0
        out.write(MAGIC)
        self._text(asdict(head))

    def add(self, entry: KeyEntry) -> None:
        self._out.write(
            _FRAME.pack(self._roles[entry.role], entry.kind.encode(), entry.left_ms, len(entry.key), len(entry.parts))
        )
        self._out.write(entry.key)
        for part in entry.parts:
            self._out.write(_SIZE.pack(len(part)))
            self._out.write(part)
        self.count += 1

    def end(self) -> None:
        """Write the tail: without it the file is not whole."""
        self._out.write(_FRAME.pack(b"e", b"e", self.count, 0, 0))

    def _text(self, value: object) -> None:
        text = json.dumps(value).encode()
        self._out.write(_SIZE.pack(len(text)))
        self._out.write(text)


@contextmanager
def writing(path: Path, head: BackupHead) -> Iterator[BackupWriter]:
    """Write a file that only its owner may read; it has its name once it is whole and on disk."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as out:
                writer = BackupWriter(out, head)
                yield writer
                writer.end()
            raw.flush()
            os.fsync(raw.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def reading(path: Path) -> Iterator[tuple[BackupHead, Iterator[KeyEntry]]]:
    """Read a backup; whoever has read all entries without an error knows that the file is whole.

    Raises:
        ConfigurationError: When it is none, is of another layout, or is not whole.
    """
    try:
        with gzip.open(path) as file:
            head = _head(file, path)
            yield head, _entries(file, path, head)
    except (EOFError, gzip.BadGzipFile, struct.error) as error:
        raise ConfigurationError(
            f"{path}: expected a whole backup of Fleet, got one that ends early or is none; make another"
        ) from error


def _marks_of(head: BackupHead) -> dict[Role, bytes]:
    """Return what stands in frames for each role."""
    branches = [role for role in head.servers if role.startswith(BRANCH)]
    return {**_ROLES, **{role: bytes([_FIRST_BRANCH + at]) for at, role in enumerate(branches)}}


def _head(file: gzip.GzipFile, path: Path) -> BackupHead:
    if file.read(len(MAGIC)) != MAGIC:
        raise ConfigurationError(f"{path}: expected a backup of Fleet, got another file")
    told = json.loads(_part(file))
    if told.get("format") not in READ:
        raise ConfigurationError(
            f"{path}: expected a backup of layout {FORMAT} or before, got {quote(told.get('format'))} of Fleet "
            f"{told.get('fleet')}; restore it with that release"
        )
    return BackupHead(**told)


def _entries(file: gzip.GzipFile, path: Path, head: BackupHead) -> Iterator[KeyEntry]:
    roles: dict[bytes, Role] = {mark: role for role, mark in _marks_of(head).items()}
    count = 0
    while True:
        role, kind, left_ms, key_bytes, parts = _FRAME.unpack(_read(file, _FRAME.size))
        if role == b"e":
            if left_ms != count:
                raise EOFError
            return
        if role not in roles or kind.decode("latin-1") not in KINDS:
            raise ConfigurationError(f"{path}: expected a key, got {quote(role + kind)}; make another backup")
        key = _read(file, key_bytes)
        yield KeyEntry(roles[role], kind.decode(), key, left_ms, [_part(file) for _ in range(parts)])
        count += 1


def _part(file: gzip.GzipFile) -> bytes:
    (size,) = _SIZE.unpack(_read(file, _SIZE.size))
    return _read(file, size)


def _read(file: gzip.GzipFile, size: int) -> bytes:
    if size > MOST_BYTES:
        raise EOFError
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data
