"""A real `celery -A fleet worker` process for tests, with a log to read, to be stopped, killed or frozen."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.waiting import wait_until

REPO = Path(__file__).parents[1]
#: Seconds until a worker must be ready on a busy machine.
READY_S = 120
#: Celery waits a second for the answers of other workers before it starts, and nothing of Fleet's is in them. What
#: `fleet up`, the demo and README start waits for them, as with users.
_AT_ONCE = "--without-mingle"
#: An app for `WorkerProcess(app=...)`: the worker has short leases, for tests that wait until one runs out.
QUICK_LEASES = "tests.quick_leases"
_numbers = itertools.count(1)


class WorkerProcess:
    """One worker process, started by the constructor; `wait_ready` waits until it takes tasks.

    Args:
        folder: Where its log goes.
        options: Further options of `celery worker`.
        env: Variables on top of the test's own.
        app: Celery app, as for `-A`.
        inside: Command that runs it somewhere else, such as in a network of its own.
        program: Module that runs it: `fleet up`'s, a sixth quicker, or `celery`.
    """

    def __init__(
        self, folder: Path, *options: str, env: dict[str, str] | None = None, app: str = "fleet",
        inside: Sequence[str] = (),
        program: str = "fleet.cli.stack.worker",
    ) -> None:  # fmt: skip
        name = f"w{next(_numbers)}-{os.getpid()}"
        #: As Celery has it.
        self.name = f"{name}@test"
        self.log_path = folder / f"{name}.log"
        command = [sys.executable, "-m", program, "-A", app, "worker", "-n", self.name, "--loglevel", "INFO", _AT_ONCE]
        variables = {**os.environ, "PYTHONPATH": f"{REPO}{os.pathsep}{folder}", **(env or {})}
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*inside, *command, *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=variables,
                cwd=folder,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self) -> WorkerProcess:
        """Wait until the worker consumes; fails at once, with its log, when it has died. One that fails is killed."""

        def ready() -> bool:
            assert self.alive, self.log
            return " ready." in self.log

        try:
            wait_until(ready, READY_S, lambda: f"the worker is ready; log:\n{self.log}")
        except BaseException:
            self.kill()  # no fixture knows it yet, and a later test would fail for it
            raise
        return self

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_s: float = 30) -> int:
        """Wait for its end and return its exit code; one that hangs tells where its threads stand, and is killed."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGUSR1)  # Celery logs all stacks
            time.sleep(1)
            self.kill()
            raise AssertionError(f"expected its end within {timeout_s} s, got none; log:\n{self.log}") from None

    def kill(self) -> None:
        """kill -9, and wait."""
        if self.alive:
            self._process.kill()
        self._process.wait()
