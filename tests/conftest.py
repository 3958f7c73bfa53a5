"""What every test shares: a private Redis, an own folder, no FLEET_* variables, and no way out to the internet."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from fleet import config
from fleet.engine.local_simulator import stop_simulator
from fleet.engine.transport import suspicion
from fleet.store import bill_keys, flow_keys, keys
from fleet.store.client import connect
from fleet.store.private.embedded import stop_redis
from tests.redis_server import SERVER_VARIABLE, RedisServer
from tests.waiting import wait_until

__all__ = ["wait_until"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: its children would ignore Ctrl-C too
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hundreds of processes start here. Where the environment forbids bytecode, each compiles Celery and pydantic anew: two
# seconds of work, not 0.8, before a worker does anything.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
for _name in ("COLUMNS", "LINES"):  # of readline, in the process that pytest-xdist was started in: nobody's screen
    os.environ.pop(_name, None)

# A busy machine is no reason to fail, and a fixture of one test may serve all its examples.
hypothesis.settings.register_profile(
    "fleet", deadline=None, max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
hypothesis.settings.load_profile("fleet")

REPO = Path(__file__).parents[1]
#: Read before the variables are removed: the public data sets, if they are on this machine.
DATA_DIR = Path(os.environ.get("FLEET_DATA_DIR") or REPO.parent / "shared" / "data")
LOCAL_NAMES = {"localhost", "", socket.gethostname()}


def pytest_collection_finish() -> None:
    """Refuse test modules that read Celery's settings as they are imported: the app would stay with another Redis."""
    found = sys.modules.get("fleet.engine.app")
    if found is not None and found.app.configured:
        raise pytest.UsageError(
            "expected an app without settings, got one: import fleet.engine.tasks inside tests only"
        )


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The private Redis of this test run."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_process: RedisServer) -> str:
    """URL of an empty Redis."""
    with connect(redis_process.url, timeout_s=5) as client:
        client.flushall()
    return redis_process.url


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test only, which may kill or freeze it."""
    folder = tmp_path / "own-redis"
    folder.mkdir()
    server = RedisServer(folder)
    yield server
    server.stop()


@pytest.fixture
def data_dir() -> Path:
    """Folder of the public data sets."""
    if not DATA_DIR.is_dir():
        pytest.skip(f"needs the data sets: expected them in {DATA_DIR}; set FLEET_DATA_DIR")
    return DATA_DIR


@pytest.fixture(autouse=True)
def fleet_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run the test in an empty folder with default settings, and stop what it leaves running there."""
    ours = [name for name in os.environ if name.startswith(("FLEET_", "CELERY_")) and name != SERVER_VARIABLE]
    for name in ours:
        monkeypatch.delenv(name)
    home = tmp_path / ".fleet"
    monkeypatch.setenv("FLEET_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    forget = config.current.cache_clear  # a test may put something else in its place
    forget()
    monkeypatch.setattr(suspicion, "_witness", None)  # the app asks one of the Redis that it was configured with
    yield home
    forget()
    keys.use_prefix("")
    bill_keys.use_prefix("")
    flow_keys.use_prefix("")
    stop_redis(home)
    stop_simulator(home)


@pytest.fixture(autouse=True, scope="session")
def no_internet() -> Iterator[None]:
    """Make every connection that leaves this machine an error."""
    patch = pytest.MonkeyPatch()
    really_look_up = socket.getaddrinfo
    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, _local_only(getattr(socket.socket, name)))

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else host or ""
        if text.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if text not in LOCAL_NAMES and not _is_number(text):
            raise RuntimeError(f"a test looked up {text!r}: tests do not use the internet")
        return really_look_up(host, *args, **kwargs)

    patch.setattr(socket, "getaddrinfo", look_up)
    yield
    patch.undo()


def _local_only(really_connect: Any) -> Any:
    def connect_locally(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(str(address[0])):
            raise RuntimeError(f"a test connected to {address!r}: tests do not use the internet")
        return really_connect(self, address)

    return connect_locally


def _is_loopback(host: str) -> bool:
    return host in LOCAL_NAMES or (_is_number(host) and ipaddress.ip_address(host).is_loopback)


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
