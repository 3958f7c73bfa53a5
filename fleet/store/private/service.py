"""`LocalService`: a server that Fleet starts on loopback, detached, and finds again later. Redis and the simulator.

In the state folder each service has NAME.json (port, password, pid; mode 0600), NAME.log, NAME.lock (held while one
process starts or stops it) and NAME.alive (held by the running server itself: see `is_alive`).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fleet.config import nearest_home
from fleet.errors import ConfigurationError, StoreUnavailable
from fleet.store.home import make_home, unusable, write_private
from fleet.store.private.surroundings import handed_on

#: Opens each command line of a child: `-P` keeps a user's redis.py or queue.py in the working folder from being taken
#: for the module of that name. A user's own modules are found all the same (`load_function` looks for them there).
PYTHON_MODULE = (sys.executable, "-P", "-m")
#: The only address that local services listen on.
LOOPBACK = "127.0.0.1"
#: Seconds between two looks at a service that starts or stops.
POLL_S = 0.01
#: Ports tried when somebody else takes ours between choosing and listening.
PORTS_TRIED = 3
#: Seconds between two looks at whether the folder of a server is still there. Each costs a fork.
WATCH_S = 2
#: Starts a server in the background, with its output in $0, and prints its pid. A shell (0.3 MB) stays behind as its
#: parent: the server survives its starter and leaves no zombie, and while it is watched its pid is not used again. The
#: shell ends the server when $1, the folder it was started in, is gone or another one, and itself with the server: the
#: trap cuts its nap short. Descriptor 4 is the lock that shows the server alive.
_DETACH = f"""
log=$0 folder=$1
shift
exec 3>&1 4<&0 </dev/null
(
  trap : CHLD
  "$@" >>"$log" 2>&1 3>&- &
  server=$!
  echo $server >&3
  exec >/dev/null 2>&1 3>&- 4<&-
  while kill -0 $server; do
    [ "$folder" -ef . ] || kill $server
    sleep {WATCH_S} &
    nap=$!
    wait $nap
  done
  kill $nap
) &
"""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What NAME.json keeps: how a service was started last, and where it listens."""

    port: int
    password: str = field(repr=False)
    options: tuple[str, ...] = ()
    pid: int | None = None
    program: str | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a service once: its command line, and what ends the line that tells of the start."""

    argv: list[str]
    note: str = ""


@dataclass(frozen=True, slots=True)
class LocalService:
    """Description of a local server.

    Args:
        name: File names in `home` begin with it.
        title: What it is called in messages, with its article: "a private Redis".
        home: The state folder.
        launch: Builds the command line for a port and a password (and writes the files it names).
        probe: True when our own service, and not a foreign one, answers.
        options: What it is started with; a service that runs with other options is restarted.
        advice: What to do when it does not start; ends the error message.
        folder: Where it works, by default the state folder; the server ends when this is gone. `launch` may make it.
    """

    name: str
    title: str
    home: Path
    launch: Callable[[ServiceState], Launch]
    probe: Callable[[ServiceState], bool]
    options: tuple[str, ...] = ()
    advice: str = "read the log"
    folder: Path | None = None

    def ensure(self, *, timeout_s: float) -> ServiceState:
        """Find the service or start it; of several callers at once, one starts it.

        A process that has had it before does not make a state folder anew that was deleted meanwhile: whoever deleted
        it wanted it gone, and what was queued in it is.

        Raises:
            ConfigurationError: When it does not start, does not answer within `timeout_s`, its files cannot be
                written, or its state folder was deleted.
        """
        _used[self.path("alive")] = self
        try:
            state = self.find() or self._started(time.monotonic() + timeout_s)
        except OSError as error:
            raise unusable(self.home, error) from error
        _had.add(self.path("alive"))
        return state

    def _started(self, deadline: float) -> ServiceState:
        had = self.path("alive") in _had
        try:
            with self._locked(deadline, again=had):
                return self.find() or self._start(deadline)
        except FileNotFoundError as error:
            if not had:
                raise
            raise ConfigurationError(
                f"{error.filename} was deleted while this process used {self.title}, and what was queued there is "
                "gone; end this process and start it again"
            ) from error

    def find(self) -> ServiceState | None:
        """Return the state of the service if it runs as wanted and answers, else None."""
        state = self.read()
        wanted = state is not None and state.options == self.options
        return state if wanted and state is not None and self.is_alive() and self.probe(state) else None

    def stop(self, ask: Callable[[ServiceState], None], *, timeout_s: float) -> bool:
        """Ask the service to end and wait until it is gone.

        Returns:
            False when it did not run.

        Raises:
            StoreUnavailable: When it still runs after `timeout_s`.
        """
        if not self.is_alive():
            return False
        deadline = time.monotonic() + timeout_s
        try:
            with self._locked(deadline, again=True):
                self._stop(ask, deadline)
        except FileNotFoundError as error:  # its folder was deleted just now: it ends by itself
            if self.is_alive():
                raise unusable(self.home, error) from error
        return True

    def _stop(self, ask: Callable[[ServiceState], None], deadline: float) -> None:
        """Ask it to end and wait; the caller holds the lock."""
        state = self.read()
        if state is not None and self.is_alive():
            self._write(replace(state, pid=None))  # first: who sees it gone must know that it was meant
            ask(state)
        if not self._wait(lambda: not self.is_alive(), deadline):
            if state is not None:
                self._write(state)
            pid = state.pid if state else None
            raise StoreUnavailable(f"{self.title} (pid {pid}) still runs after it was asked to end")

    def has_died(self) -> bool:
        """True for a service that ran here and is gone without `stop`: killed, crashed, out of memory.

        Not one whose files are deleted just now, in whatever order.
        """
        state = self.read()
        return state is not None and state.pid is not None and self.path("alive").exists() and not self.is_alive()

    def is_alive(self) -> bool:
        """True while the server process exists, whether it answers or not.

        The server inherits a descriptor that holds a lock on NAME.alive; the kernel frees it when the server dies.
        No pid is trusted for this: pids are used again after a reboot. Weakness: on a network file system the lock
        may not be inherited, and then only the probe stands between two servers on the same data.
        """
        try:
            handle = os.open(self.path("alive"), os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def path(self, suffix: str) -> Path:
        """Return the path of one of the service's files."""
        return self.home / f"{self.name}.{suffix}"

    def read(self) -> ServiceState | None:
        """Return the recorded state, None when there is none or it is damaged."""
        try:
            data = json.loads(self.path("json").read_text(encoding="utf-8"))
            return ServiceState(
                int(data["port"]), str(data["password"]), tuple(data["options"]), data["pid"], data.get("program")
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _start(self, deadline: float) -> ServiceState:
        """Start the service; the caller holds the lock."""
        if self.is_alive():
            found = self._join(deadline)
            if found is not None:
                return found
        state = self.read() or ServiceState(free_port(), secrets.token_urlsafe(24))
        for _ in range(PORTS_TRIED):
            port = state.port if is_free(state.port) else free_port()
            state = replace(state, port=port, options=self.options, pid=None)
            launch = self.launch(state)
            state, offset = self._spawn(replace(state, program=launch.argv[0]), launch.argv)
            if self._comes_up(state, deadline):
                where = f"{LOOPBACK}:{state.port}"
                print(f"fleet: started {self.title} on {where}{launch.note}", file=sys.stderr)
                return state
            if self.is_alive() or is_free(state.port):
                break
        raise ConfigurationError(self._complaint(state, offset))

    def _join(self, deadline: float) -> ServiceState | None:
        """Wait for a service that runs but did not answer; end one that runs with other options."""
        state = self.read()
        if state is not None and state.options != self.options:
            end(state)
            self._wait(lambda: not self.is_alive(), deadline)
        elif state is not None and self._comes_up(state, deadline):
            return state
        if self.is_alive():
            raise ConfigurationError(
                f"expected {self.title} to answer as {self.path('json')} says, but a server that was started from "
                f"{self.home} (pid {state.pid if state else 'unknown'}) does not; end that process and try again"
            )
        return None

    def _comes_up(self, state: ServiceState, deadline: float) -> bool:
        """Wait until the service answers, or is gone."""
        return self._wait(lambda: not self.is_alive() or self.probe(state), deadline) and self.is_alive()

    def _spawn(self, state: ServiceState, argv: list[str]) -> tuple[ServiceState, int]:
        """Start the process, detached; return its state and where its log begins."""
        self._write(state)
        log = self.path("log")
        offset = log.stat().st_size if log.exists() else 0
        folder = self.folder or self.home
        alive = os.open(self.path("alive"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(alive, fcntl.LOCK_EX)
            shell = subprocess.run(
                ["/bin/sh", "-c", _DETACH, str(log), str(folder), *argv], stdin=alive, stdout=subprocess.PIPE,
                cwd=folder, env=handed_on(os.environ), start_new_session=True, umask=0o077, check=True,
            )  # fmt: skip
            state = replace(state, pid=int(shell.stdout))
        except (subprocess.SubprocessError, ValueError) as error:
            raise ConfigurationError(
                f"expected /bin/sh to start {self.title}, got {type(error).__name__}: is this machine out of memory, "
                "processes or files?"
            ) from error
        finally:
            os.close(alive)
        self._write(state)
        return state, offset

    def _write(self, state: ServiceState) -> None:
        write_private(self.path("json"), json.dumps(asdict(state)))

    def _complaint(self, state: ServiceState, offset: int) -> str:
        log = self.path("log")
        lines = log.read_bytes()[offset:].decode(errors="replace").split("\n") if log.exists() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return f"expected {self.title} to start on {LOOPBACK}:{state.port}, got {last!r} (log: {log}); {self.advice}"

    @contextmanager
    def _locked(self, deadline: float, *, again: bool) -> Iterator[None]:
        """Hold the lock; `again`: the service has run, so that a file which is not there was deleted, and stays so."""
        if again:
            self.path("alive").stat()
        else:
            make_home(self.home)
        handle = os.open(self.path("lock"), os.O_WRONLY | (0 if again else os.O_CREAT), 0o600)
        with os.fdopen(handle, "w"):
            if not self._wait(lambda: _try_lock(handle), deadline):
                raise ConfigurationError(
                    f"expected {self.path('lock')} to become free, but another process holds it; end that process"
                )
            yield

    @staticmethod
    def _wait(is_so: Callable[[], bool], deadline: float) -> bool:
        while not is_so():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return True


#: What this process has looked for or started, by the file that shows it alive.
_used: dict[Path, LocalService] = {}
#: Of these, what it has once had.
_had: set[Path] = set()


def still_running() -> str | None:
    """Return what a person who stops this process should hear: which local services it leaves, and how to end them.

    None when it has used none, or they have ended, or it was told before: once is enough.
    """
    left = [service for service in _used.values() if service.is_alive()]
    _used.clear()
    if not left:
        return None
    many = len(left) > 1
    return (
        f"{' and '.join(service.title for service in left)} {'run' if many else 'runs'} on; "
        f"`{down_command(left[0].home)}` ends {'them' if many else 'it'}"
    )


def down_command(home: Path) -> str:
    """Return the command that ends what runs for a state folder, as short as it may be typed here."""
    return "fleet down" if home == nearest_home() else f"fleet --home {home} down"


def end(state: ServiceState) -> None:
    """Ask a service to end with SIGTERM."""
    if state.pid is not None:
        try:
            os.kill(state.pid, signal.SIGTERM)
        except ProcessLookupError:
            return


def free_port() -> int:
    """Return a loopback port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


def is_free(port: int) -> bool:
    """True when nobody listens on this loopback port."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
