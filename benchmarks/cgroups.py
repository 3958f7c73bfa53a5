"""A process held to a share of a core by a cgroup of its own, version 1 or 2: it needs root, and a place to write."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Where the controllers of version 1 and the hierarchy of version 2 are mounted.
V1_CPU, V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
#: How the folders are called: with the process that made them, so that those of one that was killed are known.
NAME, NAMES = "fleet-bench-{pid}-{name}", "fleet-bench-*-*"
#: Microseconds after which a held process may go on: short, so that it is slow and does not come in bursts.
PERIOD_US = 20_000
#: Seconds until a cgroup whose process has ended can be removed.
REMOVE_S = 5.0


class NotHeld(Exception):
    """This machine lets nobody be held: not root, no cgroups, or not to be written here."""


@dataclass(frozen=True)
class Held:
    """The cgroup of a process that is held.

    Args:
        place: Its folder.
    """

    place: Path

    def periods(self) -> tuple[int, int]:
        """Return how many periods the process ran in, and in how many of them it was stopped (counts)."""
        stat = dict(line.split() for line in (self.place / "cpu.stat").read_text().splitlines())
        return int(stat["nr_periods"]), int(stat["nr_throttled"])


@contextmanager
def held(name: str, share: float) -> Iterator[Held]:
    """Make a cgroup whose processes get a share of one core, and remove it when the block ends, however it does.

    Args:
        name: Of the cgroup, unique in this process.
        share: Of a core: 0.15 is 15%.

    Raises:
        NotHeld: When that is not possible here.
    """
    folder, is_v1 = NAME.format(pid=os.getpid(), name=name), (V1_CPU / "cpu.cfs_quota_us").exists()
    try:
        _remove_left(V1_CPU if is_v1 else V2)
        place = _v1(V1_CPU / folder, share) if is_v1 else _v2(V2 / folder, share)
    except OSError as error:
        raise NotHeld(f"needs root and cgroups ({error.strerror}: {error.filename})") from error
    try:
        yield Held(place)
    finally:
        _remove(place)


def put(pid: int, where: Held) -> None:
    """Hold a process, all of its threads, until it ends."""
    (where.place / "cgroup.procs").write_text(str(pid))


def _v1(place: Path, share: float) -> Path:
    with _removed_on_error(place):
        (place / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (place / "cpu.cfs_quota_us").write_text(str(round(share * PERIOD_US)))
    return place


def _v2(place: Path, share: float) -> Path:
    if "cpu" not in (place.parent / "cgroup.subtree_control").read_text().split():
        (place.parent / "cgroup.subtree_control").write_text("+cpu")
    with _removed_on_error(place):
        (place / "cpu.max").write_text(f"{round(share * PERIOD_US)} {PERIOD_US}")
    return place


@contextmanager
def _removed_on_error(place: Path) -> Iterator[None]:
    place.mkdir()
    try:
        yield
    except BaseException:
        _remove(place)
        raise


def _remove_left(parent: Path) -> None:
    """Remove the cgroups of benchmarks that were killed."""
    for place in parent.glob(NAMES):
        pid = place.name.split("-")[2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            _remove(place)


def _remove(place: Path) -> None:
    """Remove a cgroup. A process that is still in it goes back to where all are."""
    deadline = time.monotonic() + REMOVE_S
    while True:
        with suppress(OSError):
            for pid in (place / "cgroup.procs").read_text().split():
                (place.parent / "cgroup.procs").write_text(pid)
        try:
            place.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
