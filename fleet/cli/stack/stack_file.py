"""`stack.json` below the state folder: which processes `fleet up` runs, so that `fleet down` finds exactly those.

A lock beside it, held as long as the supervisor lives, decides whether a stack is up; the file only describes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from fleet.cli.stack.processes import ProcessId
from fleet.config import nearest_home
from fleet.errors import ConfigurationError, FleetError
from fleet.store.home import make_home, unusable, write_private
from fleet.store.private.service import down_command

STACK_FILE = "stack.json"
LOCK_FILE = "stack.lock"


class AlreadyUp(FleetError):
    """A supervisor runs in this state folder already."""


@dataclass(frozen=True, slots=True)
class StackPart:
    """One process of the stack as people see it."""

    name: str
    process: ProcessId | None
    address: str
    log: str


@dataclass(frozen=True, slots=True)
class Stack:
    """The supervisor and what runs for it.

    `owned` names the services that this stack started and will stop; `ready` is True once all parts can work.
    """

    supervisor: ProcessId
    children: tuple[StackPart, ...] = ()
    services: tuple[StackPart, ...] = ()
    owned: tuple[str, ...] = ()
    ready: bool = False


def write_stack(home: Path, stack: Stack) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    write_private(home / STACK_FILE, json.dumps(asdict(stack), indent=1))


def read_stack(home: Path) -> Stack | None:
    """Return what the last supervisor of this state folder wrote, or None when it left nothing behind.

    Raises:
        ConfigurationError: When the file is damaged: it is only ever replaced as a whole, so not by us.
    """
    path = home / STACK_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Stack(
            supervisor=ProcessId(**data["supervisor"]),
            children=tuple(_part(row) for row in data["children"]),
            services=tuple(_part(row) for row in data["services"]),
            owned=tuple(data["owned"]),
            ready=data["ready"],
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: expected what `fleet up` wrote, got {type(error).__name__}; delete it, and end by hand what it "
            "names"
        ) from error


def forget_stack(home: Path) -> None:
    """Remove the file: nothing of the stack is left."""
    (home / STACK_FILE).unlink(missing_ok=True)


def hold_lock(home: Path) -> IO[str]:
    """Take the state folder's supervisor lock; it is released when the returned file is closed or the process ends.

    Raises:
        AlreadyUp: When another supervisor holds it.
        ConfigurationError: When the state folder cannot be written.
    """
    make_home(home)
    try:
        file = (home / LOCK_FILE).open("a", encoding="utf-8")
    except OSError as error:
        raise unusable(home, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise AlreadyUp(_already_up(home)) from None
    return file


def is_ours(home: Path, lock: IO[str]) -> bool:
    """True while the state folder is the one in which this lock was taken; False once it was deleted."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), (home / LOCK_FILE).stat())
    except FileNotFoundError:
        return False


def is_up(home: Path) -> bool:
    """True while a supervisor holds the lock."""
    if not home.is_dir():
        return False
    try:
        with contextlib.closing(hold_lock(home)):
            return False
    except AlreadyUp:
        return True


def _part(row: dict[str, Any]) -> StackPart:
    process = row["process"] and ProcessId(**row["process"])
    return StackPart(row["name"], process, row["address"], row["log"])


def _already_up(home: Path) -> str:
    stack = read_stack(home)
    pid = f", pid {stack.supervisor.pid}" if stack else ""
    look = "fleet top" if home == nearest_home() else f"fleet --home {home} top"
    return f"already up in {home}{pid}; `{look}` shows it, `{down_command(home)}` stops it"
