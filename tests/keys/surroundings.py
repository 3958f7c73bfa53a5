"""A place of its own for a fleet in this process, and nothing of it left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet import config
from tests.stack_processes import end_all_of
from tests.worker_process import WorkerProcess


@contextmanager
def surroundings(folder: Path, redis_url: str, workers: list[WorkerProcess], **variables: str) -> Iterator[None]:
    """Let this process and its children find a fleet's folder, and give back what was before.

    Args:
        folder: With fleet.toml; the working directory meanwhile.
        redis_url: The fleet's.
        workers: Killed at the end, whatever they are then.
        variables: Further ones of the environment.
    """
    before, here = dict(os.environ), Path.cwd()
    os.environ |= {
        "FLEET_CONFIG": str(folder / "fleet.toml"), "FLEET_HOME": str(folder / "home"), "FLEET_REDIS__URL": redis_url,
        **variables,
    }  # fmt: skip
    os.chdir(folder)
    config.current.cache_clear()
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
        end_all_of(folder)
        os.chdir(here)
        os.environ.clear()
        os.environ |= before
        config.current.cache_clear()
