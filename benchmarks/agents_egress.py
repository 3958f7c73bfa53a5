"""Who a process connects to, noted by an audit hook of the interpreter: what connects from Python cannot pass it by.

A `sitecustomize` module of the benchmark's own installs it in every process before anything else is imported.
Sockets that compiled code opens by itself would pass it by: those are seen by looking at the open ones often.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

#: Variable that names the file in which everything is noted.
VARIABLE = "BENCH_EGRESS"
#: What the interpreter says before it sends or resolves, and where in its arguments the address is.
_EVENTS = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0}
#: What reaches nobody but this machine.
_HERE = frozenset({"", "None", "localhost", "127.0.0.1", "::1", "0.0.0.0"})
#: Seconds between two looks at the open sockets.
LOOK_S = 0.5


def install() -> None:
    """Note every address from now on, one a line; the first line says that this process is watched."""
    log = os.open(os.environ[VARIABLE], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(log, f"watched {os.getpid()}\n".encode())

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        place = _EVENTS.get(event)
        if place is not None and arguments[place] is not None:
            os.write(log, f"{_written(event, arguments[place])}\n".encode())

    sys.addaudithook(hook)


def _written(event: str, address: object) -> str:
    if isinstance(address, tuple):
        return f"{address[0]} {address[1]}"
    if event == "socket.getaddrinfo":
        return f"{address if isinstance(address, str) else str(address)} *"
    return f"unix {address!r}"


class Egress:
    """What a fleet's processes connect to.

    Args:
        home: Folder for what is noted.
        ports: Of this machine: who may be connected to.
    """

    def __init__(self, home: Path, ports: frozenset[int]) -> None:
        self._log, self._folder, self._ports = home / "egress.log", home / "egress", ports
        self._folder.mkdir()
        hook = "from benchmarks import agents_egress\n\nagents_egress.install()\n"
        (self._folder / "sitecustomize.py").write_text(hook)
        self._seen: set[str] = set()

    def environment(self, root: Path) -> dict[str, str]:
        """Return the variables that let a process be watched."""
        return {VARIABLE: str(self._log), "PYTHONPATH": f"{self._folder}{os.pathsep}{root}"}

    @contextmanager
    def looking(self, processes: list[psutil.Process]) -> Iterator[None]:
        """Look at the open sockets of processes, and of those that they start, until the block ends."""
        over = threading.Event()
        thread = threading.Thread(target=self._look, args=(processes, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _look(self, processes: list[psutil.Process], over: threading.Event) -> None:
        while not over.wait(LOOK_S):
            for process in processes:
                for one in _family(process):
                    self._seen |= _connected(one)

    def watched(self) -> set[int]:
        """Return the ids of the processes that were watched from their start."""
        return {int(line.split()[1]) for line in self._lines() if line.startswith("watched ")}

    def foreign(self) -> list[str]:
        """Return everybody that was connected to, sent to or looked up, but for those that may be."""
        found = {line for line in self._lines() if not line.startswith(("watched ", "unix "))} | self._seen
        return sorted(line for line in found if not self._is_allowed(line))

    def _lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def _is_allowed(self, line: str) -> bool:
        host, _, port = line.rpartition(" ")
        return host in _HERE and (port == "*" or int(port) in self._ports)


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _connected(process: psutil.Process) -> set[str]:
    """Return the far ends of what a process has open; what it listens on itself is none."""
    try:
        sockets = process.net_connections("inet")
    except psutil.Error:
        return set()
    own = {one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN}
    return {f"{one.raddr.ip} {one.raddr.port}" for one in sockets if one.raddr and one.laddr.port not in own}
