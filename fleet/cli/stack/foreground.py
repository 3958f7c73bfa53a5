"""The life of one stack: Redis and simulator, workers and Flower, from start to stop, in the supervisor's process.

A supervisor that is killed by force leaves its workers running: they finish what they hold, and the next `fleet up`
or `fleet down` of the same state folder ends them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import IO

from fleet.cli.stack.background import READY_S, StackFailed, clear_leftovers, supervisor_log
from fleet.cli.stack.bystanders import tell
from fleet.cli.stack.local_services import REDIS, LocalServices
from fleet.cli.stack.processes import ProcessId
from fleet.cli.stack.readiness import BEAT, unready
from fleet.cli.stack.slot_bounds import SlotBounds
from fleet.cli.stack.stack_file import Stack, forget_stack, hold_lock, is_ours, read_stack, write_stack
from fleet.cli.stack.supervisor import ChildSpec, Supervisor
from fleet.cli.stack.watchdog import Watchdog
from fleet.cli.stop_signals import StopSignals
from fleet.config import FlowerSettings, Settings
from fleet.engine.operations.scaling.deciding import Decider
from fleet.errors import ConfigurationError
from fleet.store.private.log_file import LOOK_EVERY_S, rotate
from fleet.store.private.service import PYTHON_MODULE, still_running

#: Seconds between two looks at the children.
TICK_S = 0.2

Say = Callable[[str], None]


class ForegroundStack:
    """One stack, owned by this process.

    Args:
        settings: What to start.
        home: State folder; one stack at a time runs in it.
        flower: Whether Flower is part of it.
        autoscale: Slots of its workers at least and at most; None: their number is fixed.
        signals: Who asks to stop.
        say: Told in one line what happens.
    """

    def __init__(
        self, settings: Settings, home: Path, *, flower: bool, signals: StopSignals, say: Say,
        autoscale: SlotBounds | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._home = home
        self._signals = signals
        self._say = say
        self._flower, self._autoscale = flower, autoscale
        self._decider = Decider(settings, say) if autoscale is not None else None
        self._services = LocalServices(settings, home)
        self._supervisor = Supervisor((), say)
        self._watchdog = Watchdog(settings)
        self._stack = Stack(ProcessId.own())
        self._logs_at_s = 0.0

    def run(self, on_ready: Callable[[Stack], None]) -> None:
        """Start everything, call `on_ready`, keep it running until a stop is asked for, stop everything.

        Raises:
            AlreadyUp: When another supervisor runs in the state folder.
            ConfigurationError: When a configured Redis does not answer, or Flower's port is taken.
            StackFailed: When a child died before it was ready, or was not ready in time.
            KeyboardInterrupt: When a stop was asked for before all was ready.
        """
        with closing(hold_lock(self._home)) as lock:
            inherited = self._services.owned = self._clear_leftovers()
            try:
                # Not before: an orphaned Flower held the port until now.
                specs = child_specs(self._settings, self._home, flower=self._flower, autoscale=self._autoscale)
                self._supervisor = Supervisor(specs, self._say)
                self._start(inherited)
                on_ready(self._stack)
                self._watch(lock)
            finally:
                self._stop()

    def _clear_leftovers(self) -> tuple[str, ...]:
        """End what a killed supervisor left behind, Flower on its port too; return the services it owned.

        From here on `fleet down` finds this supervisor, and still finds what it has not ended yet.
        """
        before = read_stack(self._home) or self._stack
        write_stack(self._home, replace(before, supervisor=self._stack.supervisor, ready=False))
        left = clear_leftovers(self._home)
        write_stack(self._home, self._stack)
        for part in left.children if left else ():
            self._say(f"ended {part.name}, left behind by a supervisor that was killed")
        return left.owned if left else ()

    def _start(self, inherited: tuple[str, ...]) -> None:
        self._services.start(inherited)
        self._supervisor.start()
        self._publish()
        self._wait_ready()
        if self._decider is not None:
            self._decider.start()
        self._stack = replace(self._stack, ready=True)
        self._publish()

    def _watch(self, lock: IO[str]) -> None:
        while not self._signals.asked:
            if not is_ours(self._home, lock):
                self._say(f"{self._home} is gone, and the tasks in it: the stack ends")
                return
            revived = self._services.revive(time.monotonic())
            for line in revived:
                self._say(line)
            for hang in self._watchdog.look(self._supervisor.workers, time.monotonic()):
                self._supervisor.replace(hang.pid, hang.why)
            for line in self._watchdog.late(self._supervisor.workers):
                self._say(line)
            if self._supervisor.tick() or revived:
                self._publish_if_possible()
            self._rotate_logs(time.monotonic())
            time.sleep(TICK_S)

    def _rotate_logs(self, now_s: float) -> None:
        """Put logs aside that have grown, those of the services and the supervisor's own among them."""
        if now_s < self._logs_at_s:
            return
        self._logs_at_s = now_s + LOOK_EVERY_S
        parts = (*self._supervisor.parts, *self._services.parts)
        for log in (supervisor_log(self._home), *(Path(part.log) for part in parts if part.log)):
            rotate(log)

    def _stop(self) -> None:
        if self._decider is not None:
            self._decider.stop()
        if self._supervisor.children:
            self._say("stopping: workers finish what they run; once more ends them at once")
            self._supervisor.stop(insisted=lambda: self._signals.insisted)
        if REDIS in self._services.owned:
            for line in tell(self._settings, self._home):
                self._say(line)
        self._services.stop()
        forget_stack(self._home)
        if self._supervisor.children:
            left = still_running()  # what it did not start
            self._say(f"stopped; {left}" if left else "stopped")

    def _publish(self) -> None:
        services = self._services
        self._stack = replace(
            self._stack, children=self._supervisor.parts, services=services.parts, owned=services.owned
        )
        write_stack(self._home, self._stack)

    def _publish_if_possible(self) -> None:
        """A disk that is full now must not end a stack that runs."""
        try:
            self._publish()
        except ConfigurationError as error:
            self._say(f"{error}; the stack goes on, but `fleet down` may not find what was started just now")

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while missing := unready(self._supervisor.parts, self._settings):
            if self._signals.asked:
                raise KeyboardInterrupt
            for child in self._supervisor.children:
                if not child.running:
                    raise StackFailed(f"{child.spec.name} ended before it was ready; its log:\n{child.last_words()}")
            if time.monotonic() > deadline:
                logs = self._home / "logs"
                raise StackFailed(f"not ready within {READY_S:g} s: {', '.join(missing)}; see the logs in {logs}")
            time.sleep(TICK_S)


def child_specs(
    settings: Settings, home: Path, *, flower: bool, autoscale: SlotBounds | None = None
) -> list[ChildSpec]:
    """Return what a stack runs: `worker.processes` workers, celery beat for schedules and, if wanted, Flower."""
    celery = (*PYTHON_MODULE, "celery", "-A", "fleet")
    logs = home / "logs"
    scaled = () if autoscale is None else (f"--autoscale={autoscale.each(settings.worker.processes)}",)
    specs = [
        ChildSpec(
            name=f"w{number}",
            command=(
                *PYTHON_MODULE,
                "fleet.cli.stack.worker",
                "-A",
                "fleet",
                "worker",
                "-n",
                f"w{number}@%h",
                "--loglevel",
                "WARNING",
                *scaled,
            ),
            log=logs / f"w{number}.log",
            address=f"w{number}@{socket.gethostname()}",
            is_worker=True,
        )
        for number in range(1, settings.worker.processes + 1)
    ]
    if settings.schedules:
        specs.append(ChildSpec("beat", (*celery, "beat", "--loglevel", "WARNING"), logs / "beat.log", BEAT))
    if flower:
        host, port = settings.flower.address, flower_port(settings.flower)
        command = (*celery, "flower", f"--address={host}", f"--port={port}")
        specs.append(ChildSpec("flower", command, logs / "flower.log", f"http://{host}:{port}"))
    return specs


def flower_port(flower: FlowerSettings) -> int:
    """Return the port that Flower will listen on: the configured one, or a free one for 0.

    Raises:
        ConfigurationError: When the configured port is taken.
    """
    try:
        with socket.create_server((flower.address, flower.port)) as server:
            port: int = server.getsockname()[1]
            return port
    except OSError as error:
        raise ConfigurationError(
            f"flower.port: expected a free port on {flower.address}, got {flower.port} ({error.strerror}); "
            "set another one, 0 for any free one, or use --no-flower"
        ) from error
