"""The OUT file of `fleet run`: locked, repaired after a crash, appended in whole lines; and its sidecar.

The sidecar `OUT.run` holds the random id of an unfinished run, which makes the idempotency keys: whoever resumes
with it can pay for nothing twice. It is written before the first task and removed after the last answer.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from fleet.errors import ConfigurationError, FleetError
from fleet.quoting import quote

#: Bytes at the start of the input by which a resumed run knows it again.
HEAD_BYTES = 1 << 16
#: Seconds between two fsyncs of OUT: what a power cut (not a crash) may take back.
SYNC_EVERY_S = 1.0


def new_run_id() -> str:
    """Return an id that no other run has."""
    return uuid.uuid4().hex


class LineSet:
    """A set of line numbers in one bit each: 10 million lines take 1.25 MB."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def add(self, line: int) -> bool:
        """Add a line number; False when it was there."""
        index, bit = line >> 3, 1 << (line & 7)
        if index >= len(self._bits):
            self._bits.extend(bytes(max(index + 1 - len(self._bits), len(self._bits))))
        if self._bits[index] & bit:
            return False
        self._bits[index] |= bit
        self._count += 1
        return True

    def __contains__(self, line: object) -> bool:
        assert isinstance(line, int)
        return line >> 3 < len(self._bits) and bool(self._bits[line >> 3] & 1 << (line & 7))

    def __len__(self) -> int:
        return self._count


@dataclass(frozen=True, slots=True)
class RunNote:
    """What the sidecar says about an unfinished run."""

    run_id: str
    input: str
    size_bytes: int
    head_sha256: str
    started_at: float
    prompt_field: str | None
    id_field: str

    @classmethod
    def of(cls, source: Path, *, prompt_field: str | None, id_field: str) -> RunNote:
        """Describe a new run over `source`."""
        size = source.stat().st_size
        digest = _head_sha256(source, size)
        return cls(new_run_id(), str(source), size, digest, time.time(), prompt_field, id_field)

    @classmethod
    def read(cls, path: Path) -> RunNote | None:
        """Read a sidecar; None when there is none.

        Raises:
            ConfigurationError: When it is not one of ours.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"{path}: expected the note of an unfinished run, got something else; --overwrite starts anew"
            ) from error

    def write(self, path: Path) -> None:
        """Write the sidecar; it is on the disk when this returns."""
        temporary = path.with_name(path.name + ".new")
        with _writing(path):
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(asdict(self), file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)

    def check(self, source: Path, *, prompt_field: str | None, id_field: str) -> None:
        """Refuse to resume with another input or another reading of it; an input that has grown is fine.

        Raises:
            ConfigurationError: Naming what differs.
        """
        size = source.stat().st_size
        if size < self.size_bytes or _head_sha256(source, self.size_bytes) != self.head_sha256:
            raise ConfigurationError(
                f"{source}: expected the input with which the run began ({self.size_bytes} bytes at {self.input}), "
                f"got another one ({size} bytes); give that one, another -o, or --overwrite to start anew"
            )
        for option, before, now in (
            ("--field", self.prompt_field, prompt_field),
            ("--id-field", self.id_field, id_field),
        ):
            if before != now:
                raise ConfigurationError(
                    f"{option}: expected {quote(before)}, with which the run began, got {quote(now)}; "
                    "give the same, or --overwrite to start anew"
                )


class AnswerFile:
    """OUT, open for this process alone. Use it as a context manager.

    Raises:
        ConfigurationError: When another run has it open, or it is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Whether OUT was not there before.
        self.created = not path.exists()
        self._file = _open_locked(path)
        self._synced_at_s = time.monotonic()
        self._unsynced = False

    @property
    def note_path(self) -> Path:
        """Where the sidecar is."""
        return self.path.with_name(self.path.name + ".run")

    @property
    def empty(self) -> bool:
        return os.fstat(self._file).st_size == 0

    def records(self, *, repair: bool) -> Iterator[dict[str, Any]]:
        """Yield every record that is there; at the end, cut off what a crash tore.

        Args:
            repair: Whether a torn end may be cut off; it may when the sidecar says that OUT is ours.

        Raises:
            ConfigurationError: When OUT holds lines that `fleet run` did not write.
        """
        torn_at: int | None = None
        offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                record = _record(line)
                if record is None:
                    torn_at = offset if torn_at is None else torn_at
                if torn_at is not None and (record is not None or not repair):
                    raise ConfigurationError(
                        f"{self.path}: expected answers written by `fleet run`, got something else around line "
                        f"{number}; give another -o, or --overwrite to replace it"
                    )
                if record is not None:
                    yield record
                offset += len(line)
        if torn_at is not None:
            os.ftruncate(self._file, torn_at)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write whole lines. They survive this process at once, and a power cut after `SYNC_EVERY_S`."""
        view = memoryview(b"".join(map(_line, records)))
        with _writing(self.path):
            while view:
                view = view[os.write(self._file, view) :]
                self._unsynced = True

    def sync(self, *, force: bool = False) -> bool:
        """Bring OUT to the disk when that is due; True when everything written is there."""
        due = force or time.monotonic() - self._synced_at_s >= SYNC_EVERY_S
        if self._unsynced and due:
            with _writing(self.path):
                os.fsync(self._file)
            self._unsynced, self._synced_at_s = False, time.monotonic()
        return not self._unsynced

    def clear(self) -> None:
        """Remove everything, the sidecar too."""
        os.ftruncate(self._file, 0)
        self.note_path.unlink(missing_ok=True)

    def drop_failed(self) -> int:
        """Rewrite OUT without its failed records, atomically; return how many those were."""
        with _writing(self.path):
            return self._drop_failed(self.path.with_name(self.path.name + ".new"))

    def _drop_failed(self, temporary: Path) -> int:
        dropped = 0
        temporary.unlink(missing_ok=True)
        new = _open_locked(temporary)
        os.fchmod(new, os.fstat(self._file).st_mode)
        with self.path.open("rb") as source, open(new, "wb", closefd=False) as target:
            for line in source:
                failed = (_record(line) or {}).get("status") == "failed"
                dropped += failed
                if not failed:
                    target.write(line)
        os.fsync(new)
        temporary.replace(self.path)
        os.close(self._file)
        self._file = new
        _sync_folder(self.path.parent)
        return dropped

    def remove(self) -> None:
        """Take back the creation of OUT."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Bring everything to the disk and give up the lock."""
        try:
            self.sync(force=True)
        finally:
            os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _open_locked(path: Path) -> int:
    """Open a file for appending under a lock that ends with this process.

    Another process may have put a new file in its place between opening and locking: then once more.
    """
    while True:
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"{path}: expected the path of a file to write, got something else")
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigurationError(f"{path}: expected a file to write, got: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            raise ConfigurationError(
                f"{path}: expected to be the only one that writes it, and another `fleet run` does; "
                "wait for it, or give another -o"
            ) from error
        if path.exists() and path.stat().st_ino == os.fstat(file).st_ino:
            return file
        os.close(file)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say what to do when the disk is full or gone."""
    try:
        yield
    except OSError as error:
        raise FleetError(
            f"{path}: expected to write it, got: {error.strerror}; make that possible and run the same command again: "
            "nothing is paid twice"
        ) from error


def _record(line: bytes) -> dict[str, Any] | None:
    """Parse one line of OUT; None when it is torn or not ours."""
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    ours = isinstance(value, dict) and isinstance(value.get("line"), int) and value["line"] > 0 and "status" in value
    return value if ours else None


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which only JSON's own \udXXX can carry
        return json.dumps(record).encode() + b"\n"


def _head_sha256(path: Path, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(min(size, HEAD_BYTES))).hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
