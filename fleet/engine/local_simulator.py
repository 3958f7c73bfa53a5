"""The local simulator as a service on loopback: found, or started detached, like the embedded Redis.

It answers when a pool has no provider configured. What it enforces comes from [simulator] in fleet.toml; a simulator
that runs with other settings is restarted, and its ledger starts anew.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from fleet.config import Settings, SimulatorSettings
from fleet.store.private.service import LOOPBACK, PYTHON_MODULE, Launch, LocalService, ServiceState, end

#: Seconds until the simulator must answer; importing it takes most of them on a busy machine.
START_TIMEOUT_S = 30.0
#: Seconds until a simulator that was asked to end must be gone: it may finish the calls it holds.
STOP_TIMEOUT_S = 15.0
#: Seconds for one health check.
PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Running:
    """One life of the simulator: where it listens (e.g. http://127.0.0.1:40123, without /v1), and its pid."""

    url: str
    pid: int | None


def ensure_simulator(settings: Settings, home: Path) -> Running:
    """Find or start the local simulator and tell which one runs.

    Raises:
        ConfigurationError: When it does not start.
    """
    return _running(_service(home, _options(settings.simulator)).ensure(timeout_s=START_TIMEOUT_S))


def running_simulator(home: Path) -> Running | None:
    """Return the simulator of `home` that lives, whatever its settings are; None when none does."""
    service = _service(home, ())
    state = service.read()
    return _running(state) if state is not None and service.is_alive() else None


def was_stopped(home: Path) -> bool:
    """True when the simulator of `home` ran and was ended on purpose (`fleet down`), not killed."""
    state = _service(home, ()).read()
    return state is not None and state.pid is None


def stop_simulator(home: Path) -> bool:
    """End the local simulator and wait until it is gone; False when it did not run.

    Raises:
        StoreUnavailable: When it still runs after `STOP_TIMEOUT_S`.
    """
    return _service(home, ()).stop(end, timeout_s=STOP_TIMEOUT_S)


def simulator_answers(home: Path) -> bool:
    """True when the simulator of `home` answers a question for its health. Blocks, for `PROBE_TIMEOUT_S` at most."""
    state = _service(home, ()).read()
    return state is not None and _is_healthy(state)


def _running(state: ServiceState) -> Running:
    return Running(f"http://{LOOPBACK}:{state.port}", state.pid)


def _service(home: Path, options: tuple[str, ...]) -> LocalService:
    return LocalService(
        name="simulator",
        title="the simulator",
        home=home,
        launch=_launch,
        probe=_is_healthy,
        options=options,
        advice="correct [simulator] in fleet.toml, or configure a provider for every pool",
    )


def _options(simulator: SimulatorSettings) -> tuple[str, ...]:
    limits = {"--rpd": simulator.rpd, "--in-flight": simulator.in_flight}
    return (
        "--rpm", str(simulator.rpm), "--tpm", str(simulator.tpm),
        "--latency-ms", f"{simulator.latency_ms:g}", "--error-rate", f"{simulator.error_rate:g}",
        "--seed", str(simulator.seed),
        *(word for name, limit in limits.items() if limit is not None for word in (name, str(limit))),
    )  # fmt: skip


def _launch(state: ServiceState) -> Launch:
    argv = [*PYTHON_MODULE, "fleet.workers.simulator", "--port", str(state.port), *state.options]
    return Launch(argv, note=": its answers are simulated")


def _is_healthy(state: ServiceState) -> bool:
    # Not urllib: it would send a loopback request to the proxy of http_proxy.
    with closing(HTTPConnection(LOOPBACK, state.port, timeout=PROBE_TIMEOUT_S)) as connection:
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
