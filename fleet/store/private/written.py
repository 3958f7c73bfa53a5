"""What the data of the private Redis say of themselves, read before any server is started on them.

A server that cannot read a file stops, or, worse, overlooks it and starts empty; so the file's version is compared with
the server's first. Not here: which servers there are (`server.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from fleet.errors import ConfigurationError

Kind = Literal["Redis", "Valkey"]

#: Folder that Redis 7 and Valkey keep their append-only files in; Redis 6 would overlook it and start empty.
AOF_FOLDER = "appendonlydir"
#: In that folder: the list of its files.
MANIFEST = "appendonly.aof.manifest"
#: The one append-only file of Redis 6.
AOF_FILE = "appendonly.aof"
#: A snapshot: a server that keeps an append-only file does not load it.
SNAPSHOT = "dump.rdb"
#: Bytes at the head of a file that hold its version and its writer.
HEAD_BYTES = 64


@dataclass(frozen=True, slots=True)
class Release:
    """A kind of server and its version: Redis 7.0.15."""

    kind: Kind
    version: tuple[int, ...]

    @classmethod
    def parse(cls, kind: str, version: str) -> Self:
        """Read "redis" or "Valkey" and "7.0.15"."""
        return cls("Valkey" if kind.lower() == "valkey" else "Redis", tuple(map(int, re.findall(r"\d+", version)[:3])))

    def __str__(self) -> str:
        return f"{self.kind} {'.'.join(map(str, self.version))}"

    def covers(self, other: Release) -> bool:
        """True when `other` is of this kind, and of this version or newer."""
        return self.kind == other.kind and other.version >= self.version


#: Version of an RDB file -> the oldest releases that load it, tried with a server of each kind. Valkey left the
#: numbering after 11. What is not listed here is loaded by its writer and what is newer.
READERS = {
    10: (Release("Redis", (7, 0)), Release("Valkey", (7, 2))),
    11: (Release("Redis", (7, 2)), Release("Valkey", (7, 2))),
    12: (Release("Redis", (7, 4)),),
    80: (Release("Valkey", (9, 0)),),
}
#: Oldest releases that have every command the scripts use.
OLDEST = (Release("Redis", (6, 2)), Release("Valkey", (7, 2)))
#: Highest RDB version that all of them load.
OLD_RDB = 9
#: Oldest releases that look into `AOF_FOLDER`.
OLDEST_WITH_FOLDER = (Release("Redis", (7, 0)), Release("Valkey", (7, 2)))


@dataclass(frozen=True, slots=True)
class Written:
    """The data in a folder: who wrote them, and the oldest releases that read them.

    Attributes:
        file: The file that says so.
        by: Who wrote that file; servers that only added to the data since are not named. None: a plain command log.
        rdb: Its RDB version, None for a plain command log.
        readers: Empty when nobody is known to read it.
    """

    file: Path
    by: Release | None
    rdb: int | None
    readers: tuple[Release, ...]

    def readable_by(self, release: Release) -> bool:
        """True when `release` loads all of the data."""
        return any(reader.covers(release) for reader in self.readers)

    def __str__(self) -> str:
        version = "a command log" if self.rdb is None else f"RDB version {self.rdb}"
        return f"{self.file} ({version}{f', written by {self.by}' if self.by else ''})"


def read_written(folder: Path) -> Written | None:
    """Return what the data in `folder` say of themselves, None when there are none.

    Raises:
        ConfigurationError: When there are files that a server would overlook and start empty.
    """
    parts, manifest, single = folder / AOF_FOLDER, folder / AOF_FOLDER / MANIFEST, folder / AOF_FILE
    for path in (folder, parts, manifest, single, folder / SNAPSHOT):
        if path.is_symlink() and not path.exists():
            raise ConfigurationError(f"expected data behind the link {path}, got nothing: is a disk not mounted?")
    if manifest.exists():
        base = parts / _base_name(manifest)
        if base.suffix == ".rdb" and base.exists() and not base.stat().st_size:
            raise ConfigurationError(
                f"expected data in {base}, which {manifest} names, got an empty file: bring a copy of it back, or move "
                f"{folder} aside"
            )
        return _examine(base, OLDEST_WITH_FOLDER)
    if any(parts.glob(f"{AOF_FILE}.*")):
        raise ConfigurationError(
            f"expected {manifest}, which lists the files beside it, got none; bring it back, or move {folder} aside"
        )
    if single.exists() and single.stat().st_size:
        return _examine(single, OLDEST)
    snapshot = folder / SNAPSHOT
    if snapshot.exists():
        raise ConfigurationError(
            f"expected an append-only file in {folder}, got only {_examine(snapshot, OLDEST)}, which no server with "
            "`appendonly yes` loads; start one of yours on it with `appendonly no`, say CONFIG SET appendonly yes to "
            "have it rewritten, and shut it down; or move the file aside"
        )
    return None


def _base_name(manifest: Path) -> str:
    """Return the name of the base file, or of the first one when there is no base yet."""
    lines = manifest.read_text(encoding="utf-8", errors="replace").splitlines()
    files = [found for line in lines if (found := re.match(r'file "?(.+?)"? seq \d+ type (\w)', line))]
    return next((file[1] for file in files if file[2] == "b"), files[0][1] if files else manifest.name)


def _examine(file: Path, readers: tuple[Release, ...]) -> Written:
    try:
        with file.open("rb") as handle:
            head = handle.read(HEAD_BYTES)
    except FileNotFoundError:
        head = b""  # the manifest lists it: every server stops there, and says so
    magic = re.match(rb"(?:REDIS(\d{4})|VALKEY(\d{3}))", head)
    if magic is None:
        return Written(file, None, None, readers)
    rdb, by = int(magic[1] or magic[2]), _writer(head)
    if rdb > OLD_RDB:
        readers = READERS.get(rdb, (by,) if by else ())
    return Written(file, by, rdb, readers)


def _writer(head: bytes) -> Release | None:
    """Return who wrote an RDB file: its field `redis-ver` or `valkey-ver`, a string behind one byte of length."""
    field = re.search(rb"\xfa[\x09\x0a](redis|valkey)-ver([\x01-\x3f])", head)
    if field is None:
        return None
    return Release.parse(field[1].decode(), head[field.end() :][: field[2][0]].decode("ascii", "replace"))
