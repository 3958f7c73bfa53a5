"""macOS cannot be run here: the whole stack runs without what only Linux has, and no source names any of it.

The names are those that the documentation of Python's standard library gives to Linux (or to all but macOS).
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack_processes import OPEN, end_all_of
from tests.test_floors import ROOT, modules_of

#: Seconds for a whole stack to start and work on a busy machine.
SLOW_S = 90.0
#: Module -> beginnings of the names that macOS does not have.
LINUX_ONLY = {
    "os": (
        "eventfd", "EFD_", "timerfd", "TFD_", "memfd_create", "MFD_", "pidfd_open", "PIDFD_", "sched_", "SCHED_",
        "splice", "SPLICE_", "copy_file_range", "getrandom", "GRND_", "posix_fadvise", "posix_fallocate", "POSIX_FADV",
        "pipe2", "fdatasync", "getxattr", "setxattr", "listxattr", "removexattr", "XATTR_", "setns", "unshare",
        "getresuid", "getresgid", "O_TMPFILE", "O_PATH", "O_DIRECT", "O_NOATIME", "RWF_",
    ),
    "signal": ("pidfd_send", "SIGRTM", "SIGPOLL", "SIGPWR", "SIGSTKFLT", "SIGCLD", "sigtimedwait", "sigwaitinfo"),
    "select": ("epoll", "EPOLL"),
    "socket": (
        "SOCK_CLOEXEC", "SOCK_NONBLOCK", "SO_PEERCRED", "SO_BINDTODEVICE", "SO_MARK", "TCP_USER_TIMEOUT",
        "TCP_QUICKACK", "TCP_KEEPIDLE", "TCP_DEFER_ACCEPT", "TCP_CORK", "TCP_INFO",
    ),
    "resource": ("RUSAGE_THREAD", "RLIMIT_OFILE", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RT"),
}  # fmt: skip
#: What every Python process of the stack does first: it takes the names away, and leaves a file with its pid.
TAKE_AWAY = """\
import os, pathlib
for module, beginnings in {names!r}.items():
    found = __import__(module)
    for name in [name for name in dir(found) if name.startswith(beginnings)]:
        delattr(found, name)
os.process_cpu_count = os.cpu_count  # as Python has it on a system without sched_getaffinity
pathlib.Path({seen!r}, str(os.getpid())).touch()
"""


def linux_only(source: str) -> Iterator[str]:
    """Yield what a source uses of Linux alone: names of the standard library, and paths under /proc and /sys."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [(node.value.id, node.attr)]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = []
            if node.value.startswith(("/proc/", "/sys/", "/dev/shm")):
                yield node.value
        else:
            continue
        yield from (f"{module}.{name}" for module, name in names if name.startswith(LINUX_ONLY.get(module, "\0")))


@pytest.mark.parametrize(
    "source", ["os.eventfd(0)", "from select import epoll", "open('/proc/self/stat')", "signal.SIGRTMIN + 1"]
)
def test_a_name_of_linux_alone_is_found(source: str) -> None:
    assert len(list(linux_only(source))) == 1


def test_no_module_uses_what_only_linux_has() -> None:
    found = {name: list(linux_only(path.read_text(encoding="utf-8"))) for name, path in modules_of(ROOT).items()}
    assert {name: used for name, used in found.items() if used} == {}


@pytest.fixture
def elsewhere(tmp_path: Path, fleet_home: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """Variables under which no Python process has those names, and the folder where each leaves its pid."""
    seen = tmp_path / "seen"
    seen.mkdir()
    (tmp_path / "path").mkdir()
    text = TAKE_AWAY.format(names=LINUX_ONLY, seen=str(seen))
    (tmp_path / "path" / "sitecustomize.py").write_text(text, encoding="utf-8")
    yield {**os.environ, **dict([OPEN]), "PYTHONPATH": f"{tmp_path / 'path'}{os.pathsep}{ROOT}"}, seen
    end_all_of(fleet_home)


def test_the_demo_runs_without_what_only_linux_has(elsewhere: tuple[dict[str, str], Path]) -> None:
    env, seen = elsewhere
    command = [sys.executable, "-P", "-m", "fleet.cli.main", "demo", "--tasks", "60"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SLOW_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "60 of 60 done" in done.stderr
    assert len(list(seen.iterdir())) >= 6  # the command, the supervisor, the simulator, two workers, Flower
