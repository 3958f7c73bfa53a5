"""Deny a Python process, and its Python children, every way out of this machine, and read what they tried.

It is an audit hook, which hears of every connection, datagram and lookup that Python's own sockets make, whatever
library asks. Weakness: libraries that bring sockets of their own in C (gRPC) are not heard, nor are children that are
started without PYTHONPATH.
"""

from __future__ import annotations

import os
from pathlib import Path

#: What the hook writes goes to the file that this names.
FILE_VARIABLE = "TEST_EGRESS_FILE"

_HOOK = f'''
import ipaddress, os, socket, sys

_FILE = os.environ.get("{FILE_VARIABLE}")
_OWN = ("", "localhost", socket.gethostname())


def _is_local(host):
    text = host.decode("utf-8", "replace") if isinstance(host, bytes) else str(host or "")
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback or text == "0.0.0.0"
    except ValueError:
        return text in _OWN


def _deny(event, args):
    if event in ("socket.connect", "socket.sendto"):
        place = args[1]
        host = place[0] if isinstance(place, tuple) else ""
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    else:
        return
    if _is_local(host):
        return
    fd = os.open(_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{{event}} {{host}}\\n".encode())
    os.close(fd)
    raise PermissionError(f"a test denies every way out of this machine: {{event}} {{host}}")


if _FILE:
    sys.addaudithook(_deny)
'''


class Egress:
    """One folder with the hook, and the file with what was tried.

    Args:
        folder: Where both go.

    Attributes:
        folder: What stands first on PYTHONPATH.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sitecustomize.py").write_text(_HOOK, encoding="utf-8")
        self.folder = folder
        self._tried = folder / "tried"

    def environment(self, *paths: Path) -> dict[str, str]:
        """Return the variables of a process that is denied.

        Args:
            paths: What else it imports from.
        """
        path = os.pathsep.join(str(one) for one in (self.folder, *paths))
        return {"PYTHONPATH": path, FILE_VARIABLE: str(self._tried)}

    def tried(self) -> list[str]:
        """Return what the processes tried, each time one line such as `socket.getaddrinfo api.example.com`."""
        return self._tried.read_text(encoding="utf-8").splitlines() if self._tried.exists() else []
