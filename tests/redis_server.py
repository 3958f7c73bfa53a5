"""A throw-away Redis for tests: random loopback port, no persistence unless asked for; can be killed and frozen."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from fleet.config import RedisSettings
from fleet.errors import FleetError
from fleet.store.client import connect
from fleet.store.private.server import choose_server
from tests.ports import lasting_port
from tests.waiting import wait_until

#: Which server the tests run on: `bundled`, the path of a program, or what `redis.server` takes by default. conftest
#: leaves this one variable, so that what the tests start runs on it too.
SERVER_VARIABLE = "FLEET_REDIS__SERVER"


def server_program() -> Path:
    """Return the server that these tests run on."""
    settings = RedisSettings.model_validate({"server": os.environ.get(SERVER_VARIABLE, "auto")})
    return choose_server(settings.server)[0].program


class RedisServer:
    """One redis-server process, started by the constructor.

    Args:
        folder: Where it works.
        options: More of its command line.
        port: Its port, by default a free one.
        program: What to run, by default the server that these tests run on.
    """

    def __init__(self, folder: Path, *options: str, port: int | None = None, program: Path | None = None) -> None:
        self.program = program or server_program()
        self.port = port or lasting_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._options = options
        self.start()

    def start(self) -> None:
        """Start it (again), on the same port, and wait until it listens."""
        common = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        log = ["--logfile", str(self._folder / "redis-server.log")]
        self._process = subprocess.Popen([str(self.program), *common, *log, *self._options])
        wait_until(self._listens, timeout_s=10, what="the test's redis-server listens")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections, but answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self.alive:
            self.thaw()
            self.kill()

    def _listens(self) -> bool:
        try:
            connect(self.url, timeout_s=1).close()
        except FleetError as error:
            return "NOAUTH" in str(error)
        return True
