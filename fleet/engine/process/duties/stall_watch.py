"""A thread that ends a worker which stands still, so that whoever keeps workers alive starts a new one.

`fleet up`, systemd (`Restart=on-failure`), Docker (`restart: unless-stopped`) and Kubernetes all do. What the process
held comes back by its leases. While a C function holds the GIL no thread runs, this one neither; so the kernel counts:
a timer of CPU time that this thread winds up every second. It does not run in a process that is stopped or sleeps.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping

import redis

from fleet import config
from fleet.errors import FleetError
from fleet.quoting import duration
from fleet.signals import catalogue
from fleet.signals.events import record_event_now
from fleet.store.client import connect
from fleet.store.private.embedded import broker_url, state_url

#: What Celery's main thread is called here.
MAIN_THREAD = "main thread"
#: Exit code of a worker that ended itself because it stood still: EX_TEMPFAIL of sysexits.h, "try again".
EXIT_STALLED = 75
#: Seconds between two looks.
LOOK_EVERY_S = 1.0
#: Seconds between two looks after which it was the whole process that stood: nothing is concluded from that.
PAUSE_S = 4 * LOOK_EVERY_S
#: How much longer a part may take until its first turn: the user's handlers of `worker_ready` may load a model before.
FIRST_FACTOR = 3.0
#: Seconds for one answer of Redis.
TIMEOUT_S = 1.0
#: File descriptor of stderr: Celery puts an object without one in place of `sys.stderr`.
STDERR = 2

logger = logging.getLogger("fleet.worker")

#: By name, something that changes whenever that part of the process turns; None: it is not to be judged now.
Beats = Mapping[str, float | None]


class Stalls:
    """Tells from successive beats what stands still.

    Args:
        hang_s: Seconds for which a part may stand; `FIRST_FACTOR` times that before its first turn.
    """

    def __init__(self, hang_s: float) -> None:
        self._hang_s = hang_s
        self._moved: dict[str, tuple[float | None, float]] = {}
        self._have_turned = set[str]()
        self._looked_s: float | None = None

    def look(self, beats: Beats, now_s: float) -> tuple[str, float] | None:
        """Return the part that has stood for too long and its seconds, if any.

        Args:
            beats: Of all parts.
            now_s: Monotonic time.
        """
        if self._looked_s is not None and now_s - self._looked_s > PAUSE_S:
            self._moved.clear()  # the process was stopped, or this thread got no turn either
        self._looked_s = now_s
        for name, beat in beats.items():
            last = self._moved.get(name)
            if last and None not in (beat, last[0]) and last[0] != beat:
                self._have_turned.add(name)
            if last is None or beat is None or last[0] != beat:
                self._moved[name] = beat, now_s
            elif now_s - last[1] > self._hang_s * (1 if name in self._have_turned else FIRST_FACTOR):
                return name, now_s - last[1]
        return None

    def forgive(self, name: str) -> None:
        """Count a part anew: it stands for a reason."""
        self._moved.pop(name, None)


class StallWatch:
    """The watch over one worker process.

    Args:
        name: The worker's name.
        beats: Asked every second, in this watch's thread.
    """

    def __init__(self, name: str, beats: Callable[[], Beats]) -> None:
        self._settings = config.current()
        self._name = name
        self._beats = beats
        self._stalls = Stalls(self._settings.worker.hang_s)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fleet-watch", daemon=True)

    def start(self) -> None:
        """Watch from now on. Once per process."""
        # Then the signal's default action: the process ends.
        faulthandler.register(signal.SIGVTALRM, file=STDERR, all_threads=True, chain=True)
        self._wind_up()
        self._thread.start()

    def stop(self) -> None:
        """Watch no more: the process ends on purpose."""
        self._stopped.set()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            self._wind_up()
            stalled = self._stalls.look(self._beats(), time.monotonic())
            if stalled is None or self._stopped.is_set():
                continue
            part, seconds = stalled
            if part == MAIN_THREAD and not self._broker_answers():  # it waits for it, as it should
                self._stalls.forgive(part)
                continue
            self._end(f"its {part} has stood still for {duration(seconds)}")

    def _wind_up(self) -> None:
        """Let the kernel end this process when it burns that much CPU time before the next look.

        All cores together may burn it without the GIL, in a numeric library; so with many cores it is more.
        """
        if not self._stopped.is_set():
            cores = os.cpu_count() or 1
            signal.setitimer(signal.ITIMER_VIRTUAL, max(self._settings.worker.hang_s, 2 * LOOK_EVERY_S * cores))

    def _broker_answers(self) -> bool:
        try:
            connect(broker_url(self._settings), timeout_s=TIMEOUT_S).close()
        except (FleetError, redis.RedisError, OSError):
            return False
        return True

    def _end(self, why: str) -> None:
        """End the process; nothing may keep it, locks that somebody holds neither."""
        faulthandler.dump_traceback(file=STDERR, all_threads=True)
        try:
            with connect(state_url(self._settings), timeout_s=TIMEOUT_S) as client:
                record_event_now(client, catalogue.WORKER_STALLED, worker=self._name, why=why)
        except (FleetError, redis.RedisError, OSError):
            pass  # the line below says it
        line = f"fleet: worker {self._name} ends itself: {why}; its threads stand above; what it held comes back\n"
        os.write(STDERR, line.encode())
        os._exit(EXIT_STALLED)
