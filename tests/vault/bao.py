"""A real OpenBao in dev mode, in memory, on a free port: started by tests, to be frozen, sealed and killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.config import VaultSettings
from fleet.vault.kv import KvKey
from tests.waiting import wait_until

ROOT_TOKEN = "root-of-the-test"


def program() -> str | None:
    """Return the server's program; None: it is not installed."""
    beside = Path(sys.executable).parent / "bao"
    return str(beside) if beside.exists() else shutil.which("bao")


def installed() -> bool:
    """True where both the server and its client are."""
    try:
        import hvac  # noqa: F401
    except ImportError:
        return False
    return program() is not None


@dataclass
class Bao:
    """A dev server, its process and its clients."""

    address: str
    process: subprocess.Popen[bytes]
    client: Any

    def key(
        self, folder: Path, path: str = "fleet/acme#key", token: str = ROOT_TOKEN, *,
        clock: Callable[[], float] = time.time, **options: Any,
    ) -> KvKey:  # fmt: skip
        file = folder / "token"
        file.write_text(token)
        file.chmod(0o600)
        settings = VaultSettings(address=self.address, token_file=file, **options)
        name, _, field = path.partition("#")
        return KvKey(name, field, settings, clock=clock)

    def write(self, path: str, **fields: str) -> None:
        """Write a version of a secret."""
        self.client.secrets.kv.v2.create_or_update_secret(path=path, secret=fields)

    def go(self) -> None:
        """Be away: connections are accepted, and nothing is answered."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def come(self) -> None:
        """Be back."""
        os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def running_bao() -> Iterator[Bao]:
    """Run a server while the block lasts."""
    import hvac

    found = program()
    assert found is not None
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = [
        "-dev", "-dev-no-store-token", f"-dev-root-token-id={ROOT_TOKEN}", f"-dev-listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    process = subprocess.Popen([found, "server", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def is_up() -> bool:
        assert process.poll() is None
        try:
            return bool(opener.open(f"{address}/v1/sys/health", timeout=1).status == 200)
        except OSError:
            return False

    try:
        wait_until(is_up, 60, lambda: "a server that answers")
        yield Bao(address, process, hvac.Client(url=address, token=ROOT_TOKEN))
    finally:
        process.kill()
        process.wait()
