"""A real `celery -A fleet flower` process for tests, asked over HTTP."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path

from fleet.store.private.service import free_port
from tests.waiting import wait_until

#: Seconds until Flower listens on a busy machine.
START_S = 30.0


class Flower:
    """One Flower process that listens."""

    def __init__(self, log: Path, port: int, prefix: str = "") -> None:
        self.log = log
        self._port = port
        self._prefix = prefix

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def get(self, path: str, login: str | None = None) -> tuple[int, str]:
        """Return status and body; `login` is user:password."""
        status, _, body = self.ask("GET", path, login)
        return status, body

    def ask(
        self, method: str, path: str, login: str | None = None, body: str | None = None, **headers: str
    ) -> tuple[int, Message, str]:
        """Send one request and return status, headers and body."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            if login is not None:
                sent["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
            connection.request(method, path, body, sent)
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read().decode()
        finally:
            connection.close()

    @property
    def listens(self) -> bool:
        try:
            return self.get(f"{self._prefix}/healthcheck")[0] == 200
        except OSError:
            return False


@contextmanager
def running(
    folder: Path, redis_url: str, *options: str, env: dict[str, str] | None = None, prefix: str = ""
) -> Iterator[Flower]:
    port = free_port()
    flower = Flower(folder / "flower.log", port, prefix)
    command = [sys.executable, "-m", "celery", "-A", "fleet", "flower", *options]
    variables = {**os.environ, "FLEET_REDIS__URL": redis_url, "FLEET_FLOWER__PORT": str(port), **(env or {})}
    with flower.log.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables)
    try:
        wait_until(lambda: flower.listens or process.poll() is not None, START_S, "Flower listens")
        assert process.poll() is None, flower.log.read_text()
        yield flower
    finally:
        process.terminate()
        process.wait(20)
