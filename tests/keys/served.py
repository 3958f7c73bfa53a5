"""A fleet whose key is turned while it works: an API that knows which keys it takes, workers, and a steady producer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from click.testing import CliRunner

from fleet.cli.main import main
from fleet.models import BotResult
from tests.keys.surroundings import surroundings
from tests.redis_server import RedisServer
from tests.vault.keyed_api import KeyedApi, keyed_api
from tests.worker_process import WorkerProcess

#: Seconds for which a result is waited for, once nothing holds it up.
RESULT_S = 120.0
#: Seconds of a producer's turn: it submits what is due by then.
TURN_S = 0.05


def key_number(number: int) -> str:
    """Return one of many keys."""
    return f"sk-canary-{number:04d}-0123456789abcdef"


@dataclass
class Served:
    """A fleet of two workers whose one provider takes certain keys."""

    folder: Path
    api: KeyedApi
    server: RedisServer
    workers: list[WorkerProcess] = field(default_factory=list)

    def fleet(self, *words: str, stdin: str | None = None) -> str:
        done = CliRunner().invoke(main, words, input=stdin, catch_exceptions=False, prog_name="fleet")
        assert done.exit_code == 0, done.output
        return done.output

    def start_workers(self, count: int) -> None:
        self.workers += [WorkerProcess(self.folder) for _ in range(count)]
        for worker in self.workers:
            worker.wait_ready()

    def log(self) -> str:
        return "".join(worker.log for worker in self.workers)


@contextmanager
def served(provider: str, vault: str = "") -> Iterator[Served]:
    """Set it up, and leave nothing behind.

    Args:
        provider: Further lines of the provider's table.
        vault: The lines of [vault].
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="fleet-keys-", ignore_cleanup_errors=True)))
        api = stack.enter_context(keyed_api(key_number(1)))
        api.delay_s = 0.02
        server = RedisServer(folder)
        stack.callback(server.stop)
        (folder / "fleet.toml").write_text(
            f'[providers.acme]\nkind = "openai"\nbase_url = "{api.url}"\ntimeout_s = 5\n{provider}\n'
            '[pools.research]\nbots = 40\nprovider = "acme"\nmodel = "m"\n'
            f'[limits."acme/m"]\nrpm = 600000\n[vault]\n{vault}\n[worker]\nslots = 40\n'
        )
        scene = Served(folder, api, server)
        stack.enter_context(surroundings(folder, server.url, scene.workers))
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            del os.environ[name]
        yield scene


class Producer:
    """Submits tasks all the time, at a steady rate, as a thread.

    Args:
        rate: Tasks a second.
    """

    def __init__(self, rate: float) -> None:
        self.ids: list[str] = []
        self._rate = rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        from fleet.engine.messages.producer import submit_many

        began = time.monotonic()
        while not self._stop.wait(TURN_S):
            due = int((time.monotonic() - began) * self._rate) - len(self.ids)
            self.ids += submit_many({"prompt": "What is 2+2?", "pool": "research"} for _ in range(due))

    def results(self) -> list[BotResult]:
        """Stop, and return what became of all."""
        from celery.result import AsyncResult

        from fleet.engine.app import app

        self._stop.set()
        self._thread.join()
        until = time.monotonic() + RESULT_S
        handles: list[Any] = [AsyncResult(task_id, app=app) for task_id in self.ids]
        return [handle.get(timeout=max(1.0, until - time.monotonic())) for handle in handles]
