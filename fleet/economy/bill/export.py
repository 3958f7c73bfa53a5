"""Entries as lines of JSON in a file that is turned over: for who wants each call, and not only sums. Off by default.

All processes of a host append to one file, whole lines under a lock. A disk that takes nothing is said once and harms
nothing else. Prompts and answers are never in an entry.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from fleet.config import BillSettings
from fleet.economy.bill.unknown import written
from fleet.entries import Entry

#: Name of the file in a folder.
FILE_NAME = "calls.jsonl"
#: How the name of a file ends that is one, and no folder, before it is there.
SUFFIXES = (".jsonl", ".json", ".ndjson", ".log", ".txt")
#: Tries to open the file that is the newest: others may turn it over meanwhile (count).
TRIES = 10

logger = logging.getLogger("fleet.bill")


class Export:
    """Appends entries to a file.

    Args:
        place: A file, or a folder for one.
        most_bytes: Size at which the file is turned over: it becomes NAME.1, that becomes NAME.2, and so on.
        files: Files that are kept, the one that is written among them (count).
    """

    def __init__(self, place: Path, *, most_bytes: int, files: int) -> None:
        self._path = file_of(place)
        self._most_bytes = most_bytes
        self._files = files
        self._is_failing = False

    def write(self, entries: Iterable[Entry]) -> None:
        """Append entries. Blocks as a disk does; never raises."""
        lines = "".join(f"{written(entry)}\n" for entry in entries).encode()
        try:
            self._append(lines)
        except OSError as error:
            if not self._is_failing:
                logger.error(
                    "bill not exported path=%s error=%s: entries are left out there until it works again; the bill "
                    "itself is complete", self._path, error.strerror,
                )  # fmt: skip
            self._is_failing = True
        else:
            if self._is_failing:
                logger.warning("bill exported again path=%s", self._path)
            self._is_failing = False

    def _append(self, lines: bytes) -> None:
        for _ in range(TRIES):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not self._is_newest(file.fileno()):
                    continue
                size = os.fstat(file.fileno()).st_size
                if size and size + len(lines) > self._most_bytes:
                    self._turn_over()
                    continue
                _write_whole(file.fileno(), lines, size)
                return
        raise OSError(0, "", "others turn it over all the time")

    def rename_tenant(self, before: str, after: str, *, is_meant: bool = True) -> int:
        """Give a tenant another name in all files of this host, and return the number of lines that named it.

        Blocks as long as the files take to be read, and whoever writes waits. With `is_meant` False nothing changes.

        Raises:
            OSError: When a file cannot be read or written; what was done by then stays so.
        """
        for _ in range(TRIES):
            if not self._path.exists():
                return 0
            with self._path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not self._is_newest(file.fileno()):
                    continue
                files = [self._path, *(self._named(number) for number in range(1, self._files))]
                return sum(_renamed_in(path, before, after, is_meant) for path in files if path.exists())
        raise OSError(0, "", "others turn it over all the time")

    def _is_newest(self, descriptor: int) -> bool:
        """Return whether an open file still has its name: somebody may have turned it over before it was locked."""
        mine = os.fstat(descriptor)
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        return (mine.st_ino, mine.st_dev) == (named.st_ino, named.st_dev)

    def _turn_over(self) -> None:
        """Give each file the next number; the last one goes. Under the lock of the newest one."""
        if self._files == 1:
            self._path.unlink()
            return
        for number in range(self._files - 2, 0, -1):
            older = self._named(number)
            if older.exists():
                older.replace(self._named(number + 1))
        self._path.replace(self._named(1))

    def _named(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def export_of(settings: BillSettings) -> Export | None:
    """Return where entries go as the settings say; None: nowhere."""
    if settings.export is None:
        return None
    return Export(settings.export, most_bytes=settings.export_max_mb * 10**6, files=settings.export_files)


def file_of(place: Path) -> Path:
    """Return the file that entries go to."""
    is_file = place.is_file() or (not place.is_dir() and place.suffix in SUFFIXES)
    return place if is_file else place / FILE_NAME


def trouble_of(place: Path) -> str | None:
    """Return why nobody like this process can write there; None: it can. Makes nothing."""
    path = file_of(place)
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    if there != path and not there.is_dir():
        return f"{there} is no folder"
    return None if os.access(there, os.W_OK) else f"{there} cannot be written"


def _renamed_in(path: Path, before: str, after: str, is_meant: bool) -> int:
    """Write a file anew with another tenant's name, beside it and then in its place; return the lines that had it."""
    old, new = (f'"tenant":{json.dumps(name)}'.encode() for name in (before, after))
    with path.open("rb") as lines:
        found = sum(old in line for line in lines)
    if not found or not is_meant:
        return found
    beside = path.with_name(f".{path.name}.anew")
    with path.open("rb") as lines, beside.open("wb") as anew:
        shutil.copymode(path, beside)
        anew.writelines(line.replace(old, new, 1) if old in line else line for line in lines)
        anew.flush()
        os.fsync(anew.fileno())
    beside.replace(path)
    return found


def _write_whole(descriptor: int, lines: bytes, size: int) -> None:
    """Write all lines or none: what a full disk has cut is taken back."""
    done = 0
    try:
        while done < len(lines):
            done += os.write(descriptor, lines[done:])
    except OSError:
        os.ftruncate(descriptor, size)
        raise
