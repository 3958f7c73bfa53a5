"""Decides how many slots are wanted, and publishes it: one at a time, for everybody who asks.

Whoever decides reads the last decision from Redis and writes the next one there, so a decider that dies leaves nothing
behind but a decision that nobody goes by after `STALE_S`. Two that decide at once write nearly the same.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import redis

from fleet.config import Settings
from fleet.engine.operations.scaling.published import read_wanted
from fleet.engine.operations.scaling.reading import read_demand
from fleet.errors import FleetError
from fleet.scaling import Bounds, decide
from fleet.scaling.wanted import WantedSlots, share
from fleet.store import schedule_keys
from fleet.store.private.two_redis import two_redis
from fleet.store.running.brokers import Anywhere

#: Seconds between two decisions, and for which a published one lives.
DECIDE_EVERY_S, LIFE_S = 5.0, 3600
#: Seconds for one answer of Redis while it is decided beside other work.
TIMEOUT_S = 2.0
#: Slots that are never exceeded: who carries a decision out has bounds of its own.
MOST_SLOTS = 1_000_000


def decide_now(state: redis.Redis, broker: Anywhere, settings: Settings, *, publish: bool) -> WantedSlots:
    """Return what is wanted; a decision of a moment ago stands.

    Args:
        state: Plain client of the state Redis.
        broker: Plain client of the broker.
        settings: Pools, limits and temper.
        publish: Whether workers and others are to go by it.
    """
    before, read = read_wanted(state), read_demand(state, broker, settings)
    if before is not None and 0 <= read.demand.at - before.decision.at < DECIDE_EVERY_S / 2:
        return before
    temper = settings.scaling
    bounds = Bounds(
        least=1, most=MOST_SLOTS, slots_each=settings.slots_per_process, buffer=temper.buffer, lead_s=temper.lead_s,
        drain_s=temper.drain_s,
    )  # fmt: skip
    last = before.decision if before is not None and before.is_fresh(read.demand.at) else None
    pools, crew, decision = read.demand.pools, read.crew.living, decide(read.demand, bounds, last)
    wanted = WantedSlots(
        decision=decision,
        crew=len(crew),
        slots=read.demand.slots,
        each=share(
            decision.slots,
            sum(one.slots for one in crew if one.most_slots is None),
            [one.most_slots for one in crew if one.most_slots is not None],
        ),
        running=sum(pool.running for pool in pools),
        waiting=sum(pool.ready + pool.due for pool in pools),
        parked=sum(pool.behind + pool.later for pool in pools),
        by=f"{socket.gethostname()}:{os.getpid()}",
    )
    if publish:
        state.set(schedule_keys.wanted(), wanted.model_dump_json(), ex=LIFE_S)
    return wanted


def look(state: redis.Redis, broker: Anywhere, settings: Settings) -> tuple[WantedSlots, bool]:
    """Return what is wanted, and whether it was published, so that others go by it; else it is worked out here."""
    found = read_wanted(state)
    if found is not None and found.is_fresh(int(state.time()[0])):
        return found, True
    return decide_now(state, broker, settings, publish=False), False


class Decider:
    """Decides over and over on a thread of its own, for as long as a stack lives.

    Args:
        settings: Where Redis is, and what is scaled.
        say: Told in one line when it can no longer decide, and when it can again.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings, self._say = settings, say
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet-scaling", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the decision that is being made."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(2 * TIMEOUT_S)

    def _run(self) -> None:
        trouble = ""
        while not self._stopped.wait(DECIDE_EVERY_S):
            try:
                with two_redis(self._settings, timeout_s=TIMEOUT_S) as both:
                    decide_now(both.state, both.broker, self._settings, publish=True)
            except Exception as error:  # noqa: BLE001 - the thread's boundary: nobody would start another one
                found = str(error) if isinstance(error, FleetError) else f"{type(error).__name__} (a bug: report it)"
                if not trouble:
                    self._say(
                        f"not decided how many slots are wanted: {found}; workers go by their own tasks meanwhile"
                    )
                trouble = found
            else:
                if trouble:
                    self._say("it is decided again how many slots are wanted")
                trouble = ""
