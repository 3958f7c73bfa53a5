"""Redis and the simulator as parts of a stack: found or started, started again when they die, and stopped only by the
one who started them.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from fleet.cli.stack.processes import ProcessId
from fleet.cli.stack.stack_file import StackPart
from fleet.config import Settings
from fleet.engine.local_simulator import ensure_simulator, stop_simulator
from fleet.errors import ConfigurationError
from fleet.store.client import masked
from fleet.store.private.embedded import broker_url, stop_redis
from fleet.store.private.service import LOOPBACK, Launch, LocalService, ServiceState

REDIS = "redis"
SIMULATOR = "simulator"
#: Seconds until the next try when a service that died does not start again.
REVIVE_EVERY_S = 10.0


class LocalServices:
    """What a stack needs beside its children.

    Args:
        settings: Which Redis is configured, and whether any pool is answered by the local simulator.
        home: State folder of the embedded Redis and the local simulator.
    """

    def __init__(self, settings: Settings, home: Path) -> None:
        self._settings = settings
        self._home = home
        #: Names of the services that this stack stops at its end.
        self.owned: tuple[str, ...] = ()
        self._known: dict[str, ServiceState] = {}
        self._revive_at_s = 0.0

    def start(self, inherited: Collection[str] = ()) -> None:
        """Find or start both; own those that were started, or were owned by the stack before.

        Raises:
            ConfigurationError: When a configured Redis does not answer, or a local service does not start.
        """
        foreign = self._running().keys() - set(inherited)
        try:
            self._ensure()
        finally:
            self._known = self._running()
            self.owned = tuple(sorted(self._known.keys() - foreign))

    def revive(self, now_s: float) -> list[str]:
        """Start those again that have died, and own them; return what there is to say, if anything."""
        running = self._running()
        gone = self._known.keys() - running.keys()
        died = gone | {name for name in running if _is_reborn(self._known.get(name), running[name])}
        if not died or now_s < self._revive_at_s:
            return []
        try:
            if gone:
                self._ensure()
        except ConfigurationError as error:
            self._revive_at_s = time.monotonic() + REVIVE_EVERY_S
            return [f"{' and '.join(sorted(died))} died: {error}; trying again in {REVIVE_EVERY_S:g} s"]
        before, self._known = self._known, self._running()
        self.owned = tuple(sorted({*self.owned, *gone}))
        return [_revived(name, before[name], self._known.get(name)) for name in sorted(died)]

    def _ensure(self) -> None:
        broker_url(self._settings)
        if needs_simulator(self._settings):
            ensure_simulator(self._settings, self._home)

    def stop(self) -> None:
        """Stop those that this stack owns."""
        if REDIS in self.owned:  # first: a worker that lives on starts the simulator again while there is Redis
            stop_redis(self._home)
        if SIMULATOR in self.owned:
            stop_simulator(self._home)

    def _running(self) -> dict[str, ServiceState]:
        """Return how those run that do."""
        found = {name: service_state(self._home, name) for name in (REDIS, SIMULATOR)}
        return {name: state for name, state in found.items() if state is not None}

    @property
    def parts(self) -> tuple[StackPart, ...]:
        """Return both as people see them; a configured Redis has no process of ours."""
        local = [part for name in (REDIS, SIMULATOR) if (part := _local_part(self._home, name)) is not None]
        url = self._settings.redis.url
        if url is None:
            return tuple(local)
        return (StackPart(REDIS, None, masked(url.get_secret_value()), ""), *(p for p in local if p.name != REDIS))


def _is_reborn(before: ServiceState | None, now: ServiceState) -> bool:
    """True for another process than before, with the same settings: a worker was quicker to start it again."""
    return before is not None and now.pid not in (None, before.pid) and before.options == now.options


def _revived(name: str, before: ServiceState, now: ServiceState | None) -> str:
    if name == SIMULATOR or now is None or now.port == before.port:  # workers find the simulator wherever it listens
        return f"{name} died and was started again"
    return (
        f"{name} died and was started again on port {now.port}, because {before.port} was taken, and the workers do "
        "not know it there: `fleet down`, then `fleet up`"
    )


def stop_local_services(home: Path) -> tuple[str, ...]:
    """Stop the embedded Redis and the local simulator of `home`, whoever started them; return which ran."""
    ran = [REDIS] if stop_redis(home) else []  # first, as in `LocalServices.stop`
    return (*ran, SIMULATOR) if stop_simulator(home) else tuple(ran)


def needs_simulator(settings: Settings) -> bool:
    """True when at least one pool is answered by the local simulator, if only as a fallback."""
    providers = [settings.provider_named(name) for pool in settings.pools for name, _ in settings.calls_of(pool)]
    return any(provider.kind == "simulator" and provider.base_url is None for provider in providers)


def service_state(home: Path, name: str) -> ServiceState | None:
    """Return how a local service runs, or None when it does not."""
    service = LocalService(name, name, home, launch=lambda state: Launch([]), probe=lambda state: True)
    return service.read() if service.is_alive() else None


def _local_part(home: Path, name: str) -> StackPart | None:
    state = service_state(home, name)
    if state is None or state.pid is None:
        return None
    return StackPart(name, ProcessId.of(state.pid), f"{LOOPBACK}:{state.port}", str(home / f"{name}.log"))
