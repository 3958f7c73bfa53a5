"""No core dump is written of what holds keys, and nobody of its user reads its memory; asserted on a real worker."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.engine import core_dumps
from tests.forks import in_child
from tests.redis_server import RedisServer
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="expected /proc, as Linux has it")

#: `prctl(2)`: what `PR_SET_DUMPABLE` was set to.
PR_GET_DUMPABLE = 3


def soft_limit(pid: int) -> str:
    """Return how large a core dump of a process may be."""
    row = next(row for row in Path(f"/proc/{pid}/limits").read_text().splitlines() if row.startswith("Max core"))
    return row.split()[4]


def is_dumpable() -> bool:
    import ctypes

    return bool(ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0))


def seen_from_inside(work: Callable[[], object]) -> str:
    """Do `work` in a forked process, and return its limit and whether it may be dumped then."""

    def look() -> str:
        work()
        return f"{resource.getrlimit(resource.RLIMIT_CORE)[0]} {is_dumpable()}"

    return in_child(look)()


def test_a_process_is_closed_and_opened_again() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    assert seen_from_inside(core_dumps.forbid) == "0 False"
    assert seen_from_inside(lambda: (core_dumps.forbid(), core_dumps.settle(True))) == f"{hard} True"
    assert seen_from_inside(lambda: (core_dumps.allow(), core_dumps.settle(False))) == "0 False"


@pytest.mark.parametrize("is_on", [False, True])
def test_a_worker_is_closed_unless_the_settings_say_otherwise(
    own_redis: RedisServer, tmp_path: Path, is_on: bool
) -> None:
    (tmp_path / "opened.py").write_text(
        # Only root's files under /proc tell of the mark, and tests may run as root: the worker says it itself.
        "import ctypes\nfrom celery.signals import worker_ready\nfrom fleet.door import app\n\n"
        "@worker_ready.connect\ndef tell(**_):\n"
        f"    open('dumpable', 'w').write(str(ctypes.CDLL(None).prctl({PR_GET_DUMPABLE}, 0, 0, 0, 0)))\n"
    )
    env = {"FLEET_REDIS__URL": own_redis.url, "FLEET_SAFETY__CORE_DUMPS": str(is_on).lower()}
    worker = WorkerProcess(tmp_path, env=env, app="opened")
    try:
        worker.wait_ready()
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        wanted = "0" if not is_on else "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
        assert soft_limit(worker.pid) == wanted
        assert (tmp_path / "dumpable").read_text() == str(int(is_on))
        assert (Path(f"/proc/{worker.pid}/mem").stat().st_uid == os.getuid()) or not is_on
    finally:
        worker.kill()
