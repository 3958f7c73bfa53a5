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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from fleet.errors import ConfigurationError, FleetError
from fleet.quoting import quote

#: Bytes at the start of the input by which a run of the previous release knows it again.
HEAD_BYTES = 1 << 16
#: Seconds between two fsyncs of OUT: what a power cut (not a crash) may take back.
SYNC_EVERY_S = 1.0


def new_run_id() -> str:
    """Return an id that no other run has."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class RunNote:
    """What the sidecar says about an unfinished run.

    Args:
        run_id: Makes its idempotency keys.
        input: Path of IN.
        started_at: Unix time in seconds.
        prompt_field: Option --field.
        id_field: Option --id-field.
        knows_lines_by: What else makes its keys: what a line asks, or (the previous release) its number and id.
        size_bytes: Of IN, where lines are known by place.
        head_sha256: Of the first `HEAD_BYTES` of IN, likewise.
        max_usd: What the run may spend in all, over its resumes; None: as much as it does.
        budget: Id of the run whose budget it shares, whose failed lines it asks again; empty: it has its own.
    """

    run_id: str
    input: str
    started_at: float
    prompt_field: str | None
    id_field: str
    knows_lines_by: Literal["asked", "place"] = "place"
    size_bytes: int = 0
    head_sha256: str = ""
    max_usd: float | None = None
    budget: str = ""

    @property
    def payer(self) -> str:
        """Id of the run whose budget counts what it spends."""
        return self.budget or self.run_id

    @classmethod
    def of(cls, source: Path | None, *, prompt_field: str | None, id_field: str) -> RunNote:
        """Describe a new run over `source`; None is a pipe."""
        return cls(new_run_id(), str(source or "-"), time.time(), prompt_field, id_field, "asked")

    @property
    def by_place(self) -> bool:
        """True for a run that the previous release began."""
        return self.knows_lines_by == "place"

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
        """Refuse to resume with another reading of the input.

        A run that the previous release began knows lines by their place: it needs the same input, which may have grown.

        Raises:
            ConfigurationError: Naming what differs.
        """
        size = source.stat().st_size
        is_other = size < self.size_bytes or _head_sha256(source, self.size_bytes) != self.head_sha256
        if self.by_place and is_other:
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
        torn_at = yield from records_in(self.path, may_be_torn=repair)
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

    def rewrite(self, change: Callable[[dict[str, Any]], Mapping[str, Any] | None]) -> None:
        """Put another file in the place of OUT, atomically.

        Args:
            change: Returns what a record becomes; the very same leaves its line as it is, None leaves it out.
        """
        temporary = self.path.with_name(self.path.name + ".new")
        with _writing(self.path):
            temporary.unlink(missing_ok=True)
            new = _open_locked(temporary)
            os.fchmod(new, os.fstat(self._file).st_mode)
            with self.path.open("rb") as source, open(new, "wb", closefd=False) as target:
                for line in source:
                    record = _record(line)
                    changed = None if record is None else change(record)
                    if changed is not None:
                        target.write(line if changed is record else _line(changed))
            os.fsync(new)
            temporary.replace(self.path)
            os.close(self._file)
            self._file = new
            _sync_folder(self.path.parent)

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


def records_in(path: Path, *, may_be_torn: bool) -> Generator[dict[str, Any], None, int | None]:
    """Yield every record of OUT, and return where its torn end begins; None: it has none. Changes nothing.

    Args:
        path: OUT.
        may_be_torn: Its end may be what a crash tore.

    Raises:
        ConfigurationError: When it holds lines that `fleet run` did not write.
    """
    torn_at: int | None = None
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            record = _record(line)
            if record is None:
                torn_at = offset if torn_at is None else torn_at
            if torn_at is not None and (record is not None or not may_be_torn):
                raise ConfigurationError(
                    f"{path}: expected answers written by `fleet run`, got something else around line "
                    f"{number}; give another -o, or --overwrite to replace it"
                )
            if record is not None:
                yield record
            offset += len(line)
    return torn_at


def _record(line: bytes) -> dict[str, Any] | None:
    """Parse one line of OUT; None when it is torn or not ours."""
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or "status" not in value or "line" not in value:
        return None
    line = value["line"]
    return value if line is None or (isinstance(line, int) and line > 0) else None


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
